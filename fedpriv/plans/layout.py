"""A module's tensors as a plan sees them, and one pass through it to a loss, at the researcher's side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedpriv.errors import TraceError, UsageError
from fedpriv.plans import graphs
from fedpriv.plans.plan import BATCH, Input, InputRole
from fedpriv.updates import DTYPES, dtype_name

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TensorExample:
    """What one batch looks like: a dtype, and the shape of one row."""

    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a module by state name; tied names appear once, under the first. `stays` are a worker's own."""

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor]
    states: Mapping[str, Tensor]
    stays: Mapping[str, Tensor]
    learning: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, stays: Collection[str] = ()) -> Layout:
        """Return the layout of `model`."""
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        learning = {name: value for name, value in parameters.items() if value.requires_grad}
        return cls(
            trained={name: value for name, value in learning.items() if name not in stays},
            frozen={name: value for name, value in parameters.items() if not value.requires_grad},
            states={name: value for name, value in buffers.items() if name not in stays},
            stays={name: value for name, value in (learning | buffers).items() if name in stays},
            learning=learning,
            buffers=buffers,
        )

    @property
    def whole(self) -> Mapping[str, Tensor]:
        """All that a step changes."""
        return {**self.learning, **self.buffers}

    def inputs(self, *, evaluation: bool = False) -> list[Input]:
        """Return the inputs that hold the tensors which travel; in an evaluation nothing of them changes."""
        roles = (
            (self.trained, InputRole.FROZEN if evaluation else InputRole.PARAMETER),
            (self.frozen, InputRole.FROZEN),
            (self.states, InputRole.FROZEN if evaluation else InputRole.STATE),
            (self.stays, InputRole.FROZEN),
        )
        return [like(name, role, value) for tensors, role in roles for name, value in tensors.items()]


def like(name: str, role: InputRole, tensor: Tensor) -> Input:
    """Return an input of the dtype and shape of `tensor`."""
    return Input(name, role, dtype_name(tensor.dtype), tuple(tensor.shape))


def row_inputs(features: TensorExample, target: TensorExample) -> list[Input]:
    """Return the inputs that hold a batch; raise `UsageError` for a dtype that no plan has."""
    for example in (features, target):
        if example.dtype not in DTYPES:
            raise UsageError(f"dtype {example.dtype!r} is not known; use one of {', '.join(DTYPES)}")
    return [
        Input("features", InputRole.FEATURES, features.dtype, (BATCH, *features.shape)),
        Input("target", InputRole.TARGET, target.dtype, (BATCH, *target.shape)),
    ]


def forward(
    model: nn.Module, loss: Loss, named: Mapping[str, Tensor], states: Mapping[str, Tensor], layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return prediction and loss of one pass; the module's buffers in `states` change."""
    held = {name: named[name] for group in (layout.learning, layout.frozen, layout.buffers) for name in group}
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
    return scalar("loss", error, f" ({shapes}{hint})")


def scalar(name: str, value: Any, more: str = "") -> Tensor:  # noqa: ANN401  whatever a callable returned
    """Return `value` as one floating-point number; raise `TraceError` for anything else."""
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = graphs.described(value) if isinstance(value, Tensor) else type(value).__name__
        raise TraceError(
            f"{name!r} must return one number, a tensor of shape (), not {got}{more}; average over the rows"
        )
    return value if value.dtype.is_floating_point else value.to(torch.float32)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in one mode, and give each its own back."""
    before = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
