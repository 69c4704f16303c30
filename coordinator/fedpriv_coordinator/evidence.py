"""What a coordinator can show afterwards: the ledger of what it received, and the checkpoints that it cosigned.

With a state folder both outlive the process, and one process at a time holds it; without one they last as long as the
process and can be saved. The keys are made with the folder and stay with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from fedpriv.clock import Clock
from fedpriv.entropy import Entropy, SystemEntropy
from fedpriv.errors import StateInUse, StorageFailed, UsageError
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import SigningKey, ingress_origin_of, parse_signing_key, witness_name_of
from fedpriv.remote.connection import Connection
from fedpriv.remote.recording import Recorder
from fedpriv.sealed import Envelope
from fedpriv.storage import rows
from fedpriv.storage.database import Database
from fedpriv.storage.files import FolderLock, make_folder, read_bounded, sync_folders, write_atomically
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import Rows
from fedpriv.storage.tiles import TileFolder
from fedpriv_coordinator.ingress import Ingress
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.witness import LedgerRefused, Witness

DATABASE, LEDGER, INGRESS = "journal.sqlite", "ledger", "ingress"
INGRESS_KEY, WITNESS_KEY = "ingress-signing-key", "witness-signing-key"
_SEED_BYTES, _MAXIMUM_KEY_BYTES = 32, 1024


OnMessage: TypeAlias = Callable[[str, str], None]
"""Is told who sent what kind of message, on the network's thread before anything is done with it; must not wait."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A recorder, and somebody who watches what it records."""

    recorder: Recorder
    tell: OnMessage

    def record(self, peer: str, kind: str, envelope: Envelope) -> None:
        """Record `envelope`, then tell of it."""
        self.recorder.record(peer, kind, envelope)
        self.tell(peer, kind)


class Evidence:
    """The ingress ledger and the witness of one coordinator, over one database."""

    def __init__(
        self,
        name: str,
        database: Database,
        keys: tuple[SigningKey, SigningKey],
        state: Path | None,
        lock: FolderLock | None,
        *,
        clock: Clock,
        note: Callable[[str], None],
    ) -> None:
        own, witness = keys
        folder = None if state is None else TileFolder(state / LEDGER)
        self.ingress = Ingress(Rows(database), own, folder, name=name, clock=clock)
        self.witness = Witness(Rows(database), witness, clock=clock, note=note)
        self._recorder: Recorder = self.ingress
        self._note = note
        self._key = own
        self._database = database
        self._state = state
        self._lock = lock

    @classmethod
    def open(cls, state: Path, name: str, *, clock: Clock, entropy: Entropy, note: Callable[[str], None]) -> Self:
        """Open or create the state folder of coordinator `name`; raise `StateInUse` if another process holds it.

        Raise `UsageError` for another coordinator's folder and `VerificationFailed` where it lost what it published.
        """
        make_folder(state, mode=0o700)
        try:
            lock = FolderLock(state)
        except StateInUse:
            raise StateInUse(
                f"{state} is held by another process, a coordinator that runs; stop it, or name another state folder"
            ) from None
        database: Database | None = None
        try:
            keys = _load_keys(state, name, entropy)
            database = Database.open(state / DATABASE, schema=rows.SCHEMA)
            evidence = cls(name, database, keys, state, lock, clock=clock, note=note)
            evidence.ingress.publication.recover()
        except BaseException:
            if database is not None:
                database.close()
            lock.release()
            raise
        return evidence

    @classmethod
    def in_memory(cls, name: str, *, clock: Clock, entropy: Entropy, note: Callable[[str], None]) -> Self:
        """Return evidence that lasts as long as the process."""
        database = Database.in_memory(schema=rows.SCHEMA)
        return cls(name, database, _new_keys(name, entropy), None, None, clock=clock, note=note)

    def tell_of_messages(self, tell: OnMessage) -> None:
        """Call `tell` for each message, once it is noted, of the workers that are met from now on."""
        self._recorder = _Watched(self.ingress, tell)

    async def meet(self, connection: Connection) -> None:
        """Record what a worker sends, and see its ledger before it takes part; raise `LedgerRefused`."""
        connection.record_with(self._recorder)
        await self.witness.visit(connection)

    async def look(self, members: Membership, *, last: bool = False) -> None:
        """Cosign the ledgers of `members` that grew; shut out whose ledger contradicts itself."""
        due = [each for each in members.connected.values() if self.witness.is_due(each, last=last)]
        await asyncio.gather(*(self._visit(each, members) for each in due))

    async def _visit(self, connection: Connection, members: Membership) -> None:
        try:
            await self.witness.visit(connection)
        except LedgerRefused as refusal:
            self._note(str(refusal))
            await members.shut_out(connection, str(refusal))

    def save(self, folder: Path) -> None:
        """Write the ingress ledger to `folder`/ingress, and what was cosigned beside it; also after `close`."""
        self.ingress.settle()
        if self._state is None:
            self._save(self._database, folder)
            return
        database = Database.open_for_reading(self._state / DATABASE)
        try:
            self._save(database, folder)
        finally:
            database.close()

    def close(self) -> None:
        """Record and publish what is left, and let go of the state folder, also when the disk refuses."""
        try:
            self.ingress.close()
        finally:
            if self._lock is not None:
                self._database.close()
                self._lock.release()
                self._lock = None

    def _save(self, database: Database, folder: Path) -> None:
        kept = Rows(database)
        Publication(kept, self._key, None).export(folder / INGRESS)
        self.witness.save(folder, kept)


def evidence_of(state: str | Path | None, name: str, clock: Clock, note: Callable[[str], None]) -> Evidence:
    """Return the evidence of coordinator `name`: in the folder `state`, or, without one, in memory."""
    entropy = SystemEntropy()
    if state is None:
        return Evidence.in_memory(name, clock=clock, entropy=entropy, note=note)
    return Evidence.open(Path(state), name, clock=clock, entropy=entropy, note=note)


def _new_keys(name: str, entropy: Entropy) -> tuple[SigningKey, SigningKey]:
    coordinator = WorkerName(name)
    return (
        SigningKey(ingress_origin_of(coordinator), entropy.random_bytes(_SEED_BYTES)),
        SigningKey(witness_name_of(coordinator), entropy.random_bytes(_SEED_BYTES)),
    )


def _load_keys(state: Path, name: str, entropy: Entropy) -> tuple[SigningKey, SigningKey]:
    """Return the folder's keys; make those that are missing only before there is a ledger that needs them."""
    made = _new_keys(name, entropy)
    own, witness = (_load_key(state, file, key) for file, key in zip((INGRESS_KEY, WITNESS_KEY), made, strict=True))
    sync_folders([state])
    return own, witness


def _load_key(state: Path, file: str, fresh: SigningKey) -> SigningKey:
    text = read_bounded(state / file, _MAXIMUM_KEY_BYTES)
    if text is None:
        if (state / DATABASE).exists():
            raise StorageFailed(f"{state} has no {file}; restore it, or name a new state folder")
        text = f"{fresh.to_text()}\n".encode()
        write_atomically(state / file, text, mode=0o600)
    key = parse_signing_key(text.decode("ascii", "replace").removesuffix("\n"))
    if key.name != fresh.name:
        raise UsageError(f"{state} belongs to {key.name!r}, not to {fresh.name!r}; give each coordinator its own")
    return key
