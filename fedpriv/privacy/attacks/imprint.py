"""Rows read off the sum of gradients of many: a malicious layer that sorts rows into bins before it adds them up.

Fowl et al. 2022, "Robbing the Fed". All lines of the layer measure the same h(x) = m x; line i starts to fire at the
threshold c_i. The gradients of two neighbouring lines differ by the rows between their thresholds, and where that is
one row, it is there whole. A secure sum over workers only makes the batch larger. Weights that look approved can carry
this: what helps is noise. Functions of the model that was sent and of what was released alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

Array = npt.NDArray[np.float64]
FAINT = 1e-9
"""Differences of a bias below this share of the largest are taken for an empty bin."""


@dataclass(frozen=True, slots=True)
class Imprint:
    """A layer with `thresholds`, ascending, on the measurement `measure`, shape (in,)."""

    measure: Array
    thresholds: Array

    def __post_init__(self) -> None:
        if self.measure.ndim != 1 or self.thresholds.ndim != 1 or len(self.thresholds) < 2:
            raise UsageError("an imprint needs a measurement of shape (in,) and at least two thresholds")
        if not (np.diff(self.thresholds) > 0).all():
            raise UsageError("the thresholds of an imprint must ascend; give each once, in order")

    @property
    def weight(self) -> Array:
        """The layer's W, shape (bins, in): the measurement in every line."""
        return np.tile(self.measure, (len(self.thresholds), 1))

    @property
    def bias(self) -> Array:
        """The layer's b, shape (bins,)."""
        return -self.thresholds

    def rows(self, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> Array:
        """Return a candidate row for each bin that is not empty, from the gradients of W and b, any sum of them.

        A bin of one row gives the row; one of several gives a mixture of them. Needs every line to be weighed alike by
        the next layer, which whoever places the imprint arranges.
        """
        if weight.shape != self.weight.shape or bias.shape != self.thresholds.shape:
            raise UsageError(f"gradients of shapes {weight.shape} and {bias.shape} are not of this imprint")
        lines = np.append(weight.astype(np.float64), np.zeros((1, weight.shape[1])), axis=0)
        steps = np.append(bias.astype(np.float64), 0.0)
        lines, steps = lines[:-1] - lines[1:], steps[:-1] - steps[1:]
        full = np.abs(steps) > FAINT * max(float(np.abs(steps).max(initial=0.0)), 1e-300)
        candidates: Array = lines[full] / steps[full, None]
        return candidates


def imprint(measure: Array, sample: npt.NDArray[np.floating], bins: int) -> Imprint:
    """Return an imprint with `bins` thresholds at the quantiles of the measurement over rows like the victims'."""
    measured = sample.astype(np.float64) @ measure
    thresholds = np.unique(np.quantile(measured, np.arange(bins) / bins))
    return Imprint(measure, thresholds)
