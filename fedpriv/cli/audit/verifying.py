"""`fedpriv audit verify`: prove that a ledger is what was signed, and say what the proof rests on.

It prints what `storage.verification` found and adds nothing to it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, Where
from fedpriv.cli.audit.printing import console, print_json, printable, say
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.storage.verification import LedgerReport, find_ledgers, verify_ledger


def verify(
    where: Where,
    *,
    key: Annotated[str, typer.Option(metavar="VKEY", help="The worker's verifier key, from its owner.")] = "",
    as_json: AsJson = False,
) -> None:
    """Prove that no entry was changed, moved or removed since it was signed; exit code 3 if one was."""
    folders = find_ledgers(where)
    if key and len(folders) > 1:
        raise UsageError(f"{where} holds {len(folders)} ledgers, --key is of one; name the ledger, as in {folders[0]}")
    failures = []
    for folder in folders:
        try:
            report = verify_ledger(folder, key=key or None)
        except VerificationFailed as error:
            failures.append(f"{folder}: {error}")
        else:
            _print_report(report, as_json=as_json)
    if failures:
        raise VerificationFailed("\n".join(failures))


def _print_report(report: LedgerReport, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ledger": str(report.folder), "origin": report.origin, "vkey": report.vkey, "pinned": report.pinned,
                "entries": report.entries, "signed": report.signed, "bytes": report.message_bytes,
                "root": report.root.hex(),
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
    console().print(printable(f"{report.origin}: ok: {what}"), soft_wrap=True)
    if not report.pinned:
        say(f"{report.origin}: verified with the key beside the ledger; pass the owner's with --key {report.vkey}")
