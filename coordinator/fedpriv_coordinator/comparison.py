"""Several curves in one picture: metrics of one run beside each other, or one metric of several runs.

`plots` draws what one run left; this draws what is to be compared, each run or metric in a colour of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.errors import UsageError
from fedpriv_coordinator import plots
from fedpriv_coordinator.experiment import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[float | None]
Points = tuple[Sequence[float], Sequence[float]]
"""Values of x and, for each, of y."""
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, "#7c5cbf", plots.GREY, "#c2649a", "#3aa6a0")
DASHES = ("-", "--", ":", "-.")
TITLES = {
    "loss": "Training loss",
    "evaluation/loss": "Loss, coordinator's evaluation",
    "worker/loss": "Loss, workers' validation rows",
    "accuracy": "Accuracy, coordinator's evaluation",
    "worker/accuracy": "Accuracy, workers' validation rows",
}


def curves(panels: Mapping[str, Mapping[str, Curve]], path: str | Path, *, x: str = "round") -> Path:
    """Draw one panel per title, with one named curve per series, to `path` (png, svg or pdf); needs the extra `plot`.

    A series has one value per round from 1 on; None leaves a gap.
    """
    if not panels or not any(any(series.values()) for series in panels.values()):
        raise UsageError("there is nothing to draw: no series has a value")
    with plots.style():
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - the same

        figure = Figure(figsize=(max(5.0, 4.2 * len(panels)), 3.9), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, series) in zip(row, panels.items(), strict=True):
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
            for place, (name, values) in enumerate(series.items()):
                _draw(axes, place, name, values)
            axes.legend(loc="best", fontsize=8.5)
        return plots.save(figure, Path(path))


def compare(runs: Mapping[str, History], path: str | Path, *, columns: Sequence[str] = ()) -> Path:
    """Draw `columns` of several runs, one panel each; without any, every loss and accuracy that all runs have.

    Raise `UsageError` for a column that a run does not have, and for runs that have none in common.
    """
    if not runs:
        raise UsageError("there is nothing to compare; name at least one run")
    shared = [name for name in TITLES if all(_has(history, name) for history in runs.values())]
    chosen = tuple(columns) or tuple(shared)
    if not chosen:
        raise UsageError("the runs have neither a loss nor an accuracy in common; name a column that they have")
    panels = {
        TITLES.get(column, column): {name: history.column(column) for name, history in runs.items()}
        for column in chosen
    }
    return curves(panels, path)


def fits(panels: Mapping[str, tuple[Sequence[Points], Points]], path: str | Path) -> Path:
    """Draw one panel per title: every worker's points in a colour of its own, and the curve that was fitted to all."""
    if not panels:
        raise UsageError("there is nothing to draw; give at least one panel of points and their curve")
    with plots.style():
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

        figure = Figure(figsize=(max(5.0, 4.2 * len(panels)), 3.9), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (shares, curve)) in zip(row, panels.items(), strict=True):
            axes.set_title(title)
            for place, points in enumerate(shares):
                axes.scatter(
                    *points, s=9, alpha=0.5, color=COLOURS[1 + place % (len(COLOURS) - 1)], label=f"worker {place}"
                )
            axes.plot(*curve, color=COLOURS[0], linewidth=2, label="fitted to all")
            axes.legend(loc="best", fontsize=8.5)
        return plots.save(figure, Path(path))


def _draw(axes: Axes, place: int, name: str, values: Curve) -> None:
    numbers = [float("nan") if value is None else value for value in values]
    axes.plot(
        range(1, len(numbers) + 1),
        numbers,
        label=name,
        color=COLOURS[place % len(COLOURS)],
        linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
        marker="o" if len(numbers) <= plots.MARKERS_UP_TO else "",
        markersize=3.5,
    )


def _has(history: History, column: str) -> bool:
    return column in history.columns and any(value is not None for value in history.column(column))
