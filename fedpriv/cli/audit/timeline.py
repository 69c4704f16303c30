"""When how much left: bytes over time by kind, from milliseconds to centuries, as a picture without scripts.

The width of a bar grows with the span, so that a minute and two years each have some dozens of bars and memory stays
bounded. The bars are SVG that stretches; every word beside them is HTML, legible at any width. It reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from fedpriv.cli.audit.printing import harmless, moment

MAXIMUM_BARS = 120
MINIMUM_BARS = 24
MAXIMUM_KINDS = 64
OTHER = "other kinds"

_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000
_MONDAY = 4 * _DAY  # 1970-01-05, so that weeks begin on Mondays
_STEPS = {
    10: "10 ms", 50: "50 ms", 100: "100 ms", 500: "half a second", _SECOND: "second", 5 * _SECOND: "5 seconds",
    15 * _SECOND: "15 seconds", 60 * _SECOND: "minute", 300 * _SECOND: "5 minutes", 900 * _SECOND: "15 minutes",
    _HOUR: "hour", 3 * _HOUR: "3 hours", 6 * _HOUR: "6 hours", 12 * _HOUR: "12 hours", _DAY: "day", 7 * _DAY: "week",
    28 * _DAY: "4 weeks", 364 * _DAY: "52 weeks",
}  # fmt: skip  # each divides the next
_WIDTHS = tuple(_STEPS)
_COLOURS = ("#0b5fa5", "#d55e00", "#15803d", "#7e3fa0", "#c79a00", "#0e7490", "#8a8f98")


@dataclass(slots=True)
class Histogram:
    """Bytes by bar and kind; bar `n` covers `width` milliseconds from `n * width` after a Monday in 1970."""

    width: int = _WIDTHS[0]
    low: int = 0
    high: int = -1
    cells: dict[tuple[int, str], int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, time: int, kind: str, size: int) -> None:
        """Count `size` bytes at `time`, in milliseconds since 1970."""
        name = kind if kind in self.kinds or len(self.kinds) < MAXIMUM_KINDS else OTHER
        self.kinds[name] = self.kinds.get(name, 0) + size
        bar = (time - _MONDAY) // self.width
        self.low, self.high = (min(self.low, bar), max(self.high, bar)) if self.cells else (bar, bar)
        self.cells[bar, name] = self.cells.get((bar, name), 0) + size
        while self.high - self.low >= MAXIMUM_BARS:
            self._widen()

    def _widen(self) -> None:
        wider = next((width for width in _WIDTHS if width > self.width), self.width * 10)
        times = wider // self.width
        cells: dict[tuple[int, str], int] = {}
        for (bar, kind), size in self.cells.items():
            cells[bar // times, kind] = cells.get((bar // times, kind), 0) + size
        self.width, self.low, self.high, self.cells = wider, self.low // times, self.high // times, cells

    @property
    def step(self) -> str:
        """What one bar covers, in words."""
        return _STEPS.get(self.width) or f"{self.width // _DAY:,} days"


def picture(histogram: Histogram) -> str:
    """Return the picture as an HTML figure; "" where nothing left."""
    if not histogram.cells:
        return ""
    missing = max(0, MINIMUM_BARS - (histogram.high - histogram.low + 1))
    first, last = histogram.low - missing // 2, histogram.high + missing - missing // 2
    shown = [name for name, _ in sorted(histogram.kinds.items(), key=lambda each: (-each[1], each[0]))]
    named, rest = shown[: len(_COLOURS) - 1], set(shown[len(_COLOURS) - 1 :])
    rows = [*named, OTHER] if rest else named
    columns = _columns(histogram, first, last, rows)
    top = _ceiling(max(sum(column) for column in columns))
    legend = "".join(
        f'<li><svg viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1" fill="{colour}"/></svg> '
        f"{escape(harmless(name))}</li>"
        for name, colour in zip(rows, _COLOURS, strict=False)
    )
    ticks = "".join(
        f'<span style="bottom:{100 * part / 2:g}%">{size_text(top * part // 2)}</span>' for part in range(3)
    )
    return (
        f'<figure class="time"><figcaption>Bytes sent per {histogram.step}, by kind of message</figcaption>'
        f'<div class="frame"><div class="sizes">{ticks}</div><div class="plot">'
        f'<svg role="img" aria-label="Bytes sent over time" viewBox="0 0 {10 * len(columns)} 1000" '
        f'preserveAspectRatio="none">{"".join(_bars(columns, top))}</svg></div>'
        f'<div class="times">{_times(first, last + 1, histogram.width)}</div></div><ul class="legend">{legend}</ul>'
        "</figure>"
    )


def size_text(size: int) -> str:
    """Return a number of bytes for people: 512 B, 1.8 MB."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value / 1000:,.1f} PB"


def _columns(histogram: Histogram, first: int, last: int, rows: list[str]) -> list[list[int]]:
    at = {name: number for number, name in enumerate(rows)}
    columns = [[0] * len(rows) for _ in range(last - first + 1)]
    for (bar, kind), size in histogram.cells.items():
        columns[bar - first][at.get(kind, len(rows) - 1)] += size
    return columns


def _bars(columns: list[list[int]], top: int) -> list[str]:
    bars = []
    for number, column in enumerate(columns):
        below = 0.0
        for size, colour in zip(column, _COLOURS, strict=False):
            height = max(1000 * size / top, 4.0) if size else 0.0  # what left is never invisible
            if height:
                bars.append(
                    f'<rect x="{10 * number + 1}" y="{1000 - below - height:.1f}" width="8" height="{height:.1f}" '
                    f'fill="{colour}"/>'
                )
                below += height
    return bars


def _ceiling(size: int) -> int:
    """Return the next even round number at or above `size`, at least 2."""
    power = 1
    while True:
        for factor in (2, 4, 6, 8, 10):
            if factor * power >= size:
                return factor * power
        power *= 10


def _times(first: int, last: int, width: int) -> str:
    span = (last - first) * width
    labels = []
    for quarter in range(5):
        at = moment(_MONDAY + first * width + span * quarter // 4)
        labels.append(f'<span style="left:{25 * quarter}%">{"" if at is None else _label(at, span)}</span>')
    return "".join(labels)


def _label(at: datetime, span: int) -> str:
    """Return as much of a time as tells the five along `span` milliseconds apart."""
    if span < 5 * _SECOND:
        return f"{at:%H:%M:%S}.{at.microsecond // 10_000:02}"
    if span < 100 * _SECOND:
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    if span < _DAY:
        return f"{at:%H:%M:%S}" if span < _HOUR else f"{at:%H:%M}"
    date = f"{at.day} {at:%b}"
    return f"{date} {at:%H:%M}" if span < 8 * _DAY else f"{date} {at:%Y}"
