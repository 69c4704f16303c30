"""Orders that are answered by a sum: the same order to every worker on the roster, and what all answers add up to.

Training, evaluation and statistics take the same way. What each worker is sent differs in the seed of its own row order
alone; anything else that differed would be another session (`wire.rounds`), and no sum.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import torch

from fedpriv.clock import Clock
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.sampling import Sampling
from fedpriv.learning.strategies import Strategy
from fedpriv.remote.connection import Connection
from fedpriv.remote.enrolment import Enrollable, process_roster
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.server_states import Finding
from fedpriv.secagg.vector import Sum, VectorSpec
from fedpriv.storage.hashing import tensors_digest
from fedpriv.storage.rosters import SignedRoster
from fedpriv.updates import DTYPES, TensorSet, TensorSpec
from fedpriv.wire.messages import AskStatistics, Evaluate, Train
from fedpriv.wire.rounds import METRIC, NO_MODEL, STATISTIC, TENSOR, FixedPoint, Summable, computation, vector_of
from fedpriv.wire.tensors import tensor_bytes
from fedpriv_coordinator.course import Part
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.secure_aggregation import Numbering, SecureAggregation, Subject, describe
from fedpriv_coordinator.summing import Summed, Summing


@dataclass(frozen=True, slots=True)
class Asked:
    """One order for all workers: what an update of its plan holds, how many workers it needs, and its time.

    `sampled` returns which of the workers that can take part are asked.
    """

    order: Summable
    changed: tuple[TensorSpec, ...]
    quorum: int
    deadline_seconds: float
    seed_of: Callable[[WorkerName], int]
    sampled: Callable[[tuple[WorkerName, ...]], Sequence[WorkerName]]


class SecureRounds:
    """The rounds of secure aggregation of one federation; each has a number of its own."""

    def __init__(
        self, how: SecureAggregation, roster: Roster, members: Membership, numbering: Numbering, clock: Clock
    ) -> None:
        self._how = how
        self._roster = roster
        self._members = members
        self._numbering = numbering
        self._clock = clock

    async def ask(self, asked: Asked, ready: Callable[[WorkerName], Awaitable[Connection]]) -> Summed:
        """Run one round for an order and return how it ended; `ready` returns a connection that knows its plan.

        Raise `UsageError` for what no ring holds.
        """
        able, strangers = self._invited()
        workers = asked.sampled(tuple(able))
        parts = {each.worker: Part("refused", reason=each.explanation) for each in strangers}
        least = max(self._how.minimum_workers, asked.quorum)
        if len(workers) < least:
            reason = f"{len(workers)} workers of the roster are connected, {least} are needed in the sum"
            return Summed(parts, reason=reason, findings=strangers)
        order = asked.order
        subject = Subject(_model(order), computation(order), self._vector(asked, workers), asked.deadline_seconds)
        descriptor = describe(self._how, self._roster, workers, self._numbering.next(), asked.quorum, subject)

        def order_for(worker: WorkerName, invite: Invite) -> Summable:
            if isinstance(order, Train):
                return replace(order, seed=asked.seed_of(worker), invite=invite)
            return replace(order, invite=invite)

        summing = Summing(self._how, self._roster, descriptor, ready, order_for, self._clock)
        summed = await summing.run(workers)
        return replace(summed, parts={**parts, **summed.parts}, findings=strangers + summed.findings)

    def _invited(self) -> tuple[list[WorkerName], tuple[Finding, ...]]:
        """Return the connected workers of the roster, and why those are left out that are not on it."""
        connected = self._members.connected
        strangers = tuple(
            Finding(name, Reason.NOT_ON_ROSTER, f"worker {name!r} is not on the roster; its administrator can add it")
            for name in connected
            if name not in self._roster.keys
        )
        return [name for name in connected if name in self._roster.keys], strangers

    def _vector(self, asked: Asked, workers: Sequence[WorkerName]) -> VectorSpec:
        datasets = [self._members.connected[name].announcement.datasets for name in workers]
        described = [each for found in datasets for each in found if each.name == asked.order.dataset]
        if not described:
            raise UsageError(f"no worker has a data set {asked.order.dataset!r} any more; look at what they announce")
        how = FixedPoint(
            float(self._how.clip), self._how.fraction_bits, self._how.weight_limit(each.rows for each in described)
        )
        return vector_of(asked.order, asked.changed, len(described[0].features), how)


class RoundsOf:
    """What a federation needs to aggregate securely: its members, which of them are in this process, its numbers."""

    def __init__(self, members: Membership, here: Sequence[object], clock: Clock) -> None:
        self._members = members
        self._here = here
        self._clock = clock
        self._numbering = Numbering(clock)

    def of(
        self, how: SecureAggregation | None, strategy: Strategy | None = None, sampling: Sampling | None = None
    ) -> SecureRounds | None:
        """Return what runs rounds as `how` says, None without; raise `UsageError` where they cannot be."""
        if how is None:
            return None
        if strategy is not None and not strategy.of_sums:
            raise UsageError(
                f"strategy {strategy.name!r} needs every worker's own update, and under secure aggregation nobody sees "
                "one; use one that needs their mean alone, such as FedAvg, or train without secure_aggregation"
            )
        if sampling is not None and (sampling.reweights or sampling.enough is not None):
            raise UsageError(
                f"sampling {sampling.name!r} counts updates by factors or takes the first that come, and a sum of "
                "masked updates can do neither; use Fraction, Fixed without over, Between, Poisson or RoundRobin"
            )
        return SecureRounds(how, self._roster(how).roster, self._members, self._numbering, self._clock)

    def _roster(self, how: SecureAggregation) -> SignedRoster:
        given = how.signed_roster()
        if given is not None:
            return given
        here = [worker for worker in self._here if isinstance(worker, Enrollable)]
        if not here or len(here) < len(self._here):
            raise UsageError(
                "secure aggregation needs the roster that the workers' owners accepted; pass "
                'SecureAggregation(roster="roster.toml"), which `fedpriv certs roster` makes and signs'
            )
        return process_roster(here)


def mean_update(total: Sum, changed: Sequence[TensorSpec]) -> TensorSet:
    """Return the workers' mean update, in the type of each parameter; whole numbers stay fractions, as float64."""
    means: dict[str, torch.Tensor] = {}
    for spec in changed:
        mean = torch.as_tensor(total.mean(f"{TENSOR}{spec.name}"))
        means[spec.name] = mean.to(DTYPES[spec.dtype]) if DTYPES[spec.dtype].is_floating_point else mean
    return TensorSet(means)


def mean_metrics(total: Sum, metrics: Sequence[str]) -> dict[str, float]:
    """Return the workers' mean of each metric."""
    return {name: float(total.mean(f"{METRIC}{name}")) for name in metrics}


def total_statistics(total: Sum, kinds: Sequence[str]) -> TensorSet:
    """Return the sums over all workers' rows."""
    return TensorSet({kind: torch.as_tensor(total.total(f"{STATISTIC}{kind}")) for kind in kinds})


def _model(order: Summable) -> bytes:
    match order:
        case Train(model=model) | Evaluate(model=model):
            return tensors_digest(model.specs, [tensor_bytes(tensor) for _, tensor in model])
        case AskStatistics():
            return NO_MODEL
