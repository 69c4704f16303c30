"""The values that one session holds for its peer, as a pure table: what exists, what it derives from, what it may do.

It promises that an operation is handed on only if its definition passed the worker's own checks and its operands are
this session's, of exactly the layouts that were checked, and within the quota before anything is allocated; that labels
follow memory, so that a write joins what every view of it shows; and that a refusal depends on no value. What is
refused gives results that are known to be missing, and so does what reads them. It runs nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedpriv.errors import WireError
from fedpriv.ids import DatasetName
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Layout
from fedpriv.plans.inference import Quota
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import (
    HeldObject,
)
from fedpriv_worker.definitions import Command, Defined, Definitions, Denied, Drop, Run, read
from fedpriv_worker.lineage import Origin, Source, lineage, part


@dataclass(frozen=True, slots=True)
class PointerQuota:
    """What one session may hold at once, and what one operation may use."""

    maximum_bytes: int = 4 << 30
    maximum_objects: int = 1_000_000
    each: Quota = field(default_factory=Quota)


class Storage:
    """Memory that one or more values show; its label covers everything that was ever written into it."""

    __slots__ = ("label", "missing", "nbytes", "shown", "written")

    def __init__(self, label: Label, nbytes: int) -> None:
        self.label = label
        self.nbytes = nbytes
        self.shown = 0
        self.written: Origin | None = None
        """How the last write into it came about."""
        self.missing: Missing | None = None
        """A write that failed: what the memory holds is not what its peer takes it for."""


class Held:
    """One value: how it lies in which memory, and how it came about."""

    __slots__ = ("layout", "origin", "since", "storage", "tagged")

    def __init__(self, layout: Layout, storage: Storage, origin: Origin | None) -> None:
        self.layout = layout
        self.storage = storage
        self.origin = origin
        self.since = storage.written
        """The last write that `origin` knows of."""
        self.tagged: tuple[tuple[str, ...], str] = ((), "")


@dataclass(frozen=True, slots=True)
class Missing:
    """A result that does not exist: with which code, and the place and name of the operation that would have made it.

    `operation` is "" where the peer named none that is known.
    """

    code: ErrorCode
    place: int
    operation: str = ""


class Table:
    """The values of one session; not safe between threads."""

    def __init__(self, quota: PointerQuota | None = None) -> None:
        self._quota = quota or PointerQuota()
        self.definitions = Definitions(self._quota.each)
        self._values: dict[int, Held | Missing] = {}
        self._last = 0
        self.place = 0
        """Operations so far; failures name the place of theirs."""
        self.live_bytes = 0
        self.barred: frozenset[DatasetName] = frozenset()

    # --- values that come from outside ---

    def put(
        self,
        first: int,
        values: Sequence[Layout | Source],
        label: Label = PUBLIC,
        tagged: tuple[tuple[str, ...], str] = ((), ""),
    ) -> ErrorCode | None:
        """Take ids `first` and up for values with `label`; return why they are missing, or None if they are there.

        A `Source` names rows of a data set, a bare layout is the caller's own.
        """
        self._claim(first, len(values))
        layouts = [each.layout if isinstance(each, Source) else each for each in values]
        if self.live_bytes + sum(each.nbytes for each in layouts) > self._quota.maximum_bytes:
            self._values.update({first + at: Missing(ErrorCode.OVER_QUOTA, self.place) for at in range(len(values))})
            return ErrorCode.OVER_QUOTA
        for at, (value, layout) in enumerate(zip(values, layouts, strict=True)):
            origin = value if isinstance(value, Source) else None
            held = Held(self.definitions.interned(layout), Storage(label, layout.nbytes), origin)
            held.tagged = tagged
            self._hold(first + at, held)
        return None

    def miss(self, first: int, count: int, code: ErrorCode) -> None:
        """Take ids `first` and up for values that do not exist."""
        self._claim(first, count)
        self._values.update({first + at: Missing(code, self.place) for at in range(count)})

    # --- operations ---

    def admit(self, words: bytes) -> list[Command]:
        """Return what to carry out for `words`, in order; raise `WireError` for words that cannot be read."""
        commands: list[Command] = []
        for command in read(words, self.definitions, self.place):
            if isinstance(command, Drop):
                if self._free(command.id):
                    commands.append(command)
                continue
            self.place = command.place + 1
            if self._admitted(self.definitions[command.definition], command):
                commands.append(command)
        return commands

    def _admitted(self, defined: Defined | Denied, run: Run) -> bool:
        """Take the ids of the results; return whether the operation may run."""
        if isinstance(defined, Denied):
            if defined.results:
                self._claim(run.first, defined.results)
            return self._fail(run, defined.results, defined.writes, Missing(defined.code, run.place, defined.name))
        if defined.results:
            self._claim(run.first, len(defined.results))
        found = self._found(defined, run)
        if isinstance(found, Missing):
            return self._fail(run, len(defined.results), defined.writes, found)
        label = PUBLIC if defined.from_shapes and not defined.writes else joined(found)
        code = self._refusal(defined, label)
        if code is not None:
            missing = Missing(code, run.place, defined.name)
            return self._fail(run, len(defined.results), defined.writes, missing)
        origin = lineage(defined.definition, found, run.numbers, label)
        if defined.writes:
            target = found[0]
            target.storage.label = label
            target.storage.written = target.since = target.origin = origin
        else:
            self._give(defined, run, found, label, origin)
        return True

    def _found(self, defined: Defined, run: Run) -> list[Held] | Missing:
        """Return the operands of an operation, or why one of them is missing."""
        found: list[Held] = []
        for number, layout in zip(run.operands, defined.operands, strict=True):
            held = self._values.get(number)
            if type(held) is not Held:
                return held if isinstance(held, Missing) else Missing(ErrorCode.BAD_REQUEST, run.place, defined.name)
            if held.layout is not layout:
                return Missing(ErrorCode.INPUT_MISMATCH, run.place, defined.name)
            if held.storage.missing is not None:
                return held.storage.missing
            found.append(held)
        return found

    def _give(self, defined: Defined, run: Run, found: Sequence[Held], label: Label, origin: Origin | None) -> None:
        """Hold the results of an operation that will run."""
        storage = found[0].storage if defined.is_view else None
        of = len(defined.results)
        for at, result in enumerate(defined.results):
            if result is None:
                self._values[run.first + at] = Missing(ErrorCode.BAD_REQUEST, run.place, defined.name)
            else:
                own = storage or Storage(label, result.nbytes)
                self._hold(run.first + at, Held(result, own, part(origin, at, of)))

    def _fail(self, run: Run, results: int, writes: bool, missing: Missing) -> bool:  # noqa: FBT001  of a definition
        """Note that an operation did not happen: its results, or what its target's memory shows, are missing."""
        self._values.update({run.first + at: missing for at in range(results)})
        target = self._values.get(run.operands[0]) if writes and run.operands else None
        if isinstance(target, Held):
            target.storage.missing = missing
        return False

    def _refusal(self, defined: Defined, label: Label) -> ErrorCode | None:
        """Return why an operation whose operands are there may not run, from sizes and labels alone."""
        if self.live_bytes + defined.workspace > self._quota.maximum_bytes:
            return ErrorCode.OVER_QUOTA
        if len(self._values) > self._quota.maximum_objects:
            return ErrorCode.OVER_QUOTA
        if label is not PUBLIC and any(origin.dataset in self.barred for origin in label.origins):
            return ErrorCode.RELEASE_DENIED
        return None

    # --- what is there ---

    def find(self, number: int) -> Held | Missing:
        """Return what `number` stands for; a number that stands for nothing is missing too."""
        found = self._values.get(number) or Missing(ErrorCode.BAD_REQUEST, self.place)
        return found.storage.missing or found if isinstance(found, Held) else found

    def failed(self, run: Run, code: ErrorCode) -> Label:
        """Note that an admitted operation failed as it ran; return the label of what it read."""
        defined = self.definitions[run.definition]
        assert isinstance(defined, Defined)
        label = joined([each for each in map(self._values.get, run.operands) if isinstance(each, Held)])
        for number in range(run.first, run.first + len(defined.results)):
            self._free(number)
        self._fail(run, len(defined.results), defined.writes, Missing(code, run.place, defined.name))
        return label

    def objects(self) -> Iterator[HeldObject]:
        """Yield every value that is there, in the order of ids."""
        for number, each in self._values.items():
            if isinstance(each, Held):
                yield HeldObject(number, each.layout, *each.tagged)

    # --- bookkeeping ---

    def _claim(self, first: int, count: int) -> None:
        """Take fresh ids; raise `WireError` for ids that were taken before, which nobody may replace."""
        if not self._last < first or first + count >= 1 << 63:
            raise WireError(f"id {first} was taken before; ids rise")
        self._last = first + count - 1

    def _hold(self, number: int, held: Held) -> None:
        storage = held.storage
        if not storage.shown:
            self.live_bytes += storage.nbytes
        storage.shown += 1
        self._values[number] = held

    def _free(self, number: int) -> bool:
        """Forget a value; return whether it was there."""
        held = self._values.pop(number, None)
        if not isinstance(held, Held):
            return False
        held.storage.shown -= 1
        if not held.storage.shown:
            self.live_bytes -= held.storage.nbytes
        return True


def joined(found: Sequence[Held]) -> Label:
    """Return the label of what is computed from `found`."""
    label = PUBLIC
    for each in found:
        other = each.storage.label
        if other is not label and not other.origins <= label.origins:
            label = other if label is PUBLIC else label.join(other)
    return label
