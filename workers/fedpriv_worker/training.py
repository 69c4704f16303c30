"""Local training, evaluation and statistics: what a worker computes on its own rows.

It promises to run exactly the plan that was validated, on the data set that the request names, and to return a
difference, a few means or per-column sums, never rows. The order of rows and the noise of dropout come from a seed:
the request's, so that a round can be replayed, and in a sum this worker's own, since a seed that a coordinator picks
for one worker can make its rows stand out of the sum. Everything that a peer may be told is checked before the first
row counts: a model that does not fit, or more work than the owner grants, is `Unfit` and says nothing about the data.
Whatever else is raised here may depend on the rows. What may leave of the result is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from fedpriv.errors import PlanRefused
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import BATCH, Input, InputRole, OutputRole, Plan
from fedpriv.updates import TensorSet, dtype_name
from fedpriv.wire.messages import ErrorCode, Evaluate, Train
from fedpriv_worker.actions import (
    Evaluated,
    Trained,
)
from fedpriv_worker.datasets import Rows
from fedpriv_worker.definitions import code_of

MAXIMUM_EPOCHS = 1000
TRAINING_METRICS = frozenset({"loss"})


class Unfit(Exception):
    """A request that does not fit its plan or its data set; carries what the peer will see.

    `step` and `operation` say where a plan does not fit, -1 and "" where it is not one step.
    """

    def __init__(self, code: ErrorCode, *, step: int = -1, operation: str = "") -> None:
        super().__init__(code.name)
        self.code = code
        self.step = step
        self.operation = operation


class Stopped(Exception):
    """The peer that asked is gone, or the worker is closing."""


def train(
    program: Program,
    rows: Rows,
    order: Train,
    seed: int,
    stopped: Callable[[], bool],
    kept: Mapping[str, torch.Tensor],
) -> tuple[Trained, Mapping[str, torch.Tensor]]:
    """Run the local epochs of one round; return what changed in the model with the mean loss, and what stays here.

    `seed` orders the rows and drives dropout, whatever the order says of one; `kept` is what an earlier round left
    here. A pass that has no whole batch changes nothing. Raise `Stopped` between two passes when `stopped` says so.
    """
    check_fit(program.plan, rows, order.model, order.hyperparameters)
    _check_order(order)
    _prepare(program, order.batch_size)
    generator = torch.Generator().manual_seed(seed)
    bound = program.bind(order.model.tensors, order.hyperparameters, generator, kept)
    losses: list[float] = []
    for _ in range(order.epochs):
        if stopped():
            raise Stopped
        sequence = torch.randperm(len(rows), generator=generator) if order.shuffle else None
        means = bound.epoch(rows.features, rows.target, sequence, order.batch_size, drop_last=order.drop_last)
        losses.append(means.get("loss", 0.0))
    changed = {each.name for each in program.plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)}
    trained = bound.state()
    delta = TensorSet({name: trained[name].sub_(order.model[name]) for name in trained if name in changed})
    metrics = {"loss": sum(losses) / len(losses)} if "loss" in order.metrics else {}
    return Trained(len(rows), metrics, delta), bound.kept()


def evaluate(program: Program, rows: Rows, order: Evaluate, kept: Mapping[str, torch.Tensor]) -> Evaluated:
    """Return the metrics of a model over the validation rows, each the mean over rows.

    The plan gets what is `kept` here of the names and shapes that it takes, and zeros for the rest.
    """
    check_fit(program.plan, rows, order.model, {})
    reported = {each.name for each in program.plan.outputs_of(OutputRole.LOSS, OutputRole.METRIC)}
    if order.batch_size < 1 or not len(rows) or not order.metrics or not set(order.metrics) <= reported:
        raise Unfit(ErrorCode.INPUT_MISMATCH)
    _prepare(program, order.batch_size)
    own = program.plan.inputs_of(InputRole.KEPT)
    held = {each.name: kept[each.name] for each in own if each.name in kept and _matches(each, kept[each.name])}
    bound = program.bind(order.model.tensors, {}, kept=held)
    means = bound.epoch(rows.features, rows.target, None, order.batch_size)
    return Evaluated(len(rows), {name: means[name] for name in order.metrics})


def statistics(rows: Rows, kinds: Iterable[str]) -> TensorSet:
    """Return the asked statistics of each feature column, float64: count (), sum and sum-of-squares (features,)."""
    columns = rows.features.to(torch.float64)
    if columns.dim() != 2:
        raise Unfit(ErrorCode.INPUT_MISMATCH)
    known = {
        "count": lambda: torch.tensor(float(len(rows)), dtype=torch.float64),
        "sum": lambda: columns.sum(0),
        "sum-of-squares": lambda: columns.square().sum(0),
    }
    asked = tuple(kinds)
    if not set(asked) <= known.keys() or len(set(asked)) != len(asked):
        raise Unfit(ErrorCode.BAD_REQUEST)
    return TensorSet({kind: known[kind]() for kind in asked})


def _check_order(order: Train) -> None:
    """Raise `Unfit` for an order that makes no sense, whatever the rows are: a code must say nothing about them."""
    if order.batch_size < 1 or order.epochs < 1 or not set(order.metrics) <= TRAINING_METRICS:
        raise Unfit(ErrorCode.BAD_REQUEST)
    if order.epochs > MAXIMUM_EPOCHS:
        raise Unfit(ErrorCode.OVER_QUOTA)


def _prepare(program: Program, batch_size: int) -> None:
    """Make the program ready for whole batches, or raise `Unfit`: their size is public, that of a last one is not."""
    try:
        program.block(batch_size)
    except PlanRefused as refusal:
        raise Unfit(code_of(refusal), step=refusal.step, operation=refusal.operation) from None


def check_fit(plan: Plan, rows: Rows, model: TensorSet, hyperparameters: Mapping[str, float]) -> None:
    """Raise `Unfit` unless the model, the scalars and the rows are what the plan's inputs ask for."""
    wanted = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE, InputRole.FROZEN)
    given = model.tensors
    scalars = {each.name for each in plan.inputs_of(InputRole.HYPERPARAMETER)}
    if given.keys() != {each.name for each in wanted} or scalars != hyperparameters.keys():
        raise Unfit(ErrorCode.INPUT_MISMATCH)
    fits = all(_matches(each, given[each.name]) for each in wanted)
    features = plan.inputs_of(InputRole.FEATURES)
    target = plan.inputs_of(InputRole.TARGET)
    fits = fits and len(features) == len(target) == 1
    if not (fits and _matches(features[0], rows.features) and _matches(target[0], rows.target)):
        raise Unfit(ErrorCode.INPUT_MISMATCH)


def _matches(wanted: Input, tensor: torch.Tensor) -> bool:
    """Return whether `tensor` has the dtype and shape of an input, any number of rows standing for the batch."""
    shape = tuple(tensor.shape)
    same = len(shape) == len(wanted.shape) and all(
        expected in (size, BATCH) for size, expected in zip(shape, wanted.shape, strict=True)
    )
    return same and dtype_name(tensor.dtype) == wanted.dtype
