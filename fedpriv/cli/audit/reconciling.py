"""`fedpriv audit reconcile`: whether what workers say they sent is what their coordinator says it received.

Both sides are verified first, then compared message by message (`ledger.reconciling`). A finding says that the two
differ, not who is wrong; only what is in both ledgers, unchanged, has two witnesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, given_key
from fedpriv.cli.audit.printing import console, counted, iso_text, print_json, printable, say, say_whose_key, time_text
from fedpriv.cli.audit.witnessing import origin_of
from fedpriv.errors import UsageError, VerificationFailed, nearest
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import INGRESS_PREFIX, LEDGER_PREFIX, parse_verifier_key
from fedpriv.ledger.entries import Entry
from fedpriv.ledger.reconciling import Count, Finding, by_sender, reconcile
from fedpriv.storage.verification import LedgerReport, find_ledgers, read_entries, verify_ledger


@dataclass(frozen=True, slots=True)
class _Side:
    """A verified ledger and whose it is."""

    report: LedgerReport
    name: str

    def entries(self) -> Iterator[Entry]:
        """Yield the entries that were verified."""
        return islice(read_entries(self.report.folder), self.report.entries)


def compare(
    worker_ledger: Annotated[Path, typer.Argument(metavar="WORKER_LEDGER", help="A worker's ledger, or a run's.")],
    coordinator_ledger: Annotated[
        Path | None, typer.Argument(metavar="COORDINATOR_LEDGER", help="The coordinator's; by default the same run's.")
    ] = None,
    *,
    key: Annotated[list[str] | None, typer.Option(metavar="VKEY", help="A worker's key; once for each.")] = None,
    coordinator_key: Annotated[
        str | None, typer.Option(metavar="VKEY", help="The coordinator's verifier key.", callback=given_key)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Match what was sent with what was received; exit code 3 if a message is missing, unrecorded or different."""
    theirs = _coordinator(coordinator_ledger or worker_ledger, coordinator_key)
    workers = _workers(worker_ledger, key or ())
    received, strangers = _received(theirs, [WorkerName(worker.name) for worker in workers])
    findings = 0
    for worker in workers:
        count = Count()
        differences = reconcile(worker.entries(), received[worker.name], theirs.name, count)
        own = 0
        for own, finding in enumerate(differences, 1):  # noqa: B007  # the number of the last one is how many
            _print_finding(worker.name, theirs.name, finding, as_json=as_json)
        _print_count(worker.name, theirs.name, count, own, as_json=as_json)
        findings += own
    _say_what_it_rests_on([*workers, theirs], strangers)
    if findings:
        raise VerificationFailed(f"the ledgers do not agree on {counted(findings, 'message')}")


def _coordinator(path: Path, key: str | None) -> _Side:
    found = [folder for folder in find_ledgers(path, received=True) if origin_of(folder).startswith(INGRESS_PREFIX)]
    if len(found) != 1:
        raise UsageError(
            f"{path} holds {len(found)} ledgers of what a coordinator received, and one is compared; name its folder"
        )
    report = verify_ledger(found[0], key=key)
    return _Side(report, report.origin.removeprefix(INGRESS_PREFIX))


def _workers(path: Path, keys: Sequence[str]) -> list[_Side]:
    folders = {folder: origin_of(folder) for folder in find_ledgers(path)}
    if any(origin.startswith(INGRESS_PREFIX) for origin in folders.values()):
        raise UsageError(f"{path} is a ledger of what was received; name the worker's first, the coordinator's second")
    pinned = {parse_verifier_key(text.strip()).name: text for text in keys}
    for name in pinned:
        if name not in folders.values():
            raise UsageError(f"--key is of {name!r}, of which {path} has no ledger{nearest(name, folders.values())}")
    reports = [verify_ledger(folder, key=pinned.get(origin)) for folder, origin in folders.items()]
    return [_Side(report, report.origin.removeprefix(LEDGER_PREFIX)) for report in reports]


def _received(theirs: _Side, workers: Sequence[WorkerName]) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """Return what came from each worker, and how many messages came from peers whose ledger is not here."""
    strangers: dict[str, int] = {}

    def counted(entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.draft.peer not in workers:
                strangers[entry.draft.peer] = strangers.get(entry.draft.peer, 0) + 1
            yield entry

    return by_sender(counted(theirs.entries()), workers), strangers


def _print_finding(worker: str, coordinator: str, finding: Finding, *, as_json: bool) -> None:
    sent, received = finding.sent, finding.received
    shown = sent or received
    assert shown is not None, "a finding is of a message"
    if as_json:
        print_json(
            {
                "worker": worker, "coordinator": coordinator, "finding": finding.verdict.name.lower(),
                "fields": list(finding.fields), "kind": shown.draft.kind, "bytes": shown.draft.bytes,
                "time": iso_text(shown.time), "entry": None if sent is None else sent.seq,
                "received_entry": None if received is None else received.seq,
                "cited": None if received is None else received.draft.source,
            }
        )  # fmt: skip  # one line per group of fields
        return
    where = []
    if sent is not None:
        where.append(f"entry {sent.seq} of {worker}")
    if received is not None:
        where.append(f"entry {received.seq} of {coordinator}, which cites {received.draft.source}")
    which = f" ({', '.join(_field(name, sent, received) for name in finding.fields)})" if finding.fields else ""
    what = f"{shown.draft.kind}, {shown.draft.bytes:,} bytes, {time_text(shown.time)} UTC"
    line = f"{worker}: {finding.verdict.value}{which}: {'; '.join(where)}: {what}"
    console().print(printable(line), soft_wrap=True)


def _field(name: str, sent: Entry | None, received: Entry | None) -> str:
    """Return what differs, with both values where they say something to a reader."""
    if sent is None or received is None or name == "digest":
        return name
    if name == "recipient":
        return f"recipient: sent to {sent.draft.peer!r}"
    values = (sent.draft.kind, received.draft.kind) if name == "kind" else (sent.draft.bytes, received.draft.bytes)
    return f"{name}: sent {values[0]}, received {values[1]}"


def _print_count(worker: str, coordinator: str, count: Count, findings: int, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "worker": worker, "coordinator": coordinator, "received": count.received, "matched": count.matched,
                "again": count.again, "findings": findings,
            }
        )  # fmt: skip  # one line per group of fields
        return
    state = counted(findings, "finding") if findings else "ok"
    lost = f"; {count.again:,} were lost on the way and arrived when sent again" if count.again else ""
    what = f"{count.matched:,} of {count.received:,} messages that {coordinator} received agree"
    console().print(printable(f"{worker}: {state}: {what}{lost}"), soft_wrap=True)


def _say_what_it_rests_on(sides: Sequence[_Side], strangers: dict[str, int]) -> None:
    for peer, messages in sorted(strangers.items()):
        say(f"{messages:,} messages came from {peer!r}, whose ledger is not here: they are not compared")
    for side in sides:
        if not side.report.pinned:
            say_whose_key(side.report.origin, side.report.vkey)
