"""A worker's durable memory: the ledger of what left, its keys, and values to remember.

When `append` returns, the entry survives a power cut; threads that append at once share one commit. The journal is
authoritative: the ledger folder that others read is made from it when a checkpoint is published, on close and before
anything else on start. Digests of payloads are kept, payloads never. It decides nothing about what may leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fedpriv.clock import Clock
from fedpriv.entropy import Entropy
from fedpriv.errors import FedprivError, StorageFailed, UsageError
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import (
    Checkpoint,
    SigningKey,
    origin_of,
    parse_signing_key,
)
from fedpriv.ledger.entries import Draft, Entry, decode_entry, encode_entry, entry_key, message_digest
from fedpriv.storage.database import Database
from fedpriv.storage.files import FolderLock, make_folder, read_bounded, sync_folders, write_atomically
from fedpriv.storage.grouping import GroupCommit
from fedpriv.storage.hashing import chunk_digests
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import SCHEMA, Row, Rows, Total
from fedpriv.storage.tiles import TileFolder

SECRET_BYTES = 32
MAXIMUM_KEY_BYTES = 1024
DATABASE = "journal.sqlite"
LEDGER = "ledger"
SIGNING_KEY = "ledger-signing-key"
OWNER_SECRET = "owner-secret"  # noqa: S105  # a file's name


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof for the door that a message is on record: its number, its digest key, its entry."""

    seq: int
    key: bytes = field(repr=False)
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Keys:
    signing: SigningKey = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Arrival:
    draft: Draft
    header: bytes = field(repr=False)
    chunks: Sequence[bytes] = field(repr=False)
    payload_bytes: int


