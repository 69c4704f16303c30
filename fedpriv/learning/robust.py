"""Robust combiners: a round's update from updates of which some may have been made to harm.

Each tolerates so many attackers as `attackers` says, and says the bound that its paper needs; a run that cannot meet
it is refused before it begins. All updates count alike, whatever weight they claim: a weight is as easily forged as an
update. Every one of them needs the updates one by one, so none works under secure aggregation. Distances and norms are
over the parameters; buffers are combined as their parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.learning.strategies import Contribution, Gathering, Setting, Standing, Strategy, keep, moved

Combine = Callable[[Tensor], Tensor]
"""From one coordinate of all updates, shape (updates, ...), to that of their combination, shape (...)."""
_MOST_PASSES, _CLOSE = 100, 1e-6


def Median() -> Strategy:  # noqa: N802 - as FedAvg
    """Return the median of every coordinate. Yin et al. 2018, arXiv 1803.01498, definition 1."""
    return Strategy("median", keep, _by_coordinate(_median))


def TrimmedMean(attackers: int) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the mean of every coordinate without its `attackers` largest and smallest. Yin et al. 2018."""

    def trimmed(values: Tensor) -> Tensor:
        return values.sort(dim=0).values[attackers : len(values) - attackers].mean(dim=0)

    check = _tolerating("trimmed-mean", attackers, 2, 1)
    return Strategy("trimmed-mean", keep, _by_coordinate(trimmed), check=check)


def Krum(attackers: int) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the one update that is nearest to its neighbours. Blanchard et al. 2017, section 4."""
    return _krum("krum", attackers, 1)


def MultiKrum(attackers: int, kept: int | None = None) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the mean of the `kept` best by Krum; None: all but attackers + 2. Blanchard et al. 2017."""
    if kept is not None and kept < 1:
        raise UsageError(f"kept is {kept}; multi-krum averages at least 1 update")
    return _krum("multi-krum", attackers, kept)


def Bulyan(attackers: int) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the mean, by coordinate, of what is nearest to the median of the updates that Krum picks in turn.

    El Mhamdi et al. 2018, arXiv 1802.07927, algorithm 1: n - 2f updates are picked, n - 4f values are averaged.
    """

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        updates = gathering.kept
        distances = _distances(before, updates)
        left, picked = list(range(len(updates))), []
        for _ in range(len(updates) - 2 * attackers):
            scores = _scores(distances[left][:, left], attackers)
            picked.append(left.pop(int(scores.argmin())))
        count = len(picked) - 2 * attackers

        def nearest(values: Tensor) -> Tensor:
            order = (values - _median(values)).abs().argsort(dim=0, stable=True)[:count]
            return values.gather(0, order).mean(dim=0)

        return _combined(before, [updates[each] for each in sorted(picked)], nearest)

    return Strategy("bulyan", keep, conclude, check=_tolerating("bulyan", attackers, 4, 3))


def GeometricMedian(smoothing: float = 1e-6) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the point of least summed distance to all updates, by smoothed Weiszfeld steps.

    Pillutla et al. 2022, arXiv 1912.13445, algorithm 2; fewer than half of the updates can move it at will.
    """
    if not (math.isfinite(smoothing) and smoothing > 0):
        raise UsageError(f"smoothing is {smoothing}; use a small number above 0")

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        flat = _flat(before, gathering.kept)
        shares = torch.full((len(flat),), 1.0 / len(flat), dtype=torch.float64)
        point = shares @ flat
        for _ in range(_MOST_PASSES):
            pull = 1.0 / (flat - point).norm(dim=1).clamp(min=smoothing)
            shares, last = pull / pull.sum(), point
            point = shares @ flat
            if (point - last).norm() <= _CLOSE * point.norm():
                break
        return _combined(before, gathering.kept, lambda values: torch.einsum("n...,n->...", values, shares))

    return Strategy("geometric-median", keep, conclude)


