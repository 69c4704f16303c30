"""Keeping a ledger's folder in step with the rows that are the truth, and proving what was published.

Publishing appends the rows that are new to the log, writes the tiles, then signs and writes a checkpoint; a failure
in between leaves everything to be done again. Recovery finishes what a crash interrupted, and refuses a folder or a
journal that lost entries which were published: it never repairs what could be evidence. Cosignatures of witnesses stay
with the checkpoint until the next one; nobody is asked for them here.
"""

from __future__ import annotations

import threading
from pathlib import Path

from fedpriv.errors import RolledBack, UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import (
    Algorithm,
    Checkpoint,
    SigningKey,
    open_checkpoint,
    parse_verifier_key,
    sign_checkpoint,
)
from fedpriv.ledger.cosignature import add_cosignatures, cosignature_lines, read_cosignature
from fedpriv.ledger.log import TILE_WIDTH, Log
from fedpriv.ledger.merkle import ReadNode, Tree, leaf_hash, prove_consistency, prove_inclusion, root_at
from fedpriv.ledger.proofs import EntryProof, encode_proof
from fedpriv.storage.proving import TileNodes
from fedpriv.storage.rows import Rows
from fedpriv.storage.tiles import TileFolder


class Publication:
    """The published form of `rows`, signed by `key`; without a folder only in memory. Safe to use from any thread."""

    def __init__(self, rows: Rows, key: SigningKey, folder: TileFolder | None) -> None:
        self._rows = rows
        self._key = key
        self._folder = folder
        self._log = Log()
        self._tree = Tree()  # without a folder there are no tiles to prove from
        self._latest: Checkpoint | None = None
        self._note = b""
        self._lock = threading.Lock()

    def publish(self) -> Checkpoint:
        """Bring the folder up to date and return its checkpoint; do nothing when no row is new."""
        with self._lock:
            return self._publish()

    def recover(self) -> Checkpoint:
        """Resume from the folder and publish what is missing; raise `VerificationFailed` if entries are gone."""
        assert self._folder is not None, "only a folder can be recovered"
        recorded = _opened(recorded_note := self._rows.published(), self._key)
        shown = _opened(shown_note := self._folder.checkpoint(), self._key)
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
        if latest and latest.size == self._rows.size:
            self._latest = latest
            self._keep(_joined(recorded_note if recorded == latest else None, shown_note, self._key))
        return self.publish()

    def consistency(self, old_size: int) -> tuple[bytes, tuple[bytes, ...]]:
        """Return the checkpoint published last and the proof, 32 bytes a hash, that it extends `old_size` entries.

        Raises `RolledBack` when it has fewer entries than that.
        """
        with self._lock:
            size = self._published().size
            if old_size > size:
                raise RolledBack(f"a ledger of {size} entries cannot extend one of {old_size}: it was rolled back")
            return self._note, tuple(prove_consistency(old_size, size, self._nodes(size)))

    def proof(self, index: int) -> bytes:
        """Return a proof file for entry `index` under the checkpoint published last, the entry included."""
        with self._lock:
            size = self._published().size
            if not 0 <= index < size:
                raise UsageError(f"entry {index} is not among the {size} published; publish, or ask for one from 0 on")
            hashes = prove_inclusion(index, size, self._nodes(size))
            (entry,) = self._rows.read(index, index + 1)
            return encode_proof(EntryProof(index, tuple(hashes), self._note, entry))

    def cosign(self, line: bytes, vkey: str) -> None:
        """Keep a witness's signature line, durably, with the checkpoint published last; a newer one replaces an older.

        Raises `VerificationFailed` unless `vkey` cosigned exactly that checkpoint, `UsageError` when it has 16 others.
        """
        witness = parse_verifier_key(vkey, Algorithm.COSIGNATURE)
        with self._lock:
            self._published()
            read_cosignature(line, self._note, witness)
            self._keep(add_cosignatures(self._note, [line]))

    def rolled_back(self, held: bytes) -> None:
        """Raise `VerificationFailed` if `held`, a checkpoint that this key signed, shows that entries are gone.

        Raises `UsageError` for a note that this key did not sign: it shows nothing.
        """
        try:
            known = open_checkpoint(held, self._key.verifier)
        except VerificationFailed as error:
            raise UsageError(f"what the witness holds is no checkpoint of this ledger: {error}") from error
        with self._lock:
            latest = self._published()
            if latest.size < known.size <= self._rows.size:
                latest = self._publish()
            if latest.size < known.size:
                raise VerificationFailed(
                    f"a witness holds a checkpoint of {known.size} entries, this ledger has {latest.size}: the last "
                    f"{known.size - latest.size} are gone; it was rolled back"
                )
            if root_at(known.size, self._nodes(latest.size)) != known.root:
                raise VerificationFailed(
                    f"a witness holds a checkpoint of {known.size} entries with another root: this ledger was rolled "
                    "back and continued, or rewritten"
                )

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
        checkpoint = self._checkpoint(log)
        kept = self._rows.published()  # with its cosignatures
        same = kept is not None and _opened(kept, self._key) == checkpoint
        target.publish(kept if kept is not None and same else sign_checkpoint(checkpoint, self._key))

    def _published(self) -> Checkpoint:
        return self._latest or self._publish()

    def _publish(self) -> Checkpoint:
        size = self._rows.size
        if self._latest is None or self._latest.size != size:
            self._latest = self._extend(size)
        return self._latest

    def _extend(self, size: int) -> Checkpoint:
        log = self._log.copy()  # kept only once everything is written, so that a full disk can be retried
        if self._folder is None:
            for content in self._rows.read(log.size, size):
                log.append(content)
        else:
            begun = list(self._rows.read(log.size // TILE_WIDTH * TILE_WIDTH, log.size))
            self._folder.extend(log, self._rows.read(log.size, size), begun)
        checkpoint = self._checkpoint(log)
        self._keep(sign_checkpoint(checkpoint, self._key))
        if self._folder is None:
            for content in self._rows.read(self._tree.size, size):
                self._tree.append(leaf_hash(content))
        else:
            self._folder.drop_partials(self._log.size, log.size)
        self._log = log
        return checkpoint

    def _keep(self, note: bytes) -> None:
        """Store the signed checkpoint in the folder, then among the rows, where it is not there already."""
        size = open_checkpoint(note, self._key.verifier).size
        if self._folder is not None and self._folder.checkpoint() != note:
            self._folder.publish(note)
        if self._rows.published() != note:
            self._rows.set_published(size, note)
        self._note = note

    def _nodes(self, size: int) -> ReadNode:
        return self._tree.node if self._folder is None else TileNodes(self._folder.read, size).node

    def _checkpoint(self, log: Log) -> Checkpoint:
        return Checkpoint(self._key.name, log.size, log.root())


def _opened(note: bytes | None, key: SigningKey) -> Checkpoint | None:
    return None if note is None else open_checkpoint(note, key.verifier)


def _joined(recorded: bytes | None, shown: bytes | None, key: SigningKey) -> bytes:
    """Return the note with the cosignatures of both; the folder's are the newer, since it is written first."""
    if recorded is None or shown is None:
        return recorded or shown or b""
    try:
        return add_cosignatures(recorded, cosignature_lines(shown, key.verifier))
    except UsageError:  # more than are kept: only by another hand than ours
        return shown
