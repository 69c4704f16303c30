"""From ordinary modules to plans, at the researcher's side.

One optimiser step (forward, loss, backward, update) or one evaluation is traced on shapes alone; the number of
rows stays free, whatever else has a size is fixed. What cannot be traced raises `TraceError` with the
operation and the line of the module. The weights themselves never enter a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from fedpriv.errors import PlanRefused, TraceError, UsageError
from fedpriv.plans import graphs, own
from fedpriv.plans.layout import Layout, Loss, Metric, TensorExample, forward, in_mode, like, row_inputs, scalar
from fedpriv.plans.plan import BATCH, Input, InputRole, Output, OutputRole, Plan, pruned
from fedpriv.plans.recording import Recorder
from fedpriv.plans.validation import Quota, torch_minor, validate
from fedpriv.updates import dtype_name

_ANY = Quota(2**60, 2**31, 2**62, 2**31, 2**31)
"""What a plan needs is the worker's to judge; the researcher's side asks only whether it could run at all."""
_MOVED = "moved"


class OptimizerRule(Protocol):
    """A pure update rule in plain torch operations; same options, same operations, whatever the numbers."""

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """Numbers that become inputs of the plan."""
        ...

    @property
    def state(self) -> tuple[str, ...]:
        """Names of tensors kept per parameter, zero at first."""
        ...

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of single float64 numbers kept, zero at first."""
        ...

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of tensors per parameter that a worker keeps from one round to the next."""
        ...

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of tensors per parameter that travel beside the model, both ways."""
        ...

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: Mapping[str, Sequence[Tensor]],
        counters: Mapping[str, Tensor],
        hyper: Mapping[str, Tensor],
    ) -> tuple[Sequence[Tensor], Mapping[str, Sequence[Tensor]], Mapping[str, Tensor]]:
        """Return new parameters, state and counters."""
        ...


@dataclass(slots=True)
class _Traced:
    """What a plan is assembled from."""

    inputs: list[Input]
    outputs: list[tuple[str, OutputRole]]


def trace_training(
    model: nn.Module,
    loss: Loss,
    optimizer: OptimizerRule,
    features: TensorExample,
    target: TensorExample,
    *,
    stays: Collection[str] = (),
    companion: own.Companion | None = None,
) -> Plan:
    """Return the plan of one optimiser step on one batch; raise `TraceError` when it cannot be expressed.

    The parameters and buffers named in `stays` never return: a worker keeps its own. With `companion` it also trains a
    whole model of its own, from the same rows.
    """
    layout = Layout.of(model, stays)
    if not layout.trained:
        raise UsageError("the model has no parameter with requires_grad that travels; there is nothing to train")
    roles = _roles(optimizer)
    numbers = {**optimizer.hyperparameters, **(companion.hyperparameters if companion else {})}
    inputs = [*row_inputs(features, target), *layout.inputs()]
    inputs += [
        like(f"{name}/{kind}", InputRole(role.value), value)
        for kind, role in roles.items()
        for name, value in layout.learning.items()
    ]
    inputs += [Input(f"optimizer/{name}", InputRole.OPTIMIZER, "float64", ()) for name in optimizer.counters]
    inputs += own.inputs(layout.stays if companion is None else layout.whole)
    if companion is not None:
        inputs += [like(f"{name}/{_MOVED}", InputRole.OPTIMIZER, value) for name, value in layout.trained.items()]
    inputs += [Input(name, InputRole.HYPERPARAMETER, "float64", ()) for name in numbers]
    outputs: list[tuple[str, OutputRole]] = []
    update = _Update(model, loss, optimizer, layout, roles)

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        results = update.results({**named, **own.values(named, layout.stays)})
        if companion is not None:
            results += _beside(model, loss, companion, layout, named, {name: value for name, _, value in results})
        outputs[:] = [(name, role) for name, role, _ in results]
        return [value for _, _, value in results]

    with in_mode(model, training=True):
        return _plan(step, _Traced(inputs, outputs))


