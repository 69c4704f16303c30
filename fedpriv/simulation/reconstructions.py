"""Rows beside what attacks read off: one picture, for rows that are square images."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedpriv.simulation.attacking import Array, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, MOST_LINES = 8, 12
_INCH = 0.62


def draw(findings: Sequence[Finding], path: Path) -> Path | None:
    """Draw originals and guesses, a pair of lines for each finding that has rows, and return `path`.

    Return None, with nothing drawn, where rows are no square images or the extra `plot` is not installed.
    """
    shown = [each for each in findings if len(each.rows) and math.isqrt(each.rows.shape[1]) ** 2 == each.rows.shape[1]]
    shown = shown[:MOST_LINES]
    if not shown or shown[0].rows.shape[1] < 4 or importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(3.2 + COLUMNS * _INCH, 0.5 + 2 * len(shown) * _INCH), layout="constrained")
    axes = figure.subplots(2 * len(shown), COLUMNS, squeeze=False)
    for at, each in enumerate(shown):
        for line, values, label in ((2 * at, each.rows, "original"), (2 * at + 1, each.guesses, _label(each))):
            _line(axes[line], values, each.rows, label)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)
    return path


def _label(finding: Finding) -> str:
    return f"{finding.attack} on {finding.released}\n{finding.of}: {finding.verdict}"


def _line(axes: Sequence[Axes], values: Array, originals: Array, label: str) -> None:
    """Draw the first images of `values` in a row, each in the shades of its original."""
    side = math.isqrt(originals.shape[1])
    for at, place in enumerate(axes):
        place.set_axis_off()
        if at >= len(values):
            continue
        low, high = float(originals[at].min()), float(originals[at].max())
        image = np.nan_to_num(values[at]).reshape(side, side)
        place.imshow(image, cmap="gray_r", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
    first = axes[0]
    first.text(-0.15, 0.5, label, transform=first.transAxes, ha="right", va="center", fontsize=7)
