"""Orders that are answered by a sum: the same order to every worker on the roster, and what all answers add up to.

Training, evaluation and statistics take the same way. Every worker is sent the same: anything that differed would be
another session (`wire.rounds`), and no sum.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import torch

from fedpriv.clock import Clock
from fedpriv.errors import UsageError, counted
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Strategy
from fedpriv.privacy.modes import DistributedDP
from fedpriv.remote.connection import Connection
from fedpriv.remote.enrolment import Enrollable, process_roster
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.server_states import Finding
from fedpriv.secagg.thresholds import colluding
from fedpriv.secagg.vector import Sum, VectorSpec
from fedpriv.storage.hashing import tensors_digest
from fedpriv.storage.rosters import SignedRoster
from fedpriv.updates import DTYPES, TensorSet, TensorSpec
from fedpriv.wire.messages import AskStatistics, Evaluate, Train
from fedpriv.wire.private import Private
from fedpriv.wire.rounds import METRIC, NO_MODEL, STATISTIC, TENSOR, FixedPoint, Summable, computation, vector_of
from fedpriv.wire.tensors import tensor_bytes
from fedpriv_coordinator.asking import Part
from fedpriv_coordinator.job import Job
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.offenders import offenders
from fedpriv_coordinator.secure_aggregation import (
    Numbering,
    SecureAggregation,
    Subject,
    check_reach,
    describe,
    least_in_sum,
    majority,
)
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
    sampled: Callable[[tuple[WorkerName, ...]], Sequence[WorkerName]] = tuple


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
        self._offenders: frozenset[WorkerName] = frozenset()

    def least(self, quorum: int) -> int:
        """Return how many workers a round has to begin with, where an order needs `quorum`."""
        return max(self._how.minimum_workers, quorum)

    async def ask(self, asked: Asked, ready: Callable[[WorkerName], Awaitable[Connection]]) -> Summed:
        """Run one round for an order and return how it ended; `ready` returns a connection that knows its plan.

        A round that somebody broke is run again without whoever it was. Raise `UsageError` for what no ring holds.
        """
        hostile = colluding(len(self._roster.keys), self._how.colluding_share)
        summed = await self._ask(asked, ready)
        while new := offenders(summed.findings, summed.invited, hostile) - self._offenders:
            self._offenders |= new
            if summed.sum is not None:
                break
            again = await self._ask(asked, ready)
            summed = replace(again, findings=(*summed.findings, *again.findings))
        return summed

    async def _ask(self, asked: Asked, ready: Callable[[WorkerName], Awaitable[Connection]]) -> Summed:
        able, strangers = self._invited()
        workers = asked.sampled(tuple(able))
        parts = {each.worker: Part("refused", reason=each.explanation) for each in strangers}
        least = self.least(asked.quorum)
        if len(workers) < least:
            reason = f"nobody was asked: {counted(len(able), 'worker')} of the roster connected"
            if len(workers) < len(able):
                reason = f"nobody was asked: {len(workers)} of {counted(len(able), 'worker')} drawn"
            reason = f"{reason}, and {least} are needed in the sum"
            return Summed(parts, reason=reason, findings=strangers)
        order = asked.order
        private = order.privacy if isinstance(order, Train) else None
        subject = Subject(
            _model(order), computation(order), self._vector(asked, workers, private), asked.deadline_seconds,
            "" if private is None else private.text(),
        )  # fmt: skip  # one line of facts
        descriptor = describe(self._how, self._roster, workers, self._numbering.next(), asked.quorum, subject)

        def order_for(_: WorkerName, invite: Invite) -> Summable:
            return replace(order, invite=invite)

        summing = Summing(self._how, self._roster, descriptor, ready, order_for, self._clock)
        summed = await summing.run(workers)
        return replace(summed, parts={**parts, **summed.parts}, findings=strangers + summed.findings)

    def _invited(self) -> tuple[list[WorkerName], tuple[Finding, ...]]:
        """Return the connected workers of the roster, and why others are left out."""
        connected, left_out = self._members.connected, []
        for name in connected:
            if name not in self._roster.keys:
                text = f"worker {name!r} is not on the roster; its administrator can add it"
                left_out.append(Finding(name, Reason.NOT_ON_ROSTER, text))
            elif name in self._offenders:
                text = f"worker {name!r} broke a round of this run and is left out of the rest; its owner should know"
                left_out.append(Finding(name, None, text))
        without = {finding.worker for finding in left_out}
        return [name for name in connected if name not in without], tuple(left_out)

    def _vector(self, asked: Asked, workers: Sequence[WorkerName], private: Private | None) -> VectorSpec:
        datasets = [self._members.connected[name].announcement.datasets for name in workers]
        described = [each for found in datasets for each in found if each.name == asked.order.dataset]
        if not described:
            raise UsageError(f"no worker has a data set {asked.order.dataset!r} any more; look at what they announce")
        how = FixedPoint(
            float(self._how.clip), self._how.fraction_bits, self._how.weight_limit(each.rows for each in described)
        )
        shared = None
        if private is not None and isinstance(private.mode, DistributedDP):
            dimension = sum(each.elements for each in asked.changed)
            least = least_in_sum(self._how, len(workers), len(self._roster.keys), asked.quorum)
            shared = private.shared_noise(dimension, workers=len(workers), least=least)
        return vector_of(asked.order, asked.changed, len(described[0].features), how, shared)


class RoundsOf:
    """What a federation needs to aggregate securely: its members, which of them are in this process, its numbers."""

    def __init__(self, members: Membership, here: Sequence[object], clock: Clock) -> None:
        self._members = members
        self._here = here
        self._clock = clock
        self._numbering = Numbering(clock)

    def of(
        self, how: SecureAggregation | None, strategy: Strategy | None = None, job: Job | None = None
    ) -> SecureRounds | None:
        """Return what runs rounds as `how` says, None without; raise `UsageError` where they cannot be."""
        if how is None:
            return None
        if strategy is not None and not strategy.of_sums:
            raise UsageError(
                f"strategy {strategy.name!r} needs every worker's own update, and under secure aggregation nobody sees "
                "one; use one that needs their mean alone, such as FedAvg, or train without secure_aggregation. One of "
                "your own whose fold and conclude come to the same when the mean is folded once says so: "
                "Strategy(..., of_sums=True)"
            )
        if job is not None and job.local.drop_last:
            raise UsageError(
                "drop_last leaves rows out, and a batch larger than all but one worker's rows would leave that one's "
                "update alone in the sum, so workers refuse it there; use drop_last=False, or no secure_aggregation"
            )
        if job is not None and (job.sampling.reweights or job.sampling.enough is not None):
            raise UsageError(
                f"sampling {job.sampling.name!r} counts updates by factors or takes the first that come, and a sum of "
                "masked updates can do neither; use Fraction, Fixed without over, Between, Poisson or RoundRobin"
            )
        roster = self._roster(how).roster
        self._check_reach(how, roster, job)
        return SecureRounds(how, roster, self._members, self._numbering, self._clock)

    def _check_reach(self, how: SecureAggregation, roster: Roster, job: Job | None) -> None:
        """Raise `UsageError` where no round could have a sum, though nobody were missing; statistics ask everybody."""
        able = tuple(name for name in self._members.expected if name in roster.keys)
        most, quorum = len(able), majority(len(self._members.connected))
        if job is not None:
            most = max(len(job.chosen(number, able).workers) for number in range(1, job.rounds + 1))
            quorum = job.quorum
        check_reach(how, most, len(roster.keys), quorum)

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
