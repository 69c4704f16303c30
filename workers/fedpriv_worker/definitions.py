"""What the words of one session may name, and how words are read.

A definition is judged once, by the worker's own checks; one that is refused keeps its number, so that the words after
it can still be read, and is the answer to each of its uses. Nothing is run here and no value is known.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from torch import Tensor

from fedpriv.errors import (
    InputMismatch,
    OperationNotAllowed,
    PlanRefused,
    QuotaExceeded,
    TorchVersionMismatch,
    WireError,
    WorkExceeded,
)
from fedpriv.plans.calls import Call, CheckedCall, Layout, check
from fedpriv.plans.inference import Quota
from fedpriv.plans.interpreter import Program
from fedpriv.plans.operations import LabelRule
from fedpriv.plans.plan import Plan
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import Definition, PlanUse

MAXIMUM_DEFINITIONS = 100_000
MAXIMUM_DESCRIBED = 200_000
"""Operands, results and steps of all definitions of a session together."""
FREE = 0
_WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition that may be used: the layouts of its operands and results, interned, and how labels derive."""

    source: Call | Plan
    arity: int
    operands: tuple[Layout, ...]
    numbers: int
    results: tuple[Layout | None, ...]
    is_view: bool
    writes: bool
    from_shapes: bool
    workspace: int
    name: str
    made: CheckedCall | Program


@dataclass(frozen=True, slots=True)
class Denied:
    """A definition that may not be used, and what its words look like, so that those after them can be read."""

    arity: int
    numbers: int = 0
    results: int = 0
    writes: bool = False
    code: ErrorCode = ErrorCode.BAD_REQUEST
    name: str = ""


class Run(NamedTuple):
    """Carry out one use of a definition; the results are ids `first` and up, none where it writes."""

    definition: int
    operands: tuple[int, ...]
    numbers: tuple[float, ...]
    first: int
    place: int


class Drop(NamedTuple):
    """Let a value go."""

    id: int


Command: TypeAlias = Run | Drop


class Definitions:
    """The definitions of one session, in the order in which words number them."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._layouts: dict[Layout, Layout] = {}
        self._judged: list[Defined | Denied] = []
        self._known: dict[str, Defined | Denied] = {}
        self._described = 0

    def __len__(self) -> int:
        return len(self._judged)

    def __getitem__(self, index: int) -> Defined | Denied:
        return self._judged[index]

    def define(self, definition: Definition, program: Program | None = None) -> Defined | Denied:
        """Judge a definition and give it the next number; a refusal is an answer to each use of it.

        `program` is the plan that it uses, validated, or None where that was never accepted.
        """
        if len(self._judged) >= MAXIMUM_DEFINITIONS:
            raise WireError(f"a session defined more than {MAXIMUM_DEFINITIONS} operations; open a new one")
        self._described += len(definition.operands)
        if isinstance(definition, PlanUse):
            self._described += 0 if program is None else len(program.plan.steps)
        else:
            self._described += definition.step.results
        if self._described > MAXIMUM_DESCRIBED:
            raise WireError(f"a session described more than {MAXIMUM_DESCRIBED} operands and results; open a new one")
        key = repr(definition)  # which tells 1, 1.0 and True apart, as equality does not
        judged = self._known.get(key)
        if not isinstance(judged, Defined):  # what was denied for want of a plan may be there by now
            judged = self._known[key] = self._judge(definition, program)
        self._judged.append(judged)
        return judged

    def interned(self, layout: Layout) -> Layout:
        """Return the one object that stands for `layout` in this session."""
        return self._layouts.setdefault(layout, layout)

    def _judge(self, definition: Definition, program: Program | None) -> Defined | Denied:
        arity = len(definition.operands)
        if isinstance(definition, PlanUse):
            if program is None:
                return Denied(arity, code=ErrorCode.UNKNOWN_PLAN)
            denied = Denied(arity, results=len(program.plan.outputs), name="a plan")
            try:
                return self._use_of(program, definition.operands)
            except PlanRefused as refusal:
                return replace(denied, code=code_of(refusal))
            except InputMismatch:
                return replace(denied, code=ErrorCode.INPUT_MISMATCH)
        step, writes = definition.step, definition.writes
        try:
            checked = check(definition, self._quota)
        except PlanRefused as refusal:
            results = 0 if writes else step.results
            return Denied(arity, definition.numbers, results, writes, code_of(refusal), step.operation[:80])
        return Defined(
            source=definition,
            arity=arity,
            operands=tuple(map(self.interned, definition.operands)),
            numbers=definition.numbers,
            results=() if writes else tuple(None if each is None else self.interned(each) for each in checked.results),
            is_view=checked.is_view,
            writes=writes,
            from_shapes=checked.operation.label is LabelRule.SHAPE,
            workspace=checked.workspace + checked.fresh_bytes,
            name=checked.operation.name,
            made=checked,
        )

    def _use_of(self, program: Program, operands: Sequence[Layout]) -> Defined:
        """Return the use of a plan on operands of these layouts; raise `InputMismatch` or `PlanRefused`."""
        batch = program.fitting([(each.dtype, each.shape) for each in operands])
        inference = program.checked.at(batch)
        metas = [inference.slots[output.slot] for output in program.plan.outputs]
        results = [Layout.dense(Layout.of(each).dtype, each.shape) for each in metas if isinstance(each, Tensor)]
        return Defined(
            source=program.plan,
            arity=len(operands),
            operands=tuple(map(self.interned, operands)),
            numbers=0,
            results=tuple(map(self.interned, results)),
            is_view=False,
            writes=False,
            from_shapes=False,
            workspace=inference.peak_bytes + sum(each.nbytes for each in results),
            name="a plan",
            made=program,
        )


def read(words: bytes, definitions: Definitions, place: int) -> list[Command]:
    """Return what `words` ask for, the first operation at `place`; raise `WireError` for words that cannot be read."""
    numbers = struct.unpack(f"<{len(words) // _WORD_BYTES}Q", words)
    commands: list[Command] = []
    at, end, known = 0, len(numbers), len(definitions)
    while at < end:
        which = numbers[at]
        if which == FREE:
            if at + 2 > end:
                raise WireError("words end in the middle of an operation")
            commands.append(Drop(numbers[at + 1]))
            at += 2
            continue
        if which > known:
            raise WireError(f"words name definition {which}; {known} were given")
        defined = definitions[which - 1]
        given = at + 1 + defined.arity
        stop = given + defined.numbers + 1
        if stop > end:
            raise WireError("words end in the middle of an operation")
        floats: tuple[float, ...] = ()
        if defined.numbers:
            floats = struct.unpack_from(f"<{defined.numbers}d", words, given * _WORD_BYTES)
        commands.append(Run(which - 1, numbers[at + 1 : given], floats, numbers[stop - 1], place))
        place += 1
        at = stop
    return commands


def code_of(refusal: PlanRefused) -> ErrorCode:
    """Return what a peer hears of a refusal."""
    match refusal:
        case OperationNotAllowed():
            return ErrorCode.OPERATION_NOT_ALLOWED
        case WorkExceeded():
            return ErrorCode.OVER_WORK
        case QuotaExceeded():
            return ErrorCode.OVER_QUOTA
        case TorchVersionMismatch():
            return ErrorCode.TORCH_VERSION
        case _:
            return ErrorCode.PLAN_REFUSED
