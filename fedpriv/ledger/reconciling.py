"""Two ledgers of the same messages, compared: what a worker says it sent, what a coordinator says it received.

Every entry of the coordinator's ledger must be the worker's entry whose number it cites: the same kind, bytes, digest
and recipient; every entry that the worker recorded for this coordinator must have arrived, itself or sent again. It
holds what one coordinator received from one worker in memory and streams the worker's side. It verifies neither ledger,
and cannot tell a message that was lost from one whose receipt is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Entry

UNIDENTIFIED = "unidentified"
"""The recipient that a worker records before its peer has proved who it is."""

BEFORE_IDENTITY = frozenset({"hello", "hello-proof"})
"""The kinds that are sent, and recorded, before that."""


class Verdict(Enum):
    """What is wrong with a message."""

    UNRECORDED = "received, but not in the worker's ledger"
    UNRECEIVED = "in the worker's ledger, but not received"
    DIFFERENT = "recorded differently"
    REPEATED = "received more than once, but recorded once"


@dataclass(frozen=True, slots=True)
class Finding:
    """One message on which the ledgers do not agree; `fields` are those that differ.

    `sent` is None for `UNRECORDED`, `received` is None for `UNRECEIVED`.
    """

    verdict: Verdict
    sent: Entry | None
    received: Entry | None
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class Count:
    """How many messages were compared, how many agree, and how many were lost but arrived when sent again."""

    received: int = 0
    matched: int = 0
    again: int = 0


def by_sender(received: Iterable[Entry], workers: Iterable[WorkerName]) -> dict[str, list[Entry]]:
    """Return the entries of a coordinator's ledger that came from each of `workers`, in order."""
    found: dict[str, list[Entry]] = {worker: [] for worker in workers}
    for entry in received:
        if entry.draft.peer in found:
            found[entry.draft.peer].append(entry)
    return found


def reconcile(sent: Iterable[Entry], received: Iterable[Entry], coordinator: str, count: Count) -> Iterator[Finding]:
    """Yield what differs between a worker's whole ledger and what `coordinator` received from it; fill `count`.

    First what differs, in the worker's order, then what did not arrive, then what the worker did not record.
    """
    cited: dict[int, list[Entry]] = {}
    for entry in received:
        count.received += 1
        cited.setdefault(entry.draft.source, []).append(entry)
    missing: list[Entry] = []
    resent: set[int] = set()  # the first numbers of messages that arrived when they were sent again
    size = 0
    for entry in sent:
        size = entry.seq + 1
        if entry.seq in cited:
            resent.add(_first(entry))
            yield from _compared(entry, cited[entry.seq], coordinator, count)
        elif entry.draft.peer == coordinator:
            missing.append(entry)
    for entry in missing:
        if _first(entry) in resent:
            count.again += 1
        else:
            yield Finding(Verdict.UNRECEIVED, entry, None)
    for number in sorted(cited):
        if not 0 <= number < size:
            yield from (Finding(Verdict.UNRECORDED, None, entry) for entry in cited[number])


def _first(entry: Entry) -> int:
    """Return the number under which the bytes of `entry` were recorded first."""
    return entry.seq if entry.draft.source < 0 else entry.draft.source


def _compared(sent: Entry, received: list[Entry], coordinator: str, count: Count) -> Iterator[Finding]:
    fields = tuple(_differences(sent, received[0], coordinator))
    if fields:
        yield Finding(Verdict.DIFFERENT, sent, received[0], fields)
    else:
        count.matched += 1
    for repeated in received[1:]:
        yield Finding(Verdict.REPEATED, sent, repeated, tuple(_differences(sent, repeated, coordinator)))


def _differences(sent: Entry, received: Entry, coordinator: str) -> Iterator[str]:
    if sent.draft.kind != received.draft.kind:
        yield "kind"
    if sent.draft.bytes != received.draft.bytes:
        yield "bytes"
    if sent.digest != received.digest:
        yield "digest"
    early = sent.draft.peer == UNIDENTIFIED and sent.draft.kind in BEFORE_IDENTITY
    if sent.draft.peer != coordinator and not early:
        yield "recipient"
