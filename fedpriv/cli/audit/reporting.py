"""`fedpriv audit report`: one printable HTML page for the file, from the ledgers alone.

A ledger that does not verify is in the page, marked, and makes exit code 3. The page repeats what the ledgers say; it
is evidence only together with them.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, Choice, OwnersKey, Since, Until, Where, choice_of
from fedpriv.cli.audit.meanings import by_form
from fedpriv.cli.audit.printing import harmless, print_json, say, time_text
from fedpriv.cli.audit.sections import Ledger, Proof, document
from fedpriv.cli.audit.summing import Summary, Tally
from fedpriv.cli.audit.witnessing import Witnesses, kept_in, origin_of, verified
from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import INGRESS_PREFIX, LEDGER_PREFIX
from fedpriv.storage.files import write_atomically
from fedpriv.storage.verification import find_ledgers, read_entries


def report(
    where: Where,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page's file.", show_default="stdout")
    ] = None,
    key: OwnersKey = None,
    witness: Witnesses = None,
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """Write a printable page: what left, when, to whom, under which rules, and what proves it."""
    now = SystemClock().now()
    choice = choice_of(now, since=since, until=until)
    folders = find_ledgers(where)
    if key and len(folders) > 1:
        raise UsageError(
            f"{where} holds {len(folders)} ledgers, --key is of one; name the ledger, as in {quote(str(folders[0]))}"
        )
    ledgers = [_ledger(where, folder, key, witness or (), choice) for folder in folders]
    made = f"Made {time_text(int(now * 1000), fraction=False)} UTC by fedpriv {importlib.metadata.version('fedpriv')} "
    html = document(ledgers, made=f"{made}from {where}.", period=_period(choice))
    if output is not None:
        write_atomically(output, html.encode(), durable=False)
        say(f"wrote {output}")
    if as_json:
        for ledger in ledgers:
            print_json(_summed(ledger))
    elif output is None:
        sys.stdout.write(html)
    failures = [harmless(f"{ledger.place}: {ledger.proof.failure}") for ledger in ledgers if ledger.proof.failure]
    if failures:
        raise VerificationFailed("\n".join(failures))


def _ledger(run: Path, folder: Path, key: str | None, witnesses: Sequence[str], choice: Choice) -> Ledger:
    summary = Summary()
    try:
        proof = _proof(run, folder, key, witnesses)
        for number, entry in enumerate(read_entries(folder)):
            if number < proof.entries and choice.takes(entry):
                summary.add(entry)
    except VerificationFailed as error:
        proof = Proof(failure=str(error))
        _read_on(folder, choice, summary)
    origin = origin_of(folder) or folder.name
    received = origin.startswith(INGRESS_PREFIX)
    keeper = origin.removeprefix(INGRESS_PREFIX if received else LEDGER_PREFIX)
    return Ledger(keeper, str(folder), summary, proof, received=received)


def _proof(run: Path, folder: Path, key: str | None, witnesses: Sequence[str]) -> Proof:
    found = verified(folder, key=key, witnesses=witnesses, kept=kept_in(run, folder))
    sentences = tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in found.sentences())
    seen = found.report
    return Proof(seen.vkey, seen.pinned, seen.signed, seen.entries, seen.root.hex(), sentences)


def _read_on(folder: Path, choice: Choice, summary: Summary) -> None:
    """Sum up what can still be read of a ledger that does not verify, up to the first entry that cannot be."""
    try:
        for entry in read_entries(folder):
            if choice.takes(entry):
                summary.add(entry)
    except VerificationFailed:
        return


def _period(choice: Choice) -> str:
    """Return which part of the ledger was asked for, as the end of a sentence; "" for all of it."""
    ends = [
        f"{word} {time_text(time, fraction=False)}"
        for word, time in (("since", choice.since), ("until", choice.until))
        if time is not None
    ]
    return f"Only what was sent {' and '.join(ends)} is counted. " if ends else ""


def _summed(ledger: Ledger) -> dict[str, object]:
    summary, proof = ledger.summary, ledger.proof
    forms = {form.name.lower(): tally for form, tally in by_form(summary.kinds)}
    return {
        "keeper": ledger.keeper, "ledger": ledger.place, "verified": not proof.failure, "failure": proof.failure,
        "vkey": proof.vkey, "pinned": proof.pinned, "signed": proof.signed, "root": proof.root,
        "witnesses": list(proof.witnesses), "messages": summary.total.messages, "bytes": summary.total.bytes,
        "again": summary.total.again, "forms": _sums(forms),
        "kinds": _sums(summary.kinds), "recipients": _sums(summary.recipients),
        "datasets": _sums(summary.datasets), "approvals": _sums(summary.approvals),
        "epsilon": {name: {"spent": each.spent, "limit": each.limit, "left": each.left}
                    for name, each in summary.spends.items()},
    }  # fmt: skip  # one line per group of fields


def _sums(tallies: dict[str, Tally]) -> dict[str, object]:
    return {name: {"messages": tally.messages, "bytes": tally.bytes, "again": tally.again, "first": tally.first,
                   "last": tally.last, "rules": sorted(tally.rules), "purposes": sorted(tally.purposes)}
            for name, tally in tallies.items()}  # fmt: skip  # one line per group of fields