class Journal:
    """One worker's ledger and memory; safe to use from any thread, held by one process at a time."""

    def __init__(
        self,
        *,
        worker: WorkerName,
        clock: Clock,
        rows: Rows,
        keys: _Keys,
        publication: Publication,
        lock: FolderLock | None,
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._rows = rows
        self._keys = keys
        self._publication = publication
        self._lock = lock
        self._group: GroupCommit[_Arrival, Receipt] = GroupCommit(self._commit)

    @classmethod
    def open(cls, state: Path, *, worker: WorkerName, clock: Clock, entropy: Entropy) -> Self:
        """Open or create the state folder and bring its ledger up to date.

        Raises `StateInUse`, `StorageFailed`, `UsageError` for another worker's folder, and `VerificationFailed` where
        journal and published ledger contradict each other.
        """
        make_folder(state, mode=0o700)
        lock = FolderLock(state)
        rows: Rows | None = None
        try:
            keys = _load_keys(state, worker, entropy)
            rows = Rows(Database.open(state / DATABASE, schema=SCHEMA))
            publication = Publication(rows, keys.signing, TileFolder(state / LEDGER))
            publication.recover()
        except BaseException:
            if rows is not None:
                rows.close()
            lock.release()
            raise
        return cls(worker=worker, clock=clock, rows=rows, keys=keys, publication=publication, lock=lock)

    @classmethod
    def in_memory(cls, *, worker: WorkerName, clock: Clock, entropy: Entropy) -> Self:
        """Return a journal that lasts as long as the process; the same entries, exported on demand."""
        signing = SigningKey(origin_of(worker), entropy.random_bytes(SECRET_BYTES))
        keys = _Keys(signing, entropy.random_bytes(SECRET_BYTES))
        rows = Rows(Database.in_memory(schema=SCHEMA))
        publication = Publication(rows, signing, None)
        return cls(worker=worker, clock=clock, rows=rows, keys=keys, publication=publication, lock=None)

    @property
    def durable(self) -> bool:
        """Whether entries outlive this process, so that recording one waits for a disk."""
        return self._lock is not None

    def append(self, draft: Draft, header: bytes, payload: Sequence[memoryview]) -> Receipt:
        """Record a message; when this returns, its entry is durable and the message may leave.

        Raises `StorageFailed` when the disk refuses and `UsageError` for a draft that no entry can hold: either way
        the message must not be sent, and the journal can go on.
        """
        payload_bytes = sum(part.nbytes for part in payload)
        return self._group.submit(
            _Arrival(draft, header, chunk_digests(payload) if payload_bytes else (), payload_bytes)
        )

    def publish(self) -> Checkpoint:
        """Write the tiles of all entries so far and a signed checkpoint; do nothing when there is nothing new.

        Each call with new entries costs a signature and a few flushes, so the caller makes it once a round or on close.
        """
        return self._publication.publish()

    def entries(self) -> Iterator[Entry]:
        """Yield every entry recorded so far, in order."""
        for content in self._rows.read(0, self._rows.size):
            yield decode_entry(content)

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._rows.size

    @property
    def totals(self) -> dict[str, Total]:
        """Messages and bytes that left, by kind."""
        return self._rows.totals()

    @property
    def vkey(self) -> str:
        """The line that auditors pass as `--key`."""
        return str(self._keys.signing.verifier)

    def remember(self, key: str, value: str) -> None:
        """Store a value durably, replacing what the key had."""
        self._rows.remember(key, value)

    def recall(self, key: str) -> str | None:
        """Return the value last stored under `key`, or None."""
        return self._rows.recall(key)

    def export(self, folder: Path) -> None:
        """Write the whole ledger to `folder`, new or holding an earlier export of the same ledger."""
        self._publication.export(folder)

    def close(self) -> None:
        """Publish what is not published yet, then let go of the state folder, also when publishing fails."""
        try:
            if self._lock is not None:
                self.publish()
        finally:
            self._rows.close()
            if self._lock is not None:
                self._lock.release()

    def _commit(self, group: Sequence[_Arrival]) -> list[Receipt | FedprivError]:
        try:
            first = self._rows.size
        except StorageFailed as error:
            return [StorageFailed(str(error)) for _ in group]
        time = int(self._clock.now() * 1000)
        outcomes: list[Receipt | FedprivError] = []
        rows: list[Row] = []
        for arrival in group:
            try:
                receipt = _receipt(arrival, self._worker, first + len(rows), time, self._keys.secret)
                rows.append(Row(receipt.seq, arrival.draft.kind, arrival.draft.bytes, encode_entry(receipt.entry)))
                outcomes.append(receipt)
            except UsageError as error:  # one bad draft does not fail its neighbours
                outcomes.append(error)
        try:
            if rows:
                self._rows.append(rows)
        except StorageFailed as error:
            return [outcome if isinstance(outcome, FedprivError) else StorageFailed(str(error)) for outcome in outcomes]
        return outcomes


def _receipt(arrival: _Arrival, worker: WorkerName, seq: int, time: int, secret: bytes) -> Receipt:
    key = entry_key(secret, seq)
    digest = message_digest(key, arrival.header, arrival.chunks, arrival.payload_bytes)
    return Receipt(seq, key, Entry(arrival.draft, worker, seq, time, digest.hex()))


def _load_keys(state: Path, worker: WorkerName, entropy: Entropy) -> _Keys:
    """Return the folder's keys; make those that are missing only before there is a journal that needs them."""
    secret = read_bounded(state / OWNER_SECRET, SECRET_BYTES)
    text = read_bounded(state / SIGNING_KEY, MAXIMUM_KEY_BYTES)
    if not (state / DATABASE).exists():
        if secret is None:
            secret = entropy.random_bytes(SECRET_BYTES)
            write_atomically(state / OWNER_SECRET, secret, mode=0o600)
        if text is None:
            text = f"{SigningKey(origin_of(worker), entropy.random_bytes(SECRET_BYTES)).to_text()}\n".encode()
            write_atomically(state / SIGNING_KEY, text, mode=0o600)
        sync_folders([state])
    if text is None or secret is None or len(secret) != SECRET_BYTES:
        unusable = SIGNING_KEY if text is None else OWNER_SECRET
        raise StorageFailed(f"{state} has no usable {unusable}; restore it, or start with a new state folder")
    signing = parse_signing_key(text.decode("ascii", "replace").removesuffix("\n"))
    if signing.name != origin_of(worker):
        raise UsageError(
            f"{state} belongs to {signing.name!r}, not to {worker!r}; give each worker its own state folder"
        )
    return _Keys(signing, secret)
