"""Dividing one data set's rows among workers, for simulations and demos.

Every function returns one array of row numbers per worker, ascending, disjoint, and together every row; the same seed
gives the same shares. It moves no rows: whoever calls it indexes. Real workers have their own rows and
need none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpriv.errors import UsageError

Share: TypeAlias = NDArray[np.int64]
MOST_TRIES = 1000


def iid(rows: int, workers: int, *, seed: int) -> list[Share]:
    """Return shares of equal size (to within one row), drawn uniformly."""
    _check_counts(rows, workers)
    return _divided(np.random.default_rng(seed).permutation(rows), _even_sizes(rows, workers))


def sized(sizes: Sequence[int], *, seed: int) -> list[Share]:
    """Return shares of the given sizes over `sum(sizes)` rows, drawn uniformly: workers unlike in quantity alone."""
    if not sizes or min(sizes) < 0:
        raise UsageError(f"shares of {list(sizes)} rows cannot be made; give each worker a size of 0 or more")
    return _divided(np.random.default_rng(seed).permutation(sum(sizes)), sizes)


def by_label(labels: ArrayLike, workers: int, *, seed: int, shards_per_worker: int = 2) -> list[Share]:
    """Return shares made of `shards_per_worker` shards each of the rows sorted by label: most lack most classes.

    McMahan et al. 2017, section 3: MNIST in 200 shards for 100 clients.
    """
    kept = _labels(labels, workers)
    shards = workers * shards_per_worker
    if shards_per_worker < 1 or shards > len(kept):
        raise UsageError(f"{shards} shards cannot be cut from {len(kept)} rows; use fewer workers or shards per worker")
    generator = np.random.default_rng(seed)
    mixed = generator.permutation(len(kept))
    cut = _divided(mixed[np.argsort(kept[mixed], kind="stable")], _even_sizes(len(kept), shards))
    dealt = generator.permutation(shards).reshape(workers, shards_per_worker)
    return [np.sort(np.concatenate([cut[shard] for shard in hand])) for hand in dealt]


def dirichlet(
    labels: ArrayLike, workers: int, *, alpha: float, seed: int, minimum_rows: int = 0, all_classes: bool = False
) -> list[Share]:
    """Return shares whose part of each class is drawn from Dirichlet(alpha); small alpha means unlike workers.

    Draws again until every share has `minimum_rows` and, if asked, every class; raises `UsageError` after 1000 draws.
    Hsu et al. 2019 and Li et al. 2022 (arXiv 1909.06335, 2102.02079), which divide each class separately.
    """
    kept = _labels(labels, workers)
    if not alpha > 0 or not np.isfinite(alpha):
        raise UsageError(f"alpha is {alpha}; use a number above 0, such as 0.5 (small: unlike workers, large: alike)")
    classes, members = np.unique(kept, return_inverse=True)
    totals = np.bincount(members, minlength=len(classes))
    _check_possible(len(kept), totals, workers, minimum_rows, all_classes=all_classes)
    generator = np.random.default_rng(seed)
    for _ in range(MOST_TRIES):
        counts = _drawn_counts(totals, generator.dirichlet(np.full(workers, float(alpha)), size=len(classes)))
        if counts.sum(axis=0).min() >= minimum_rows and (not all_classes or counts.min() > 0):
            return _dealt(members, counts, generator)
    raise UsageError(
        f"no Dirichlet({alpha:g}) division of {len(kept)} rows over {workers} workers, each with at least "
        f"{minimum_rows} rows{' and every class' if all_classes else ''}, came up in {MOST_TRIES} draws; "
        "raise alpha, lower minimum_rows, or use fewer workers"
    )


def sizes(shares: Sequence[Share]) -> tuple[int, ...]:
    """Return the number of rows in each share."""
    return tuple(len(share) for share in shares)


def _drawn_counts(totals: NDArray[np.int64], proportions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return rows per class and worker, shape (classes, workers), that sum to `totals`.

    Cuts are rounded cumulative proportions; the last is the total itself, because a sum of floats may miss 1.
    """
    cuts = np.rint(np.cumsum(proportions, axis=1) * totals[:, None]).astype(np.int64)
    cuts[:, -1] = totals
    return np.diff(np.minimum(cuts, totals[:, None]), axis=1, prepend=0)


def _dealt(members: NDArray[np.int64], counts: NDArray[np.int64], generator: np.random.Generator) -> list[Share]:
    """Return the shares that hold `counts` rows of each class, which rows being drawn uniformly."""
    by_class = [
        _divided(generator.permutation(np.flatnonzero(members == number)), row.tolist())
        for number, row in enumerate(counts)
    ]
    return [np.sort(np.concatenate(parts)) for parts in zip(*by_class, strict=True)]


def _divided(order: NDArray[np.int64], sizes: Sequence[int]) -> list[Share]:
    """Return consecutive parts of `order` with the given sizes, each ascending."""
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def _even_sizes(rows: int, parts: int) -> list[int]:
    return [rows // parts + (index < rows % parts) for index in range(parts)]


def _labels(labels: ArrayLike, workers: int) -> NDArray[Any]:
    kept = np.asarray(labels)
    if kept.ndim != 1 or kept.dtype.kind not in "biuU":
        raise UsageError(
            f"labels have shape {kept.shape} and type {kept.dtype}; give one integer, bool or string per row"
        )
    _check_counts(len(kept), workers)
    return kept


def _check_counts(rows: int, workers: int) -> None:
    if workers < 1 or rows < workers:
        raise UsageError(f"{rows} rows cannot be divided among {workers} workers; use 1 to {rows} workers")


def _check_possible(
    rows: int, totals: NDArray[np.int64], workers: int, minimum_rows: int, *, all_classes: bool
) -> None:
    """Raise `UsageError` at once for what no draw could give."""
    if workers * minimum_rows > rows:
        raise UsageError(f"{workers} workers cannot have {minimum_rows} of {rows} rows each; lower minimum_rows")
    if all_classes and int(totals.min()) < workers:
        raise UsageError(
            f"a class has {int(totals.min())} rows, too few for each of {workers} workers; use fewer workers"
        )
