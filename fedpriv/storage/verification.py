"""Whether a ledger's folder is exactly what its keeper signed: every byte of every file under it, one bundle at a time.

The entries are replayed (`storage.replay`) and the root compared with the signed checkpoint. Inside a state folder the
journal's rows are compared with what was published of them, and its tail, recorded but not published yet, is replayed
too. It only reads. A folder that was rolled back as a whole, key and journal included, still verifies: only a later
checkpoint that somebody else kept, or a witness that cosigned a later one, shows that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedpriv.errors import StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import checked_name
from fedpriv.ledger.checkpoint import (
    INGRESS_PREFIX,
    LEDGER_PREFIX,
    Algorithm,
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    parse_verifier_key,
)
from fedpriv.ledger.cosignature import Cosignature, Cosigned, open_cosigned
from fedpriv.ledger.entries import Entry
from fedpriv.ledger.log import ENTRIES, TILE_WIDTH, decode_bundle
from fedpriv.storage.database import Database
from fedpriv.storage.replay import Replay, decoded
from fedpriv.storage.rows import LARGEST_ROW, SCHEMA, Rows
from fedpriv.storage.tiles import CHECKPOINT, TILE, VKEY, TileFolder

LEDGER = "ledger"
LEDGERS = "ledgers"
INGRESS = "ingress"
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
    folder agrees with itself. `witnessed` are the cosignatures of all `signed` entries that verified under keys that
    the caller brought, `unverified` the names on the others: where nobody witnessed, nobody is known to hold a later
    checkpoint.
    """

    folder: Path
    origin: str
    vkey: str
    pinned: bool
    signed: int
    root: bytes
    entries: int
    message_bytes: int
    direction: Literal["sent", "received"]
    witnessed: tuple[Cosignature, ...]
    unverified: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was there when reading began; the journal only inside a state folder."""

    cosigned: Cosigned
    key: VerifierKey
    journal: Rows | None

    @property
    def checkpoint(self) -> Checkpoint:
        return self.cosigned.checkpoint


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the caller brought: the keeper's key, witnesses' keys, and a checkpoint that was kept elsewhere."""

    key: str | None = None
    witnesses: tuple[VerifierKey, ...] = ()
    holds: bytes | None = None


def find_ledgers(path: Path, *, received: bool = False) -> list[Path]:
    """Return the ledgers of a run, of a worker's own or state folder, or `path` itself; raise `UsageError` if none.

    With `received`, a run's ledger of what its coordinator received is among them.
    """
    # All kinds at once: a ledger laid beside the others must not hide them.
    kept = [path, path / LEDGER, path / STATE / LEDGER]
    kept += [*(path / LEDGERS).glob("*"), *(path / WORKERS).glob(f"*/{STATE}/{LEDGER}")]
    if received:
        kept.append(path / INGRESS)
    found = sorted(folder for folder in kept if _is_ledger(folder))
    if not found:
        what = "holds no ledger" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
        raise UsageError(
            f"{path} {what}; give a run's folder, the folder of a worker or its state, or one that holds {CHECKPOINT!r}"
        )
    return found


def read_entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger, the journal's tail included, without comparing them with the tree."""
    files = TileFolder(folder)
    with _looking(files, _Asked()) as seen:
        for number, content in enumerate(_contents(files, seen)):
            yield decoded(number, content)


def verify_ledger(
    folder: Path, *, key: str | None, witnesses: Sequence[str] = (), holds: bytes | None = None
) -> LedgerReport:
    """Return what `folder` proves under `key` (its own if None); raise `VerificationFailed` naming the first fault.

    `witnesses` are the vkeys of those whose cosignatures are to be verified; `holds` is a signed checkpoint of this
    ledger that a witness or an auditor kept, which the folder has to extend.
    """
    files = TileFolder(folder)
    keys = tuple(parse_verifier_key(vkey.strip(), Algorithm.COSIGNATURE) for vkey in witnesses)
    asked = _Asked(key, keys, holds)
    for attempt in range(1, ATTEMPTS + 1):
        before = _moment(files)
        try:
            return _verified(files, asked)
        except VerificationFailed:
            if attempt == ATTEMPTS or not _moves_on(files, before):
                raise
    raise AssertionError("the last attempt returns or raises")


def _verified(files: TileFolder, asked: _Asked) -> LedgerReport:
    with _looking(files, asked) as seen:
        checkpoint = seen.checkpoint
        keeper, direction = _kept_by(checkpoint.origin)
        replay = Replay(files, keeper, checkpoint, _held(asked, seen))
        for content in _contents(files, seen):
            replay.add(content)
        replay.finish()
    return LedgerReport(
        files.path, checkpoint.origin, str(seen.key), asked.key is not None, checkpoint.size, checkpoint.root,
        replay.log.size, replay.message_bytes, direction, seen.cosigned.witnessed, seen.cosigned.unverified,
    )  # fmt: skip  # one line per group of fields


