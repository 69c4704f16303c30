"""What a run looks like while it goes: a bar and one line per round on a terminal, plain lines elsewhere.

Progress goes to stderr, so that stdout carries data alone; `egress_table` at the end is data. Every number
comes from a `RoundRecord` or a `LedgerSummary`: nothing is measured or verified here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedpriv.cli import logs
from fedpriv_coordinator.experiment import LedgerSummary, RoundRecord, size_text
from fedpriv_coordinator.telling import MORE_CLIP

_HEADERS = ("round", "training loss", "accuracy", "left workers", "sent", "seconds")
_WIDTHS = (9, 15, 10, 14, 11, 9)
_BLIND = "no metrics asked for: set worker_metrics or evaluate"
_PLAIN_WIDTH = 200  # characters: a pipe has no width, so that nothing is wrapped or cut


class RoundDisplay:
    """The progress of one run of `rounds` rounds, as a context; lines may come from any thread."""

    def __init__(self, rounds: int, *, title: str = "", stream: TextIO | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        self._rounds = rounds
        self._lost: set[str] = set()
        self._unmeasured: dict[str, str] = {}
        self._hinted = self._clipped = False
        self._console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._live.add_task(title or "rounds", total=rounds)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._console.print(Text(_row(_HEADERS), style="dim"))
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:  # a bar that never started would still print an empty line
            self._live.stop()

    def on_round(self, record: RoundRecord) -> None:
        """Show one finished round, after a line for each worker that it lost or got back."""
        for change in self._changes(record):
            self.note(change)
        if not self._console.is_terminal:
            self._print(Text(_plain(record, self._rounds)))
        else:
            cells = (f"{record.number}/{self._rounds}", *_numbers(record))
            style = "yellow" if record.outcome == "abandoned" or record.saturated else ""
            self._print(Text(f"{_row(cells)}{_clipped(record)}", style=style))
            self._live.update(self._task, completed=record.number)
        if not self._hinted and _is_blind(record):
            self._hinted = True
            self.note(_BLIND)
        if record.saturated and not self._clipped:
            self._clipped = True
            self.note(f"{record.saturated:,} numbers were out of bounds in the sum, and so were clipped: {MORE_CLIP}")

    def note(self, text: str) -> None:
        """Show one line about the run as a whole."""
        self._print(Text(text, style="yellow"))

    def _changes(self, record: RoundRecord) -> Iterator[str]:
        """Yield what changed about who takes part since the last round."""
        for part in record.workers:
            if part.lost and part.worker not in self._lost:
                yield f"lost {part.worker} in round {record.number}: {part.reason or 'no reason given'}"
                self._lost.add(part.worker)
            elif part.status in {"refused", "rejected"}:
                yield f"{part.worker} {part.status} in round {record.number}: {part.reason or 'no reason given'}"
            elif part.status == "folded" and not part.lost and part.worker in self._lost:
                yield f"{part.worker} is back in round {record.number}"
                self._lost.remove(part.worker)
            if part.unmeasured and part.unmeasured != self._unmeasured.get(part.worker):
                yield f"no metrics from {part.worker} in round {record.number}: {part.unmeasured}"
            self._unmeasured[part.worker] = part.unmeasured
        if record.outcome == "abandoned":
            yield f"round {record.number} abandoned: {record.reason or 'no reason given'}"

    def _print(self, line: Text) -> None:
        if logs.are_json():
            logs.say(line.plain)
        else:
            self._console.print(line, soft_wrap=True)


def egress_table(ledgers: Sequence[LedgerSummary], stream: TextIO | None = None) -> None:
    """Print what left each worker, by kind of message, and whether its ledger was verified; to stdout."""
    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in ("worker", "kind of message"):
        table.add_column(header, overflow="fold")
    for header in ("messages", "bytes"):
        table.add_column(header, justify="right")
    table.add_column("ledger")
    for ledger in ledgers:
        for at, row in enumerate(ledger.kinds):
            table.add_row(Text("" if at else ledger.worker), Text(row.kind), f"{row.messages:,}", f"{row.bytes:,}", "")
        state = Text("ledger verified", "green") if ledger.verified else Text("NOT VERIFIED", "bold red")
        messages = sum(row.messages for row in ledger.kinds)
        name = Text("" if ledger.kinds else ledger.worker)
        table.add_row(name, "total", f"{messages:,}", f"{ledger.bytes:,}", state)
    console.print(table)


def _row(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _numbers(record: RoundRecord) -> tuple[str, ...]:
    """Return loss, accuracy, bytes from and to the workers, and seconds, as text."""
    accuracy = record.metrics.get("accuracy", record.worker_metrics.get("accuracy"))
    return (
        _figure(record.loss),
        _figure(accuracy),
        size_text(record.bytes_in),
        size_text(record.bytes_out),
        f"{record.seconds:.2f}",
    )


def _plain(record: RoundRecord, rounds: int) -> str:
    loss, accuracy, received, sent, seconds = _numbers(record)
    return (
        f"round {record.number}/{rounds}  training loss {loss}  accuracy {accuracy}  "
        f"left workers {received}  sent {sent}  {seconds} s{_clipped(record)}"
    )


def _clipped(record: RoundRecord) -> str:
    """Return how many numbers were out of bounds in the round's sum, "" where none was."""
    return f"  {record.saturated:,} clipped" if record.saturated else ""


def _is_blind(record: RoundRecord) -> bool:
    """Return whether a whole round says nothing of how good the model is."""
    asked = bool(record.metrics or record.worker_metrics or any(part.unmeasured for part in record.workers))
    return record.outcome == "complete" and record.loss is None and not asked


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if math.isfinite(value) and abs(value) < 1e4 else f"{value:.3g}"
