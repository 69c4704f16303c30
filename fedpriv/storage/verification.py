"""Whether a ledger's folder is exactly what its worker signed: every byte of every file under it, one bundle at a time.

The entries are replayed into a log; every tile that the log yields is compared with the file, then the root with the
signed checkpoint. Inside a worker's state folder the journal's tail, recorded but not published yet, is replayed too.
It only reads. A folder that was rolled back as a whole, key and journal included, still verifies: only someone who
holds a later checkpoint can show that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedpriv.errors import StorageFailed, UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import LEDGER_PREFIX, Checkpoint, VerifierKey, open_checkpoint, parse_verifier_key
from fedpriv.ledger.entries import Entry, decode_entry
from fedpriv.ledger.log import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Log, Tile, decode_bundle, encode_bundle
from fedpriv.ledger.merkle import HASH_BYTES
from fedpriv.storage.database import Database
from fedpriv.storage.rows import Rows
from fedpriv.storage.tiles import CHECKPOINT, TILE, VKEY, TileFolder, parse_tile_path, tile_path

LEDGER = "ledger"
LEDGERS = "ledgers"
STATE = "state"
WORKERS = "workers"
JOURNAL = "journal.sqlite"
ATTEMPTS = 50  # a running worker publishes while we read
SETTLE_SECONDS = 0.02
"""A worker renames a checkpoint into place so soon after its tiles."""


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What was verified: `signed` entries under `root`, and `entries` with the journal's tail.

    `pinned` tells whether the caller brought the key; otherwise it is the folder's own, which proves only that the
    folder agrees with itself.
    """

    folder: Path
    origin: str
    vkey: str
    pinned: bool
    signed: int
    root: bytes
    entries: int
    message_bytes: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was there when reading began; the journal only inside a worker's state folder."""

    checkpoint: Checkpoint
    key: VerifierKey
    journal: Rows | None


def find_ledgers(path: Path) -> list[Path]:
    """Return the ledgers of a run, of a worker's own or state folder, or `path` itself; raise `UsageError` if none."""
    for single in (path, path / LEDGER, path / STATE / LEDGER):
        if _is_ledger(single):
            return [single]
    kept = [*(path / LEDGERS).glob("*"), *(path / WORKERS).glob(f"*/{STATE}/{LEDGER}")]
    found = sorted(folder for folder in kept if _is_ledger(folder))
    if not found:
        raise UsageError(
            f"{path} holds no ledger; give a run's folder, the folder of a worker or its state, or one that holds "
            f"{CHECKPOINT!r}"
        )
    return found


def read_entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger, the journal's tail included, without comparing them with the tree."""
    files = TileFolder(folder)
    with _looking(files, None) as seen:
        for number, content in enumerate(_contents(files, seen)):
            yield _decoded(number, content)


def verify_ledger(folder: Path, *, key: str | None) -> LedgerReport:
    """Return what `folder` proves under `key` (its own if None); raise `VerificationFailed` naming the first fault."""
    files = TileFolder(folder)
    for attempt in range(1, ATTEMPTS + 1):
        before = _moment(files)
        try:
            return _verified(files, key)
        except VerificationFailed:
            if attempt == ATTEMPTS or not _moves_on(files, before):
                raise
    raise AssertionError("the last attempt returns or raises")


def _verified(files: TileFolder, key: str | None) -> LedgerReport:
    with _looking(files, key) as seen:
        replay = _Replay(files, seen.checkpoint)
        for content in _contents(files, seen):
            replay.add(content)
        replay.finish()
    checkpoint = seen.checkpoint
    return LedgerReport(
        files.path, checkpoint.origin, str(seen.key), key is not None, checkpoint.size, checkpoint.root,
        replay.log.size, replay.message_bytes,
    )  # fmt: skip  # one line per group of fields


