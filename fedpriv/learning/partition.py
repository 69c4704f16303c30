"""Dividing one data set's rows among workers, for simulations and demos.

Every function returns one array of row numbers per worker, ascending, disjoint, and together every row; the same seed
gives the same shares. It moves no rows: whoever calls it indexes. Real workers have their own rows and
need none of this. Shares that overlap are in `draws`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpriv.errors import UsageError, nearest

Share: TypeAlias = NDArray[np.int64]
Growth: TypeAlias = Literal["linear", "square", "exponential"]
MOST_TRIES = 1000
GROWTHS: Mapping[Growth, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "linear": lambda number: number,
    "square": np.square,
    "exponential": np.exp,
}


def iid(rows: int, workers: int, *, seed: int) -> list[Share]:
    """Return shares of equal size (to within one row), drawn uniformly."""
    _check_counts(rows, workers)
    return _divided(np.random.default_rng(seed).permutation(rows), _even_sizes(rows, workers))


def sized(sizes: Sequence[int], *, seed: int) -> list[Share]:
    """Return shares of the given sizes over `sum(sizes)` rows, drawn uniformly: workers unlike in quantity alone."""
    if not sizes or min(sizes) < 0:
        raise UsageError(f"shares of {list(sizes)} rows cannot be made; give each worker a size of 0 or more")
    return _divided(np.random.default_rng(seed).permutation(sum(sizes)), sizes)


def growing(rows: int, workers: int, *, seed: int, growth: Growth = "linear") -> list[Share]:
    """Return uniformly drawn shares whose sizes grow with the worker's number k = 1, 2, ... as k, k**2 or exp(k).

    Sizes are rounded so that they add up, and every worker has at least one row.
    """
    _check_counts(rows, workers)
    if growth not in GROWTHS:
        raise UsageError(f"growth {growth!r} is not known{nearest(growth, GROWTHS)}; use one of {', '.join(GROWTHS)}")
    numbers = np.arange(1, workers + 1, dtype=np.float64)
    grown = GROWTHS[growth](numbers - workers if growth == "exponential" else numbers)  # exp(800) is no number
    return sized(_rounded(grown / grown.sum(), rows), seed=seed)


def by_label(
    labels: ArrayLike, workers: int, *, seed: int, shards_per_worker: int = 2, shard_rows: int | None = None
) -> list[Share]:
    """Return shares made of shards of the rows sorted by label, dealt at random: most workers lack most classes.

    With `shard_rows` a shard has so many rows (the last may have fewer), and workers have equally many shards to
    within one; otherwise there are `shards_per_worker` for each. McMahan et al. 2017, section 3: MNIST in 200 shards
    for 100 clients.
    """
    kept = _labels(labels, workers)
    cuts = _shard_sizes(len(kept), workers, shards_per_worker, shard_rows)
    generator = np.random.default_rng(seed)
    mixed = generator.permutation(len(kept))
    cut = _divided(mixed[np.argsort(kept[mixed], kind="stable")], cuts)
    dealt = np.array_split(generator.permutation(len(cuts)), workers)
    return [np.sort(np.concatenate([cut[shard] for shard in hand])) for hand in dealt]


def pathological(labels: ArrayLike, workers: int, *, seed: int, classes_per_worker: int) -> list[Share]:
    """Return shares of exactly `classes_per_worker` classes each; the rows of a class go evenly to those that have it.

    Each class goes to equally many workers to within one; which classes a worker has is drawn. Li et al. 2022 (arXiv
    2102.02079) call it label imbalance by quantity.
    """
    kept = _labels(labels, workers)
    classes, members = np.unique(kept, return_inverse=True)
    if not 1 <= classes_per_worker <= len(classes):
        raise UsageError(f"classes_per_worker is {classes_per_worker}; there are {len(classes)} classes: use 1 to that")
    if workers * classes_per_worker < len(classes):
        raise UsageError(
            f"{workers} workers of {classes_per_worker} classes each cannot hold {len(classes)} classes; use more of "
            "either, so that every row has a worker"
        )
    generator = np.random.default_rng(seed)
    has = np.zeros((len(classes), workers), dtype=np.int64)
    for worker in range(workers):
        # the least often dealt classes, ties drawn: counts of owners never differ by more than one
        order = np.lexsort((generator.random(len(classes)), has.sum(axis=1)))
        has[order[:classes_per_worker], worker] = 1
    totals = np.bincount(members, minlength=len(classes))
    if (short := totals < has.sum(axis=1)).any():
        raise UsageError(
            f"a class has {int(totals[short].min())} rows, too few for the workers that are to have it; use fewer "
            "workers or classes_per_worker"
        )
    counts = np.zeros_like(has)
    for number, owners in enumerate(has.astype(bool)):
        counts[number, generator.permutation(np.flatnonzero(owners))] = _even_sizes(int(totals[number]), owners.sum())
    return _dealt(members, counts, generator)


def by_identity(identities: ArrayLike, workers: int | None = None, *, seed: int = 0) -> list[Share]:
    """Return the natural shares: rows of one identity (a writer, a patient, a site) stay together.

    Without `workers` there is one share per identity, in sorted order; with it, each worker has equally many
    identities to within one, drawn.
    """
    kept = _labels(identities, 1)
    found, members = np.unique(kept, return_inverse=True)
    if workers is None:
        return [np.flatnonzero(members == number) for number in range(len(found))]
    if not 1 <= workers <= len(found):
        raise UsageError(f"{len(found)} identities cannot be divided among {workers} workers; use 1 to {len(found)}")
    hands = np.array_split(np.random.default_rng(seed).permutation(len(found)), workers)
    return [np.flatnonzero(np.isin(members, hand)) for hand in hands]


def by_feature(features: ArrayLike, workers: int, *, seed: int, shift: float = 1.0) -> list[Share]:
    """Return shares of equal size whose features differ: workers hold consecutive parts of the main direction.

    Rows are ordered along the first principal direction of their features. `shift` 1 cuts that order; towards 0 places
    in it are mixed with drawn ones, and at 0 the shares are alike.
    """
    table = np.asarray(features, dtype=np.float64)
    table = table.reshape(len(table), -1)
    _check_counts(len(table), workers)
    if not 0.0 <= shift <= 1.0 or not np.isfinite(table).all():
        raise UsageError(f"shift is {shift}; use 0 (workers alike) to 1 (unlike), and features that are finite numbers")
    centred = table - table.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    direction *= np.sign(direction[np.argmax(np.abs(direction))])  # an eigenvector's sign is arbitrary
    places = np.argsort(np.argsort(centred @ direction, kind="stable"), kind="stable")
    drawn = np.random.default_rng(seed).permutation(len(table))
    return _divided(np.argsort(shift * places + (1.0 - shift) * drawn, kind="stable"), _even_sizes(len(table), workers))


def dirichlet(
    labels: ArrayLike,
    workers: int,
    *,
    alpha: float,
    seed: int,
    minimum_rows: int = 0,
    all_classes: bool = False,
    balanced: bool = False,
) -> list[Share]:
    """Return shares whose mixture of classes is drawn from Dirichlet(alpha); small alpha means unlike workers.

    Each class is divided by a draw over workers (Hsu et al. 2019 and Li et al. 2022, arXiv 1909.06335, 2102.02079), so
    that sizes differ too; `balanced` gives every worker as many rows to within one, and draws its mixture of classes.
    Draws again until every share has `minimum_rows` and, if asked, every class; raises `UsageError` after 1000 draws.
    """
    kept = _labels(labels, workers)
    if not alpha > 0 or not np.isfinite(alpha):
        raise UsageError(f"alpha is {alpha}; use a number above 0, such as 0.5 (small: unlike workers, large: alike)")
    classes, members = np.unique(kept, return_inverse=True)
    totals = np.bincount(members, minlength=len(classes))
    _check_possible(len(kept), totals, workers, minimum_rows, all_classes=all_classes)
    generator = np.random.default_rng(seed)
    for _ in range(MOST_TRIES):
        if balanced:
            counts = _balanced_counts(totals, workers, float(alpha), generator)
        else:
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


def label_counts(labels: ArrayLike, shares: Sequence[Share]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes, ascending, and rows per class and worker, shape (classes, workers)."""
    kept = _labels(labels, 1)
    classes, members = np.unique(kept, return_inverse=True)
    return classes, np.stack([np.bincount(members[share], minlength=len(classes)) for share in shares], axis=1)


