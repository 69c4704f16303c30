"""The coordinator's own ledger: every message that reached it from a worker, in the format of the workers' ledgers.

The digest of a message is recomputed from the bytes that came, under the key that came with them, and its entry cites
the number of the worker's: with both ledgers an auditor sees whether what one sent is what the other received.
Recording never holds up the network: a thread hashes and stores what waits, in groups, each one durable transaction.
So a crash may lose the last receipts, of messages of a round that was not closed; `drain` ends that wait. The tensors
of a recorded message must not be written to before it. What was received is not judged here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fedpriv.clock import Clock, SteadyClock
from fedpriv.errors import FedprivError, StorageFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey
from fedpriv.ledger.entries import MAXIMUM_INTEGER, Draft, Entry, decode_entry, encode_entry, message_digest
from fedpriv.sealed import Envelope
from fedpriv.storage.hashing import chunk_digests
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import Row, Rows
from fedpriv.storage.tiles import TileFolder
from fedpriv.wire.framing import envelope_bytes


@dataclass(frozen=True, slots=True)
class _Received:
    """One message that waits to be recorded; `time` is milliseconds since 1970-01-01 UTC."""

    draft: Draft
    time: int
    envelope: Envelope = field(repr=False)


class Ingress:
    """One coordinator's ledger of what it received; `record` may be called from any thread and does not wait."""

    def __init__(self, rows: Rows, key: SigningKey, folder: TileFolder | None, *, name: str, clock: Clock) -> None:
        self.publication = Publication(rows, key, folder)
        self.vkey = str(key.verifier)
        """The line that auditors pass as `--coordinator-key`."""
        self._name = WorkerName(name)
        self._rows = rows
        self._clock = SteadyClock(clock, _latest(rows))
        self._waiting: list[_Received] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fedpriv-ingress")
        self._closed = False

    def record(self, peer: str, kind: str, envelope: Envelope) -> None:
        """Take note that `peer` sent `envelope`, and return at once; after `close` nothing is noted any more."""
        source = envelope.entry if -1 <= envelope.entry <= MAXIMUM_INTEGER else -1  # no ledger reaches further
        draft = Draft(peer=peer, method="Attach", kind=kind, bytes=envelope_bytes(envelope), source=source)
        with self._lock:
            if self._closed:
                return
            self._waiting.append(_Received(draft, self._clock.milliseconds(), envelope))
            if len(self._waiting) == 1:  # else whoever takes the first takes this one with it
                self._thread.submit(self._store_quietly)

    def drain(self) -> Checkpoint:
        """Record all that was received so far and publish it; raise `StorageFailed` if the disk refuses."""
        return self._thread.submit(self._publish).result()

    def settle(self) -> None:
        """Drain, if that was not done for good already."""
        if not self._closed:
            self.drain()

    def close(self) -> None:
        """Drain, then end the thread, also when the disk refuses. Closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self.drain()
        finally:
            self._thread.shutdown()

    def _publish(self) -> Checkpoint:
        self._store()
        return self.publication.publish()

    def _store_quietly(self) -> None:
        """Store what waits; what a disk refused waits on, and `drain` says so."""
        try:
            self._store()
        except FedprivError:
            return

    def _store(self) -> None:
        """Store what waits in one transaction; on this one thread alone, so that numbers follow each other."""
        with self._lock:
            group, self._waiting = self._waiting, []
        if not group:
            return
        try:
            self._rows.append(self._entries(group))
        except StorageFailed as error:
            with self._lock:
                self._waiting = group + self._waiting
            raise StorageFailed(f"what workers sent cannot be recorded: {error}") from error

    def _entries(self, group: Sequence[_Received]) -> list[Row]:
        rows = []
        for seq, each in enumerate(group, self._rows.size):
            payload, size = each.envelope.payload, each.envelope.payload_bytes
            chunks = chunk_digests(payload) if size else ()
            digest = message_digest(each.envelope.entry_key, each.envelope.header, chunks, size)
            entry = Entry(each.draft, self._name, seq, each.time, digest.hex())
            rows.append(Row(seq, each.draft.kind, each.draft.bytes, encode_entry(entry)))
        return rows


def _latest(rows: Rows) -> int:
    """Return the time of the last entry, in milliseconds, so that time goes on from there."""
    return max((decode_entry(content).time for content in rows.read(max(0, rows.size - 1), rows.size)), default=0)
