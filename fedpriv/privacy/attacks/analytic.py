"""Rows read off the gradient of a linear layer: no search, one division.

The gradient of a layer y = W x + b for one row is g x^T for W and g for b, so each of its lines is x times a number
that the gradient of b names (Phong et al. 2018; Geiping et al. 2020, Proposition 3.1). Over a batch each line is a
mixture of the rows that moved it, and over a noisy gradient it is noise over noise. Functions of what was released
alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

Array = npt.NDArray[np.float64]

FAINT = 1e-12
"""Gradients of a bias below this share of the largest say nothing."""
NEAR = 0.1
"""Relative error below which a row counts as recovered."""


def rows_in_linear(weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> Array:
    """Return a candidate row for each line of the gradients of W, shape (out, in), and b, shape (out,).

    Lines whose bias did not move have none. The line that moved most comes first: the best one for a batch of one.
    """
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UsageError(f"gradients of shapes {weight.shape} and {bias.shape}; give those of one linear layer")
    moved = np.abs(bias)
    order = np.argsort(-moved, kind="stable")
    order = order[moved[order] > FAINT * max(float(moved.max(initial=0.0)), 1e-300)]
    candidates: Array = weight[order].astype(np.float64) / bias[order, None].astype(np.float64)
    return candidates


def recovered(candidates: npt.NDArray[np.floating], rows: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which of `rows`, shape (n, d), have a candidate within `NEAR` of them, relative to their norm.

    This is for whoever measures an attack and knows the rows; an attacker does not.
    """
    if not len(candidates):
        return np.zeros(len(rows), np.bool_)
    sizes = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    nearest = np.array([np.linalg.norm(candidates - row, axis=1).min() for row in rows])
    found: npt.NDArray[np.bool_] = nearest / sizes < NEAR
    return found
