"""The values of one session by their ids, and the memory that they show.

Ids rise and are taken once, so that nobody replaces a value; memory is counted once however many values show it. Which
values may be there, and what they derive from, is decided by the table that fills the shelf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fedpriv.errors import WireError
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Layout
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import HeldObject
from fedpriv_worker.lineage import Origin, Source


class Storage:
    """Memory that one or more values show; its label covers everything that was ever written into it."""

    __slots__ = ("label", "missing", "nbytes", "shown", "writes", "written")

    def __init__(self, label: Label, nbytes: int) -> None:
        self.label = label
        self.nbytes = nbytes
        self.shown = 0
        self.writes = 0
        """Writes into it so far."""
        self.written: Origin | None = None
        """How the last write into it came about."""
        self.missing: Missing | None = None
        """A write that failed: what the memory holds is not what its peer takes it for."""


class Held:
    """One value: how it lies in which memory, and how it came about."""

    __slots__ = ("layout", "origin", "overlaid", "own", "since", "storage", "tagged")

    def __init__(self, layout: Layout, storage: Storage, origin: Origin | None) -> None:
        self.layout = layout
        self.storage = storage
        self.origin = origin
        self.since = storage.written
        """The last write that `origin` knows of."""
        self.own: tuple[int, Source] | None = None
        """What stands for it in a lineage where it is the caller's own, as of so many writes."""
        self.overlaid: tuple[Origin, Origin] | None = None
        """What stands for it in a lineage as of a write through another view, and that write."""
        self.tagged: tuple[tuple[str, ...], str] = ((), "")


@dataclass(frozen=True, slots=True)
class Missing:
    """A result that does not exist: with which code, and the place and name of the operation that would have made it.

    `operation` is "" where the peer named none that is known.
    """

    code: ErrorCode
    place: int
    operation: str = ""


class Shelf:
    """Values that are there and values that are missing; of the missing as many are remembered as fit beside `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[int, Held | Missing] = {}
        self.get: Callable[[int], Held | Missing | None] = self._values.get
        """Returns what a number stands for, None where it stands for nothing; called for every operand."""
        self._last = 0
        self.live_bytes = 0
        """Bytes of all memory that a value shows."""

    def __len__(self) -> int:
        return len(self._values)

    def claim(self, first: int, count: int) -> None:
        """Take fresh ids; raise `WireError` for ids that were taken before."""
        if not self._last < first or first + count >= 1 << 63:
            raise WireError(f"id {first} was taken before; ids rise")
        self._last = first + count - 1

    def hold(self, number: int, held: Held) -> None:
        """Let `number` stand for a value."""
        storage = held.storage
        if not storage.shown:
            self.live_bytes += storage.nbytes
        storage.shown += 1
        self._values[number] = held

    def miss(self, first: int, count: int, missing: Missing) -> None:
        """Let ids `first` and up stand for values that do not exist, or for nothing where there is too much already."""
        for number in range(first, first + count):
            self.free(number)
            if len(self._values) < 2 * self._most:
                self._values[number] = missing

    def free(self, number: int) -> bool:
        """Forget a value; return whether it was there."""
        held = self._values.pop(number, None)
        if not isinstance(held, Held):
            return False
        held.storage.shown -= 1
        if not held.storage.shown:
            self.live_bytes -= held.storage.nbytes
        return True

    def objects(self) -> Iterator[HeldObject]:
        """Yield every value that is there, in the order of ids."""
        for number, each in self._values.items():
            if isinstance(each, Held):
                yield HeldObject(number, each.layout, *each.tagged)


def joined(found: Sequence[Held]) -> Label:
    """Return the label of what is computed from `found`."""
    label = PUBLIC
    for each in found:
        other = each.storage.label
        if other is not label and not other.origins <= label.origins:
            label = other if label is PUBLIC else label.join(other)
    return label
