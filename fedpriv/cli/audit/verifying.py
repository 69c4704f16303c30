"""`fedpriv audit verify`: prove that a ledger is what was signed, and say what the proof rests on.

It prints what `storage.verification` found, who else holds a checkpoint, and, where it is asked, whether each message
is no larger than its order foresaw.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, OwnersKey, Where
from fedpriv.cli.audit.foreseeing import Comparison, compare_with_forecasts
from fedpriv.cli.audit.printing import console, harmless, print_json, printable, say_whose_key
from fedpriv.cli.audit.witnessing import Verified, Witnesses, given, kept_in, verified
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.storage.verification import LedgerReport, find_ledgers, read_entries


def verify(
    where: Where,
    *,
    key: OwnersKey = None,
    witness: Witnesses = None,
    holds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint of this ledger that you kept: it must extend it.")
    ] = None,
    forecast: Annotated[
        bool, typer.Option("--forecast", help="Compare what left with what the orders foresaw; in a state folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that no entry was changed, moved or removed since it was signed; exit code 3 if one was."""
    folders = find_ledgers(where, received=not forecast)
    for option, value in (("--key", key), ("--holds", holds)):
        if value and len(folders) > 1:
            raise UsageError(
                f"{where} holds {len(folders)} ledgers, {option} is of one; name the ledger, as in "
                f"{quote(str(folders[0]))}"
            )
    explicit = given(holds)
    failures = []
    for folder in folders:
        kept = explicit or kept_in(where, folder)
        try:
            found = verified(folder, key=key, witnesses=witness or (), kept=kept)
        except VerificationFailed as error:
            failures.append(harmless(f"{folder}: {error}"))
            continue
        entries = islice(read_entries(folder), found.report.entries)
        foreseen = compare_with_forecasts(folder, entries) if forecast else None
        _print_report(found, foreseen, as_json=as_json)
        failures += [harmless(f"{folder}: {fault}") for fault in (foreseen.over if foreseen else ())]
        if found.report.direction == "sent" or len(folders) == 1:  # a coordinator does not witness its own ledger
            failures += [harmless(f"{folder}: {_unwitnessed(name)}") for name in found.missing]
    if failures:
        raise VerificationFailed("\n".join(failures))


def _unwitnessed(name: str) -> str:
    return (
        f"no cosignature of the witness {name} verified under the key given with --witness: ask for the checkpoint "
        f"that it cosigned (a coordinator keeps it as witness/NAME.checkpoint in its run), and add --holds FILE"
    )


def _print_report(found: Verified, foreseen: Comparison | None, *, as_json: bool) -> None:
    report = found.report
    if as_json:
        print_json(_json(found, foreseen))
        return
    newer = report.entries - report.signed
    tail = (
        f", {newer:,} of them newer than the last checkpoint (signed with a later round, or when the worker stops)"
        if newer
        else ""
    )
    what = f"{report.entries:,} entries{tail}, {report.message_bytes:,} bytes, root {report.root.hex()}"
    sentences = [f"ok: {what}", *found.sentences(), *([foreseen.sentence()] if foreseen else [])]
    for sentence in sentences:
        console().print(printable(f"{report.origin}: {sentence}"), soft_wrap=True)
    if not report.pinned:
        say_whose_key(report.origin, report.vkey)


def _json(found: Verified, foreseen: Comparison | None) -> dict[str, object]:
    report: LedgerReport = found.report
    compared = {} if foreseen is None else {
        "forecast": {"within": foreseen.within, "over": len(foreseen.over), "without": foreseen.without}
    }  # fmt: skip  # one field
    return {
        "ledger": str(report.folder), "origin": report.origin, "vkey": report.vkey, "pinned": report.pinned,
        "entries": report.entries, "signed": report.signed, "bytes": report.message_bytes, "root": report.root.hex(),
        "witnessed": [{"witness": each.name, "time": each.time, "size": size} for size, each in found.witnessed],
        "unverified": list(found.unverified), "missing": list(found.missing),
        "extends": None if found.kept is None else str(found.kept.path),
        "extends_size": found.kept_size, **compared,
    }  # fmt: skip  # one line per group of fields
