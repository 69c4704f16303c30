"""From ordinary modules to plans, at the researcher's side.

One optimiser step (forward, loss, backward, update) or one evaluation is traced on shapes alone; the number of
rows stays free, whatever else has a size is fixed. What cannot be traced raises `TraceError` with the
operation and the line of the module. The weights themselves never enter a plan.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, fx, nn

from fedpriv.errors import PlanRefused, TraceError, UsageError
from fedpriv.plans import graphs
from fedpriv.plans.plan import BATCH, Input, InputRole, Output, OutputRole, Plan, pruned
from fedpriv.plans.recording import Recorder
from fedpriv.plans.validation import Quota, torch_minor, validate
from fedpriv.updates import DTYPES, dtype_name

_ANY = Quota(2**60, 2**31, 2**62, 2**31, 2**31)
"""What a plan needs is the worker's to judge; the researcher's side asks only whether it could run at all."""
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TensorExample:
    """What one batch looks like: a dtype, and the shape of one row."""

    dtype: str
    shape: tuple[int, ...] = ()


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
    model: nn.Module, loss: Loss, optimizer: OptimizerRule, features: TensorExample, target: TensorExample
) -> Plan:
    """Return the plan of one optimiser step on one batch; raise `TraceError` when it cannot be expressed."""
    layout = _Layout.of(model)
    if not layout.trained:
        raise UsageError("the model has no parameter with requires_grad; there is nothing to train")
    inputs = [*_rows(features, target), *layout.inputs()]
    roles = _roles(optimizer)
    inputs += [
        _like(f"{name}/{kind}", InputRole(role.value), layout.trained[name])
        for kind, role in roles.items()
        for name in layout.trained
    ]
    inputs += [Input(f"optimizer/{name}", InputRole.OPTIMIZER, "float64", ()) for name in optimizer.counters]
    inputs += [Input(name, InputRole.HYPERPARAMETER, "float64", ()) for name in optimizer.hyperparameters]
    outputs: list[tuple[str, OutputRole]] = []

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        states = {name: named[name].clone() for name in layout.states}
        _, error = _forward(model, loss, named, states, layout)
        parameters = [named[name] for name in layout.trained]
        gradients = torch.autograd.grad(error, parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            moved, kept, counted = optimizer.update(
                parameters,
                gradients,
                {kind: [named[f"{name}/{kind}"] for name in layout.trained] for kind in roles},
                {name: named[f"optimizer/{name}"] for name in optimizer.counters},
                {name: named[name] for name in optimizer.hyperparameters},
            )
        results = [("loss", OutputRole.LOSS, error.detach())]
        results += [(name, OutputRole.PARAMETER, value) for name, value in zip(layout.trained, moved, strict=True)]
        results += [(name, OutputRole.STATE, value) for name, value in states.items()]
        for kind, tensors in kept.items():
            results += [
                (f"{name}/{kind}", roles[kind], value) for name, value in zip(layout.trained, tensors, strict=True)
            ]
        results += [(f"optimizer/{name}", OutputRole.OPTIMIZER, value) for name, value in counted.items()]
        outputs[:] = [(name, role) for name, role, _ in results]
        return [value for _, _, value in results]

    with _mode(model, training=True):
        return _plan(step, _Traced(inputs, outputs))


def _roles(optimizer: OptimizerRule) -> dict[str, OutputRole]:
    """Return the role of each kind of tensor that an optimiser has per parameter; inputs have the same."""
    roles = dict.fromkeys(optimizer.state, OutputRole.OPTIMIZER)
    roles |= dict.fromkeys(optimizer.kept, OutputRole.KEPT)
    return roles | dict.fromkeys(optimizer.shared, OutputRole.STATE)


def trace_loss(model: nn.Module, loss: Loss, features: TensorExample, target: TensorExample) -> Plan:
    """Return the plan of the loss alone, in training mode: what a worker maps over single examples to train privately.

    Raise `TraceError` for a model that keeps statistics of its batches, such as BatchNorm.
    """
    layout = _Layout.of(model)
    if not layout.trained:
        raise UsageError("the model has no parameter with requires_grad; there is nothing to train")
    inputs = [*_rows(features, target), *layout.inputs()]

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        states = {name: named[name].clone() for name in layout.states}
        with torch.no_grad():
            _, error = _forward(model, loss, named, states, layout)
        return [error, *states.values()]

    outputs = [("loss", OutputRole.LOSS), *((name, OutputRole.STATE) for name in layout.states)]
    with _mode(model, training=True):
        plan = _plan(step, _Traced(inputs, outputs))
    if changed := plan.outputs_of(OutputRole.STATE):
        raise TraceError(
            f"{changed[0].name!r} changes with every batch, so that examples mix; for private training use "
            "GroupNorm or LayerNorm in place of BatchNorm"
        )
    return plan


def trace_evaluation(
    model: nn.Module, loss: Loss, metrics: Mapping[str, Metric], features: TensorExample, target: TensorExample
) -> Plan:
    """Return the plan of the mean loss and metrics over one batch, in evaluation mode."""
    layout = _Layout.of(model)
    inputs = [*_rows(features, target), *layout.inputs(evaluation=True)]
    outputs: list[tuple[str, OutputRole]] = [
        ("loss", OutputRole.LOSS),
        *((name, OutputRole.METRIC) for name in metrics),
    ]
    if "loss" in metrics:
        raise UsageError("a metric cannot be named 'loss': the loss is always there; rename it")

    def step(*values: Tensor) -> list[Tensor]:
        named = dict(zip((each.name for each in inputs), values, strict=True))
        with torch.no_grad():
            prediction, error = _forward(model, loss, named, {}, layout)
            return [error, *(_scalar(name, metric(prediction, named["target"])) for name, metric in metrics.items())]

    with _mode(model, training=False):
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


@dataclass(frozen=True, slots=True)
class _Layout:
    """The tensors of a module by state name; tied names appear once, under the first."""

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor]
    states: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> _Layout:
        parameters = dict(model.named_parameters())
        buffers = dict(model.named_buffers())
        return cls(
            trained={name: value for name, value in parameters.items() if value.requires_grad},
            frozen={name: value for name, value in parameters.items() if not value.requires_grad},
            states=buffers,
        )

    def inputs(self, *, evaluation: bool = False) -> list[Input]:
        roles = (
            (self.trained, InputRole.FROZEN if evaluation else InputRole.PARAMETER),
            (self.frozen, InputRole.FROZEN),
            (self.states, InputRole.FROZEN if evaluation else InputRole.STATE),
        )
        return [_like(name, role, value) for tensors, role in roles for name, value in tensors.items()]


def _like(name: str, role: InputRole, tensor: Tensor) -> Input:
    return Input(name, role, dtype_name(tensor.dtype), tuple(tensor.shape))


def _rows(features: TensorExample, target: TensorExample) -> list[Input]:
    for example in (features, target):
        if example.dtype not in DTYPES:
            raise UsageError(f"dtype {example.dtype!r} is not known; use one of {', '.join(DTYPES)}")
    return [
        Input("features", InputRole.FEATURES, features.dtype, (BATCH, *features.shape)),
        Input("target", InputRole.TARGET, target.dtype, (BATCH, *target.shape)),
    ]


def _forward(
    model: nn.Module, loss: Loss, named: Mapping[str, Tensor], states: Mapping[str, Tensor], layout: _Layout
) -> tuple[Tensor, Tensor]:
    held = {name: named[name] for group in (layout.trained, layout.frozen, layout.states) for name in group}
    prediction = torch.func.functional_call(model, {**held, **states}, (named["features"],))
    if not isinstance(prediction, Tensor):
        raise TraceError(f"the model returns a {type(prediction).__name__}; it must return one tensor, the prediction")
    error = _fitted(loss, prediction, named["target"])
    return prediction, error


def _fitted(loss: Loss, prediction: Tensor, target: Tensor) -> Tensor:
    shapes = f"the model gives {graphs.described(prediction)} and the target is {graphs.described(target)}"
    hint = ""
    if prediction.dim() == target.dim() + 1 and prediction.shape[-1] == 1:
        hint = "; end the model with .squeeze(-1), or write a loss that does"
    elif prediction.dim() == target.dim() and prediction.dtype.is_floating_point > target.dtype.is_floating_point:
        hint = "; write a yes-or-no target as true and false instead of 1 and 0, or a loss that calls .float() on it"
    try:
        with warnings.catch_warnings():
            # torch only warns when a loss broadcasts (rows, 1) against (rows,), and then averages rows * rows numbers
            warnings.filterwarnings("error", message="Using a target size")
            error = loss(prediction, target)
    except (RuntimeError, ValueError, IndexError, TypeError, UserWarning) as wrong:
        if graphs.is_untraceable(wrong):
            raise
        raise TraceError(f"the loss does not accept its arguments: {shapes}{hint}") from wrong
    return _scalar("loss", error, f" ({shapes}{hint})")


def _scalar(name: str, value: Any, more: str = "") -> Tensor:  # noqa: ANN401  whatever a callable returned
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = graphs.described(value) if isinstance(value, Tensor) else type(value).__name__
        raise TraceError(
            f"{name!r} must return one number, a tensor of shape (), not {got}{more}; average over the rows"
        )
    return value if value.dtype.is_floating_point else value.to(torch.float32)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in one mode, and give each its own back."""
    before = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


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
