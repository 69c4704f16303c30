"""What a run is going to do, settled before the first message: schema, plans, terms.

Everything that can be wrong with a model, a loss or the workers' data sets is found here, at the researcher, before
anything is sent and before any worker spends a second on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from fedpriv import canonical
from fedpriv.errors import TraceError, UsageError, counted, nearest
from fedpriv.ids import DatasetName, JobId, WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.owned import Beside
from fedpriv.learning.sampling import Chosen, Everybody, Sampling
from fedpriv.learning.strategies import Strategy
from fedpriv.plans import own
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import InputRole, OutputRole, Plan
from fedpriv.plans.tracing import accuracy, trace_evaluation, trace_loss, trace_training
from fedpriv.privacy.modes import ExampleDP, Mode
from fedpriv.updates import DTYPES, TensorSet, TensorSpec
from fedpriv.wire.fields import MAXIMUM_PURPOSE_BYTES
from fedpriv.wire.messages import Announcement, DatasetDescription
from fedpriv_coordinator.fitting import check_code, disagreement, explained
from fedpriv_coordinator.private_job import Setting, Settled, check_private, settle
from fedpriv_coordinator.secure_aggregation import SecureAggregation, majority

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
METRICS: Mapping[str, Loss] = {"accuracy": accuracy}
WORKER_METRICS = ("loss", *METRICS)


@dataclass(frozen=True, slots=True)
class Job:
    """One run: the same for every round and every worker; `settled` is its privacy, where it has any."""

    id: JobId
    purpose: str
    dataset: DatasetName
    rounds: int
    seed: int
    local: LocalTraining
    quorum: int
    deadline_seconds: float
    training: Plan
    evaluation: Plan | None
    worker_metrics: tuple[str, ...]
    changed: tuple[TensorSpec, ...]
    sampling: Sampling
    settled: Settled | None = None

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The optimiser's scalar inputs, by name; a plan that is a loss alone has none."""
        return self.local.hyperparameters if self.training.inputs_of(InputRole.HYPERPARAMETER) else {}

    @property
    def training_metrics(self) -> tuple[str, ...]:
        """Metrics that come with an update; the others need an evaluation of the new model."""
        return ("loss",) if "loss" in self.worker_metrics else ()

    def chosen(self, round_number: int, workers: Sequence[WorkerName]) -> Chosen:
        """Return which of `workers` a round asks, the same at every replay."""
        return self.sampling.choose(workers, seed=self.seed, round_number=round_number)

    def worker_seed(self, round_number: int, worker: WorkerName) -> int:
        """Return the seed of one worker's row order in one round: 63 bits, the same at every replay."""
        return self.worker_seeds(round_number, (worker,))[0]

    def worker_seeds(self, round_number: int, workers: Sequence[WorkerName]) -> list[int]:
        """Return the seed of each of `workers`."""
        seeds = canonical.digests("fedpriv/seed/v1", self.seed, self.dataset, round_number, last=workers)
        return [int.from_bytes(seed[:8], "big") >> 1 for seed in seeds]


def agreed_schema(dataset: DatasetName, announced: Mapping[WorkerName, Announcement]) -> DatasetDescription:
    """Return the schema of `dataset` that all workers share; raise `UsageError` naming who differs and in what."""
    found: dict[WorkerName, DatasetDescription] = {}
    for worker, announcement in announced.items():
        by_name = {description.name: description for description in announcement.datasets}
        if dataset not in by_name:
            offered = ", ".join(by_name) or "none"
            raise UsageError(
                f"worker {worker!r} has no data set {dataset!r}{nearest(dataset, by_name)}; it announces: {offered}"
            )
        found[worker] = by_name[dataset]
    (first, schema), *others = found.items()
    for worker, other in others:
        if apart := disagreement(first, schema, worker, other):
            raise UsageError(
                f"workers {first!r} and {worker!r} disagree on data set {dataset!r}: {apart}; bring them to one schema"
            )
    return schema


def prepare(
    model: nn.Module,
    loss: Loss,
    *,
    dataset: str,
    purpose: str,
    rounds: int,
    seed: int,
    local: LocalTraining,
    quorum: int | None,
    deadline_seconds: float,
    worker_metrics: Sequence[str],
    schema: DatasetDescription,
    workers: int,
    privacy: Mode | None = None,
    sampling: Sampling | None = None,
) -> Job:
    """Return the job over so many workers, `privacy` not settled yet; trace model and loss once.

    `schema` is that of the data set at all of them. Raise `UsageError` for what cannot be.
    """
    check_code(model, loss, local)
    sampling = sampling or Everybody()
    asked = sampling.least(workers)
    _check_terms(rounds, quorum, asked, deadline_seconds, worker_metrics)
    _check_purpose(purpose)
    name = DatasetName(dataset)
    training, evaluation = _traced(model, loss, local, schema, worker_metrics, privacy)
    return Job(
        id=_job_id(training, dataset, purpose, seed),
        purpose=purpose,
        dataset=name,
        rounds=rounds,
        seed=seed,
        local=local,
        quorum=majority(asked) if quorum is None else quorum,
        deadline_seconds=deadline_seconds,
        training=training,
        evaluation=evaluation,
        worker_metrics=tuple(worker_metrics),
        changed=changed_specs(training),
        sampling=sampling,
    )