def _held(asked: _Asked, seen: _Seen) -> Checkpoint | None:
    if asked.holds is None:
        return None
    try:
        held = open_checkpoint(asked.holds, seen.key)
    except VerificationFailed as error:
        raise VerificationFailed(f"the checkpoint that was kept elsewhere is not of this ledger: {error}") from error
    size = seen.checkpoint.size
    if held.size > size:
        raise VerificationFailed(
            f"the ledger was rolled back by {held.size - size} entries: a checkpoint of {held.size} entries was kept "
            f"elsewhere, {CHECKPOINT} signs {size}"
        )
    return held


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
def _looking(files: TileFolder, asked: _Asked) -> Iterator[_Seen]:
    verifier = _verifier(files, asked.key)
    with _journal_beside(files) as journal:
        # The journal's record first: it is written after the folder's checkpoint, so it can never be the later one.
        note = journal.published() if journal else None
        recorded = open_checkpoint(note, verifier) if note is not None else None
        cosigned = _shown(files, verifier, asked.witnesses)
        checkpoint = cosigned.checkpoint
        if recorded and recorded.size > checkpoint.size:
            raise VerificationFailed(
                f"{CHECKPOINT} signs {checkpoint.size} entries, but the journal published {recorded.size}: rolled back"
            )
        if journal and journal.size < checkpoint.size:
            raise VerificationFailed(
                f"entry {journal.size} is missing from the journal: {checkpoint.size} entries were published"
            )
        yield _Seen(cosigned, verifier, journal)


@contextmanager
def _journal_beside(files: TileFolder) -> Iterator[Rows | None]:
    path = files.path.parent / JOURNAL
    if files.path.name != LEDGER or not path.exists():
        yield None
        return
    try:
        journal = Rows(Database.open_foreign(path, schema=SCHEMA, largest=LARGEST_ROW))
        try:
            yield journal
        finally:
            journal.close()
    except (StorageFailed, UsageError) as error:
        raise VerificationFailed(f"the journal beside the ledger cannot be read: {error}") from error


def _shown(files: TileFolder, verifier: VerifierKey, witnesses: Sequence[VerifierKey]) -> Cosigned:
    note = files.checkpoint()
    if note is None:
        raise VerificationFailed(f"{files.path}/{CHECKPOINT} is missing: nothing says how many entries there were")
    try:
        cosigned = open_cosigned(note, verifier, witnesses)
    except VerificationFailed as error:
        raise VerificationFailed(
            f"{CHECKPOINT} was changed after it was signed, or another key signed it: {error}"
        ) from error
    _kept_by(cosigned.checkpoint.origin)
    return cosigned


def _kept_by(origin: str) -> tuple[str, Literal["sent", "received"]]:
    """Return whose ledger it is, and of what; raise `VerificationFailed` for one of something else."""
    directions: tuple[tuple[str, Literal["sent", "received"]], ...] = (
        (LEDGER_PREFIX, "sent"),
        (INGRESS_PREFIX, "received"),
    )
    for prefix, direction in directions:
        if origin.startswith(prefix):
            try:
                return checked_name("keeper", origin.removeprefix(prefix)), direction
            except UsageError as error:  # it is printed in commands, to be copied
                raise VerificationFailed(f"line 1 of {CHECKPOINT}: {error}") from error
    raise VerificationFailed(
        f"line 1 of {CHECKPOINT}: {origin!r} is not the ledger of a worker or of what a coordinator received"
    )


def _verifier(files: TileFolder, key: str | None) -> VerifierKey:
    present = files.vkey()
    if key is not None:
        pinned = parse_verifier_key(key.strip())
        if present not in (None, f"{pinned}\n".encode()):
            raise VerificationFailed(f"{VKEY} in {files.path} is another key than the one you gave")
        return pinned
    if present is None:
        raise VerificationFailed(f"{files.path}/{VKEY} is missing; pass its keeper's key with --key")
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
        entries = decode_bundle(files.read(ENTRIES, first // TILE_WIDTH, width), width, first)
        if seen.journal is not None:
            _compare_rows(entries, list(seen.journal.read(first, first + width)), first)
        yield from entries
    if seen.journal is not None:
        yield from seen.journal.read(size, seen.journal.size)


def _compare_rows(published: Sequence[bytes], rows: Sequence[bytes], first: int) -> None:
    for number, (entry, row) in enumerate(zip(published, rows, strict=True), first):
        if entry != row:
            raise VerificationFailed(
                f"entry {number} was changed after it was published: the journal and the ledger's folder differ"
            )


def _is_ledger(path: Path) -> bool:
    return any((path / name).exists() for name in (CHECKPOINT, VKEY)) or (path / TILE).is_dir()
