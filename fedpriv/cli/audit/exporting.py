"""`fedpriv audit export`: the entries for a spreadsheet, another program, a lineage catalogue or a provenance store.

What is exported is what the ledger says, filtered; nothing is verified. In CSV what a spreadsheet would run as a
formula gets an apostrophe in front and what does not print becomes a mark; JSON Lines hold every entry exactly.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import (
    Choice,
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
from fedpriv.cli.audit.lineage import run_events
from fedpriv.cli.audit.printing import harmless, iso_text, say
from fedpriv.cli.audit.provenance import prov_json
from fedpriv.clock import SystemClock
from fedpriv.errors import StorageFailed
from fedpriv.ledger.entries import Entry, encode_entry

COLUMNS = (
    "worker", "seq", "time", "time_milliseconds", "peer", "method", "kind", "bytes", "round", "source", "labels",
    "policy", "approval", "purpose", "legal_basis", "plan", "model", "sid", "dp_event", "dp_relation", "dp_spent",
    "dp_limit", "digest", "v",
)  # fmt: skip  # groups of fields
_FORMULA = re.compile(r"""(^|;)(?=[\s"']*[=+\-@\t\r\n\0\uff1d\uff0b\uff0d\uff20])""")
"""What a spreadsheet takes for the start of a formula, full-width forms included (OWASP, CSV injection).

Where the decimal sign is a comma, a semicolon begins the next cell, whatever stands in quotation marks.
"""


class Format(Enum):
    """The form in which entries leave the ledger."""

    CSV = "csv"
    JSONL = "jsonl"
    OPENLINEAGE = "openlineage"
    PROV = "prov"


def export(
    where: Where,
    *,
    form: Annotated[Format, typer.Option("--format", help="csv, jsonl, OpenLineage 2-0-2 or W3C PROV-JSON.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The export's file.", show_default="stdout")
    ] = None,
    since: Since = "",
    until: Until = "",
    to: To = "",
    dataset: OfDataset = "",
    kind: Kind = "",
    round: Round = None,  # noqa: A002  # the option's name
    worker: Worker = "",
) -> None:
    """Write the entries as CSV, JSON Lines, OpenLineage events or PROV-JSON."""
    choice = choice_of(
        SystemClock().now(), since=since, until=until, to=to, dataset=dataset, kind=kind, round=round, worker=worker
    )
    pieces = _pieces(where, choice, form)
    if output is None:
        for piece in pieces:
            sys.stdout.write(piece)
        return
    first = next(pieces, "")  # a wrong path or ledger is refused before a file is begun
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            file.write(first)
            file.writelines(pieces)
    except OSError as error:
        raise StorageFailed(f"cannot write {output}: {error.strerror}; free space or choose another file") from error
    say(f"wrote {output}")


def cell(value: object) -> str:
    """Return a value as a cell that no spreadsheet takes for a formula and no terminal for an instruction."""
    if isinstance(value, int):
        return str(value)  # a number, a minus sign included, is none
    found = str(value)
    return harmless(_FORMULA.sub(r"\1'", found))


def _pieces(where: Path, choice: Choice, form: Format) -> Iterator[str]:
    match form:
        case Format.CSV:
            return _csv(chosen(where, choice))
        case Format.JSONL:
            return (f"{json.dumps(json.loads(encode_entry(entry)))}\n" for entry in chosen(where, choice))
        case Format.OPENLINEAGE:
            return (f"{json.dumps(event)}\n" for event in run_events(chosen(where, choice)))
        case Format.PROV:
            size = sum(1 for _ in chosen(where, choice))  # every reading stops there, also while a worker goes on
            return prov_json(lambda: islice(chosen(where, choice), size))


def _csv(entries: Iterable[Entry]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow([cell(value) for value in _row(entry)])
        if line.tell() > 1 << 16:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()


def _row(entry: Entry) -> tuple[object, ...]:
    draft, dp = entry.draft, entry.draft.dp
    return (
        entry.worker, entry.seq, iso_text(entry.time), entry.time, draft.peer, draft.method, draft.kind, draft.bytes,
        draft.round, draft.source, " ".join(draft.labels), draft.policy, draft.approval, draft.purpose,
        draft.legal_basis, draft.plan, draft.model, draft.sid, dp.event, dp.relation, dp.spent, dp.limit, entry.digest,
        entry.v,
    )  # fmt: skip  # the order of COLUMNS
