"""Who else holds a checkpoint of a ledger: a witness, the run of a coordinator that cosigned it, or the caller.

A checkpoint that somebody else keeps is what a rollback cannot undo. One that lies in the same run proves only as much
as whoever could change the run lets it; a witness counts as verified only under a key that the caller brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedpriv.errors import UsageError
from fedpriv.ledger.checkpoint import LEDGER_PREFIX, MAXIMUM_NOTE_BYTES, Algorithm, parse_verifier_key
from fedpriv.ledger.cosignature import Cosignature, open_cosigned
from fedpriv.storage.files import read_bounded
from fedpriv.storage.tiles import TileFolder
from fedpriv.storage.verification import LedgerReport, verify_ledger

WITNESS = "witness"
SUFFIX = ".checkpoint"

Witnesses = Annotated[
    list[str] | None, typer.Option("--witness", metavar="VKEY", help="A witness's verifier key; once for each.")
]


@dataclass(frozen=True, slots=True)
class Kept:
    """A signed checkpoint that lies outside of the ledger's folder."""

    path: Path
    note: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A ledger that verified, and what witnesses say of it or of the kept checkpoint that it extends.

    `missing` are the witnesses that the caller named and that cosigned neither: a proof under their keys has failed.
    """

    report: LedgerReport
    witnessed: tuple[tuple[int, Cosignature], ...]
    unverified: tuple[str, ...]
    kept: Kept | None
    kept_size: int
    missing: tuple[str, ...]

    def sentences(self) -> list[str]:
        """Return who holds a checkpoint of how many entries since when, or that nobody does."""
        found = [f"witnessed by {each.name} at {_time(each.time)}: {size:,} entries" for size, each in self.witnessed]
        if self.kept is not None:
            found.append(f"it extends the checkpoint of {self.kept_size:,} entries in {self.kept.path}")
        found += [f"cosigned by {name}, not verified: pass its key with --witness" for name in self.unverified]
        return found or [
            "no witness: nobody but its owner is known to keep a signed checkpoint of this ledger, so one that was put "
            "back to an older state would verify too; keep its file named checkpoint and give that to the next "
            "verification with --holds, or have its owner name a [[witness]] in worker.toml"
        ]


def verified(folder: Path, *, key: str | None, witnesses: Sequence[str], kept: Kept | None) -> Verified:
    """Return what a ledger proves, held to a checkpoint that was kept; raise `VerificationFailed` if it does not."""
    note = None if kept is None else kept.note
    report = verify_ledger(folder, key=key, witnesses=witnesses, holds=note)
    witnessed = [(report.signed, each) for each in report.witnessed]
    unverified = dict.fromkeys(report.unverified)
    size = 0
    if note is not None:
        keys = [parse_verifier_key(text.strip(), Algorithm.COSIGNATURE) for text in witnesses]
        cosigned = open_cosigned(note, parse_verifier_key(report.vkey), keys)
        size = cosigned.checkpoint.size
        present = {each.name for each in report.witnessed}
        witnessed += [(size, each) for each in cosigned.witnessed if each.name not in present]
        unverified |= dict.fromkeys(cosigned.unverified)
    missing = absent(witnesses, [each for _, each in witnessed])
    return Verified(report, tuple(witnessed), tuple(unverified), kept, size, missing)


def absent(witnesses: Sequence[str], found: Sequence[Cosignature]) -> tuple[str, ...]:
    """Return the names of those witnesses, given by their vkeys, of whom no cosignature verified."""
    present = {each.name for each in found}
    names = [parse_verifier_key(text.strip(), Algorithm.COSIGNATURE).name for text in witnesses]
    return tuple(name for name in dict.fromkeys(names) if name not in present)


def given(path: Path | None) -> Kept | None:
    """Return the checkpoint in the file that the caller names; raise `UsageError` if there is none."""
    if path is None:
        return None
    note = read_bounded(path, MAXIMUM_NOTE_BYTES)
    if note is None:
        raise UsageError(f"--holds {path}: there is no such file; give a signed checkpoint that you kept")
    return Kept(path, note)


def kept_in(run: Path, folder: Path) -> Kept | None:
    """Return the checkpoint of the ledger in `folder` that its run's coordinator cosigned last, or None."""
    name = origin_of(folder).removeprefix(LEDGER_PREFIX)
    for path in sorted((run / WITNESS).glob(f"*{SUFFIX}")):  # chosen by name, never made from what a ledger says
        if path.name == f"{name}{SUFFIX}":
            return given(path)
    return None


def origin_of(folder: Path) -> str:
    """Return the first line of a checkpoint, to choose by; whether it is true is verified elsewhere."""
    return (TileFolder(folder).checkpoint() or b"").split(b"\n", 1)[0].decode("utf-8", "replace")[:200]


def witnessed_text(found: Cosignature) -> str:
    """Return who witnessed a checkpoint, and when."""
    return f"witnessed by {found.name} at {_time(found.time)}"


def _time(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"
