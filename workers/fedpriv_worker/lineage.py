"""How a private value came about, as a plan that its owner can read: which rows, which steps, whose other tensors.

Only what derives from a data set is followed: everything else is the caller's own and enters as an input. The steps of
a value are kept as long as the value is, up to `MAXIMUM_STEPS` in a row. Nothing is run from a lineage; its digest is
what an approval binds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from fedpriv.errors import ReleaseDenied
from fedpriv.labels import PUBLIC
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import Argument, Constant, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import torch_minor

if TYPE_CHECKING:
    from fedpriv_worker.shelf import Held

MAXIMUM_STEPS = 10_000
WRITTEN = "aten.copy.default"
"""The step by which memory that was written through another view becomes what a value shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where a computation begins: rows of a data set, under their name and role, or the caller's own tensor."""

    name: str
    layout: Layout
    role: InputRole = InputRole.ARGUMENT


class Made:
    """One step on what other steps made; `depth` is the longest way back to a source."""

    __slots__ = ("definition", "depth", "numbers", "operands")

    def __init__(
        self, definition: Call | Plan | None, operands: tuple[Origin, ...], numbers: tuple[float, ...], depth: int
    ) -> None:
        self.definition = definition
        self.operands = operands
        self.numbers = numbers
        self.depth = depth


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One of several results of a step."""

    made: Made
    index: int


class TooLong:
    """Stands for every value of more steps than are kept."""


TOO_LONG = TooLong()
Origin: TypeAlias = Source | Made | Part | TooLong
OWN = "the caller's own"


def seen(held: Held) -> Origin:
    """Return how what `held` shows now came about."""
    storage = held.storage
    if storage.label is PUBLIC or held.origin is None:
        origin: Origin = Source(OWN, held.layout)
    else:
        origin = held.origin
    if storage.label is PUBLIC or storage.written is held.since:
        return origin
    assert storage.written is not None
    return made(None, (origin, storage.written), ())


def made(definition: Call | Plan | None, operands: tuple[Origin, ...], numbers: tuple[float, ...]) -> Origin:
    """Return the origin of a step's result."""
    deepest = 0
    for each in operands:
        if isinstance(each, TooLong):
            return TOO_LONG
        depth = each.depth if isinstance(each, Made) else each.made.depth if isinstance(each, Part) else 0
        deepest = max(deepest, depth)
    return TOO_LONG if deepest >= MAXIMUM_STEPS else Made(definition, operands, numbers, deepest + 1)


def part(origin: Origin, index: int, of: int) -> Origin:
    """Return the origin of result `index` of `of`."""
    return Part(origin, index) if isinstance(origin, Made) and of > 1 else origin


def as_plan(origin: Origin, unlike: bytes) -> Plan:
    """Return the computation behind `origin` as a plan to read; raise `ReleaseDenied` where it is too long to.

    `unlike` is in the plan, so that no two values have the same: an approval is for one value, not for its recipe.
    """
    order = _order(origin)
    sources = [each for each in order if isinstance(each, Source)]
    steps = [each for each in order if isinstance(each, Made)]
    plans = [each.definition for each in steps if isinstance(each.definition, Plan)]
    writer = _Writer(
        len(sources), [Constant("uint8", (len(unlike),), unlike), *(c for p in plans for c in p.constants)]
    )
    for at, each in enumerate(sources):
        writer.slots[id(each)] = (at,)
    for made_ in steps:
        writer.write(made_)
    inputs = tuple(
        Input(f"{at}: {each.name}", each.role, each.layout.dtype, each.layout.shape) for at, each in enumerate(sources)
    )
    output = Output("value", OutputRole.RESULT, writer.slot(origin))
    return Plan(inputs, (output,), tuple(writer.constants), tuple(writer.steps), torch_minor(torch.__version__))


def _order(origin: Origin) -> list[Source | Made]:
    """Return everything behind `origin`, each after what it was made from."""
    order: list[Source | Made] = []
    done: set[int] = set()
    open_: list[tuple[Origin, bool]] = [(origin, False)]
    while open_:
        each, ready = open_.pop()
        if isinstance(each, TooLong) or len(order) > MAXIMUM_STEPS:
            raise _too_long()
        if isinstance(each, Part):
            each = each.made
        if id(each) in done:
            continue
        if ready or isinstance(each, Source):
            done.add(id(each))
            order.append(each)
        else:
            open_.append((each, True))
            open_ += [(operand, False) for operand in reversed(each.operands)]
    return order


class _Writer:
    """The steps of a plan under construction; those of plans that were used are written out."""

    def __init__(self, sources: int, constants: Sequence[Constant]) -> None:
        self.constants = constants
        self.steps: list[Step] = []
        self.slots: dict[int, tuple[int, ...]] = {}
        self._next_constant = sources + 1  # after the mark
        self._filled = sources + len(constants)

    def slot(self, origin: Origin) -> int:
        """Return the slot that holds a value."""
        if isinstance(origin, Part):
            return self.slots[id(origin.made)][origin.index]
        return self.slots[id(origin)][0]

    def write(self, each: Made) -> None:
        """Add what `each` did."""
        definition, operands = each.definition, [self.slot(operand) for operand in each.operands]
        if isinstance(definition, Plan):
            self.slots[id(each)] = self._written_out(definition, operands)
        elif definition is None:
            self.slots[id(each)] = self._add(Step(WRITTEN, tuple(map(Slot, operands))))
        else:
            self.slots[id(each)] = self._add(_with(definition.step, [*map(Slot, operands), *each.numbers]))

    def _written_out(self, plan: Plan, operands: Sequence[int]) -> tuple[int, ...]:
        constants = range(self._next_constant, self._next_constant + len(plan.constants))
        self._next_constant = constants.stop
        values = [*map(Slot, operands), *map(Slot, constants)]
        for step in plan.steps:
            values += map(Slot, self._add(_with(step, values)))
        return tuple(values[output.slot].index for output in plan.outputs)

    def _add(self, step: Step) -> tuple[int, ...]:
        if len(self.steps) >= MAXIMUM_STEPS:
            raise _too_long()
        self.steps.append(step)
        first, self._filled = self._filled, self._filled + step.results
        return tuple(range(first, self._filled))


def _with(step: Step, values: Sequence[Argument]) -> Step:
    """Return `step` with `values` in place of its slots."""

    def filled(argument: Argument) -> Argument:
        if isinstance(argument, Slot):
            return values[argument.index]
        return tuple(map(filled, argument)) if isinstance(argument, tuple) else argument

    keywords = tuple((name, filled(value)) for name, value in step.keywords)
    return Step(step.operation, tuple(map(filled, step.arguments)), keywords, step.results)


def _too_long() -> ReleaseDenied:
    return ReleaseDenied(
        f"this value took more than {MAXIMUM_STEPS:,} steps, too many for its owner to read; trace them with @fp.plan "
        "and ask for what the plan gives"
    )
