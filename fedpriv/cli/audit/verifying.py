"""`fedpriv audit verify`: prove that a ledger is what was signed, and say what the proof rests on.

It prints what `storage.verification` found and adds nothing to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, Where
from fedpriv.cli.audit.printing import console, print_json, printable, say
from fedpriv.cli.audit.proving import Witnesses, witnessed_text
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import MAXIMUM_NOTE_BYTES
from fedpriv.storage.files import read_bounded
from fedpriv.storage.verification import LedgerReport, find_ledgers, verify_ledger


def verify(
    where: Where,
    *,
    key: Annotated[str, typer.Option(metavar="VKEY", help="The worker's verifier key, from its owner.")] = "",
    witness: Witnesses = None,
    holds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint of this ledger that you kept: it must extend it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that no entry was changed, moved or removed since it was signed; exit code 3 if one was."""
    folders = find_ledgers(where, received=True)
    for option, given in (("--key", key), ("--holds", holds)):
        if given and len(folders) > 1:
            raise UsageError(
                f"{where} holds {len(folders)} ledgers, {option} is of one; name the ledger, as in {folders[0]}"
            )
    kept = _kept(holds)
    failures = []
    for folder in folders:
        try:
            report = verify_ledger(folder, key=key or None, witnesses=witness or (), holds=kept)
        except VerificationFailed as error:
            failures.append(f"{folder}: {error}")
        else:
            _print_report(report, held=kept is not None, as_json=as_json)
    if failures:
        raise VerificationFailed("\n".join(failures))


def _kept(holds: Path | None) -> bytes | None:
    if holds is None:
        return None
    note = read_bounded(holds, MAXIMUM_NOTE_BYTES)
    if note is None:
        raise UsageError(f"--holds {holds}: there is no such file; give a signed checkpoint that you kept")
    return note


def _print_report(report: LedgerReport, *, held: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ledger": str(report.folder), "origin": report.origin, "vkey": report.vkey, "pinned": report.pinned,
                "entries": report.entries, "signed": report.signed, "bytes": report.message_bytes,
                "root": report.root.hex(), "held": held,
                "witnessed": [{"witness": each.name, "time": each.time} for each in report.witnessed],
                "unverified": list(report.unverified),
            }
        )  # fmt: skip  # one line per group of fields
        return
    newer = report.entries - report.signed
    tail = (
        f", {newer:,} of them newer than the last checkpoint (signed with a later round, or when the worker stops)"
        if newer
        else ""
    )
    what = f"{report.entries:,} entries{tail}, {report.message_bytes:,} bytes, root {report.root.hex()}"
    out = console()
    out.print(printable(f"{report.origin}: ok: {what}"), soft_wrap=True)
    for sentence in witness_sentences(report, held=held):
        out.print(printable(f"{report.origin}: {sentence}"), soft_wrap=True)
    if not report.pinned:
        say(f"{report.origin}: verified with the key beside the ledger; pass the owner's with --key {report.vkey}")


def witness_sentences(report: LedgerReport, *, held: bool = False) -> list[str]:
    """Return who else holds this ledger's checkpoint, and when they said so; or that nobody does."""
    found = [witnessed_text(each) for each in report.witnessed]
    if held:
        found.append("it extends the checkpoint that you kept")
    found += [f"cosigned by {name}, not verified: pass its key with --witness" for name in report.unverified]
    return found or ["nobody else holds a later checkpoint of this ledger: a rollback would not show"]
