"""The shell of a run: rounds of one job over the connections of a federation.

A round is collected (`course`), concluded by the strategy, measured by the workers on their own validation rows if
the job asks for it, and recorded with the bytes that went each way. It is closed by whoever ran it, once it is saved:
that is what tells the workers that nothing of it will be asked for again. It never sees a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from fedpriv.clock import Clock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import PeerLost, WireError, WorkerRefused
from fedpriv.ids import PlanDigest, WorkerName
from fedpriv.learning.strategies import Contribution, Gathering, Standing, Strategy
from fedpriv.plans.plan import Plan
from fedpriv.remote.connection import Connection
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import CloseRound, ErrorCode, Evaluate, Evaluation, OfferPlan, Train, Update
from fedpriv_coordinator.course import Course, Part
from fedpriv_coordinator.experiment import RoundRecord
from fedpriv_coordinator.inspection import why_unusable, why_unusable_evaluation
from fedpriv_coordinator.job import Job, taken_by
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.private_rounds import noising_of
from fedpriv_coordinator.round import Complete, Terms
from fedpriv_coordinator.round_records import Gathered, Measured, record_of, sums_of
from fedpriv_coordinator.secure_rounds import Asked, SecureRounds, mean_metrics, mean_update

TELL_SECONDS = 5.0
_PENDING = ErrorCode.APPROVAL_PENDING.name
_MINDED = (ErrorCode.RELEASE_DENIED.name, ErrorCode.APPROVAL_DENIED.name, _PENDING)
"""Refusals that are about what would leave, so that asking for less may help."""
_GONE = Part("lost", reason="it went away between this round and the one before")


@dataclass(frozen=True, slots=True)
class Concluded:
    """A round that is over: its record, why it was abandoned ("" if it was not), and where the run stands after it.

    `pending` are the workers whose owners have been asked to approve what the round asks for.
    """

    record: RoundRecord
    abandoned: str
    standing: Standing = field(repr=False)
    pending: tuple[WorkerName, ...] = ()


class Coordinator:
    """Runs the rounds of one job, one at a time, on the loop's thread."""

    def __init__(
        self,
        job: Job,
        members: Membership,
        strategy: Strategy,
        clock: Clock,
        secure: SecureRounds | None = None,
    ) -> None:
        """Run `job` over `members`; with `secure`, what they answer is seen in sums alone."""
        self._job = job
        self._members = members
        self._strategy = strategy
        self._clock = clock
        self._secure = secure
        settled = job.settled
        self._noising = None if settled is None else noising_of(settled, job.changed, SystemEntropy())
        self._offered: set[tuple[Connection, PlanDigest]] = set()
        self._asked: dict[WorkerName, Connection] = {}
        self._left: tuple[WorkerName, ...] = ()  # who was here when the last round ended
        self._resting: frozenset[WorkerName] = frozenset()

    async def run_round(
        self, number: int, standing: Standing, resting: frozenset[WorkerName] = frozenset()
    ) -> Concluded:
        """Run round `number` from where the run stands, without whoever is `resting`, and return how it ended."""
        started, before = self._clock.monotonic(), self._members.traffic()
        missed = {name: _GONE for name in self._left if name not in {*self._members.connected, *resting}}
        secure, awake = self._secure, len(self._members.connected) - len(resting)
        self._resting = resting if secure is None or secure.suffices(awake, self._job.quorum) else frozenset()
        sent = standing.model
        gathered = await (self._gather(number, sent) if secure is None else self._sum(secure, number, sent))
        measured = Measured()
        if not gathered.reason:
            concluded = self._strategy.conclude(standing, gathered.gathering)
            if _is_finite(concluded.model) and _is_finite(concluded.memory):
                standing = concluded
                measured = await self._measured(number, standing.model)
            else:
                gathered = replace(gathered, reason="the updates together make a model that is not finite")
        seconds = self._clock.monotonic() - started
        present = self._left = tuple(self._members.connected)
        gathered = replace(gathered, parts={**missed, **gathered.parts})
        record = record_of(number, gathered, measured, before, self._members.traffic(), seconds, present)
        pending = tuple(name for name, part in sorted(gathered.parts.items()) if part.code == _PENDING)
        return Concluded(record, gathered.reason, standing, pending)

    async def _gather(self, number: int, model: TensorSet) -> Gathered:
        """Collect the sampled workers' updates in clear."""
        job, returning = self._job, self._members.returning
        course = Course(
            Terms(number, job.quorum, job.deadline_seconds, returning=returning, enough=job.sampling.enough),
            contribute=lambda worker: self._contribute(worker, number, model),
            inspect=lambda worker, update: why_unusable(
                update, job.changed, job.training_metrics, self._announced_rows(worker)
            ),
            fold=self._strategy.fold if self._noising is None else self._noising.fold,
            factors=(chosen := job.chosen(number, _awake(self._members.connected, self._resting))).factors,
            clock=self._clock,
            back=self._back,
        )
        state = await course.run(chosen.workers)
        if not isinstance(state, Complete):
            return Gathered(course.parts, course.gathering, state.reason)
        found = course.gathering
        return Gathered(
            course.parts, found if self._noising is None else _folded(self._strategy, self._noising.mean(found))
        )

    async def _sum(self, secure: SecureRounds, number: int, model: TensorSet) -> Gathered:
        """Collect the sum of the sampled workers' updates, and fold their mean."""
        job = self._job
        order = self._training(number, model, seed=0)  # in a sum each worker draws its own

        def sampled(workers: tuple[WorkerName, ...]) -> Sequence[WorkerName]:
            return job.chosen(number, _awake(workers, self._resting)).workers

        asked = Asked(order, job.changed, job.quorum, job.deadline_seconds, sampled)
        summed = await secure.ask(asked, lambda worker: self._ready(worker, job.training))
        total, sums = summed.sum, sums_of("updates", summed)
        if total is None:
            return Gathered(summed.parts, Gathering(), summed.reason, findings=summed.findings, sums=sums)
        if self._noising is not None:
            folded = _folded(self._strategy, self._noising.mean_of(total))
            return Gathered(summed.parts, folded, saturated=total.saturated, findings=summed.findings, sums=sums)
        folded = _folded(self._strategy, mean_update(total, job.changed), float(total.weight))
        loss = mean_metrics(total, job.training_metrics).get("loss")
        return Gathered(summed.parts, folded, "", loss, total.saturated, summed.findings, sums)

    async def close_round(self, number: int) -> None:
        """Tell every worker that the round is over and saved; one that does not take it in time loses its connection.

        Call it only once the round is as durable as it will be: a worker may forget what it released for it.
        """
        told = (self._tell(connection, number) for connection in self._members.connected.values())
        await asyncio.gather(*told)

    async def _contribute(self, worker: WorkerName, number: int, model: TensorSet) -> Update:
        job = self._job
        self._asked.pop(worker, None)
        connection = self._asked[worker] = self._connection(worker)
        await self._offer(connection, job.training)
        order = self._training(number, model, seed=job.worker_seed(number, worker))
        try:
            reply = await connection.ask(order, timeout_seconds=job.deadline_seconds)
        except WorkerRefused as refusal:
            raise _with_metrics(refusal, job.training_metrics) from None
        if not isinstance(reply, Update):
            raise WireError(f"it answered a training request with a {type(reply).__name__}")
        return reply

    def _training(self, number: int, model: TensorSet, *, seed: int) -> Train:
        job = self._job
        return Train(
            request=0,
            job=job.id,
            round=number,
            dataset=job.dataset,
            plan=job.training.digest,
            epochs=job.local.epochs,
            batch_size=job.local.batch_size,
            shuffle=job.local.shuffle,
            drop_last=job.local.drop_last,
            seed=seed,
            hyperparameters=job.hyperparameters,
            metrics=job.training_metrics,
            purpose=job.purpose,
            model=model,
            privacy=None if self._noising is None else self._noising.private,
        )

    async def _back(self, worker: WorkerName) -> None:
        """Return when a worker that was lost in this round is connected again."""
        await self._members.wait_for_another(worker, self._asked.get(worker))

    async def _measured(self, number: int, model: TensorSet) -> Measured:
        """Return what the workers that answer in time measured on their own validation rows, or why others did not."""
        plan, job = self._job.evaluation, self._job
        if plan is None:
            return Measured()
        order = Evaluate(
            request=0,
            job=job.id,
            round=number,
            dataset=job.dataset,
            plan=plan.digest,
            batch_size=job.local.batch_size,
            metrics=job.worker_metrics,
            purpose=job.purpose,
            model=taken_by(plan, model),
        )
        names, asked = tuple(self._members.connected), ", ".join(job.worker_metrics)
        if self._secure is not None:
            what = Asked(order, (), job.quorum, job.deadline_seconds)
            summed = await self._secure.ask(what, lambda worker: self._ready(worker, plan))
            sums = sums_of("metrics", summed)
            if summed.sum is None:
                return Measured(dict.fromkeys(names, f"{asked}: {summed.reason}"), {}, summed.findings, sums)
            return Measured({}, mean_metrics(summed.sum, job.worker_metrics), summed.findings, sums)
        replies = await asyncio.gather(*(self._measure(worker, order, plan) for worker in names))
        return Measured(
            {
                worker: f"{asked}: {reply}" if isinstance(reply, str) else reply
                for worker, reply in zip(names, replies, strict=True)
            }
        )

    async def _measure(self, worker: WorkerName, order: Evaluate, plan: Plan) -> Evaluation | str:
        """Return the worker's evaluation, or why there is none: a round does not fail because a measurement does."""
        job = self._job
        try:
            connection = await self._ready(worker, plan)
            reply = await connection.ask(order, timeout_seconds=job.deadline_seconds)
        except WorkerRefused as refusal:
            return f"{refusal}{_remedy(refusal, job.worker_metrics)}"
        except PeerLost as loss:
            return str(loss)
        if not isinstance(reply, Evaluation):
            return f"it answered with a {type(reply).__name__}"
        unusable = why_unusable_evaluation(reply, job.worker_metrics, self._announced_rows(worker))
        return reply if unusable is None else f"what it gave cannot be used: {unusable}; ask its owner"

    def _announced_rows(self, worker: WorkerName) -> int | None:
        """Return the rows that `worker` announced for the job's data set; None where it hides them."""
        connection = self._members.connected.get(worker)
        datasets = () if connection is None else connection.announcement.datasets
        return next((each.rows for each in datasets if each.name == self._job.dataset), None)

    def _connection(self, worker: WorkerName) -> Connection:
        connection = self._members.connected.get(worker)
        if connection is None:
            raise PeerLost(f"worker {worker!r} is not connected")
        return connection

    async def _ready(self, worker: WorkerName, plan: Plan) -> Connection:
        """Return the connection of a worker that knows `plan`."""
        connection = self._connection(worker)
        await self._offer(connection, plan)
        return connection

    async def _offer(self, connection: Connection, plan: Plan) -> None:
        """Give the worker a plan, once per connection."""
        if (connection, plan.digest) not in self._offered:
            await connection.ask(OfferPlan(0, plan), timeout_seconds=self._job.deadline_seconds)
            self._offered.add((connection, plan.digest))

    async def _tell(self, connection: Connection, number: int) -> None:
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await connection.tell(CloseRound(self._job.id, number))
        except (PeerLost, TimeoutError):
            await connection.close()


