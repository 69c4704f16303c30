"""Entries on their way to the disk: numbered, digested, and committed in groups with what they settle.

When `append` returns, the entry survives a power cut, and so does the settlement of its reservation: they are one
transaction. Threads that append at once share one commit. What is recorded, and why, is the door's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedpriv.errors import FedprivError, StorageFailed, UsageError
from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Draft, Entry, encode_entry, entry_key, message_digest
from fedpriv.storage.database import Database
from fedpriv.storage.grouping import GroupCommit
from fedpriv.storage.hashing import chunk_digests
from fedpriv.storage.holds import Holds
from fedpriv.storage.rows import Row, Rows
from fedpriv_worker.steps import Reached, Step


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof for the door that a message is on record: its number, its digest key, its entry."""

    seq: int
    key: bytes = field(repr=False)
    entry: Entry


@dataclass(frozen=True, slots=True)
class Settlement:
    """The reservation that an entry settles, and whether its message is small enough to be kept on the disk."""

    number: int
    keep: bool


@dataclass(frozen=True, slots=True)
class _Arrival:
    draft: Draft
    header: bytes = field(repr=False)
    payload: Sequence[memoryview] = field(repr=False)
    chunks: Sequence[bytes] = field(repr=False)
    payload_bytes: int
    settles: Settlement | None


class Recording:
    """The end at which a ledger grows; safe to use from any thread."""

    def __init__(
        self,
        database: Database,
        rows: Rows,
        holds: Holds,
        *,
        worker: WorkerName,
        secret: bytes,
        now: Callable[[], int],
        reached: Reached,
    ) -> None:
        self._database = database
        self._rows = rows
        self._holds = holds
        self._worker = worker
        self._secret = secret
        self._now = now
        self._reached = reached
        self._group: GroupCommit[_Arrival, Receipt] = GroupCommit(self._commit)

    def append(self, draft: Draft, header: bytes, payload: Sequence[memoryview], settles: Settlement | None) -> Receipt:
        """Record a message and settle what it reserved; raise `StorageFailed` or `UsageError`, recording nothing."""
        payload_bytes = sum(part.nbytes for part in payload)
        chunks = chunk_digests(payload) if payload_bytes else ()
        return self._group.submit(_Arrival(draft, header, payload, chunks, payload_bytes, settles))

    def _commit(self, group: Sequence[_Arrival]) -> list[Receipt | FedprivError]:
        try:
            first = self._rows.size
        except StorageFailed as error:
            return [StorageFailed(str(error)) for _ in group]
        time = self._now()
        outcomes: list[Receipt | FedprivError] = []
        drafted: list[Row] = []
        settled: list[tuple[_Arrival, int]] = []
        for arrival in group:
            try:
                receipt = _receipt(arrival, self._worker, first + len(drafted), time, self._secret)
                content = encode_entry(receipt.entry)
            except UsageError as error:  # one bad draft does not fail its neighbours
                outcomes.append(error)
                continue
            drafted.append(Row(receipt.seq, arrival.draft.kind, arrival.draft.bytes, content))
            outcomes.append(receipt)
            if arrival.settles is not None:
                settled.append((arrival, receipt.seq))
        try:
            self._store(drafted, settled)
        except StorageFailed as error:
            return [outcome if isinstance(outcome, FedprivError) else StorageFailed(str(error)) for outcome in outcomes]
        return outcomes

    def _store(self, drafted: list[Row], settled: list[tuple[_Arrival, int]]) -> None:
        """Append the entries and settle their reservations in one durable transaction."""
        if not settled:  # the common case: one statement is its own transaction
            if drafted:
                self._rows.append(drafted)
            return
        with self._database.writing("append to the journal"):
            self._reached(Step.APPEND)
            self._rows.append(drafted)
            for arrival, seq in settled:
                assert arrival.settles is not None
                self._holds.commit(arrival.settles.number, seq)
                if arrival.settles.keep:
                    self._holds.keep(arrival.settles.number, arrival.header, b"".join(arrival.payload))
            self._reached(Step.COMMIT)
        self._reached(Step.COMMITTED)


def _receipt(arrival: _Arrival, worker: WorkerName, seq: int, time: int, secret: bytes) -> Receipt:
    key = entry_key(secret, seq)
    digest = message_digest(key, arrival.header, arrival.chunks, arrival.payload_bytes)
    return Receipt(seq, key, Entry(arrival.draft, worker, seq, time, digest.hex()))
