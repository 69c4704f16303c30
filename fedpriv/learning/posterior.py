"""What a worker's posterior says in one vector: the update of federated posterior averaging.

From samples of its parameters a worker estimates mean and covariance, and sends the covariance's inverse times the way
to that mean: as many numbers as there are parameters. Sums of these updates vanish where the product of all workers'
posteriors peaks, however unlike the workers are. Al-Shedivat et al. 2021, arXiv 2010.05273, section 4 and appendix C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import UsageError

Vector = NDArray[np.float64]


def shrinkage_delta(samples: Vector, start: Vector, *, shrinkage: float = 1.0) -> Vector:
    """Return C^-1 (m - x), shape (d,): x is `start`, m the mean and C the covariance of `samples`, shape (n, d).

    C = r I + (1 - r) S, where S is the sample covariance and r = 1 / (1 + (n - 1) shrinkage); n = 1 gives m - x,
    which is the update of federated averaging. No matrix larger than the smaller of n and d is made (Woodbury's
    identity), so that d may be that of a network. Raise `UsageError` for shapes that do not fit.
    """
    if samples.ndim != 2 or start.shape != samples.shape[1:] or not len(samples):
        raise UsageError(f"samples have shape {samples.shape} and start {start.shape}; give (n, d) and (d,), n >= 1")
    if not (np.isfinite(shrinkage) and shrinkage >= 0):
        raise UsageError(f"shrinkage is {shrinkage}; use 0 (the identity) or more")
    count = len(samples)
    mean = samples.mean(axis=0)
    way: Vector = mean - start
    ridge = 1.0 / (1.0 + (count - 1) * shrinkage)
    if ridge == 1.0:
        return way
    centred = samples - mean
    if samples.shape[1] <= count:
        covariance = ridge * np.eye(samples.shape[1]) + (1.0 - ridge) * (centred.T @ centred) / (count - 1)
        return np.asarray(np.linalg.solve(covariance, way), dtype=np.float64)
    inner = centred @ centred.T + np.eye(count) * (ridge * (count - 1) / (1.0 - ridge))
    delta: Vector = (way - centred.T @ np.linalg.solve(inner, centred @ way)) / ridge
    return delta