def _awake(workers: Iterable[WorkerName], resting: frozenset[WorkerName]) -> tuple[WorkerName, ...]:
    return tuple(worker for worker in workers if worker not in resting)


def _folded(strategy: Strategy, mean: TensorSet, weight: float = 1.0) -> Gathering:
    """Return what a round gathered of which no more is known than the mean."""
    folded = Gathering()
    strategy.fold(folded, Contribution(mean, weight))
    return folded


def _is_finite(model: TensorSet) -> bool:
    """Return whether every number of `model` is finite: one that is not would spread to every worker."""
    return all(bool(torch.isfinite(tensor).all()) for _, tensor in model if tensor.dtype.is_floating_point)


def _with_metrics(refusal: WorkerRefused, metrics: Sequence[str]) -> WorkerRefused:
    """Return `refusal` of an update, saying what was asked for beside it where that may be why."""
    if not metrics or refusal.code not in _MINDED:
        return refusal
    named = ", ".join(metrics)
    return WorkerRefused(
        f"{refusal} (it was asked for its update and, with it, {named}: without {named} in worker_metrics it is asked "
        "for the update alone)",
        code=refusal.code,
        step=refusal.step,
        operation=refusal.operation,
    )


def _remedy(refusal: WorkerRefused, metrics: Sequence[str]) -> str:
    """Return what would let metrics out, or do without them, where rules or the owner are why there are none."""
    if refusal.code not in _MINDED:
        return ""
    kinds = ", ".join(f'"{name}"' for name in metrics)
    rule = f'the rule {{ rule = "metrics", kinds = [{kinds}] }} lets them out; '
    instead = "without worker_metrics, as with evaluate, nobody is asked for them"
    return f" ({rule if refusal.code == ErrorCode.RELEASE_DENIED.name else ''}{instead})"
