"""A picture of who holds what: rows per label and worker, of shares that `fedpriv.learning.partition` made.

It needs the labels of all rows in one place, so it is for simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from fedpriv.errors import UsageError
from fedpriv.learning.partition import Share, label_counts
from fedpriv_coordinator import plots

_NARROW, _WIDE = 5.0, 16.0
_MOST_NAMED = 20
_LABELLED = 40
"""Bars that still have room for their worker's number below."""


def plot_partitions(
    labels: ArrayLike, shares: Sequence[Share], path: str | Path, *, names: Sequence[str] | None = None, title: str = ""
) -> Path:
    """Draw one stacked bar of label counts per worker to `path` (png, svg or pdf); needs the extra `plot`.

    `labels` has one label per row, `names` one name per worker (otherwise they are numbered from 0).
    """
    if not shares:
        raise UsageError("there are no shares to draw; divide some rows first")
    workers = [str(number) for number in range(len(shares))] if names is None else list(names)
    if len(workers) != len(shares):
        raise UsageError(f"there are {len(workers)} names for {len(shares)} workers; name each once")
    classes, counts = label_counts(labels, shares)
    with plots.style():
        from matplotlib import colormaps  # noqa: PLC0415 - optional, and slow to import
        from matplotlib.figure import Figure  # noqa: PLC0415 - the same

        width = min(_WIDE, max(_NARROW, 1.6 + 0.45 * len(shares)))
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        axes = figure.subplots()
        colours = colormaps["tab20" if len(classes) > 10 else "tab10"]
        below = counts[0] * 0
        for number, (label, row) in enumerate(zip(classes, counts, strict=True)):
            axes.bar(
                range(len(shares)), row, bottom=below, width=0.8, color=colours(number % colours.N), label=str(label)
            )
            below = below + row
        step = -(-len(shares) // _LABELLED)
        axes.set_xticks(range(0, len(shares), step), workers[::step], rotation=0 if names is None else 45)
        axes.set(xlabel="worker", ylabel="rows", title=title or "Rows per label and worker")
        if len(classes) <= _MOST_NAMED:
            handles, shown = axes.get_legend_handles_labels()
            figure.legend(handles[::-1], shown[::-1], loc="outside right center", title="label", fontsize=8.5)
        return plots.save(figure, Path(path))