def NormBound(limit: float | None = None) -> Strategy:  # noqa: N802 - as FedAvg
    """Return the mean of updates that were shortened to the norm `limit` where longer. Sun et al. 2019, section 3.

    None bounds each round by the median of its norms, which fewer than half of the updates can move no further than to
    the largest or smallest of the honest ones, and which shrinks as honest updates do; a fixed bound lets attackers in
    late rounds push with all of it against updates that have become small.
    """
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"limit is {limit}; use the longest norm that an honest update has, or None for the median")

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        norms = _flat(before, gathering.kept).norm(dim=1)
        bound = _median(norms) if limit is None else limit
        scales = torch.where(norms > bound, bound / norms, 1.0)
        count = len(gathering.kept)
        return _combined(before, gathering.kept, lambda values: torch.einsum("n...,n->...", values, scales) / count)

    return Strategy("norm-bound", keep, conclude)


def _krum(name: str, attackers: int, kept: int | None) -> Strategy:
    def conclude(before: Standing, gathering: Gathering) -> Standing:
        updates = gathering.kept
        count = max(1, len(updates) - attackers - 2) if kept is None else min(kept, len(updates))
        best = _scores(_distances(before, updates), attackers).argsort(stable=True)[:count]
        chosen = [updates[each] for each in sorted(best.tolist())]
        return _combined(before, chosen, lambda values: values.mean(dim=0))

    return Strategy(name, keep, conclude, check=_tolerating(name, attackers, 2, 3))


def _scores(distances: Tensor, attackers: int) -> Tensor:
    """Return Krum's score of each update: its summed squared distances to the n - f - 2 nearest others."""
    others = max(1, len(distances) - attackers - 2)
    return distances.sort(dim=1).values[:, 1 : 1 + others].sum(dim=1)  # the first is its distance to itself


def _distances(before: Standing, updates: Sequence[Contribution]) -> Tensor:
    """Return squared distances between updates, shape (updates, updates), infinite from one that is not finite."""
    flat = _flat(before, updates)
    rows = [(flat - each).square().sum(dim=1) for each in flat]
    return torch.stack(rows).nan_to_num(nan=math.inf).fill_diagonal_(0.0)


def _flat(before: Standing, updates: Sequence[Contribution]) -> Tensor:
    """Return the parameters of each update as one row, shape (updates, d), float64."""
    trained = before.setting.trained
    return torch.stack(
        [torch.cat([value.double().flatten() for each, value in update.delta if each in trained]) for update in updates]
    )


def _by_coordinate(combine: Combine) -> Callable[[Standing, Gathering], Standing]:
    return lambda before, gathering: _combined(before, gathering.kept, combine)


def _combined(before: Standing, updates: Sequence[Contribution], combine: Combine) -> Standing:
    names = [each for each, _ in updates[0].delta]
    return moved(before, {each: combine(torch.stack([one.delta[each].double() for one in updates])) for each in names})


def _median(values: Tensor) -> Tensor:
    """Return the median along the first dimension; of an even number the mean of the two in the middle."""
    ordered = values.sort(dim=0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def _tolerating(name: str, attackers: int, each: int, more: int) -> Callable[[Setting], None]:
    """Return a check that every round has the `each` x attackers + `more` updates which the combiner needs."""
    if attackers < 0:
        raise UsageError(f"attackers is {attackers}; {name} assumes 0 or more")
    least = each * attackers + more
    bound = f"{name} against {attackers} attackers needs {each} x attackers + {more} = {least}"

    def check(setting: Setting) -> None:
        if setting.workers < least:
            most = (setting.workers - more) // each
            raise UsageError(
                f"{bound} workers, and there are {setting.workers}; "
                + (f"assume at most {most} attackers" if most >= 0 else "use another strategy")
            )
        if setting.quorum < least:
            raise UsageError(f"{bound} updates in every round, and the quorum is {setting.quorum}; raise it to {least}")

    return check
