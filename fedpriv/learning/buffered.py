"""FedBuff: the server steps as soon as a buffer of updates is full, whoever is still training.

Nguyen et al. 2022, arXiv 2106.06639, algorithm 1. Workers train on the model that they were last given, so an update
may be some steps behind; it counts by 1 / sqrt(1 + steps behind). In a sum nobody could tell which update is how far
behind, so this does not work under secure aggregation, and a private round reckons with workers that all train on one
model, so it takes no part in those either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import (
    Buffered,
    Contribution,
    Gathering,
    Setting,
    Standing,
    Strategy,
    add_weighted,
    moved,
)


def FedBuff(  # noqa: N802 - as FedAvg
    buffer: int = 10, lr: float = 1.0, arrivals: tuple[tuple[str, ...], ...] = ()
) -> Strategy:
    """Return buffered asynchronous averaging: a step of `lr` times the mean of `buffer` updates, the stale ones less.

    Algorithm 1 divides by the size of the buffer, so that stale updates shorten the step; rows do not weigh. With
    `arrivals`, as `result.history.arrivals` says them of an earlier run, each step waits for the workers that it had
    then: the same seed, rows and arrivals give the same bits.
    """
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
        raise UsageError(f"buffer is {buffer!r}; step after 1 update or more, and no more than there are workers")
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"lr is {lr}; use a number above 0, 1 for the mean itself")

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        trained, scale = before.setting.trained, lr / gathering.updates
        # buffers are measured, not descended: they move by the mean
        shares = {name: scale if name in trained else 1.0 / gathering.weight for name in gathering.totals}
        return moved(before, {name: total * shares[name] for name, total in gathering.totals.items()})

    order = _order(arrivals, buffer)
    return Strategy("fedbuff", _fold, conclude, check=_fitting(buffer), buffered=Buffered(buffer, order))


def _fold(gathering: Gathering, update: Contribution) -> None:
    add_weighted(gathering, Contribution(update.delta, staleness_weight(update.staleness)))


def _order(arrivals: tuple[tuple[str, ...], ...], buffer: int) -> tuple[frozenset[WorkerName], ...]:
    order = tuple(frozenset(WorkerName(each) for each in step) for step in arrivals)
    if strange := [len(step) for step in order if len(step) != buffer]:
        raise UsageError(
            f"arrivals have a step of {strange[0]} workers and the buffer holds {buffer}; pass the arrivals of a run "
            "with the same buffer"
        )
    return order


def _fitting(buffer: int) -> Callable[[Setting], None]:
    def check(setting: Setting) -> None:
        if buffer > setting.workers:
            raise UsageError(
                f"the buffer of fedbuff holds {buffer} updates, one of a worker at most, and there are "
                f"{setting.workers} workers; use a buffer of {setting.workers} or fewer"
            )
        if setting.quorum != buffer:
            raise UsageError(
                f"fedbuff steps with {buffer} updates and the quorum is {setting.quorum}; leave quorum out"
            )

    return check


def staleness_weight(steps: int) -> float:
    """Return what an update counts that is so many steps behind: 1 / sqrt(1 + steps). Nguyen et al. 2022, section 5."""
    return 1.0 / math.sqrt(1.0 + steps)
