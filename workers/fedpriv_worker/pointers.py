"""The values that one session holds for its peer, as a pure table: what exists, what it derives from, what it may do.

It promises that an operation is handed on only if its definition passed the worker's own checks and its operands are
this session's, of exactly the layouts that were checked, and within the quota before anything is allocated; that labels
follow memory, so that a write joins what every view of it shows; and that a refusal depends on no value. What is
refused gives results that are known to be missing, and so does what reads them. It runs nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedpriv.ids import DatasetName
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Layout
from fedpriv.wire.messages import ErrorCode
from fedpriv_worker.definitions import Command, Defined, Definitions, Denied, Drop, Run, read
from fedpriv_worker.lineage import Origin, Source, made, part, seen
from fedpriv_worker.quotas import Allowance, PointerQuota
from fedpriv_worker.shelf import Held, Missing, Shelf, Storage, joined


class Table:
    """The values of one session; not safe between threads."""

    def __init__(self, quota: PointerQuota | None = None, barred: frozenset[DatasetName] = frozenset()) -> None:
        granted = quota or PointerQuota()
        self.definitions = Definitions(granted.each)
        self.shelf = Shelf(granted.maximum_objects)
        self.allowance = Allowance(granted, self.shelf)
        self.place = 0
        """Operations so far; failures name the place of theirs."""
        self.barred = barred
        """Data sets that the peer lost the right to."""
        self._labels: dict[int, Label] = {}
        """What each operation that was admitted last derives from, by its place."""

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
        self.shelf.claim(first, len(values))
        layouts = [each.layout if isinstance(each, Source) else each for each in values]
        code = self.allowance.excess(sum(each.nbytes for each in layouts), len(values))
        if code is not None:
            self.shelf.miss(first, len(values), Missing(code, self.place))
            return code
        for at, (value, layout) in enumerate(zip(values, layouts, strict=True)):
            origin = value if isinstance(value, Source) else None
            held = Held(self.definitions.interned(layout), Storage(label, layout.nbytes), origin)
            held.tagged = tagged
            self.shelf.hold(first + at, held)
        return None

    def miss(self, first: int, count: int, code: ErrorCode) -> None:
        """Take ids `first` and up for values that do not exist."""
        self.shelf.claim(first, count)
        self.shelf.miss(first, count, Missing(code, self.place))

    # --- operations ---

    def admit(self, words: bytes) -> list[Command]:
        """Return what to carry out for `words`, in order; raise `WireError` for words that cannot be read."""
        commands: list[Command] = []
        self._labels.clear()
        for command in read(words, self.definitions, self.place):  # all of them can be read, or none is done
            if isinstance(command, Drop):
                if self.shelf.free(command.id):
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
                self.shelf.claim(run.first, defined.results)
            missing = self._missing_in(run) or Missing(defined.code, run.place, defined.name)
            return self._fail(run, defined.results, defined.writes, missing)
        if defined.results:
            self.shelf.claim(run.first, len(defined.results))
        found = self._found(defined, run)
        if isinstance(found, Missing):
            return self._fail(run, len(defined.results), defined.writes, found)
        derived = joined(found)
        label = PUBLIC if defined.from_shapes and not defined.writes else derived
        code = self._refusal(defined, label)
        if code is not None:
            missing = Missing(code, run.place, defined.name)
            return self._fail(run, len(defined.results), defined.writes, missing)
        self._labels[run.place] = derived
        origin = None if label is PUBLIC else made(defined.source, tuple(map(seen, found)), run.numbers)
        if defined.writes:
            target = found[0]
            target.storage.label = label
            target.storage.writes += 1
            target.storage.written = target.since = target.origin = origin
        else:
            self._give(defined, run, found, label, origin)
        return True

    def _missing_in(self, run: Run) -> Missing | None:
        """Return why the first operand that is missing is, or None: what failed first is what its peer hears of."""
        for number in run.operands:
            held = self.shelf.get(number)
            missing = held.storage.missing if isinstance(held, Held) else held
            if missing is not None:
                return missing
        return None

    def _found(self, defined: Defined, run: Run) -> list[Held] | Missing:
        """Return the operands of an operation, or why one of them is missing."""
        found: list[Held] = []
        get = self.shelf.get
        for number, layout in zip(run.operands, defined.operands, strict=True):
            held = get(number)
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
                self.shelf.miss(run.first + at, 1, Missing(ErrorCode.BAD_REQUEST, run.place, defined.name))
            else:
                own = storage or Storage(label, result.memory)
                from_ = None if origin is None else part(origin, at, of)
                self.shelf.hold(run.first + at, Held(result, own, from_))

    def _fail(self, run: Run, results: int, writes: bool, missing: Missing) -> bool:  # noqa: FBT001  of a definition
        """Note that an operation did not happen: its results, or what its target's memory shows, are missing."""
        self.shelf.miss(run.first, results, missing)
        target = self.shelf.get(run.operands[0]) if writes and run.operands else None
        if isinstance(target, Held):
            target.storage.missing = missing
        return False

    def _refusal(self, defined: Defined, label: Label) -> ErrorCode | None:
        """Return why an operation whose operands are there may not run, from sizes and labels alone."""
        code = self.allowance.excess(defined.workspace, len(defined.results))
        if code is not None:
            return code
        return ErrorCode.RELEASE_DENIED if label is not PUBLIC and self._is_barred(label) else None

    # --- what is there ---

    def find(self, number: int) -> Held | Missing:
        """Return what `number` stands for; a number that stands for nothing is missing too."""
        found = self.shelf.get(number) or Missing(ErrorCode.BAD_REQUEST, self.place)
        return found.storage.missing or found if isinstance(found, Held) else found

    def failed(self, run: Run) -> tuple[Layout | None, ...] | None:
        """Note that an admitted operation failed as it ran; return the layouts of what has to stand in for its results.

        On the caller's own values a failure is told, and nothing stands in (None). On somebody's rows nobody hears of
        it, in no way: what would have come of it is there, and private, and so is what is made from it.
        """
        defined = self.definitions[run.definition]
        assert isinstance(defined, Defined)
        if not self._labels[run.place].is_public:
            return defined.results
        self._undo(run, Missing(ErrorCode.STEP_FAILED, run.place, defined.name))
        return None

    def still_stands(self, command: Command) -> bool:
        """Return whether an admitted command may run after one before it failed."""
        if isinstance(command, Drop):
            return True
        missing = self._missing_in(command)
        if missing is not None:
            self._undo(command, missing)
        return missing is None

    def _undo(self, run: Run, missing: Missing) -> None:
        """Take back what was held for the results of an admitted operation."""
        defined = self.definitions[run.definition]
        assert isinstance(defined, Defined)
        self._fail(run, len(defined.results), defined.writes, missing)

    def _is_barred(self, label: Label) -> bool:
        return any(origin.dataset in self.barred for origin in label.origins)