class _Replay:
    """The log as its entries say it should be, compared with the files as it grows."""

    def __init__(self, files: TileFolder, checkpoint: Checkpoint) -> None:
        self._files = files
        self._checkpoint = checkpoint
        self._worker = checkpoint.origin.removeprefix(LEDGER_PREFIX)
        self._begun: list[bytes] = []
        self.log = Log()
        self.message_bytes = 0
        self._compare_root()

    def add(self, content: bytes) -> None:
        """Take the next entry; raise `VerificationFailed` if it, or a tile that it completes, is not as signed."""
        number = self.log.size
        entry = _decoded(number, content)
        if entry.worker != self._worker:
            raise VerificationFailed(f"entry {number} is of worker {entry.worker!r}, the ledger of {self._worker!r}")
        self.message_bytes += entry.draft.bytes
        self._begun.append(content)
        full = self.log.append(content)
        if len(self._begun) == TILE_WIDTH:
            full.append(Tile(ENTRIES, number // TILE_WIDTH, TILE_WIDTH, encode_bundle(self._begun)))
        for tile in full:
            self._compare(tile)
        if len(self._begun) == TILE_WIDTH:
            self._begun.clear()
        self._compare_root()

    def finish(self) -> None:
        """Compare the unfinished tiles; raise `VerificationFailed` for any file that no entry accounts for."""
        for tile in self.log.partial_tiles():
            self._compare(tile)
        if self._begun:
            bundle = encode_bundle(self._begun)
            self._compare(Tile(ENTRIES, self.log.size // TILE_WIDTH, len(self._begun), bundle))
        for name in self._files.files():
            level, index, width = parse_tile_path(name)
            if index * TILE_WIDTH + width > self.log.size >> TILE_HEIGHT * max(level, 0):
                raise VerificationFailed(
                    f"{name} reaches beyond the {self.log.size} entries: the checkpoint is an older one, or the copy "
                    "is incomplete"
                )

    def _compare_root(self) -> None:
        if self.log.size == self._checkpoint.size and self.log.root() != self._checkpoint.root:
            for tile in self.log.partial_tiles():
                self._compare(tile)  # names the entry, where the tiles still tell
            raise VerificationFailed(
                f"something was changed after it was signed: the {self.log.size} entries have the root "
                f"{self.log.root().hex()}, but {CHECKPOINT} signs {self._checkpoint.root.hex()}"
            )

    def _compare(self, tile: Tile) -> None:
        """Compare every form in which a tile is kept: the finished one, and the unfinished ones, its beginnings."""
        signed = (self._checkpoint.size >> TILE_HEIGHT * max(tile.level, 0)) - tile.index * TILE_WIDTH
        required = min(signed, TILE_WIDTH)
        kept = {width for width in self._files.partial_widths(tile.level, tile.index) if width < tile.width}
        for width in sorted({*kept, tile.width, required}):
            found = self._files.find(tile.level, tile.index, width) if width > 0 else None
            if found is None and width == required and width > 0:
                raise VerificationFailed(f"{tile_path(tile.level, tile.index, width)} is missing")
            if found is not None and found != self._beginning(tile, width):
                raise VerificationFailed(_difference(tile, width, found))

    def _beginning(self, tile: Tile, width: int) -> bytes:
        return encode_bundle(self._begun[:width]) if tile.level == ENTRIES else tile.content[: width * HASH_BYTES]


def _moment(files: TileFolder) -> tuple[bytes | None, int]:
    """Return what changes whenever a running worker records or publishes."""
    log = files.path.parent / f"{JOURNAL}-wal"
    try:
        return files.checkpoint(), log.stat().st_mtime_ns
    except FileNotFoundError:
        return files.checkpoint(), 0


def _moves_on(files: TileFolder, before: tuple[bytes | None, int]) -> bool:
    """Return whether a running worker recorded or published something since `before`, or is just about to."""
    if _moment(files) == before and (files.path.parent / f"{JOURNAL}-wal").exists():
        time.sleep(SETTLE_SECONDS)
    return _moment(files) != before


@contextmanager
def _looking(files: TileFolder, key: str | None) -> Iterator[_Seen]:
    verifier = _verifier(files, key)
    with _journal_beside(files) as journal:
        # The journal's record first: it is written after the folder's checkpoint, so it can never be the later one.
        note = journal.published() if journal else None
        recorded = open_checkpoint(note, verifier) if note is not None else None
        checkpoint = _shown(files, verifier)
        if recorded and recorded.size > checkpoint.size:
            raise VerificationFailed(
                f"{CHECKPOINT} signs {checkpoint.size} entries, but the journal published {recorded.size}: rolled back"
            )
        if journal and journal.size < checkpoint.size:
            raise VerificationFailed(
                f"entry {journal.size} is missing from the journal: {checkpoint.size} entries were published"
            )
        yield _Seen(checkpoint, verifier, journal)


@contextmanager
def _journal_beside(files: TileFolder) -> Iterator[Rows | None]:
    path = files.path.parent / JOURNAL
    if files.path.name != LEDGER or not path.exists():
        yield None
        return
    try:
        journal = Rows(Database.open_for_reading(path))
        try:
            yield journal
        finally:
            journal.close()
    except (StorageFailed, UsageError) as error:
        raise VerificationFailed(f"the journal beside the ledger cannot be read: {error}") from error


def _shown(files: TileFolder, verifier: VerifierKey) -> Checkpoint:
    note = files.checkpoint()
    if note is None:
        raise VerificationFailed(f"{files.path}/{CHECKPOINT} is missing: nothing says how many entries there were")
    try:
        checkpoint = open_checkpoint(note, verifier)
    except VerificationFailed as error:
        raise VerificationFailed(
            f"{CHECKPOINT} was changed after it was signed, or another key signed it: {error}"
        ) from error
    if not checkpoint.origin.startswith(LEDGER_PREFIX):
        raise VerificationFailed(f"line 1 of {CHECKPOINT}: {checkpoint.origin!r} is not the ledger of a worker")
    return checkpoint


def _verifier(files: TileFolder, key: str | None) -> VerifierKey:
    present = files.vkey()
    if key is not None:
        pinned = parse_verifier_key(key.strip())
        if present not in (None, f"{pinned}\n".encode()):
            raise VerificationFailed(f"{VKEY} in {files.path} is another key than the one you gave")
        return pinned
    if present is None:
        raise VerificationFailed(f"{files.path}/{VKEY} is missing; pass the worker's key with --key")
    try:
        text = present.decode()
        verifier = parse_verifier_key(text.removesuffix("\n"))
    except (UnicodeDecodeError, UsageError) as error:
        raise VerificationFailed(f"{VKEY} in {files.path} is no verifier key: {error}") from error
    if text != f"{verifier}\n":
        raise VerificationFailed(f"{VKEY} in {files.path} does not end with a newline")
    return verifier


def _contents(files: TileFolder, seen: _Seen) -> Iterator[bytes]:
    """Yield the signed entries from the folder, then the journal's tail; hold one bundle at a time."""
    size = seen.checkpoint.size
    for first in range(0, size, TILE_WIDTH):
        width = min(TILE_WIDTH, size - first)
        yield from decode_bundle(files.read(ENTRIES, first // TILE_WIDTH, width), width, first)
    if seen.journal is not None:
        yield from seen.journal.read(size, seen.journal.size)


def _decoded(number: int, content: bytes) -> Entry:
    try:
        entry = decode_entry(content)
    except VerificationFailed as error:
        raise VerificationFailed(f"entry {number}: {error}; it was changed after it was written") from error
    if entry.seq != number:
        raise VerificationFailed(f"entry {number} says that it is number {entry.seq}: entries were moved or removed")
    return entry


def _difference(tile: Tile, width: int, found: bytes) -> str:
    name = tile_path(tile.level, tile.index, width)
    if tile.level == 0 and len(found) == width * HASH_BYTES:
        at = next(
            i
            for i in range(width)
            if found[i * HASH_BYTES :][:HASH_BYTES] != tile.content[i * HASH_BYTES :][:HASH_BYTES]
        )
        number = tile.index * TILE_WIDTH + at
        return f"entry {number} was changed after it was signed: it does not have the hash that {name} holds for it"
    return f"{name} does not match the tree: it was changed after it was signed, or is not what its entries yield"


def _is_ledger(path: Path) -> bool:
    return any((path / name).exists() for name in (CHECKPOINT, VKEY)) or (path / TILE).is_dir()
