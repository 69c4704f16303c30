"""What a plan would do at one batch size, found on shapes alone: nothing is allocated.

Every step runs on meta tensors, which have a shape and no storage, after its arguments were checked against
the schema of its operation. Bytes and arithmetic are added up in Python integers and compared with the quota
before the next step. Nothing here can touch a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch._dynamo  # torch loads it at the first meta call: now, rather than in somebody's first round

from fedpriv.errors import PlanRefused, QuotaExceeded, WorkExceeded
from fedpriv.plans import cost, guards
from fedpriv.plans.arguments import bind, call
from fedpriv.plans.kernels import ShapeRefused
from fedpriv.plans.operations import Operation, operation
from fedpriv.plans.plan import BATCH, Constant, Input, OutputRole, Plan, Step, step_slots
from fedpriv.updates import DTYPES

Abstract: TypeAlias = "torch.Tensor | int | float | None"
"""What is known of a slot: a meta tensor, a size, or that an optional result is absent."""

MAXIMUM_RANK = 12


@dataclass(frozen=True, slots=True)
class Quota:
    """What one run of a plan over one batch may use; the owner sets it."""

    maximum_bytes: int = 4 << 30
    maximum_steps: int = 20_000
    maximum_work: int = 10**13
    maximum_constant_bytes: int = 1 << 20
    maximum_inputs: int = 20_000


@dataclass(frozen=True, slots=True)
class Inference:
    """Every slot of a plan at one batch size, and upper bounds of what a run over that batch uses."""

    batch: int
    slots: tuple[Abstract, ...] = field(repr=False)
    peak_bytes: int
    work: int


def infer(plan: Plan, batch: int, quota: Quota) -> Inference:
    """Return the shapes of `plan` at `batch` rows; raise `PlanRefused` for what does not fit, before allocating."""
    if not 1 <= batch <= guards.MAXIMUM_INTEGER:
        raise PlanRefused(f"a batch of {batch} rows is not possible")
    memory = _Memory(plan, quota)
    declared: tuple[Input | Constant, ...] = (*plan.inputs, *plan.constants)
    slots: list[Abstract] = []
    for each in declared:
        slots.append(_declared(each.dtype, each.shape, batch))
        memory.hold(len(slots) - 1, slots[-1])
    work = 0
    with torch.no_grad():
        for index, step, filled in plan.walk():
            known = operation(step.operation, step=index)
            arguments = bind(known, step, slots, index)
            results = produced(known, step, arguments, index)
            tensors = cost.tensors_in(results)
            work += cost.work_of(known, arguments, tensors)
            if work > quota.maximum_work:
                raise WorkExceeded(
                    f"more than {quota.maximum_work} elementary operations at {batch} rows",
                    step=index,
                    operation=step.operation,
                )
            slots.extend(results)
            memory.run(index, step, known, filled, slots, cost.workspace_of(known, arguments, tensors))
    _check_outputs(plan, slots)
    memory.leave(plan, slots)
    return Inference(batch, tuple(slots), memory.peak, work)


def _declared(dtype: str, shape: Sequence[int], batch: int) -> torch.Tensor:
    if dtype not in DTYPES:
        raise PlanRefused(f"dtype {dtype[:32]!r} is not known")
    sizes = [batch if size == BATCH else size for size in shape]
    if len(sizes) > MAXIMUM_RANK or any(size < 0 or size > guards.MAXIMUM_INTEGER for size in sizes):
        raise PlanRefused(f"shape {tuple(sizes)[:MAXIMUM_RANK]} is not possible")
    if math.prod(max(size, 1) for size in sizes) > guards.MAXIMUM_INTEGER:
        raise QuotaExceeded(f"a tensor of shape {tuple(sizes)} has more than 2**40 elements")
    return torch.empty(sizes, dtype=DTYPES[dtype], device="meta")


def produced(known: Operation, step: Step, arguments: dict[str, Any], index: int) -> tuple[Abstract, ...]:
    """Return what step `index` gives for `arguments`, bound and without memory; raise `PlanRefused`."""
    try:
        guards.check(known, arguments)
        _check_count(known, step, arguments)
        given = call(known, arguments)
        results = tuple(given) if isinstance(given, tuple | list) else (given,)
        guards.check_results(arguments, results)
    except ShapeRefused as refused:
        raise PlanRefused(f"step {index} ({step.operation}): {refused}", step=index, operation=step.operation) from None
    except Exception:  # noqa: BLE001  torch raises anything at all for shapes that do not fit
        raise PlanRefused(
            f"step {index} ({step.operation}) does not fit the shapes of its arguments",
            step=index,
            operation=step.operation,
        ) from None
    if len(results) != step.results or not all(_is_abstract(known, each) for each in results):
        raise PlanRefused(
            f"step {index} ({step.operation}) gives {len(results)} results, not {step.results}",
            step=index,
            operation=step.operation,
        )
    return results


def _check_count(known: Operation, step: Step, arguments: dict[str, Any]) -> None:
    """Refuse a list of results whose length is not the declared one, before torch makes it."""
    if known.name in {"aten.split.Tensor", "aten.unbind.int"}:
        tensor = arguments["self"]
        length = tensor.shape[arguments["dim"]]
        count = -(-length // arguments["split_size"]) if "split_size" in arguments else length
        if max(count, 1 if "split_size" in arguments else 0) != step.results:
            raise ShapeRefused(f"{count} results, not {step.results}")


def _is_abstract(known: Operation, value: object) -> bool:
    if known.arithmetic is not None:
        return isinstance(value, int | float) and abs(value) <= guards.MAXIMUM_INTEGER
    if value is None:
        return True
    return isinstance(value, torch.Tensor) and value.dim() <= MAXIMUM_RANK and value.dtype in set(DTYPES.values())


def _check_outputs(plan: Plan, slots: Sequence[Abstract]) -> None:
    targets = {each.name: each for each in plan.inputs}
    for output in plan.outputs:
        value = slots[output.slot]
        if not isinstance(value, torch.Tensor):
            raise PlanRefused(f"output {output.name!r} is not a tensor")
        if output.role in {OutputRole.PARAMETER, OutputRole.STATE, OutputRole.OPTIMIZER, OutputRole.KEPT}:
            source = targets[output.name]
            if tuple(value.shape) != source.shape or value.dtype != DTYPES[source.dtype]:
                raise PlanRefused(
                    f"output {output.name!r} does not have the shape and dtype of the input that it replaces"
                )
        elif output.role in {OutputRole.LOSS, OutputRole.METRIC} and (
            value.dim() != 0 or not value.dtype.is_floating_point
        ):
            raise PlanRefused(f"output {output.name!r} must be one floating-point number")


class _Memory:
    """Live bytes while a plan runs; a storage lives until the last use of any view of it."""

    def __init__(self, plan: Plan, quota: Quota) -> None:
        self.peak = 0
        self._live = 0
        self._quota = quota
        self._root: list[int] = []
        self._bytes: dict[int, int] = {}
        self._last = _last_uses(plan)
        self._readers: dict[int, int] = {}

    def hold(self, slot: int, value: Abstract) -> None:
        """Count an input or constant, which lives to the end."""
        self._root.append(slot)
        self._grow(cost.nbytes(value) if isinstance(value, torch.Tensor) else 0, 0, -1, "")

    def run(
        self, index: int, step: Step, known: Operation, filled: range, slots: Sequence[Abstract], scratch: int
    ) -> None:
        """Count the results of one step, then release what no later step reads."""
        first = next(step_slots(step), None)
        fresh = 0
        for slot in filled:
            value = slots[slot]
            if known.view and first is not None:
                self._root.append(self._root[first])
            else:
                self._root.append(slot)
                self._bytes[slot] = cost.nbytes(value) if isinstance(value, torch.Tensor) else 0
                fresh += self._bytes[slot]
            root = self._root[slot]
            self._readers[root] = max(self._readers.get(root, index), self._last.get(slot, index))
        self._grow(fresh, scratch, index, step.operation)
        for slot in {self._root[each] for each in (*step_slots(step), *filled)}:
            if slot in self._bytes and self._readers[slot] <= index:
                self._live -= self._bytes.pop(slot)

    def leave(self, plan: Plan, slots: Sequence[Abstract]) -> None:
        """Count the copies that leave a plain function; a view leaves as all that it shows."""
        leaving = [slots[each.slot] for each in plan.outputs if each.role is OutputRole.RESULT]
        fresh = sum(cost.nbytes(each) for each in leaving if isinstance(each, torch.Tensor))
        self._grow(fresh, 0, -1, "")

    def _grow(self, fresh: int, scratch: int, step: int, name: str) -> None:
        self._live += fresh
        self.peak = max(self.peak, self._live + scratch)
        if self.peak > self._quota.maximum_bytes:
            raise QuotaExceeded(
                f"the plan needs {self.peak} bytes at once, the owner grants {self._quota.maximum_bytes}; "
                "use a smaller batch or model",
                step=step,
                operation=name,
            )


def _last_uses(plan: Plan) -> dict[int, int]:
    uses = dict(_uses(plan))
    uses.update({output.slot: len(plan.steps) for output in plan.outputs})
    return uses


def _uses(plan: Plan) -> Iterator[tuple[int, int]]:
    for index, step in enumerate(plan.steps):
        for slot in step_slots(step):
            yield slot, index