@dataclass(frozen=True, slots=True)
class _Update:
    """The optimiser's step of a training plan."""

    model: nn.Module
    loss: Loss
    optimizer: OptimizerRule
    layout: Layout
    roles: Mapping[str, OutputRole]

    def results(self, named: Mapping[str, Tensor]) -> list[own.Result]:
        """Return what one step makes of the inputs `named`, with its loss first."""
        layout, optimizer = self.layout, self.optimizer
        parameters = [named[name] for name in layout.learning]
        state = {kind: [named[f"{name}/{kind}"] for name in layout.learning] for kind in self.roles}
        counters = {name: named[f"optimizer/{name}"] for name in optimizer.counters}
        places = optimizer.places(parameters, state, counters) if isinstance(optimizer, own.Wandering) else parameters
        error, gradients, states = _gradients(self.model, self.loss, layout, named, places)
        with torch.no_grad():
            moved, kept, counted = optimizer.update(
                parameters, gradients, state, counters, {name: named[name] for name in optimizer.hyperparameters}
            )
        after = {**dict(zip(layout.learning, moved, strict=True)), **states}
        results: list[own.Result] = [("loss", OutputRole.LOSS, error)]
        results += [(name, OutputRole.PARAMETER, after[name]) for name in layout.trained]
        results += [(name, OutputRole.STATE, after[name]) for name in layout.states]
        for kind, tensors in kept.items():
            for name, value in zip(layout.learning, tensors, strict=True):
                results.append((f"{name}/{kind}", self.roles[kind], value))
        results += [(f"optimizer/{name}", OutputRole.OPTIMIZER, value) for name, value in counted.items()]
        return results + own.outputs({name: after[name] for name in layout.stays}, named)


def _beside(
    model: nn.Module,
    loss: Loss,
    companion: own.Companion,
    layout: Layout,
    named: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
) -> list[own.Result]:
    """Return what one step makes of the worker's own whole model; `after` is that of the model that travels."""
    mine = {**named, **own.values(named, layout.whole)}
    parameters = [mine[name] for name in layout.trained]
    moved = [named[f"{name}/{_MOVED}"] for name in layout.trained]
    _, gradients, states = _gradients(model, loss, layout, mine, parameters)
    with torch.no_grad():
        received = [named[name] - way for name, way in zip(layout.trained, moved, strict=True)]
        hyper = {name: named[name] for name in companion.hyperparameters}
        learned = companion.update(parameters, gradients, received, hyper)
        ways = [after[name] - at for name, at in zip(layout.trained, received, strict=True)]
    results: list[own.Result] = [
        (f"{name}/{_MOVED}", OutputRole.OPTIMIZER, way) for name, way in zip(layout.trained, ways, strict=True)
    ]
    return results + own.outputs({**dict(zip(layout.trained, learned, strict=True)), **states}, named)


def _gradients(
    model: nn.Module, loss: Loss, layout: Layout, named: Mapping[str, Tensor], places: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor], dict[str, Tensor]]:
    """Return the loss at `places`, its gradients there, and the buffers after the pass."""
    leaves = [each if each.requires_grad else each.detach().requires_grad_() for each in places]
    states = {name: named[name].clone() for name in layout.buffers}
    at = {**named, **dict(zip(layout.learning, leaves, strict=True))}
    _, error = forward(model, loss, at, states, layout)
    return error.detach(), torch.autograd.grad(error, leaves, allow_unused=True, materialize_grads=True), states


def _roles(optimizer: OptimizerRule) -> dict[str, OutputRole]:
    """Return the role of each kind of tensor that an optimiser has per parameter; inputs have the same."""
    roles = dict.fromkeys(optimizer.state, OutputRole.OPTIMIZER)
    roles |= dict.fromkeys(optimizer.kept, OutputRole.KEPT)
    return roles | dict.fromkeys(optimizer.shared, OutputRole.STATE)


def trace_loss(model: nn.Module, loss: Loss, features: TensorExample, target: TensorExample) -> Plan:
    """Return the plan of the loss alone, in training mode: what a worker maps over single examples to train privately.

    Raise `TraceError` for a model that keeps statistics of its batches, such as BatchNorm.
    """
    layout = Layout.of(model)
    if not layout.trained:
        raise UsageError("the model has no parameter with requires_grad; there is nothing to train")
    inputs = [*row_inputs(features, target), *layout.inputs()]

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        states = {name: named[name].clone() for name in layout.states}
        with torch.no_grad():
            _, error = forward(model, loss, named, states, layout)
        return [error, *states.values()]

    outputs = [("loss", OutputRole.LOSS), *((name, OutputRole.STATE) for name in layout.states)]
    with in_mode(model, training=True):
        plan = _plan(step, _Traced(inputs, outputs))
    if changed := plan.outputs_of(OutputRole.STATE):
        raise TraceError(
            f"{changed[0].name!r} changes with every batch, so that examples mix; for private training use "
            "GroupNorm or LayerNorm in place of BatchNorm"
        )
    return plan


