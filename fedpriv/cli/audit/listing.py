"""`fedpriv audit show`: what left, entry by entry, with totals that respect the filters.

It reads without comparing anything with the tree: `verify` proves, this lists.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.table import Table

from fedpriv.cli.audit.choosing import (
    AsJson,
    Kind,
    OfDataset,
    Round,
    Since,
    To,
    Until,
    Where,
    Worker,
    choice_of,
    chosen,
)  # fmt: skip  # the options that commands share
from fedpriv.cli.audit.printing import console, print_json, printable, say, time_text
from fedpriv.clock import SystemClock
from fedpriv.ledger.entries import Entry, encode_entry

DEFAULT_ROWS = 100


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
    again: _Sum = field(default_factory=_Sum)

    def add(self, entry: Entry) -> None:
        self.kinds.setdefault(entry.draft.kind, _Sum()).add(entry)
        self.workers.setdefault(entry.worker, _Sum()).add(entry)
        if entry.draft.source >= 0:
            self.again.add(entry)


def show(
    where: Where,
    *,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"Newest entries to list, 0 for all; {DEFAULT_ROWS}, or all with --json.")
    ] = None,
    since: Since = "",
    until: Until = "",
    to: To = "",
    dataset: OfDataset = "",
    kind: Kind = "",
    round: Round = None,  # noqa: A002  # the option's name
    worker: Worker = "",
    as_json: AsJson = False,
) -> None:
    """List what left: when, to whom, how many bytes, under which rule."""
    choice = choice_of(
        SystemClock().now(), since=since, until=until, to=to, dataset=dataset, kind=kind, round=round,
        worker=worker,
    )  # fmt: skip  # one line of options
    entries = chosen(where, choice)
    if as_json:
        for entry in deque(entries, maxlen=limit) if limit else entries:
            print_json(json.loads(encode_entry(entry)))
        return
    sums = _Sums()
    rows = DEFAULT_ROWS if limit is None else limit
    newest = deque(_counted(entries, sums), maxlen=rows or None)
    out = console()
    out.print(_entries_table(newest))
    out.print(_sums_table("kind", sums.kinds))
    out.print(_sums_table("worker", sums.workers))
    total = sum(found.messages for found in sums.kinds.values())
    if sums.again.messages:
        out.print(f"{sums.again.messages:,} of them, {sums.again.bytes:,} bytes, were sent before: (entry N again)")
    if total > len(newest):
        say(f"the newest {len(newest)} of {total} entries; --limit 0 lists all")


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
        kind = draft.kind if draft.source < 0 else f"{draft.kind} (entry {draft.source} again)"
        cells = (entry.worker, str(entry.seq), time_text(entry.time), draft.peer, kind, f"{draft.bytes:,}", number)
        table.add_row(*map(printable, (*cells, draft.policy, ", ".join(draft.labels))))
    return table


def _sums_table(what: str, sums: dict[str, _Sum]) -> Table:
    table = Table(what, box=None)
    table.add_column("messages", justify="right")
    table.add_column("bytes", justify="right")
    for name, found in sorted(sums.items()):
        table.add_row(printable(name), f"{found.messages:,}", f"{found.bytes:,}")
    return table
