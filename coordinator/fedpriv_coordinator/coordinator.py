"""The shell of a run: rounds of one job over the connections of a federation.

A round is collected (`course`), concluded by the strategy, measured by the workers on their own validation rows if
the job asks for it, and recorded with the bytes that went each way. It is closed by whoever ran it, once it is saved:
that is what tells the workers that nothing of it will be asked for again. It never sees a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import torch

from fedpriv.clock import Clock
from fedpriv.errors import PeerLost, WireError, WorkerRefused
from fedpriv.ids import PlanDigest, WorkerName
from fedpriv.learning.strategies import S, Strategy
from fedpriv.plans.plan import Plan
from fedpriv.remote.connection import Connection
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import CloseRound, ErrorCode, Evaluate, Evaluation, OfferPlan, Train, Update
from fedpriv_coordinator.course import Course, Part
from fedpriv_coordinator.experiment import RoundRecord, WorkerRound
from fedpriv_coordinator.inspection import why_unusable, why_unusable_evaluation
from fedpriv_coordinator.job import Job
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.round import Abandoned, Complete, Terms

TELL_SECONDS = 5.0
_PENDING = ErrorCode.APPROVAL_PENDING.name
_MINDED = (ErrorCode.RELEASE_DENIED.name, ErrorCode.APPROVAL_DENIED.name, _PENDING)
"""Refusals that are about what would leave, so that asking for less may help."""
Evaluations = Mapping[WorkerName, Evaluation | str]
"""What each worker measured, or the metrics that it was asked for and why it gave none."""
Traffic = Mapping[WorkerName, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Concluded:
    """A round that is over: its record, why it was abandoned ("" if it was not), and the model after it.

    `pending` are the workers whose owners have been asked to approve what the round asks for.
    """

    record: RoundRecord
    abandoned: str
    model: TensorSet = field(repr=False)
    pending: tuple[WorkerName, ...] = ()


class Coordinator(Generic[S]):
    """Runs the rounds of one job, one at a time, on the loop's thread."""

    def __init__(self, job: Job, members: Membership, strategy: Strategy[S], model: TensorSet, clock: Clock) -> None:
        self._job = job
        self._members = members
        self._strategy = strategy
        self._memory = strategy.initialise(model)
        self._clock = clock
        self._offered: set[tuple[Connection, PlanDigest]] = set()
        self._asked: dict[WorkerName, Connection] = {}

    async def run_round(self, number: int, model: TensorSet) -> Concluded:
        """Run round `number` from `model` and return how it ended."""
        job = self._job
        started, before = self._clock.monotonic(), self._members.traffic()
        course = Course(
            Terms(number, job.quorum, job.deadline_seconds, returning=self._members.returning),
            contribute=lambda worker: self._contribute(worker, number, model),
            inspect=lambda worker, update: why_unusable(
                update, job.changed, job.training_metrics, self._announced_rows(worker)
            ),
            fold=self._strategy.fold,
            clock=self._clock,
            back=self._back,
        )
        state = await course.run(tuple(self._members.connected))
        evaluations: Evaluations = {}
        if isinstance(state, Complete):
            concluded, memory = self._strategy.conclude(model, course.sum, self._memory)
            if _is_finite(concluded):
                model, self._memory = concluded, memory
                evaluations = await self._evaluate(number, model)
            else:
                state = Abandoned(state.terms, "the updates together make a model that is not finite")
        seconds = self._clock.monotonic() - started
        complete = isinstance(state, Complete)
        record = _record(number, course.parts, evaluations, before, self._members.traffic(), seconds, complete=complete)
        pending = tuple(name for name, part in sorted(course.parts.items()) if part.code == _PENDING)
        return Concluded(record, "" if isinstance(state, Complete) else state.reason, model, pending)

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
        order = Train(
            request=0,
            job=job.id,
            round=number,
            dataset=job.dataset,
            plan=job.training.digest,
            epochs=job.local.epochs,
            batch_size=job.local.batch_size,
            shuffle=job.local.shuffle,
            drop_last=job.local.drop_last,
            seed=job.worker_seed(number, worker),
            hyperparameters=job.hyperparameters,
            metrics=job.training_metrics,
            purpose=job.purpose,
            model=model,
        )
        try:
            reply = await connection.ask(order, timeout_seconds=job.deadline_seconds)
        except WorkerRefused as refusal:
            raise _with_metrics(refusal, job.training_metrics) from None
        if not isinstance(reply, Update):
            raise WireError(f"it answered a training request with a {type(reply).__name__}")
        return reply

    async def _back(self, worker: WorkerName) -> None:
        """Return when a worker that was lost in this round is connected again."""
        await self._members.wait_for_another(worker, self._asked.get(worker))

    async def _evaluate(self, number: int, model: TensorSet) -> Evaluations:
        """Return what the workers that answer in time measured on their own validation rows, or why others did not."""
        plan = self._job.evaluation
        if plan is None:
            return {}
        names = tuple(self._members.connected)
        replies = await asyncio.gather(*(self._measure(worker, number, model, plan) for worker in names))
        asked = ", ".join(self._job.worker_metrics)
        return {
            worker: f"{asked}: {reply}" if isinstance(reply, str) else reply
            for worker, reply in zip(names, replies, strict=True)
        }

    async def _measure(self, worker: WorkerName, number: int, model: TensorSet, plan: Plan) -> Evaluation | str:
        """Return the worker's evaluation, or why there is none: a round does not fail because a measurement does."""
        job = self._job
        order = Evaluate(
            request=0,
            job=job.id,
            round=number,
            dataset=job.dataset,
            plan=plan.digest,
            batch_size=job.local.batch_size,
            metrics=job.worker_metrics,
            purpose=job.purpose,
            model=model,
        )
        try:
            connection = self._connection(worker)
            await self._offer(connection, plan)
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


