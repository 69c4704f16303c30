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
from fedpriv.errors import WireError, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Contribution, Gathering, Standing, Strategy
from fedpriv.occasion import about
from fedpriv.remote.connection import Connection
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import ErrorCode, Memory, Train, Update
from fedpriv_coordinator.asking import Asking, Part
from fedpriv_coordinator.buffered_rounds import BufferedRounds
from fedpriv_coordinator.course import Course
from fedpriv_coordinator.experiment import History, RoundRecord
from fedpriv_coordinator.inspection import why_unusable
from fedpriv_coordinator.job import Job
from fedpriv_coordinator.measuring import Measuring, with_metrics
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.offering import Offering
from fedpriv_coordinator.pacing import AsItComes, BySimulatedDevices, Devices, Pacing, simulated_time
from fedpriv_coordinator.private_rounds import noising_of
from fedpriv_coordinator.round import Complete, Terms
from fedpriv_coordinator.round_records import Gathered, Measured, record_of, sums_of
from fedpriv_coordinator.secure_rounds import Asked, SecureRounds, mean_metrics, mean_update

_PENDING = ErrorCode.APPROVAL_PENDING.name
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
        devices: Devices | None = None,
        past: History | None = None,
    ) -> None:
        """Run `job` over `members`; with `secure`, what they answer is seen in sums alone.

        With `devices`, updates count when these would give them. `past` are the rounds before these.
        """
        self._job = job
        self._members = members
        self._strategy = strategy
        self._clock = clock
        self._secure = secure
        self.needed = job.quorum if secure is None else secure.least(job.quorum)
        """How many workers have to be there before a round can begin."""
        settled = job.settled
        self._noising = None if settled is None else noising_of(settled, job.changed, SystemEntropy())
        self._offering = Offering(job, members)
        self._measuring = Measuring(job, self._offering, secure)
        self._asked: dict[WorkerName, Connection] = {}
        self._left: tuple[WorkerName, ...] = ()  # who was here when the last round ended
        self._resting: frozenset[WorkerName] = frozenset()
        rounds = () if past is None else past.rounds
        self._heard = {
            WorkerName(each.worker) for record in rounds for each in record.workers if each.status == "folded"
        }
        self._simulated = simulated_time(devices, secure)
        self._buffered = self._buffers(0 if past is None else len(past.arrivals))

    def suffices(self, workers: int) -> bool:
        """Return whether a round can be with so many workers to draw from."""
        return workers > 0 and self._job.sampling.least(workers) >= self.needed

    async def run_round(
        self, number: int, standing: Standing, resting: frozenset[WorkerName] = frozenset()
    ) -> Concluded:
        """Run round `number` from where the run stands, without whoever is `resting`, and return how it ended."""
        started, before = self._clock.monotonic(), self._members.traffic()
        simulated = None if self._simulated is None else self._simulated.clock.monotonic()
        missed = {name: _GONE for name in self._left if name not in {*self._members.connected, *resting}}
        self._resting, secure, sent = resting, self._secure, standing.model
        gathered = await (self._gather(number, sent) if secure is None else self._sum(secure, number, sent))
        measured = Measured()
        if not gathered.reason:
            concluded = self._strategy.conclude(standing, gathered.gathering)
            if is_finite(concluded.model) and is_finite(concluded.memory):
                standing = concluded
                measured = await self._measuring.measured(number, standing.model, tuple(self._members.connected))
            else:
                gathered = replace(gathered, reason="the updates together make a model that is not finite")
        seconds = self._clock.monotonic() - started
        present = self._left = tuple(self._members.connected)
        self._remember(gathered)
        gathered = replace(gathered, parts={**missed, **gathered.parts})
        record = record_of(number, gathered, measured, before, self._members.traffic(), seconds, present)
        if self._simulated is not None and simulated is not None:
            record = replace(record, simulated_seconds=self._simulated.clock.monotonic() - simulated)
        pending = tuple(name for name, part in sorted(gathered.parts.items()) if part.code == _PENDING)
        return Concluded(record, gathered.reason, standing, pending)

    async def _gather(self, number: int, model: TensorSet) -> Gathered:
        """Collect the sampled workers' updates in clear."""
        job, returning, workers = self._job, self._members.returning, _without(self._resting, self._members.connected)
        if self._buffered is not None:
            return await self._buffered.gather(number, model, workers)
        course = Course(
            Terms(number, job.quorum, job.deadline_seconds, returning=returning, enough=job.sampling.enough),
            contribute=lambda worker: self._contribute(worker, number, model),
            asking=self._asking(),
            fold=self._strategy.fold if self._noising is None else self._noising.fold,
            factors=(chosen := job.chosen(number, workers)).factors,
            pacing=self._pacing(),
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
            return job.chosen(number, _without(self._resting, workers)).workers

        asked = Asked(order, job.changed, job.quorum, job.deadline_seconds, sampled)
        summed = await secure.ask(asked, lambda worker: self._offering.ready(worker, job.training))
        total, sums = summed.sum, sums_of("updates", summed)
        if total is None:
            return Gathered(summed.parts, Gathering(), summed.reason, findings=summed.findings, sums=sums)
        if self._noising is not None:
            folded = _folded(self._strategy, self._noising.mean_of(total))
            return Gathered(summed.parts, folded, saturated=total.saturated, findings=summed.findings, sums=sums)
        folded = _folded(self._strategy, mean_update(total, job.changed), float(total.weight))
        loss = mean_metrics(total, job.training_metrics).get("loss")
        return Gathered(summed.parts, folded, "", loss, total.saturated, summed.findings, sums)

    def _remember(self, gathered: Gathered) -> None:
        """Note who begins anew of whom an earlier round had an update, and so kept something."""
        for worker, part in gathered.parts.items():
            if part.status == "folded":
                part.anew = part.memory is Memory.ANEW and worker in self._heard
                self._heard.add(worker)

    async def close_round(self, number: int) -> None:
        """Tell every worker that the round is over and saved; one that does not take it in time loses its connection.

        Call it only once the round is as durable as it will be: a worker may forget what it released for it.
        """
        everybody = dict.fromkeys(self._members.connected, number)
        over = everybody if self._buffered is None else self._buffered.closing()
        await asyncio.gather(*(self._offering.tell(worker, of) for worker, of in over.items()))

    async def end(self) -> None:
        """Give up what is still under way when the run ends."""
        if self._buffered is not None:
            await self._buffered.stop()

    def _buffers(self, steps: int) -> BufferedRounds | None:
        """Return what runs the steps of an asynchronous strategy, None for one of rounds."""
        strategy, job = self._strategy, self._job
        if strategy.buffered is None:
            return None
        return BufferedRounds(
            strategy.buffered,
            deadline_seconds=job.deadline_seconds,
            contribute=self._contribute,
            asking=self._asking(),
            fold=strategy.fold,
            pacing=self._pacing(),
            back=self._back if self._members.returning else None,
            steps=steps,
        )

    def _asking(self) -> Asking:
        job = self._job
        return Asking(
            lambda worker, update: why_unusable(
                update, job.changed, job.training_metrics, self._offering.announced_rows(worker)
            ),
            self._clock,
        )

    def _pacing(self) -> Pacing:
        return AsItComes(self._clock) if self._simulated is None else BySimulatedDevices(self._simulated)

    async def _contribute(self, worker: WorkerName, number: int, model: TensorSet) -> Update:
        job = self._job
        self._asked.pop(worker, None)
        connection = self._asked[worker] = self._offering.connection(worker)
        with about(worker=worker, round=number):
            await self._offering.offer(connection, job.training)
            order = self._training(number, model, seed=job.worker_seed(number, worker))
            try:
                reply = await connection.ask(order, timeout_seconds=job.deadline_seconds)
            except WorkerRefused as refusal:
                raise with_metrics(refusal, job.training_metrics) from None
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


def _without(resting: frozenset[WorkerName], workers: Iterable[WorkerName]) -> tuple[WorkerName, ...]:
    return tuple(worker for worker in workers if worker not in resting)


def _folded(strategy: Strategy, mean: TensorSet, weight: float = 1.0) -> Gathering:
    """Return what a round gathered of which no more is known than the mean."""
    folded = Gathering()
    strategy.fold(folded, Contribution(mean, weight))
    return folded


def is_finite(model: TensorSet) -> bool:
    """Return whether every number of `model` is finite: one that is not would spread to every worker."""
    return all(bool(torch.isfinite(tensor).all()) for _, tensor in model if tensor.dtype.is_floating_point)
