"""A worker's durable memory: the ledger of what left, its keys, and values to remember.

When `append` returns, the entry survives a power cut; threads that append at once share one commit. The journal is
authoritative: the ledger folder that others read is made from it when a checkpoint is published, on close and before
anything else on start. Digests of payloads are kept, payloads never. It decides nothing about what may leave.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fedpriv.clock import Clock
from fedpriv.entropy import Entropy
from fedpriv.errors import FedprivError, StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import (
    Checkpoint,
    SigningKey,
    open_checkpoint,
    origin_of,
    parse_signing_key,
    sign_checkpoint,
)
from fedpriv.ledger.entries import Draft, Entry, decode_entry, encode_entry, entry_key, message_digest
from fedpriv.ledger.log import TILE_WIDTH, Log
from fedpriv.storage.files import FolderLock, make_folder, read_bounded, sync_folders, write_atomically
from fedpriv.storage.grouping import GroupCommit
from fedpriv.storage.hashing import chunk_digests
from fedpriv.storage.rows import MemoryRows, Row, Rows, SqliteRows, Total
from fedpriv.storage.tiles import TileFolder

SECRET_BYTES = 32
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
        folder: TileFolder | None,
        lock: FolderLock | None,
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._rows = rows
        self._keys = keys
        self._folder = folder
        self._lock = lock
        self._log = Log()
        self._published: Checkpoint | None = None
        self._publishing = threading.Lock()
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
            rows = SqliteRows.open(state / DATABASE)
            journal = cls(
                worker=worker, clock=clock, rows=rows, keys=keys, folder=TileFolder(state / LEDGER), lock=lock
            )
            journal._recover()
        except BaseException:
            if rows is not None:
                rows.close()
            lock.release()
            raise
        return journal

    @classmethod
    def in_memory(cls, *, worker: WorkerName, clock: Clock, entropy: Entropy) -> Self:
        """Return a journal that lasts as long as the process; the same entries, exported on demand."""
        keys = _Keys(
            SigningKey(origin_of(worker), entropy.random_bytes(SECRET_BYTES)), entropy.random_bytes(SECRET_BYTES)
        )
        return cls(worker=worker, clock=clock, rows=MemoryRows(), keys=keys, folder=None, lock=None)

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
        with self._publishing:
            size = self._rows.size
            if self._published is None or self._published.size != size:
                self._published = self._extend(size)
            return self._published

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
        target = TileFolder(folder, durable=False)
        present = target.vkey()
        if present not in (None, f"{self.vkey}\n".encode()) or (present is None and target.checkpoint() is not None):
            raise UsageError(f"{folder} holds another ledger; export to an empty folder")
        log, size = Log(), self._rows.size
        target.create(self.vkey)
        target.extend(log, self._rows.read(0, size), [])
        target.publish(sign_checkpoint(self._checkpoint(log), self._keys.signing))

    def close(self) -> None:
        """Publish what is not published yet, then let go of the state folder, also when publishing fails."""
        try:
            if self._folder is not None:
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
        outcomes: list[Receipt | FedprivError] = []
        rows: list[Row] = []
        for arrival in group:
            try:
                receipt = self._receipt(arrival, first + len(rows))
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

    def _receipt(self, arrival: _Arrival, seq: int) -> Receipt:
        key = entry_key(self._keys.secret, seq)
        digest = message_digest(key, arrival.header, arrival.chunks, arrival.payload_bytes)
        return Receipt(seq, key, Entry(arrival.draft, self._worker, seq, int(self._clock.now() * 1000), digest.hex()))

    def _checkpoint(self, log: Log) -> Checkpoint:
        return Checkpoint(origin_of(self._worker), log.size, log.root())

    def _extend(self, size: int) -> Checkpoint:
        log = self._log.copy()  # kept only if everything is written, so that a full disk can be retried
        if self._folder is None:
            for content in self._rows.read(log.size, size):
                log.append(content)
            self._log = log
            return self._checkpoint(log)
        begun = list(self._rows.read(log.size // TILE_WIDTH * TILE_WIDTH, log.size))
        self._folder.extend(log, self._rows.read(log.size, size), begun)
        checkpoint = self._checkpoint(log)
        note = sign_checkpoint(checkpoint, self._keys.signing)
        self._folder.publish(note)
        self._rows.set_published(note)
        self._folder.drop_partials(self._log.size, log.size)
        self._log = log
        return checkpoint

    def _recover(self) -> None:
        assert self._folder is not None
        recorded = self._opened(self._rows.published())
        shown = self._opened(self._folder.checkpoint())
        if recorded and shown and shown.size < recorded.size:
            raise VerificationFailed(
                f"the ledger folder shows {shown.size} entries, but {recorded.size} were published: rolled back; "
                "move the folder aside and the journal makes it again"
            )
        latest = shown or recorded
        if latest and latest.size > self._rows.size:
            raise VerificationFailed(
                f"the journal has {self._rows.size} entries, but {latest.size} were published: it was rolled back; "
                "restore the state folder from its latest copy"
            )
        self._folder.create(self.vkey)
        if shown:
            self._log = Log.resume(shown.size, self._folder.read)
        elif recorded:
            self._log = self._rebuilt(recorded.size)
        if latest and self._checkpoint(self._log) != latest:
            raise VerificationFailed(
                f"the first {latest.size} entries no longer have the published root {latest.root.hex()}"
            )
        self._published = shown if shown == recorded else None
        self.publish()

    def _rebuilt(self, size: int) -> Log:
        assert self._folder is not None
        log = Log()
        self._folder.extend(log, self._rows.read(0, size), [])
        return log

    def _opened(self, note: bytes | None) -> Checkpoint | None:
        return None if note is None else open_checkpoint(note, self._keys.signing.verifier)


def _load_keys(state: Path, worker: WorkerName, entropy: Entropy) -> _Keys:
    text = read_bounded(state / SIGNING_KEY, 1024)
    secret = read_bounded(state / OWNER_SECRET, SECRET_BYTES)
    if text is None and secret is None and not (state / DATABASE).exists():
        keys = _Keys(
            SigningKey(origin_of(worker), entropy.random_bytes(SECRET_BYTES)), entropy.random_bytes(SECRET_BYTES)
        )
        write_atomically(state / OWNER_SECRET, keys.secret, mode=0o600)
        write_atomically(state / SIGNING_KEY, f"{keys.signing.to_text()}\n".encode(), mode=0o600)
        sync_folders([state])
        return keys
    if text is None or secret is None or len(secret) != SECRET_BYTES:
        missing = SIGNING_KEY if text is None else OWNER_SECRET
        raise StorageFailed(
            f"{state} has a journal but no usable {missing}; restore it, or start with a new state folder"
        )
    signing = parse_signing_key(text.decode("ascii", "replace").removesuffix("\n"))
    if signing.name != origin_of(worker):
        raise UsageError(
            f"{state} belongs to {signing.name!r}, not to worker {worker!r}; give each worker its own state folder"
        )
    return _Keys(signing, secret)
