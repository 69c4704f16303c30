"""One operation on tensors that are there already: checked once, then run as often as it is asked for.

A `Call` is a step whose operands are described by their layouts alone; `check` judges it as a worker judges a step of
a plan, on shapes, before anything is allocated, and foresees the layout of every result. The same function serves both
sides, so what a caller believes of a pointer is what the worker finds. `Ready` runs a checked call and holds the
kernel to what was foreseen: a result has exactly the layout that was, and shares memory with an operand only where the
operation is a view. Values are never looked at; who may call on what is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from fedpriv.errors import PlanRefused, QuotaExceeded, StepFailed, WorkExceeded
from fedpriv.plans import cost, guards
from fedpriv.plans.arguments import bind
from fedpriv.plans.blocks import Block
from fedpriv.plans.engine import Engine
from fedpriv.plans.inference import MAXIMUM_RANK, Inference, Quota, produced
from fedpriv.plans.lowering import lowered
from fedpriv.plans.operations import Operation, operation
from fedpriv.plans.plan import Input, InputRole, Output, OutputRole, Plan, Slot, Step, step_slots
from fedpriv.updates import DTYPES, dtype_name

MAXIMUM_OPERANDS = 4096
TAKE_NUMBERS = frozenset(
    f"aten.{name}"
    for name in (
        "add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Scalar", "mul.Scalar", "div.Scalar",
        "addcmul.default", "addcdiv.default", "lerp.Scalar",
    )
)  # fmt: skip
"""Operations that may take a float anew with each use: no check, no shape and no result's dtype depends on it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory: dtype, shape, and strides in elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return the layout of `tensor`."""
        return cls(dtype_name(tensor.dtype), tuple(tensor.shape), tensor.stride())

    @classmethod
    def dense(cls, dtype: str, shape: Sequence[int]) -> Self:
        """Return the layout of a contiguous tensor."""
        strides, step = [0] * len(shape), 1
        for axis in reversed(range(len(shape))):
            strides[axis] = step
            step *= max(shape[axis], 1)
        return cls(dtype, tuple(shape), tuple(strides))

    @property
    def elements(self) -> int:
        """Number of elements, in Python integers so that it cannot wrap."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.elements * DTYPES[self.dtype].itemsize

    @property
    def memory(self) -> int:
        """Bytes from its first element to its last: what it takes in memory of its own, gaps included."""
        if not self.elements:
            return 0
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (reach + 1) * DTYPES[self.dtype].itemsize

    @property
    def overlaps_itself(self) -> bool:
        """Whether two elements may share memory, so that writing one could change the other."""
        reached = 0
        for stride, size in sorted((s, n) for s, n in zip(self.strides, self.shape, strict=True) if n > 1):
            if stride <= reached:
                return self.elements > 0
            reached += stride * (size - 1)
        return False

    def meta(self) -> Tensor:
        """Return a tensor of this layout without memory."""
        return torch.empty_strided(self.shape, self.strides, dtype=DTYPES[self.dtype], device="meta")


class Number(float):
    """Stands for a float that each use of a call gives anew; `slot` is its place after the operands."""

    slot: int

    def __new__(cls, slot: int) -> Self:
        """Return the stand-in for slot `slot`; as a number it is one that no check minds."""
        made = super().__new__(cls, 0.5)
        made.slot = slot
        return made


@dataclass(frozen=True, slots=True)
class Call:
    """A step on operands of these layouts, slots 0 and up, and on `numbers` floats, the slots after them.

    With `writes` its one result goes into the memory of operand 0 instead of fresh memory.
    """

    step: Step
    operands: tuple[Layout, ...]
    numbers: int = 0
    writes: bool = False


@dataclass(frozen=True)
class CheckedCall:
    """A call that passed `check`, with what it will give and use; `results` has None where a result is absent."""

    call: Call
    operation: Operation
    results: tuple[Layout | None, ...]
    work: int
    workspace: int
    _slots: tuple[Any, ...]

    @property
    def is_view(self) -> bool:
        """Whether the results show the memory of the first operand."""
        return self.operation.view and not self.call.writes

    @cached_property
    def fresh_bytes(self) -> int:
        """Bytes that its results take."""
        return 0 if self.is_view else sum(each.memory for each in self.results if each is not None)

    def block(self) -> Block:
        """Return the nodes that carry it out."""
        call = self.call
        inputs = [Input(f"o{at}", InputRole.ARGUMENT, each.dtype, each.shape) for at, each in enumerate(call.operands)]
        inputs += [Input(f"n{at}", InputRole.HYPERPARAMETER, "float64", ()) for at in range(call.numbers)]
        outputs = tuple(
            Output(f"r{at}", OutputRole.RESULT, len(inputs) + at)
            for at, each in enumerate(self.results)
            if each is not None
        )
        plan = Plan(tuple(inputs), outputs, (), (call.step,), "")
        block = lowered(plan, Inference(1, self._slots, 0, 0))
        for node in block.nodes:
            node.arguments = [Slot(each.slot) if isinstance(each, Number) else each for each in node.arguments]
        block.scalars = {}
        return block


def check(call: Call, quota: Quota) -> CheckedCall:
    """Return `call` as fit to run; raise `PlanRefused` for what does not fit, before anything is allocated."""
    step = call.step
    known = operation(step.operation)
    if known.arithmetic is not None:
        raise _refused(step, "is an operation on sizes, not on tensors")
    if len(call.operands) > MAXIMUM_OPERANDS or call.numbers > len(known.parameters):
        raise _refused(step, f"has more than {MAXIMUM_OPERANDS} operands, or more numbers than parameters")
    if call.numbers and known.name not in TAKE_NUMBERS:
        raise _refused(step, "takes no number anew with each use")
    named = sorted(set(step_slots(step)))
    if named != list(range(len(call.operands) + call.numbers)):
        raise _refused(step, "does not use each of its operands")
    slots: list[Any] = [_meta(each, step) for each in call.operands]
    slots += [Number(len(slots) + at) for at in range(call.numbers)]
    with torch.no_grad():
        arguments = bind(known, step, slots, -1)
        results = produced(known, step, arguments, -1)
        tensors = cost.tensors_in(results)
        work, workspace = cost.work_of(known, arguments, tensors), cost.workspace_of(known, arguments, tensors)
    layouts = tuple(Layout.of(each) if isinstance(each, Tensor) else None for each in results)
    checked = CheckedCall(call, known, layouts, work, workspace, (*slots, *results))
    if work > quota.maximum_work:
        raise WorkExceeded(f"{known.name} needs {work} elementary operations, the owner grants {quota.maximum_work}")
    if (needed := checked.fresh_bytes + workspace) > quota.maximum_bytes:
        raise QuotaExceeded(f"{known.name} needs {needed} bytes, the owner grants {quota.maximum_bytes}")
    if call.writes:
        _check_write(call, layouts)
    return checked


class Ready:
    """A checked call made ready to run on one device."""

    def __init__(self, checked: CheckedCall, generator: torch.Generator, device: torch.device) -> None:
        self._engine = Engine(checked.block(), {}, generator, device)
        self._only = self._engine.only
        self._results = checked.results
        self._name = checked.operation.name
        self._view = checked.is_view
        self._writes = checked.call.writes

    def run(self, operands: Sequence[Any]) -> Sequence[Tensor | None]:
        """Return the results for operands of the layouts that were checked, and floats; raise `StepFailed`."""
        try:
            if self._only is None:
                given = iter(self._engine.run(operands))
                results: list[Any] = [None if layout is None else next(given) for layout in self._results]
            else:
                made = self._only(operands)
                results = [made] if type(made) is Tensor else list(made)
            taken = [] if self._view else [_memory(each) for each in operands if type(each) is Tensor]
            for at, layout in enumerate(self._results):
                if layout is not None:
                    results[at] = self._held(results[at], layout, taken)
            if self._writes:
                operands[0].copy_(results[0])
                return ()
        except Exception:  # noqa: BLE001  torch raises anything, and its text can quote values
            raise StepFailed(step=0, operation=self._name) from None
        return results

    def _held(self, value: Tensor, layout: Layout, taken: list[int]) -> Tensor:
        """Return `value` as it was foreseen, in memory of its own unless it is a view.

        `taken` is the memory of the operands and of the results before, to which its own is added.
        """
        if value.shape != layout.shape or value.dtype is not DTYPES[layout.dtype]:
            raise ValueError("a kernel gave another shape or dtype than its checks foresaw")
        if self._view:
            if value.stride() != layout.strides:
                raise ValueError("a view lies otherwise than its checks foresaw")
            return value
        if value.stride() != layout.strides or _memory(value) in taken:
            own = torch.empty_strided(layout.shape, layout.strides, dtype=value.dtype, device=value.device)
            value = own.copy_(value)
        if value.numel():
            taken.append(_memory(value))
        return value


def _memory(tensor: Tensor) -> int:
    """Return where the memory of `tensor` begins, wherever in it the tensor does."""
    return tensor.untyped_storage().data_ptr()


def _meta(layout: Layout, step: Step) -> Tensor:
    """Return a tensor of `layout` without memory; raise `PlanRefused` for one that no tensor has."""
    if layout.dtype not in DTYPES:
        raise _refused(step, f"has an operand of the unknown dtype {layout.dtype[:32]!r}")
    sizes = (*layout.shape, *layout.strides)
    if len(layout.shape) != len(layout.strides) or len(layout.shape) > MAXIMUM_RANK or any(each < 0 for each in sizes):
        raise _refused(step, "has an operand of an impossible shape")
    if math.prod(max(each, 1) for each in layout.shape) > guards.MAXIMUM_INTEGER:
        raise QuotaExceeded("a tensor of more than 2**40 elements")
    reach = sum((size - 1) * stride for size, stride in zip(layout.shape, layout.strides, strict=True) if size)
    if max(*sizes, reach, 0) > guards.MAXIMUM_INTEGER:
        raise _refused(step, "has an operand of an impossible shape")
    return layout.meta()


def _check_write(call: Call, results: Sequence[Layout | None]) -> None:
    target = call.operands[0] if call.operands else None
    (result,) = results if len(results) == 1 else (None,)
    if target is None or result is None or result.shape != target.shape:
        raise _refused(call.step, "cannot be written into its first operand: the shapes differ")
    if not torch.can_cast(DTYPES[result.dtype], DTYPES[target.dtype]):
        raise _refused(call.step, f"gives {result.dtype}, which cannot be written into {target.dtype}")
    if target.overlaps_itself:
        raise _refused(call.step, "cannot be written into a tensor whose elements share memory; clone it first")


def _refused(step: Step, what: str) -> PlanRefused:
    return PlanRefused(f"{step.operation[:80]} {what}", step=-1, operation=step.operation[:80])
