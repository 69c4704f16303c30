"""Rows drawn for each worker on its own, for simulations in which workers may hold the same rows.

The four data experiments of a well-known exercise in federated averaging over MNIST: as there, every worker draws
with replacement from all rows, so that a row may be in several shares, several times in one, or in none. Each function
returns one ascending array of row numbers per worker; the same seed gives the same shares. `partition` divides exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpriv.errors import UsageError, nearest
from fedpriv.learning.partition import Share

Experiment: TypeAlias = Literal["uniform", "random-equal", "random-unequal", "skewed"]
Members: TypeAlias = list[Share]
_SOURCE_ROWS = 600
_MANY, _FEW = (60, 110), (1, 10)
"""Rows of a skewed class and of any other, from the first up to but not including the second, where 600 are asked."""


def drawn(labels: ArrayLike, workers: int, *, seed: int, experiment: Experiment, rows: int = 600) -> list[Share]:
    """Return what `workers` draw, about `rows` each, from rows with these labels.

    uniform: equally many of each class. random-equal: `rows`, of whatever class. random-unequal: 1 to `rows`, of
    whatever class. skewed: of up to nine drawn classes (one drawn twice counts twice) 60 to 109 rows for each 600
    asked for, of every other 1 to 9. Raise `UsageError` for an experiment that is none, or too few rows.
    """
    kept = np.asarray(labels)
    if kept.ndim != 1 or not len(kept) or workers < 1 or rows < 1:
        raise UsageError(
            f"{workers} workers cannot draw {rows} rows each with labels of shape {kept.shape}; use 1 or more of each"
        )
    if experiment not in _EXPERIMENTS:
        close = nearest(experiment, _EXPERIMENTS)
        raise UsageError(f"experiment {experiment!r} is not known{close}; use one of {', '.join(_EXPERIMENTS)}")
    classes, found = np.unique(kept, return_inverse=True)
    members = [np.flatnonzero(found == number) for number in range(len(classes))]
    if experiment == "uniform" and rows < len(classes):
        raise UsageError(f"{rows} rows cannot hold equally many of {len(classes)} classes; use {len(classes)} or more")
    generator = np.random.default_rng(seed)
    return [np.sort(_EXPERIMENTS[experiment](members, rows, generator)) for _ in range(workers)]


def _uniform(members: Members, rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return np.concatenate([generator.choice(each, rows // len(members)) for each in members])


def _equal(members: Members, rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return generator.choice(np.concatenate(members), rows)


def _unequal(members: Members, rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return generator.choice(np.concatenate(members), generator.integers(1, rows + 1))


def _skewed(members: Members, rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    favoured = generator.choice(len(members), generator.integers(1, max(2, len(members))))
    others = np.setdiff1d(np.arange(len(members)), favoured)
    drawn_rows = []
    for chosen, (least, end) in ((favoured, _MANY), (others, _FEW)):
        for number in chosen:
            count = max(1, round(rows / _SOURCE_ROWS * generator.integers(least, end)))
            drawn_rows.append(generator.choice(members[number], count))
    return np.concatenate(drawn_rows)


_EXPERIMENTS: Mapping[Experiment, Callable[[Members, int, np.random.Generator], NDArray[np.int64]]] = {
    "uniform": _uniform,
    "random-equal": _equal,
    "random-unequal": _unequal,
    "skewed": _skewed,
}