def trace_evaluation(
    model: nn.Module,
    loss: Loss,
    metrics: Mapping[str, Metric],
    features: TensorExample,
    target: TensorExample,
    *,
    personal: Collection[str] = (),
) -> Plan:
    """Return the plan of the mean loss and metrics over one batch, in evaluation mode.

    The parameters and buffers named in `personal` are those that the worker has of its own.
    """
    layout = Layout.of(model)
    mine = {name: value for name, value in layout.whole.items() if name in personal}
    inputs = [*row_inputs(features, target), *layout.inputs(evaluation=True), *own.inputs(mine)]
    outputs: list[tuple[str, OutputRole]] = [
        ("loss", OutputRole.LOSS),
        *((name, OutputRole.METRIC) for name in metrics),
    ]
    if "loss" in metrics:
        raise UsageError("a metric cannot be named 'loss': the loss is always there; rename it")

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        with torch.no_grad():
            prediction, error = forward(model, loss, {**named, **own.values(named, mine)}, {}, layout)
            return [error, *(scalar(name, metric(prediction, named["target"])) for name, metric in metrics.items())]

    with in_mode(model, training=False):
        return _plan(step, _Traced(inputs, outputs))


def trace_function(function: Callable[..., Any], *examples: Tensor | TensorExample) -> Plan:
    """Return the plan of `function`; a `TensorExample` has free rows, a tensor has its own fixed shape."""
    inputs = []
    for position, example in enumerate(examples):
        if isinstance(example, TensorExample):
            inputs.append(Input(f"argument{position}", InputRole.ARGUMENT, example.dtype, (BATCH, *example.shape)))
        else:
            inputs.append(
                Input(f"argument{position}", InputRole.ARGUMENT, dtype_name(example.dtype), tuple(example.shape))
            )
    outputs: list[tuple[str, OutputRole]] = []

    def step(*values: Tensor) -> list[Tensor]:
        with torch.no_grad():
            result = function(*values)
        results = list(result) if isinstance(result, tuple | list) else [result]
        if not all(isinstance(each, Tensor) for each in results):
            raise TraceError("the function must return a tensor or a tuple of tensors; no other value leaves a plan")
        outputs[:] = [(f"result{position}", OutputRole.RESULT) for position in range(len(results))]
        return results

    return _plan(step, _Traced(inputs, outputs))


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the share of rows predicted right: sign of the logit where shapes agree, else argmax over dimension 1."""
    if prediction.dim() == target.dim() + 1 and prediction.shape[-1] == 1 and target.dim() == 1:
        prediction = prediction.squeeze(-1)
    if prediction.dim() == target.dim():
        return ((prediction > 0).to(torch.float32) == (target > 0).to(torch.float32)).to(torch.float32).mean()
    return (prediction.argmax(1) == target).to(torch.float32).mean()


def _plan(step: Callable[..., list[Tensor]], traced: _Traced) -> Plan:
    module = graphs.captured(step, traced.inputs)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    attributes = [node for node in module.graph.nodes if node.op == "get_attr"]
    targets = list(dict.fromkeys(node.target for node in attributes))
    recorder = Recorder(len(placeholders), [getattr(module, target) for target in targets])
    for slot, node in enumerate(placeholders):
        recorder.place(node, slot)
    for node in attributes:
        recorder.place(node, len(placeholders) + targets.index(node.target))
    where: Callable[[fx.Node], str] = lambda node: graphs.line_of(step, traced.inputs, node)  # noqa: E731  typed
    results: Sequence[fx.Node] = ()
    for node in module.graph.nodes:
        if node.op == "call_function":
            recorder.record(node, where=where)
        elif node.op == "output":
            results = node.args[0]
    slots = [recorder.slot_of(node) for node in results]
    plan = Plan(
        inputs=_settled(traced, slots),
        outputs=_changed(traced, slots),
        constants=tuple(recorder.constants),
        steps=tuple(recorder.steps),
        torch_version=torch_minor(torch.__version__),
    )
    try:
        validate(plan, _ANY)
    except PlanRefused as refused:
        line = f" ({where(recorder.nodes[refused.step])})" if refused.step >= 0 else ""
        raise TraceError(f"every worker would refuse this plan: {refused}{line}") from refused
    return pruned(plan)


def _settled(traced: _Traced, slots: Sequence[int]) -> tuple[Input, ...]:
    """Return the inputs, where a buffer that the step only reads is frozen."""
    unchanged = {slot for slot, (_, role) in zip(slots, traced.outputs, strict=True) if role is OutputRole.STATE}
    return tuple(
        replace(each, role=InputRole.FROZEN) if each.role is InputRole.STATE and slot in unchanged else each
        for slot, each in enumerate(traced.inputs)
    )


def _changed(traced: _Traced, slots: Sequence[int]) -> tuple[Output, ...]:
    own = {each.name: slot for slot, each in enumerate(traced.inputs)}
    return tuple(
        Output(name, role, slot)
        for (name, role), slot in zip(traced.outputs, slots, strict=True)
        if not (role is OutputRole.STATE and own[name] == slot)
    )
