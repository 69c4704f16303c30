"""The rounds of a simulated run: who is asked, what an engine makes of it, what the strategy makes of that.

It keeps to what a federation does: the same draw of workers, seeds, inspection of updates, order of folding, records
and reasons for giving up. There is no link and no door, so no bytes are counted, and no worker is lost or late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from fedpriv.clock import Clock
from fedpriv.errors import RoundAbandoned
from fedpriv.ids import WorkerName
from fedpriv.learning.sampling import Chosen
from fedpriv.learning.strategies import Contribution, Gathering, Standing, Strategy
from fedpriv.plans.interpreter import Program
from fedpriv.simulation.engines import Engine, Orders, Part
from fedpriv.simulation.population import Source
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Evaluate, Train, Update
from fedpriv_coordinator.coordinator import Concluded, is_finite
from fedpriv_coordinator.experiment import History, RoundRecord, WorkerRound, WorkerStatus
from fedpriv_coordinator.inspection import why_unusable
from fedpriv_coordinator.job import Job, taken_by
from fedpriv_coordinator.journal import Saved
from fedpriv_coordinator.round_records import weighted_mean
from fedpriv_coordinator.rounds import Watch, leads_nowhere
from fedpriv_worker import training
from fedpriv_worker.actions import Evaluated

_NO_ROWS = "it has no rows"
_NOTHING_HELD_OUT = "it holds no rows out: give the population validation=0.2"


@dataclass(slots=True)
class _Found:
    """What a round gathered: `weights` and `losses` of who is in it, and why others are not."""

    gathering: Gathering = field(default_factory=Gathering)
    weights: dict[WorkerName, float] = field(default_factory=dict)
    losses: dict[WorkerName, float] = field(default_factory=dict)
    rejected: dict[WorkerName, str] = field(default_factory=dict)


class Rounds:
    """The rounds of one job over a population, one at a time."""

    def __init__(
        self, job: Job, source: Source, strategy: Strategy, engine: Engine, evaluation: Program | None, clock: Clock
    ) -> None:
        self._job, self._source, self._strategy, self._engine = job, source, strategy, engine
        self._evaluation, self._clock = evaluation, clock
        self._kept: dict[WorkerName, Mapping[str, torch.Tensor]] = {}

    def run(self, standing: Standing, reached: Saved, watch: Watch) -> Saved:
        """Run the rounds that are left and return what was reached; raise `RoundAbandoned` where it leads nowhere."""
        records = list(reached.history.rounds)
        for number in range(len(records) + 1, self._job.rounds + 1):
            concluded = self._round(number, standing)
            standing = concluded.standing
            records.append(replace(concluded.record, metrics=watch.measure(concluded)))
            if concluded.abandoned:
                _end_if_hopeless(records, concluded.abandoned, self._job)
            if watch.folder is not None or number == self._job.rounds:
                history = History(tuple(records))
                reached = replace(reached, history=history, model=standing.model, memory=standing.memory)
                watch.save(reached)
            watch.tell(records[-1])
        return reached

    def _round(self, number: int, standing: Standing) -> Concluded:
        job, began = self._job, self._clock.monotonic()
        chosen = job.chosen(number, self._source.population.names)
        found = self._gathered(number, chosen, standing.model)
        reason, measured = "", dict[WorkerName, Evaluated | str]()
        if len(found.weights) < job.quorum:
            reason = f"{len(found.weights)} of {len(chosen.workers)} workers contributed; the quorum is {job.quorum}"
        else:
            after = self._strategy.conclude(standing, found.gathering)
            if is_finite(after.model) and is_finite(after.memory):
                standing = after
                measured = self._measured(number, chosen.workers, standing.model)
            else:
                reason = "the updates together make a model that is not finite"
        seconds = self._clock.monotonic() - began
        return Concluded(_record(number, chosen, found, measured, reason, seconds), reason, standing)

    def _gathered(self, number: int, chosen: Chosen, model: TensorSet) -> _Found:
        """Train the chosen workers and fold what can be used: in order of name where it matters."""
        job, strategy, found = self._job, self._strategy, _Found()
        seeds = job.worker_seeds(number, chosen.workers)
        orders = Orders(
            self._order(number, model), chosen.workers, seeds, self._source.training, self._kept, chosen.factors,
            strategy.of_sums,
        )  # fmt: skip  # one line of terms
        totals: list[Part] = []
        single: dict[WorkerName, Contribution] = {}
        for part in self._engine.train(orders):
            if part.total:
                totals.append(part)
                found.weights.update(zip(part.workers, part.weights, strict=True))
                found.losses.update(zip(part.workers, part.losses, strict=False))
            elif strategy.of_sums:
                self._fold(found, chosen, dict(zip(part.workers, part.updates, strict=True)))
            else:
                single.update(zip(part.workers, part.updates, strict=True))
        self._fold(found, chosen, {worker: single[worker] for worker in chosen.workers if worker in single})
        _fold_totals(strategy, found.gathering, totals, chosen.factors)
        for worker in chosen.workers:
            if worker not in found.weights:
                found.rejected.setdefault(worker, _NO_ROWS)
        return found

    def _fold(self, found: _Found, chosen: Chosen, updates: Mapping[WorkerName, Contribution]) -> None:
        """Fold updates that can be used, as a coordinator judges them, and note why others cannot."""
        job = self._job
        for worker, update in updates.items():
            metrics = {} if update.loss is None else {"loss": update.loss}
            shown = Update(0, 0, delta=update.delta, weight=update.weight, metrics=metrics)
            unusable = why_unusable(shown, job.changed, job.training_metrics, int(update.weight))
            if unusable is not None:
                found.rejected[worker] = f"its update cannot be used: {unusable}"
                continue
            found.weights[worker] = update.weight
            if update.loss is not None:
                found.losses[worker] = update.loss
            factor = chosen.factors.get(worker, 1.0)
            self._strategy.fold(found.gathering, replace(update, weight=update.weight * factor))

    def _measured(
        self, number: int, workers: Sequence[WorkerName], model: TensorSet
    ) -> dict[WorkerName, Evaluated | str]:
        """Return what the workers of the round measured of its model on the rows that they hold out."""
        plan, job = self._evaluation, self._job
        if plan is None:
            return {}
        if not self._source.population.validation:
            return dict.fromkeys(workers, f"{', '.join(job.worker_metrics)}: {_NOTHING_HELD_OUT}")
        order = Evaluate(
            request=0, job=job.id, round=number, dataset=job.dataset, plan=plan.plan.digest,
            batch_size=job.local.batch_size, metrics=job.worker_metrics, purpose=job.purpose,
            model=taken_by(plan.plan, model),
        )  # fmt: skip  # one line of terms
        held_out = {worker: self._source.split(worker)[1] for worker in workers}
        own = self._kept
        return {
            worker: training.evaluate(plan, rows, order, own.get(worker, {}))
            for worker, rows in held_out.items()
            if len(rows)
        }

    def _order(self, number: int, model: TensorSet) -> Train:
        """Return what every worker of the round is asked; each has a seed of its own."""
        job = self._job
        return Train(
            request=0, job=job.id, round=number, dataset=job.dataset, plan=job.training.digest,
            epochs=job.local.epochs, batch_size=job.local.batch_size, shuffle=job.local.shuffle,
            drop_last=job.local.drop_last, seed=0, hyperparameters=job.hyperparameters, metrics=job.training_metrics,
            purpose=job.purpose, model=model,
        )  # fmt: skip  # one line of terms


def _fold_totals(
    strategy: Strategy, gathering: Gathering, totals: Sequence[Part], factors: Mapping[WorkerName, float]
) -> None:
    """Fold the mean of what is known in sums alone, as of a sum of masked updates."""
    weight = sum(
        each * factors.get(worker, 1.0)
        for part in totals
        for worker, each in zip(part.workers, part.weights, strict=True)
    )
    if weight > 0:
        first, *others = (part.total for part in totals)
        for other in others:
            for name, total in other.items():
                first[name].add_(total)
        mean = TensorSet({name: total.div_(weight) for name, total in first.items()})
        strategy.fold(gathering, Contribution(mean, weight))


def _record(
    number: int,
    chosen: Chosen,
    found: _Found,
    measured: Mapping[WorkerName, Evaluated | str],
    reason: str,
    seconds: float,
) -> RoundRecord:
    workers = []
    for worker in chosen.workers:
        weight, seen = found.weights.get(worker), measured.get(worker, "")
        metrics, unmeasured = ({}, seen) if isinstance(seen, str) else (seen.metrics, "")
        status: WorkerStatus = "rejected" if weight is None else "folded"
        why = found.rejected.get(worker, "")
        workers.append(WorkerRound(worker, status, weight or 0.0, 0, 0, 0.0, metrics, why, unmeasured))
    given = [each for each in measured.values() if not isinstance(each, str)]
    names = sorted({name for each in given for name in each.metrics})
    return RoundRecord(
        number=number,
        outcome="abandoned" if reason else "complete",
        seconds=seconds,
        loss=weighted_mean([(found.weights[worker], loss) for worker, loss in found.losses.items()]),
        metrics={},
        worker_metrics={
            name: weighted_mean([(each.rows, each.metrics[name]) for each in given]) or 0.0 for name in names
        },
        bytes_in=0,
        bytes_out=0,
        workers=tuple(workers),
    )


def _end_if_hopeless(records: Sequence[RoundRecord], abandoned: str, job: Job) -> None:
    """Raise after an abandoned round that followed too many others, or that was the last of nothing else."""
    if leads_nowhere(records, job.rounds):
        last = records[-1]
        why = "; ".join(f"{part.worker}: {part.reason}" for part in last.workers[:10] if part.reason)
        raise RoundAbandoned(f"the run ends with round {last.number}: {abandoned}: {why}")
