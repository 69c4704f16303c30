"""A worker's durable memory: the ledger of what left, what releases used up, what peers asked for, and its keys.

When `append` returns, the entry survives a power cut, together with the settlement of what its release had reserved;
threads that append at once share one commit. The journal is authoritative: the ledger folder that others read is made
from it when a checkpoint is published, on close and before anything else on start. Payloads are kept only until they
are acknowledged, and only small ones that were charged with something. Time here never runs backwards. It decides
nothing about what may leave.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fedpriv.clock import Clock, SteadyClock
from fedpriv.entropy import Entropy
from fedpriv.errors import StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import DatasetName, JobId, PeerName, WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, origin_of, parse_signing_key
from fedpriv.ledger.entries import Draft, Entry, decode_entry
from fedpriv.policy.decision import Standing
from fedpriv.privacy.reservations import Reservation
from fedpriv.storage.database import Database
from fedpriv.storage.files import FolderLock, make_folder, read_bounded, sync_folders, write_atomically
from fedpriv.storage.holds import SCHEMA as HOLDS
from fedpriv.storage.holds import Holds
from fedpriv.storage.publication import Publication
from fedpriv.storage.requests import SCHEMA as REQUESTS
from fedpriv.storage.requests import Requests
from fedpriv.storage.rows import SCHEMA as ROWS
from fedpriv.storage.rows import Rows
from fedpriv.storage.tiles import TileFolder
from fedpriv_worker.outbox import Outbox
from fedpriv_worker.recording import Receipt, Recording, Settlement
from fedpriv_worker.steps import Reached, Step, unwatched

log = logging.getLogger("fedpriv.worker")

SECRET_BYTES = 32
MAXIMUM_KEY_BYTES = 1024
CLOCK_SECONDS = 5.0
"""How far the clock may be behind the last entry before the owner is told."""
DATABASE = "journal.sqlite"
LEDGER = "ledger"
SIGNING_KEY = "ledger-signing-key"
OWNER_SECRET = "owner-secret"  # noqa: S105  # a file's name
SCHEMA = ";".join((ROWS, HOLDS, REQUESTS))
_ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class _Keys:
    signing: SigningKey = field(repr=False)
    secret: bytes = field(repr=False)


class Journal:
    """One worker's ledger and memory; safe to use from any thread, held by one process at a time."""

    def __init__(
        self,
        *,
        worker: WorkerName,
        clock: Clock,
        database: Database,
        keys: _Keys,
        folder: TileFolder | None,
        lock: FolderLock | None,
        reached: Reached,
    ) -> None:
        self.holds = Holds(database)
        self.requests = Requests(database)
        self.outbox = Outbox()
        self._clock = SteadyClock(clock)
        self._database = database
        self.rows = Rows(database)
        self._keys = keys
        self.publication = Publication(self.rows, keys.signing, folder)
        self._lock = lock
        self._reached = reached
        self._recording = Recording(
            database, self.rows, self.holds,
            worker=worker, secret=keys.secret, now=self._clock.milliseconds, reached=reached,
        )  # fmt: skip  # parts first
        self._refusal: str | None = None

    @classmethod
    def open(
        cls, state: Path, *, worker: WorkerName, clock: Clock, entropy: Entropy, reached: Reached = unwatched
    ) -> Self:
        """Open or create the state folder and bring its ledger up to date.

        Raises `StateInUse`, `StorageFailed`, `UsageError` for another worker's folder, and `VerificationFailed` where
        journal and published ledger contradict each other, or a witness knows that the folder was rolled back.
        """
        make_folder(state, mode=0o700)
        lock = FolderLock(state)
        database: Database | None = None
        try:
            keys = _load_keys(state, worker, entropy)
            database = Database.open(state / DATABASE, schema=SCHEMA)
            journal = cls(
                worker=worker, clock=clock, database=database, keys=keys, folder=TileFolder(state / LEDGER), lock=lock,
                reached=reached,
            )  # fmt: skip  # one line of parts
            journal._recover()
        except BaseException:
            if database is not None:
                database.close()
            lock.release()
            raise
        return journal

    @classmethod
    def in_memory(cls, *, worker: WorkerName, clock: Clock, entropy: Entropy, reached: Reached = unwatched) -> Self:
        """Return a journal that lasts as long as the process; the same entries, exported on demand."""
        signing = SigningKey(origin_of(worker), entropy.random_bytes(SECRET_BYTES))
        keys = _Keys(signing, entropy.random_bytes(SECRET_BYTES))
        database = Database.in_memory(schema=SCHEMA)
        return cls(worker=worker, clock=clock, database=database, keys=keys, folder=None, lock=None, reached=reached)

    @property
    def durable(self) -> bool:
        """Whether entries outlive this process, so that recording one waits for a disk."""
        return self._lock is not None

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC, never less than what was returned or recorded before."""
        return self._clock.milliseconds() / 1000

    def standing(self, dataset: DatasetName | None = None, *, without: int | None = None) -> Standing:
        """Return what the rules of `dataset`, or of all, are judged by now: the time, approvals, and what was used up.

        `without` is the number of a reservation to leave out: the one whose own release is being judged.
        """
        now = self.now()
        used = self.holds.used(now, dataset, without=without)
        return Standing(now, self.requests.grants(now), used, self.requests.refused(), self._clock.behind())

    def reserve(self, reservation: Reservation) -> int:
        """Charge a release durably, before it is computed, and return its number; raise `ReleaseDenied` if it cannot.

        Raises `StorageFailed` when the disk refuses: then nothing may be computed.
        """
        self._reached(Step.RESERVE)
        _check_open(self._refusal)
        number = self.holds.reserve(reservation, self._clock.milliseconds())
        self._reached(Step.RESERVED)
        return number

    def append(
        self, draft: Draft, header: bytes, payload: Sequence[memoryview], *, settles: Settlement | None = None
    ) -> Receipt:
        """Record a message, and settle what it had reserved; when this returns, it may leave.

        Raises `StorageFailed` when the disk refuses and `UsageError` for a draft that no entry can hold: either way
        the message must not be sent, and the journal can go on.
        """
        _check_open(self._refusal)
        return self._recording.append(draft, header, payload, settles)

    def acknowledge(self, recipient: PeerName, job: JobId, round_number: int) -> None:
        """Forget the bytes of a round that `recipient` has saved."""
        self._reached(Step.ACKNOWLEDGE)
        self.outbox.acknowledge(recipient, job, round_number)
        self.holds.acknowledge(recipient, job, round_number)
        self._reached(Step.ACKNOWLEDGED)

    def publish(self) -> Checkpoint:
        """Write the tiles of all entries so far and a signed checkpoint; do nothing when there is nothing new.

        Each call with new entries costs a signature and a few flushes, so the caller makes it once a round or on close.
        """
        self._reached(Step.SIGN)
        checkpoint = self.publication.publish()
        self._reached(Step.PUBLISHED)
        return checkpoint

    def refuse(self, why: str, *, for_good: bool = False) -> None:
        """Let nothing more leave; `for_good` also after a restart, where it is proved that this state has forgotten."""
        self._refusal = why
        if for_good:
            self.rows.remember(_ROLLED_BACK, why)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Yield entries `start` to `stop` - 1, by default every one recorded so far, in order."""
        for content in self.rows.read(start, self.rows.size if stop is None else stop):
            yield decode_entry(content)

    @property
    def vkey(self) -> str:
        """The line that auditors pass as `--key`."""
        return str(self._keys.signing.verifier)

    def close(self) -> None:
        """Publish what is not published yet, then let go of the state folder, also when publishing fails."""
        try:
            if self._lock is not None and self._refusal is None:
                self.publish()
        finally:
            self._database.close()
            if self._lock is not None:
                self._lock.release()

    def _recover(self) -> None:
        """Bring everything to what the journal says: ledger, reservations, time."""
        if why := self.rows.recall(_ROLLED_BACK):
            raise VerificationFailed(f"{why}; restore the state folder from its latest copy")
        self.publication.recover()
        self.holds.recover()
        size = self.rows.size
        times = [decode_entry(content).time for content in self.rows.read(max(0, size - 1), size)]
        self._clock.latest = max([*times, self.holds.latest])
        behind = self._clock.latest / 1000 - self._clock.clock.now()
        if behind > CLOCK_SECONDS:
            log.warning(
                "the clock is %.0f s behind the last entry; until it catches up, time stands still, and where that is "
                "more than an hour, nothing leaves that is counted by time",
                behind,
            )


def _check_open(refusal: str | None) -> None:
    if refusal is not None:
        raise StorageFailed(f"nothing leaves: {refusal}")


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
