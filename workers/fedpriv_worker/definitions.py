"""What the words of one session may name, and how words are read.

A definition is judged once, by the worker's own checks; one that is refused keeps its number, so that the words after
it can still be read, and is the answer to each of its uses. Nothing is run here and no value is known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from fedpriv.errors import OperationNotAllowed, PlanRefused, QuotaExceeded, WireError
from fedpriv.plans.calls import Call, CheckedCall, Layout, check
from fedpriv.plans.inference import Quota
from fedpriv.plans.operations import LabelRule
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import Definition

MAXIMUM_DEFINITIONS = 100_000
FREE = 0
_WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition that may be used: the layouts of its operands and results, interned, and how labels derive."""

    definition: Definition
    operands: tuple[Layout, ...]
    numbers: int
    results: tuple[Layout | None, ...]
    is_view: bool
    writes: bool
    from_shapes: bool
    workspace: int
    name: str
    checked: CheckedCall | None = None

    @property
    def arity(self) -> int:
        """Number of operands."""
        return len(self.operands)


@dataclass(frozen=True, slots=True)
class Denied:
    """A definition that may not be used, and what its words look like, so that those after them can be read."""

    arity: int
    numbers: int = 0
    results: int = 0
    writes: bool = False
    code: ErrorCode = ErrorCode.BAD_REQUEST
    name: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Carry out one use of a definition; the results are ids `first` and up, none where it writes."""

    definition: int
    operands: tuple[int, ...]
    numbers: tuple[float, ...]
    first: int
    place: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Let a value go."""

    id: int


Command: TypeAlias = Run | Drop


class Definitions:
    """The definitions of one session, in the order in which words number them."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._layouts: dict[Layout, Layout] = {}
        self._judged: list[Defined | Denied] = []

    def __len__(self) -> int:
        return len(self._judged)

    def __getitem__(self, index: int) -> Defined | Denied:
        return self._judged[index]

    def define(self, definition: Definition) -> Defined | Denied:
        """Judge a definition and give it the next number; a refusal is an answer to each use of it."""
        if len(self._judged) >= MAXIMUM_DEFINITIONS:
            raise WireError(f"a session defined more than {MAXIMUM_DEFINITIONS} operations; open a new one")
        judged = self._judge(definition)
        self._judged.append(judged)
        return judged

    def interned(self, layout: Layout) -> Layout:
        """Return the one object that stands for `layout` in this session."""
        return self._layouts.setdefault(layout, layout)

    def _judge(self, definition: Definition) -> Defined | Denied:
        if not isinstance(definition, Call):
            return Denied(len(definition.operands), code=ErrorCode.UNKNOWN_PLAN)
        step = definition.step
        try:
            checked = check(definition, self._quota)
        except PlanRefused as refusal:
            return Denied(
                len(definition.operands), definition.numbers, 0 if definition.writes else step.results,
                definition.writes, _code(refusal), step.operation[:80],
            )  # fmt: skip  # one line of facts
        operands = tuple(map(self.interned, definition.operands))
        results = tuple(None if each is None else self.interned(each) for each in checked.results)
        return Defined(
            definition, operands, definition.numbers, () if definition.writes else results, checked.is_view,
            definition.writes, checked.operation.label is LabelRule.SHAPE, checked.workspace + checked.fresh_bytes,
            checked.operation.name, checked,
        )  # fmt: skip  # one line of facts


def read(words: bytes, definitions: Definitions, place: int) -> Iterator[Command]:
    """Yield what `words` ask for, the first operation at `place`; raise `WireError` for words that cannot be read."""
    numbers = struct.unpack(f"<{len(words) // _WORD_BYTES}Q", words)
    at, end = 0, len(numbers)
    while at < end:
        which = numbers[at]
        if which == FREE:
            if at + 2 > end:
                raise WireError("words end in the middle of an operation")
            yield Drop(numbers[at + 1])
            at += 2
            continue
        if which > len(definitions):
            raise WireError(f"words name definition {which}; {len(definitions)} were given")
        defined = definitions[which - 1]
        given = at + 1 + defined.arity
        stop = given + defined.numbers + 1
        if stop > end:
            raise WireError("words end in the middle of an operation")
        floats: tuple[float, ...] = ()
        if defined.numbers:
            floats = struct.unpack(f"<{defined.numbers}d", words[given * _WORD_BYTES : (stop - 1) * _WORD_BYTES])
        yield Run(which - 1, numbers[at + 1 : given], floats, numbers[stop - 1], place)
        place += 1
        at = stop


def _code(refusal: PlanRefused) -> ErrorCode:
    if isinstance(refusal, OperationNotAllowed):
        return ErrorCode.OPERATION_NOT_ALLOWED
    return ErrorCode.OVER_QUOTA if isinstance(refusal, QuotaExceeded) else ErrorCode.PLAN_REFUSED
