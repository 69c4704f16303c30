"""Keeping a ledger's folder in step with the rows that are the truth.

Publishing appends the rows that are new to the log, writes the tiles, then signs and writes a checkpoint; a failure
in between leaves everything to be done again. Recovery finishes what a crash interrupted, and refuses a folder or a
journal that lost entries which were published: it never repairs what could be evidence.
"""

from __future__ import annotations

import threading
from pathlib import Path

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, open_checkpoint, sign_checkpoint
from fedpriv.ledger.log import TILE_WIDTH, Log
from fedpriv.storage.rows import Rows
from fedpriv.storage.tiles import TileFolder


class Publication:
    """The published form of `rows`, signed by `key`; without a folder only in memory. Safe to use from any thread."""

    def __init__(self, rows: Rows, key: SigningKey, folder: TileFolder | None) -> None:
        self._rows = rows
        self._key = key
        self._folder = folder
        self._log = Log()
        self._latest: Checkpoint | None = None
        self._lock = threading.Lock()

    def publish(self) -> Checkpoint:
        """Bring the folder up to date and return its checkpoint; do nothing when no row is new."""
        with self._lock:
            size = self._rows.size
            if self._latest is None or self._latest.size != size:
                self._latest = self._extend(size)
            return self._latest

    def recover(self) -> Checkpoint:
        """Resume from the folder and publish what is missing; raise `VerificationFailed` if entries are gone."""
        assert self._folder is not None, "only a folder can be recovered"
        recorded = self._opened(self._rows.published())
        shown = self._opened(self._folder.checkpoint())
        if recorded and shown and shown.size < recorded.size:
            raise VerificationFailed(
                f"the ledger's folder shows {shown.size} entries, but {recorded.size} were published: rolled back; "
                "move the folder aside and the journal makes it again"
            )
        latest = shown or recorded
        if latest and latest.size > self._rows.size:
            raise VerificationFailed(
                f"the journal has {self._rows.size} entries, but {latest.size} were published: it was rolled back; "
                "restore the state folder from its latest copy"
            )
        self._folder.create(str(self._key.verifier))
        if shown:
            self._log = Log.resume(shown.size, self._folder.read)
        elif recorded:
            self._folder.extend(self._log, self._rows.read(0, recorded.size), [])
        if latest and self._checkpoint(self._log) != latest:
            raise VerificationFailed(
                f"the first {latest.size} entries no longer have the published root {latest.root.hex()}; "
                "`fedpriv audit verify` names the first that is wrong"
            )
        if shown and shown == recorded:
            self._latest = shown
        return self.publish()

    def export(self, folder: Path) -> None:
        """Write the whole ledger to `folder`, empty or holding an earlier export of the same ledger."""
        target = TileFolder(folder, durable=False)
        vkey = str(self._key.verifier)
        present = target.vkey()
        if present not in (None, f"{vkey}\n".encode()) or (present is None and target.checkpoint() is not None):
            raise UsageError(f"{folder} holds another ledger; export to an empty folder")
        log = Log()
        target.create(vkey)
        target.extend(log, self._rows.read(0, self._rows.size), [])
        target.publish(sign_checkpoint(self._checkpoint(log), self._key))

    def _extend(self, size: int) -> Checkpoint:
        log = self._log.copy()  # kept only once everything is written, so that a full disk can be retried
        if self._folder is None:
            for content in self._rows.read(log.size, size):
                log.append(content)
        else:
            begun = list(self._rows.read(log.size // TILE_WIDTH * TILE_WIDTH, log.size))
            self._folder.extend(log, self._rows.read(log.size, size), begun)
            note = sign_checkpoint(self._checkpoint(log), self._key)
            self._folder.publish(note)
            self._rows.set_published(size, note)
            self._folder.drop_partials(self._log.size, log.size)
        self._log = log
        return self._checkpoint(log)

    def _checkpoint(self, log: Log) -> Checkpoint:
        return Checkpoint(self._key.name, log.size, log.root())

    def _opened(self, note: bytes | None) -> Checkpoint | None:
        return None if note is None else open_checkpoint(note, self._key.verifier)
