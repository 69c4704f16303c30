"""Functions of tensors that run at a worker in one message.

A function is traced once for each set of layouts, and what is sent is the plan, never the function. On tensors of this
process it is an ordinary call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Layout
from fedpriv.plans.labelling import output_labels
from fedpriv.plans.plan import Plan
from fedpriv.plans.tracing import trace_function
from fedpriv.plans.validation import validate
from fedpriv.remote.pointer import RemoteTensor, common_values, run_plan, sent
from fedpriv.remote.recipes import ANY, Shape
from fedpriv.wire.values import PlanUse


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A plan on operands of given layouts, what it gives, and whether that is one tensor or a tuple."""

    plan: Plan
    definition: PlanUse
    results: tuple[Shape, ...]
    single: bool


@dataclass(frozen=True, slots=True)
class OutputForecast:
    """One tensor that a plan would give: what it is, how many bytes, and what it derives from."""

    name: str
    layout: Layout
    label: Label

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.layout.nbytes

    def __str__(self) -> str:
        names = ", ".join(sorted(origin.dataset for origin in self.label.origins))
        derived = f"derives from {names}: its owner decides" if names else "the caller's own"
        return f"{self.name}: {self.layout.dtype} {list(self.layout.shape)}, {self.nbytes:,} bytes, {derived}"


@dataclass(frozen=True, slots=True)
class PlanForecast:
    """What would leave if everything that a plan gives were released, before anything runs."""

    outputs: tuple[OutputForecast, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all values together."""
        return sum(each.nbytes for each in self.outputs)

    def __str__(self) -> str:
        return "\n".join(map(str, self.outputs))


class TracedFunction:
    """A function that is a plan where its tensors are pointers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._traced: dict[tuple[Layout, ...], Traced] = {}
        update_wrapper(self, function)

    def __call__(self, *arguments: Tensor) -> Any:  # noqa: ANN401  what the function returns
        """Run on `arguments`: at the worker of the pointers among them, or here if there is none."""
        if not any(isinstance(each, RemoteTensor) for each in arguments):
            return self._function(*arguments)
        values = common_values(arguments)
        pointers = [each if isinstance(each, RemoteTensor) else sent(values, _tensor(each)) for each in arguments]
        traced = self.traced(pointers)
        values.offer(traced.plan)
        results = run_plan(traced, traced.results, pointers)
        return results[0] if traced.single else tuple(results)

    def traced(self, arguments: Sequence[Tensor]) -> Traced:
        """Return the plan for tensors of these layouts; raise `TraceError` where the function is none."""
        layouts = tuple(_layout(each) for each in arguments)
        found = self._traced.get(layouts)
        if found is None:
            found = self._traced[layouts] = _trace(self._function, layouts)
        return found


def plan(function: Callable[..., Any]) -> TracedFunction:
    """Return `function`, of tensors and returning tensors, so that pointers run it at their worker in one message.

    It may differentiate: mark a tensor inside with `requires_grad_()` after `detach()`, and call `torch.autograd.grad`.
    """
    return TracedFunction(function)


def forecast(planned: TracedFunction, inputs: Sequence[Tensor]) -> PlanForecast:
    """Return what `planned` would give on `inputs`, byte for byte; nothing runs and nothing is sent."""
    if not isinstance(planned, TracedFunction):
        raise UsageError(f"{getattr(planned, '__name__', planned)} is no plan; decorate the function with @fp.plan")
    traced = planned.traced(inputs)
    labels = [each.label if isinstance(each, RemoteTensor) else PUBLIC for each in inputs]
    named = dict(zip((each.name for each in traced.plan.inputs), labels, strict=True))
    outputs = zip(traced.plan.outputs, traced.results, output_labels(traced.plan, named), strict=True)
    return PlanForecast(tuple(OutputForecast(each.name, shape.layout, label) for each, shape, label in outputs))


def _trace(function: Callable[..., Any], layouts: Sequence[Layout]) -> Traced:
    single: list[bool] = []

    def returning(*values: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            result = function(*values)
        single[:] = [isinstance(result, Tensor)]
        return [each.detach() if isinstance(each, Tensor) else each for each in _several(result)]

    traced = trace_function(returning, *(each.meta() for each in layouts))
    slots = validate(traced, ANY, batches=(1,)).at(1).slots
    metas = [slots[output.slot] for output in traced.outputs]
    results = tuple(
        Shape.of(Layout.dense(Layout.of(each).dtype, tuple(each.shape))) for each in metas if isinstance(each, Tensor)
    )
    return Traced(traced, PlanUse(traced.digest, tuple(layouts)), results, single[0])


def _several(result: Any) -> Iterator[Any]:  # noqa: ANN401  what the function returned
    yield from result if isinstance(result, tuple | list) else (result,)


def _layout(tensor: Tensor) -> Layout:
    return (
        Layout.of(tensor) if isinstance(tensor, RemoteTensor) else Layout.dense(Layout.of(tensor).dtype, tensor.shape)
    )


def _tensor(value: Any) -> Tensor:  # noqa: ANN401  an argument
    if not isinstance(value, Tensor):
        raise UsageError(
            f"a plan takes tensors, not a {type(value).__name__}; write it into the function, or give torch.tensor(...)"
        )
    return value
