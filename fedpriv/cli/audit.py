"""`fedpriv audit`: read and verify what left, from the files alone.

`show` lists entries, `verify` proves that they are the ones that were signed; both work on a run, on a worker's state
folder, running or not, and on a bare ledger folder, without any network. Text in a ledger comes from peers, so nothing
unprintable of it reaches the terminal.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.entries import Entry, encode_entry
from fedpriv.storage.verification import LedgerReport, find_ledgers, read_entries, verify_ledger

DEFAULT_ROWS = 100
PLAIN_WIDTH = 200  # columns where there is no terminal to ask

app = typer.Typer(
    help="Read and verify what left the workers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Where = Annotated[Path, typer.Argument(metavar="RUN|LEDGER", help="A run, a worker's state, or a ledger folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


@dataclass(slots=True)
class _Sum:
    messages: int = 0
    bytes: int = 0

    def add(self, entry: Entry) -> None:
        self.messages += 1
        self.bytes += entry.draft.bytes


@dataclass(slots=True)
class _Sums:
    kinds: dict[str, _Sum] = field(default_factory=dict)
    workers: dict[str, _Sum] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.kinds.setdefault(entry.draft.kind, _Sum()).add(entry)
        self.workers.setdefault(entry.worker, _Sum()).add(entry)


@app.command()
def show(
    where: Where,
    *,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"Newest entries to list, 0 for all; {DEFAULT_ROWS}, or all with --json.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Only messages of this kind.")] = "",
    worker: Annotated[str, typer.Option(help="Only this worker's ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """List what left: when, to whom, how many bytes, under which rule."""
    entries = _selected(where, kind, worker)
    if as_json:
        for entry in deque(entries, maxlen=limit) if limit else entries:
            print(json.dumps(json.loads(encode_entry(entry))))  # noqa: T201  # ASCII only, one line an entry
        return
    sums = _Sums()
    rows = DEFAULT_ROWS if limit is None else limit
    newest = deque(_counted(entries, sums), maxlen=rows or None)
    console = _console()
    console.print(_entries_table(newest))
    console.print(_sums_table("kind", sums.kinds))
    console.print(_sums_table("worker", sums.workers))
    total = sum(found.messages for found in sums.kinds.values())
    if total > len(newest):
        _say(f"the newest {len(newest)} of {total} entries; --limit 0 lists all")


@app.command()
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


def _selected(where: Path, kind: str, worker: str) -> Iterator[Entry]:
    for folder in find_ledgers(where):
        for entry in read_entries(folder):
            if worker and entry.worker != worker:
                break  # a ledger has one worker
            if not kind or entry.draft.kind == kind:
                yield entry


def _counted(entries: Iterator[Entry], sums: _Sums) -> Iterator[Entry]:
    for entry in entries:
        sums.add(entry)
        yield entry


def _entries_table(entries: deque[Entry]) -> Table:
    table = Table(box=None)
    for name in ("worker", "seq", "time (UTC)", "to", "kind", "bytes", "round", "rule", "labels"):
        table.add_column(name, justify="right" if name in ("seq", "bytes", "round") else "left")
    for entry in entries:
        draft = entry.draft
        number = "" if draft.round < 0 else str(draft.round)
        cells = (entry.worker, str(entry.seq), _time(entry.time), draft.peer, draft.kind, f"{draft.bytes:,}", number)
        table.add_row(*map(_printable, (*cells, draft.policy, ", ".join(draft.labels))))
    return table


def _sums_table(what: str, sums: dict[str, _Sum]) -> Table:
    table = Table(what, box=None)
    table.add_column("messages", justify="right")
    table.add_column("bytes", justify="right")
    for name, found in sorted(sums.items()):
        table.add_row(_printable(name), f"{found.messages:,}", f"{found.bytes:,}")
    return table


def _print_report(report: LedgerReport, *, as_json: bool) -> None:
    if as_json:
        print(  # noqa: T201  # data for another program, one line a ledger
            json.dumps(
                {
                    "ledger": str(report.folder), "origin": report.origin, "vkey": report.vkey, "pinned": report.pinned,
                    "entries": report.entries, "signed": report.signed, "bytes": report.message_bytes,
                    "root": report.root.hex(),
                }
            )
        )  # fmt: skip  # one line per group of fields
        return
    newer = report.entries - report.signed
    tail = (
        f", {newer:,} of them newer than the last checkpoint (signed with a later round, or when the worker stops)"
        if newer
        else ""
    )
    what = f"{report.entries:,} entries{tail}, {report.message_bytes:,} bytes, root {report.root.hex()}"
    _console().print(_printable(f"{report.origin}: ok: {what}"), soft_wrap=True)
    if not report.pinned:
        _say(f"{report.origin}: verified with the key beside the ledger; pass the owner's with --key {report.vkey}")


def _printable(text: str) -> Text:
    return Text("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text))


def _time(milliseconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # a clock beyond the year 9999: show what is on record
    return f"{moment:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03}"


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(_printable(text), soft_wrap=True)