def made_private(
    job: Job,
    mode: Mode | None,
    announced: Mapping[WorkerName, Announcement],
    strategy: Strategy,
    secure: SecureAggregation | None,
    instance: str,
    *,
    resume: bool,
) -> Job:
    """Return `job` with its noise settled; raise `UsageError` where it cannot be private, or not with these workers.

    `instance` tells it from the same job run again: its noise is new, and so is its bill.
    """
    if mode is None:
        return job
    check_private(mode, job.worker_metrics, strategy, job.local, job.sampling, secure, resume=resume)
    rows = {worker: _rows(each, job.dataset) for worker, each in announced.items()}
    setting = Setting(job.rounds, job.local, rows, _dimension(job.changed), job.quorum, secure)
    return replace(
        job,
        id=_job_id(job.training, job.dataset, job.purpose, job.seed, instance),
        settled=settle(mode, setting),
    )


def _traced(
    model: nn.Module,
    loss: Loss,
    local: LocalTraining,
    schema: DatasetDescription,
    metrics: Sequence[str],
    privacy: Mode | None,
) -> tuple[Plan, Plan | None]:
    """Return the plans of training and, where metrics are asked for, of evaluation.

    Where workers make private steps of their own, training is the loss alone.
    """
    features = TensorExample(schema.feature_dtype, schema.feature_shape)
    target = TensorExample(schema.target_dtype, ())
    chosen = {name: metric for name, metric in METRICS.items() if name in metrics}
    try:
        if isinstance(privacy, ExampleDP):
            training = trace_loss(model, loss, features, target)
        else:
            personal, stays = local.personal, frozenset() if local.personal is None else local.personal.stays(model)
            companion = personal if isinstance(personal, Beside) else None
            training = trace_training(model, loss, local.rule, features, target, stays=stays, companion=companion)
        if not metrics:
            return training, None
        return training, trace_evaluation(model, loss, chosen, features, target, personal=own.names(training))
    except TraceError as error:
        raise explained(error, model, schema) from error


def changed_specs(plan: Plan) -> tuple[TensorSpec, ...]:
    """Return what an update of `plan` holds: every parameter and state tensor that its step writes, in plan order.

    A plan that is a loss alone writes nothing: workers train its parameters by private steps of their own.
    """
    written = {each.name for each in plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)}
    held = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE)
    if not written:
        held = plan.inputs_of(InputRole.PARAMETER)
        written = {each.name for each in held}
    return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in held if each.name in written)


def model_tensors(model: nn.Module, plan: Plan) -> TensorSet:
    """Return the tensors of `model` that `plan` takes, in plan order; what a strategy shares begins at zero."""
    state = model.state_dict(keep_vars=False)
    wanted = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE, InputRole.FROZEN)
    return TensorSet(
        {
            each.name: state[each.name].detach().contiguous()
            if each.name in state
            else torch.zeros(each.shape, dtype=DTYPES[each.dtype])
            for each in wanted
        }
    )


def taken_by(plan: Plan, model: TensorSet) -> TensorSet:
    """Return the tensors of `model` that `plan` takes, in plan order."""
    return TensorSet({each.name: model[each.name] for each in plan.inputs if each.name in model.tensors})


def load_tensors(model: nn.Module, tensors: TensorSet) -> None:
    """Write `tensors` into `model` in place, tied parameters included."""
    model.load_state_dict(dict(tensors), strict=False)


def _check_terms(
    rounds: int, quorum: int | None, workers: int, deadline_seconds: float, metrics: Sequence[str]
) -> None:
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}; at least 1 is needed")
    if quorum is not None and not 1 <= quorum <= workers:
        fewest = counted(workers, "worker")
        raise UsageError(f"quorum is {quorum}, but {fewest} may be all that a round asks; use 1 to {workers}")
    if not deadline_seconds > 0:
        raise UsageError(f"deadline_seconds is {deadline_seconds}; give the workers some time")
    for metric in metrics:
        if metric not in WORKER_METRICS:
            close = nearest(metric, WORKER_METRICS)
            raise UsageError(f"worker metric {metric!r} is not known{close}; use some of {', '.join(WORKER_METRICS)}")


def _check_purpose(purpose: str) -> None:
    length = len(purpose.encode("utf-8", "replace"))
    if length > MAXIMUM_PURPOSE_BYTES or not purpose.isprintable():
        raise UsageError(
            f"a purpose of {length} bytes; an owner reads it: state it in one line of at most {MAXIMUM_PURPOSE_BYTES}"
        )


def _rows(announcement: Announcement, dataset: DatasetName) -> int | None:
    return next(each.rows for each in announcement.datasets if each.name == dataset)


def _dimension(changed: Sequence[TensorSpec]) -> int:
    """Return the number of values of a private update; raise `UsageError` where some count rows."""
    for spec in changed:
        if not DTYPES[spec.dtype].is_floating_point:
            raise UsageError(
                f"tensor {spec.name!r} of the model is {spec.dtype}, and would count batches and so rows in clear; "
                "for private training use GroupNorm or LayerNorm in place of BatchNorm"
            )
    return sum(spec.elements for spec in changed)


def _job_id(plan: Plan, dataset: str, purpose: str, seed: int, instance: str = "") -> JobId:
    return JobId(canonical.digest("fedpriv/job/v1", plan.digest, dataset, purpose, seed, instance).hex()[:16])