def _shard_sizes(rows: int, workers: int, shards_per_worker: int, shard_rows: int | None) -> list[int]:
    """Return the rows of each shard; raise `UsageError` where there are not enough of either."""
    if shard_rows is None:
        shards = workers * shards_per_worker
        if shards_per_worker < 1 or shards > rows:
            raise UsageError(f"{shards} shards cannot be cut from {rows} rows; use fewer workers or shards per worker")
        return _even_sizes(rows, shards)
    whole = range(0, rows, shard_rows) if shard_rows >= 1 else ()
    if len(whole) < workers:
        raise UsageError(
            f"{rows} rows are {len(whole)} shards of {shard_rows} rows, too few for {workers} workers; use smaller "
            "shards or fewer workers"
        )
    return [min(shard_rows, rows - start) for start in whole]


def _rounded(proportions: NDArray[np.float64], rows: int) -> list[int]:
    """Return whole sizes near `proportions` of `rows` that add up to it, none below 1; the largest remainders gain."""
    workers = len(proportions)
    exact = proportions * (rows - workers)
    whole = np.floor(exact).astype(np.int64)
    left = rows - workers - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return [int(size) for size in whole + 1]


def _balanced_counts(
    totals: NDArray[np.int64], workers: int, alpha: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return rows per class and worker, shape (classes, workers): equal sizes, mixtures drawn from Dirichlet(alpha).

    A worker takes what is left of the classes that its draw names; once those are used up it takes of the others.
    """
    left, columns = totals.copy(), []
    for size in _even_sizes(int(totals.sum()), workers):
        mixture, taken = generator.dirichlet(np.full(len(totals), alpha)), np.zeros_like(totals)
        while (missing := size - int(taken.sum())) > 0:
            open_classes = np.where(left > 0, mixture, 0.0)
            if open_classes.sum() <= 0:
                open_classes = left.astype(np.float64)
            drawn = np.minimum(generator.multinomial(missing, open_classes / open_classes.sum()), left)
            taken, left = taken + drawn, left - drawn
        columns.append(taken)
    return np.stack(columns, axis=1)


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
