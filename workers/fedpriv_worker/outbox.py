"""Releases that were sealed and not yet acknowledged, so that a retry gets identical bytes.

In memory they last as long as the process and are the very buffers that were sent. Those that were charged with
something and fit are kept durably too, by the journal. A recipient has one round of a job under way at a time: what it
asks for in another round replaces the round before. However much one recipient asks for, it holds its own share of
memory and pushes out what is its own; of others nothing that was charged, which the owner's limits bound.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedpriv.ids import JobId, PeerName

DURABLE_BYTES = 1 << 20
"""The largest header and payload together that are kept on the disk."""
MAXIMUM_KEPT = 64
"""The releases that are kept of all recipients, those that were charged aside."""
MAXIMUM_OWN = 16
"""The releases that are kept of one recipient."""
MAXIMUM_OWN_BYTES = 256 << 20
"""What the releases of one recipient may take together, the newest alone aside: it may be of any size."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One release: the entry that records it, its bytes, and whether it was charged with something."""

    recipient: PeerName
    job: JobId
    round: int
    entry: int
    header: bytes = field(repr=False)
    payload: tuple[memoryview, ...] = field(repr=False)
    charged: bool = True

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return len(self.header) + sum(part.nbytes for part in self.payload)


class Outbox:
    """Sealed releases by the digest of the order that asked for them; safe to use from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, release: bytes, kept: Kept) -> None:
        """Keep a release; drop the recipient's other rounds of the job, and the oldest of too many, its own first."""
        with self._lock:
            for other in [key for key, each in self._kept.items() if _replaced(each, kept)]:
                del self._kept[other]
            self._kept.pop(release, None)
            self._kept[release] = kept
            own = [key for key, each in self._kept.items() if each.recipient == kept.recipient]
            while len(own) > 1 and (len(own) > MAXIMUM_OWN or self._bytes(own) > MAXIMUM_OWN_BYTES):
                del self._kept[own.pop(0)]
            free = [key for key, each in self._kept.items() if not each.charged]
            for oldest in free[: max(0, len(free) - MAXIMUM_KEPT)]:
                del self._kept[oldest]

    def find(self, release: bytes) -> Kept | None:
        """Return what is kept of `release`, or None."""
        with self._lock:
            return self._kept.get(release)

    def acknowledge(self, recipient: PeerName, job: JobId, round_number: int) -> None:
        """Forget what `recipient` has saved."""
        with self._lock:
            for key, each in list(self._kept.items()):
                if (each.recipient, each.job, each.round) == (recipient, job, round_number):
                    del self._kept[key]

    def _bytes(self, releases: Sequence[bytes]) -> int:
        return sum(self._kept[each].nbytes for each in releases)


def _replaced(old: Kept, new: Kept) -> bool:
    return (old.recipient, old.job) == (new.recipient, new.job) and old.round != new.round
