"""Curves of a run: loss, accuracy and bytes per round, and where a worker was lost.

Drawn with matplotlib's own canvas, never through pyplot: a notebook's backend, style and open figures stay as
they are. What a run did not record is left out of the picture, not drawn as zero. Not for two threads at once.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpriv.errors import UsageError
from fedpriv_coordinator.experiment import History, size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel: TypeAlias = "Callable[[Axes, History], None]"

# Apart from each other in the common colour blindnesses, and in grey print through their dashes.
BLUE, PALE, GREEN, ORANGE, GREY, RED = "#1f6f9f", "#b8d4e3", "#7fae6b", "#d9822b", "#6b7280", "#b42318"
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": "#374151",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedpriv",
    "text.parse_math": False,  # a worker's name is text
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
}
NAMED_LOSSES = 2  # the legend has room for no more names; the report's table has them all
MARKERS_UP_TO = 30  # rounds


def available() -> bool:
    """Return whether matplotlib, the extra `plot`, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write(history: History, path: Path) -> Path:
    """Draw every panel of `history` side by side to `path`; the suffix chooses png, svg or pdf."""
    panels = _panels(history)
    with style():
        figure = _figure(len(panels), panel_width=10 / len(panels))
        for axes, panel in zip(figure.axes, panels, strict=True):
            panel(axes, history)
        return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write `figure` to `path`, whose suffix chooses the format; call it inside `style()`."""
    try:
        figure.savefig(path, dpi=160)
    except ValueError as error:
        raise UsageError(f"cannot draw to {path}: {error}") from None
    return path


def svgs(history: History) -> tuple[str, ...]:
    """Return each panel of `history` as one `<svg>` element that scales with the page it stands in."""
    found: list[str] = []
    with style():
        for panel in _panels(history):
            figure = _figure(1, panel_width=4.4)
            panel(figure.axes[0], history)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            found.append(_element(buffer.getvalue(), prefix=f"p{len(found)}-"))
    return tuple(found)


def style() -> AbstractContextManager[None]:
    """Return the context that draws in our style; raise `UsageError` without matplotlib."""
    if not available():
        raise UsageError("drawing needs matplotlib: pip install 'fedpriv[plot]'")
    from matplotlib import style  # noqa: PLC0415 - optional, and slow to import

    return style.context(["default", STYLE])


def _panels(history: History) -> tuple[Panel, ...]:
    """Return the panels that `history` has values for."""
    if not history.rounds:
        raise UsageError("there is nothing to draw: the run has no rounds")
    losses, accuracies = ("loss", "evaluation/loss", "worker/loss"), ("accuracy", "worker/accuracy")
    choices: tuple[tuple[Panel, tuple[str, ...]], ...] = ((_loss, losses), (_accuracy, accuracies))
    shown = [panel for panel, columns in choices if any(_present(history, column) for column in columns)]
    return (*shown, _bytes)


def _figure(panels: int, *, panel_width: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - the same

    figure = Figure(figsize=(panel_width * panels, 3.9), layout="constrained")
    for axes in figure.subplots(1, panels, squeeze=False)[0]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set_xlabel("round")
    return figure


def _loss(axes: Axes, history: History) -> None:
    axes.set_title("Loss")
    _curve(axes, history, "loss", label="training rows", color=GREEN)
    _curve(axes, history, "evaluation/loss", label="coordinator's evaluation", color=BLUE)
    _curve(axes, history, "worker/loss", label="workers' validation rows", color=ORANGE)
    _finish(axes, history, "loss")


def _accuracy(axes: Axes, history: History) -> None:
    axes.set_title("Accuracy")
    _curve(axes, history, "accuracy", label="coordinator's evaluation", color=BLUE)
    _curve(axes, history, "worker/accuracy", label="workers' validation rows", color=ORANGE)
    _finish(axes, history, "accuracy")


def _bytes(axes: Axes, history: History) -> None:
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415 - optional, and slow to import

    axes.set_title("Bytes per round")
    numbers = [record.number for record in history.rounds]
    received, sent = ([getattr(record, name) for record in history.rounds] for name in ("bytes_in", "bytes_out"))
    width = 0.3 if len(numbers) == 1 else 0.8 if len(numbers) <= MARKERS_UP_TO else 1.0
    axes.bar(numbers, received, width=width, color=BLUE, label="left the workers")
    axes.bar(numbers, sent, width=width, bottom=received, color=PALE, label="sent to the workers")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(round(value)).replace(".0 ", " ")))
    axes.set_ylim(0, 1.08 * max(1, *map(sum, zip(received, sent, strict=True))))
    _finish(axes, history, None)


def _curve(axes: Axes, history: History, column: str, *, label: str, color: str) -> None:
    """Draw one column as a line; a single round, which has no line, as a point."""
    if not _present(history, column):
        return
    values = [float("nan") if value is None else value for value in history.column(column)]
    marker = "o" if len(values) <= MARKERS_UP_TO else ""
    numbers = [record.number for record in history.rounds]
    axes.plot(numbers, values, color=color, label=label, marker=marker, markersize=3.5)


def _finish(axes: Axes, history: History, metric: str | None) -> None:
    """Add what every panel has: the baseline where known, lost workers, limits, and the legend below."""
    if metric and history.baseline and metric in history.baseline:
        axes.axhline(history.baseline[metric], color=GREY, linestyle="--", linewidth=1.3, label="all rows in one place")
    numbers = [record.number for record in history.rounds]
    axes.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    named = len(history.lost) <= NAMED_LOSSES
    for at, lost in enumerate(history.lost):
        label = f"{lost.worker} lost" if named else f"{len(history.lost)} workers lost" if at == 0 else None
        axes.axvline(lost.round, color=RED, linestyle=":", linewidth=1.3, label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), fontsize=8.5, borderaxespad=0, handlelength=1.8)


def _present(history: History, column: str) -> bool:
    return column in history.columns and any(value is not None for value in history.column(column))


def _element(document: str, *, prefix: str) -> str:
    """Return the `<svg>` element of `document`, its identifiers made unique to the page, sized by its container."""
    element = document[document.index("<svg") :]
    element = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", element, count=1)
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", element)
    return re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
