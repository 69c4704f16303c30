"""Random functional plans over small matrices: what the engines must agree on and labels must cover."""

from __future__ import annotations

import random

import torch

from fedpriv.plans.plan import Argument, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import torch_minor

UNARY = ("relu", "tanh", "sigmoid", "neg", "exp", "t", "detach", "clone", "zeros_like", "ones_like")
BINARY = ("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.mm.default", "aten.maximum.default")
SIZE = 3


def _step(source: random.Random, filled: int) -> Step:
    def slot() -> Slot:
        return Slot(source.randrange(max(0, filled - 6), filled) if source.random() < 0.7 else source.randrange(filled))

    kind = source.randrange(6)
    if kind == 0:
        return Step(f"aten.{source.choice(UNARY)}.default", (slot(),))
    if kind == 1:
        return Step("aten.mul.Scalar", (slot(), source.choice((0.5, -1, 0.25))))
    if kind == 2:
        # as a view of the whole, through another shape
        return Step("aten.view.default", (slot(), (SIZE, SIZE)))
    if kind == 3:
        return Step("aten.addmm.default", (slot(), slot(), slot()))
    name = source.choice(BINARY)
    alpha: tuple[tuple[str, Argument], ...] = (
        (("alpha", 0.5),) if name != BINARY[2] and "Tensor" in name and source.random() < 0.3 else ()
    )
    return Step(name, (slot(), slot()), alpha)


def random_plan(seed: int, *, trained: bool = False) -> Plan:
    """Return a plan of square matrices; `trained` makes it a step that replaces some of its inputs."""
    source = random.Random(seed)
    count = 4
    if trained:
        inputs = [
            Input("features", InputRole.FEATURES, "float32", (-1, SIZE)),
            Input("target", InputRole.TARGET, "float32", (-1, SIZE)),
        ]
        inputs += [Input(f"p{index}", InputRole.PARAMETER, "float32", (SIZE, SIZE)) for index in range(count - 2)]
        inputs += [
            Input("f", InputRole.FROZEN, "float32", (SIZE, SIZE)),
            Input("lr", InputRole.HYPERPARAMETER, "float64", ()),
        ]
    else:
        inputs = [Input(f"x{index}", InputRole.ARGUMENT, "float32", (SIZE, SIZE)) for index in range(count)]
    steps: list[Step] = []
    if trained:  # the learning rate joins in where real plans use it
        steps.append(Step("aten.mul.Tensor", (Slot(2), Slot(5))))
    for _ in range(source.randrange(3, 18)):
        filled = len(inputs) + len(steps)
        step = _step(source, filled)
        if trained:  # the learning rate has no dimension, so only a multiplication takes it
            step = Step(
                step.operation, tuple(Slot(2) if each == Slot(5) else each for each in step.arguments), step.keywords
            )
        steps.append(step)
    filled = len(inputs) + len(steps)
    chosen = [source.randrange(2, filled) for _ in range(3)]
    chosen = [2 if slot == 5 and trained else slot for slot in chosen]
    if trained:
        # bounded, so that three batches do not overflow
        for position in range(2):
            steps.append(Step("aten.tanh.default", (Slot(chosen[position]),)))
            if source.random() < 0.5:
                chosen[position] = filled + position
        steps.append(Step("aten.mean.default", (Slot(chosen[2]),)))
        outputs = [Output("p0", OutputRole.PARAMETER, chosen[0]), Output("p1", OutputRole.PARAMETER, chosen[1])]
        outputs.append(Output("loss", OutputRole.LOSS, len(inputs) + len(steps) - 1))
    else:
        outputs = [Output(f"r{index}", OutputRole.RESULT, slot) for index, slot in enumerate(chosen)]
    return Plan(tuple(inputs), tuple(outputs), (), tuple(steps), torch_minor(torch.__version__))
