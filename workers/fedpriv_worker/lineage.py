"""How a private value came about, as a plan that its owner can read: which rows, which steps, whose other tensors.

Only what derives from a data set is followed: everything else is the caller's own and enters as an input. The steps of
a value are kept as long as the value is, up to `MAXIMUM_STEPS` in a row. Nothing is run from a lineage; its digest is
what an approval binds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from fedpriv.errors import ReleaseDenied
from fedpriv.ids import PlanDigest
from fedpriv.labels import PUBLIC
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import Argument, Constant, Input, InputRole, Output, OutputRole, Plan, Slot, Step, slots_in
from fedpriv.plans.validation import torch_minor
from fedpriv.wire.plans import decode_plan, encode_plan

if TYPE_CHECKING:
    from fedpriv_worker.shelf import Held

MAXIMUM_STEPS = 10_000
OVERLAID = "fedpriv.overlaid"
"""Stands where memory was written through another view after a value was made in it: each number that the value shows
is that of the first operand, or was replaced by something that the second derives from. Which, nobody kept."""
USED = "fedpriv.plan"
"""The step by which a whole plan was used: its first argument is the constant that holds the plan, encoded."""


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
        origin: Origin = _own(held)
    else:
        origin = held.origin
    if storage.label is PUBLIC or storage.written is held.since:
        return origin
    assert storage.written is not None
    if held.overlaid is None or held.overlaid[0] is not storage.written:
        held.overlaid = storage.written, made(None, (origin, storage.written), ())
    return held.overlaid[1]


def _own(held: Held) -> Source:
    """Return the source that stands for a value of the caller's own, another one after each write into its memory."""
    if held.own is None or held.own[0] != held.storage.writes:
        held.own = held.storage.writes, Source(OWN, held.layout)
    return held.own[1]


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
    plans = {each.definition.digest: each.definition for each in steps if isinstance(each.definition, Plan)}
    contents = [unlike, *map(encode_plan, plans.values())]
    writer = _Writer(len(sources), len(contents), {digest: at for at, digest in enumerate(plans, len(sources) + 1)})
    for at, each in enumerate(sources):
        writer.slots[id(each)] = (at,)
    for made_ in steps:
        writer.write(made_)
    inputs = tuple(
        Input(f"{at}: {each.name}", each.role, each.layout.dtype, each.layout.shape) for at, each in enumerate(sources)
    )
    output = Output("value", OutputRole.RESULT, writer.slot(origin))
    constants = tuple(Constant("uint8", (len(each),), each) for each in contents)
    return Plan(inputs, (output,), constants, tuple(writer.steps), torch_minor(torch.__version__))


def plans_in(lineage: Plan) -> dict[int, Plan]:
    """Return the plans that a lineage used, by the slot of the constant that holds each."""
    used = [step for step in lineage.steps if step.operation == USED]
    held = sorted({slot for step in used for slot in slots_in(*step.arguments[:1])})
    return {slot: decode_plan(lineage.constants[slot - len(lineage.inputs)].content) for slot in held}


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
    """The steps of a plan under construction; a plan that was used is one step, and a constant that holds it."""

    def __init__(self, sources: int, constants: int, plans: Mapping[PlanDigest, int]) -> None:
        self.steps: list[Step] = []
        self.slots: dict[int, tuple[int, ...]] = {}
        self._plans = plans
        self._filled = sources + constants

    def slot(self, origin: Origin) -> int:
        """Return the slot that holds a value."""
        if isinstance(origin, Part):
            return self.slots[id(origin.made)][origin.index]
        return self.slots[id(origin)][0]

    def write(self, each: Made) -> None:
        """Add what `each` did."""
        definition, operands = each.definition, [self.slot(operand) for operand in each.operands]
        if isinstance(definition, Plan):
            given = tuple(map(Slot, (self._plans[definition.digest], *operands)))
            self.slots[id(each)] = self._add(Step(USED, given, (), len(definition.outputs)))
        elif definition is None:
            self.slots[id(each)] = self._add(Step(OVERLAID, tuple(map(Slot, operands))))
        else:
            self.slots[id(each)] = self._add(_with(definition.step, [*map(Slot, operands), *each.numbers]))

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
