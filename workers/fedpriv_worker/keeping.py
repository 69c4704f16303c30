"""What a worker keeps between the rounds of a job, for strategies that have state of their own at each worker.

It never leaves: only a later round of the same job, data set and plan, asked for by the same peer, gets to compute with
it, and a measurement of the model in that job, where the plan takes what is this worker's own. What either releases
passes the door as ever. It lives in memory, bounded in number and bytes. A round that finds
nothing where there was an earlier one begins anew at zero, and the worker's own log says so.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.wire.messages import Evaluate, Train

log = logging.getLogger("fedpriv.worker")

MAXIMUM_JOBS = 256
MAXIMUM_BYTES = 2 << 30
Whose: TypeAlias = tuple[str, JobId, DatasetName, PlanDigest]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a round began with and what it left: one that is run again, as a sum may be, begins with the same."""

    round: int
    before: Mapping[str, Tensor] = field(repr=False)
    after: Mapping[str, Tensor] = field(repr=False)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for each in (self.before, self.after) for tensor in each.values())


class Keeping:
    """The state of strategies, by peer, job, data set and plan; whoever has most loses what it used longest ago."""

    def __init__(self, *, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        self._kept: OrderedDict[Whose, _Kept] = OrderedDict()
        self._maximum_bytes = maximum_bytes
        self._lock = threading.Lock()

    def before(self, peer: str, order: Train) -> Mapping[str, Tensor]:
        """Return what an earlier round of the job left; nothing in the first round, which begins every job anew."""
        if order.round <= 1:
            return {}
        with self._lock:
            found = self._found(peer, order)
        if not found:
            log.warning(
                "job %s: what was kept for its strategy is gone; it begins anew in round %d", order.job, order.round
            )
        return found

    def beside(self, peer: str, order: Evaluate) -> Mapping[str, Tensor]:
        """Return what the job's last round of training left, for its model to be measured with what is this worker's.

        It is the same peer's, job's and data set's; the plan that measures is another than the one that trained.
        """
        with self._lock:
            for (owner, job, dataset, _), kept in reversed(self._kept.items()):
                if (owner, job, dataset) == (peer, order.job, order.dataset) and kept.round <= order.round:
                    return kept.after
        return {}

    def after(self, peer: str, order: Train, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors` for the job's next round, and let go of what is over the bounds."""
        if not tensors:
            return
        with self._lock:
            self._kept[_whose(peer, order)] = _Kept(order.round, self._found(peer, order), tensors)
            self._kept.move_to_end(_whose(peer, order))
            while self._kept and self._are_too_many():
                self._let_go()

    def _found(self, peer: str, order: Train) -> Mapping[str, Tensor]:
        """Return what `order` begins with, as far as it is there."""
        kept = self._kept.get(_whose(peer, order))
        if kept is None or kept.round > order.round or order.round <= 1:
            return {}
        return kept.before if kept.round == order.round else kept.after

    def _are_too_many(self) -> bool:
        return len(self._kept) > MAXIMUM_JOBS or sum(each.nbytes for each in self._kept.values()) > self._maximum_bytes

    def _let_go(self) -> None:
        """Forget what the peer that takes most room used longest ago: no peer pushes out what a smaller one has."""
        shares: dict[str, float] = {}
        for (peer, *_), kept in self._kept.items():
            shares[peer] = shares.get(peer, 0.0) + 1 / MAXIMUM_JOBS + kept.nbytes / self._maximum_bytes
        largest = max(shares, key=shares.__getitem__)
        del self._kept[next(each for each in self._kept if each[0] == largest)]


def _whose(peer: str, order: Train) -> Whose:
    return peer, order.job, order.dataset, order.plan
