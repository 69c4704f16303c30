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
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import Argument, Constant, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import torch_minor
from fedpriv.wire.values import PlanUse

if TYPE_CHECKING:
    from fedpriv_worker.pointers import Held

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
        self, definition: Call | PlanUse | None, operands: tuple[Origin, ...], numbers: tuple[float, ...], depth: int
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


def made(definition: Call | PlanUse | None, operands: tuple[Origin, ...], numbers: tuple[float, ...]) -> Origin:
    """Return the origin of a step's result."""
    deepest = 0
    for each in operands:
        if isinstance(each, TooLong):
            return TOO_LONG
        depth = each.depth if isinstance(each, Made) else each.made.depth if isinstance(each, Part) else 0
        deepest = max(deepest, depth)
    return TOO_LONG if deepest >= MAXIMUM_STEPS else Made(definition, operands, numbers, deepest + 1)


def lineage(
    definition: Call | PlanUse, operands: Sequence[Held], numbers: tuple[float, ...], label: Label
) -> Origin | None:
    """Return the origin of what `definition` makes of `operands`; None for a result that derives from no data set."""
    return None if label is PUBLIC else made(definition, tuple(map(seen, operands)), numbers)


def part(origin: Origin | None, index: int, of: int) -> Origin | None:
    """Return the origin of result `index` of `of`."""
    return Part(origin, index) if isinstance(origin, Made) and of > 1 else origin


def as_plan(origin: Origin, unlike: bytes) -> Plan:
    """Return the computation behind `origin` as a plan to read; raise `ReleaseDenied` where it is too long to.

    `unlike` is in the plan, so that no two values have the same: an approval is for one value, not for its recipe.
    """
    order = _order(origin)
    sources = [each for each in order if isinstance(each, Source)]
    slots: dict[int, int] = {id(each): at for at, each in enumerate(sources)}
    mark = Constant("uint8", (len(unlike),), unlike)
    steps: list[Step] = []
    filled = len(sources) + 1  # the mark
    for each in order:
        if isinstance(each, Made):
            slots[id(each)] = filled
            steps.append(_step(each, [_slot(operand, slots) for operand in each.operands]))
            filled += steps[-1].results
    inputs = tuple(
        Input(f"{at}: {each.name}", each.role, each.layout.dtype, each.layout.shape) for at, each in enumerate(sources)
    )
    output = Output("value", OutputRole.RESULT, _slot(origin, slots))
    return Plan(inputs, (output,), (mark,), tuple(steps), torch_minor(torch.__version__))


def _order(origin: Origin) -> list[Source | Made]:
    """Return everything behind `origin`, each after what it was made from."""
    order: list[Source | Made] = []
    done: set[int] = set()
    open_: list[tuple[Origin, bool]] = [(origin, False)]
    while open_:
        each, ready = open_.pop()
        if isinstance(each, TooLong) or len(order) > MAXIMUM_STEPS:
            raise ReleaseDenied(
                f"this value took more than {MAXIMUM_STEPS:,} steps, too many for its owner to read; trace them with "
                "@fp.plan and ask for the plan's result"
            )
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


def _slot(origin: Origin, slots: dict[int, int]) -> int:
    if isinstance(origin, Part):
        return slots[id(origin.made)] + origin.index
    return slots[id(origin)]


def _step(each: Made, operands: Sequence[int]) -> Step:
    definition = each.definition
    if definition is None:
        return Step(WRITTEN, tuple(map(Slot, operands)))
    if isinstance(definition, PlanUse):
        return Step(f"plan.{definition.plan.hex()}", tuple(map(Slot, operands)))
    values: list[Argument] = [*map(Slot, operands), *each.numbers]

    def filled(argument: Argument) -> Argument:
        if isinstance(argument, Slot):
            return values[argument.index]
        return tuple(map(filled, argument)) if isinstance(argument, tuple) else argument

    step = definition.step
    keywords = tuple((name, filled(value)) for name, value in step.keywords)
    return Step(step.operation, tuple(map(filled, step.arguments)), keywords, step.results)
