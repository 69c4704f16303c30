"""What a link carries: an `Envelope`, and at a worker only a `Sealed` one.

`Sealed` has no public way to be made. The door (`fedpriv_worker/release.py`) makes it after the ledger entry
is durable; a test walks the syntax trees of every package and finds no other place that does.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Envelope:
    """One logical message in its wire form: a header, and the raw bytes that follow it.

    A worker's envelope also carries the number of its ledger entry and that entry's digest key, so that whoever
    receives it can recompute the digest; -1 and empty on what a coordinator or researcher sends.
    """

    header: bytes = field(repr=False)
    payload: tuple[memoryview, ...] = field(default=(), repr=False)
    entry: int = -1
    entry_key: bytes = field(default=b"", repr=False)

    @property
    def payload_bytes(self) -> int:
        """Length of the payload in bytes."""
        return sum(part.nbytes for part in self.payload)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope that passed the door: its ledger entry is durable and describes exactly these bytes."""

    envelope: Envelope
