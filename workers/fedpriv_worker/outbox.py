"""Releases that were sealed and not yet acknowledged, so that a retry gets identical bytes.

In memory they last as long as the process and are the very buffers that were sent. Those that were charged with
something and fit are kept durably too, by the journal. A recipient has one round of a job under way at a time: what it
asks for in another round replaces the round before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from fedpriv.ids import JobId, PeerName

DURABLE_BYTES = 1 << 20
"""The largest header and payload together that are kept on the disk."""
MAXIMUM_KEPT = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """One release: the entry that records it, and its bytes."""

    recipient: PeerName
    job: JobId
    round: int
    entry: int
    header: bytes = field(repr=False)
    payload: tuple[memoryview, ...] = field(repr=False)


class Outbox:
    """Sealed releases by the digest of the order that asked for them; safe to use from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, release: bytes, kept: Kept) -> None:
        """Keep a release; drop the recipient's other rounds of the job, and the oldest of too many."""
        with self._lock:
            for other in [key for key, each in self._kept.items() if _replaced(each, kept)]:
                del self._kept[other]
            self._kept[release] = kept
            while len(self._kept) > MAXIMUM_KEPT:
                self._kept.popitem(last=False)

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


def _replaced(old: Kept, new: Kept) -> bool:
    return (old.recipient, old.job) == (new.recipient, new.job) and old.round != new.round