def _is_finite(model: TensorSet) -> bool:
    """Return whether every number of `model` is finite: one that is not would spread to every worker."""
    return all(bool(torch.isfinite(tensor).all()) for _, tensor in model if tensor.dtype.is_floating_point)


def _record(
    number: int,
    parts: Mapping[WorkerName, Part],
    evaluations: Evaluations,
    before: Traffic,
    after: Traffic,
    seconds: float,
    *,
    complete: bool,
) -> RoundRecord:
    """Return the record of a round; bytes are what the counters gained since it began."""
    workers = []
    for worker, part in sorted(parts.items()):
        received, sent = (now - then for now, then in zip(after[worker], before[worker], strict=True))
        measured = evaluations.get(worker, "")
        metrics, unmeasured = ({}, measured) if isinstance(measured, str) else (measured.metrics, "")
        workers.append(
            WorkerRound(
                worker, part.status, part.weight, received, sent, part.seconds, metrics, part.reason, unmeasured
            )
        )
    losses = [(part.weight, part.loss) for part in parts.values() if part.status == "folded" and part.loss is not None]
    given = [each for each in evaluations.values() if isinstance(each, Evaluation)]
    names = sorted({name for evaluation in given for name in evaluation.metrics})
    return RoundRecord(
        number=number,
        outcome="complete" if complete else "abandoned",
        seconds=seconds,
        loss=_mean(losses),
        metrics={},
        worker_metrics={name: mean for name in names if (mean := _mean(_weighted(given, name))) is not None},
        bytes_in=sum(each.bytes_in for each in workers),
        bytes_out=sum(each.bytes_out for each in workers),
        workers=tuple(workers),
    )


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


def _weighted(given: Iterable[Evaluation], name: str) -> list[tuple[float, float]]:
    return [(each.weight, each.metrics[name]) for each in given if name in each.metrics]


def _mean(weighted: Iterable[tuple[float, float]]) -> float | None:
    """Return the weighted mean, or None of nothing."""
    pairs = list(weighted)
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total if total > 0 else None
