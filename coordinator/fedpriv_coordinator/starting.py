"""Where a run starts: whether its strategy fits it, and the model and memory of round 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.sampling import Everybody
from fedpriv.learning.strategies import Setting, Strategy
from fedpriv.plans.plan import InputRole
from fedpriv.wire.messages import Announcement
from fedpriv_coordinator.experiment import History, SumRecord
from fedpriv_coordinator.job import Job, model_tensors
from fedpriv_coordinator.journal import Saved


def quorum_of(strategy: Strategy, quorum: int | None, workers: int) -> int | None:
    """Return how many updates a round needs: `quorum`, or else what the strategy's buffer takes, if it has one."""
    if quorum is not None or strategy.buffered is None:
        return quorum
    return min(strategy.buffered.size, workers)


def announced_rows(job: Job, announced: Mapping[WorkerName, Announcement]) -> list[int | None]:
    """Return how many rows of the job's data set each worker says that it has, None where an owner hides them."""
    return [each.rows for found in announced.values() for each in found.datasets if each.name == job.dataset]


def setting_of(job: Job, strategy: Strategy, rows: Sequence[int | None]) -> Setting:
    """Return what `strategy` is told of a run over workers that announce `rows`.

    Raise `UsageError` where it does not fit, saying what would.
    """
    trained = frozenset(each.name for each in job.training.inputs_of(InputRole.PARAMETER))
    setting = Setting(job.local, job.sampling.least(len(rows)), job.quorum, trained, tuple(rows))
    if strategy.needs_loss and "loss" not in job.training_metrics:
        raise UsageError(
            f"strategy {strategy.name!r} weighs workers by their loss: ask for it with worker_metrics=('loss',), which "
            "each owner has to allow"
        )
    if strategy.buffered is not None:
        _check_buffered(job, strategy)
    strategy.check(setting)
    return setting


def _check_buffered(job: Job, strategy: Strategy) -> None:
    """Raise `UsageError` for what a run without rounds cannot do."""
    if job.sampling.name != Everybody().name:
        raise UsageError(
            f"sampling {job.sampling.name!r} draws the workers of a round, and {strategy.name} has none: whoever is "
            "idle is asked; leave sampling out"
        )
    if job.evaluation is not None:
        raise UsageError(
            f"worker_metrics would have every worker stop its training to measure each step of {strategy.name}; leave "
            "them out, and measure the model here with evaluate"
        )


def fresh_start(
    job: Job, strategy: Strategy, setting: Setting, model: nn.Module, before: tuple[SumRecord, ...]
) -> Saved:
    """Return a run of no round yet, from the weights of `model`; `before` are the sums that were shown before it."""
    tensors = model_tensors(model, job.training)
    memory = strategy.initialise(setting, tensors)
    return Saved(History(before=before), job.training.digest.hex(), strategy.name, tensors, memory)
