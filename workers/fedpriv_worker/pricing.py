"""What a private order makes this worker do, and what that costs: its noise and its bill, both made here.

Only numbers count that this worker can hold to something: its own rows as announced, the cohort of the sum that its own
checks insist on, its owner's share of colluders. Of what the order claims, rounds and noise multiplier enter the noise
that is then executed, and so the bill. A price is one value: what is reserved, executed and put on record is the same.
Nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fedpriv.errors import UsageError
from fedpriv.learning.local import LocalTraining, Optimizer
from fedpriv.privacy.accountants import cost_of, epsilon_by_rdp
from fedpriv.privacy.budget import WORKER, Budget, Cost
from fedpriv.privacy.mechanisms import over_rounds
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, Mode, TreeDP, check_clip
from fedpriv.privacy.noises import DistributedNoise, ExampleNoise, Noise, TreeNoise, check_drawn
from fedpriv.privacy.relations import Relation
from fedpriv.secagg.thresholds import colluding
from fedpriv.updates import DTYPES, TensorSpec
from fedpriv.wire.messages import DatasetDescription, Train
from fedpriv.wire.private import Private


@dataclass(frozen=True, slots=True)
class Price:
    """What is executed for one private order, and what it costs; `words` are its parameters as an owner reads them.

    `cost` is charged to the data set's budget, None where it has none; `epsilon` is what all rounds of the job come to
    at the budget's delta, None where the noise is somebody else's promise. A `whole` cost is that of all rounds.
    `colluders` are workers whose share of the noise is not counted on, None where noise is not shared.
    """

    noise: Noise
    words: str
    cost: Cost | None = None
    epsilon: float | None = None
    whole: bool = False
    optimizer: Optimizer | None = None
    colluders: int | None = None


def price_of(
    order: Train,
    private: Private,
    description: DatasetDescription,
    budget: Budget | None,
    changed: Sequence[TensorSpec],
    share: Fraction,
) -> Price:
    """Return the price of one round; `share` is that of workers which the owner takes for colluding.

    `changed` is what the update will hold. Raise `UsageError` for an order that no private job of ours gives.
    """
    _check(order, private, changed)
    dimension = sum(each.elements for each in changed)
    noise, billed = _noises(order, private, description, dimension, share)
    check_drawn(noise, dimension)
    whole = isinstance(noise, TreeNoise)
    colluders = _colluders(order, private, share)
    price = Price(noise, private.text(), whole=whole, optimizer=private.optimizer, colluders=colluders)
    if budget is None:
        return price
    relation = charged_under(private.mode, budget.unit)
    trusted = private.mode.trusted
    terms = _terms(order, private, description, dimension, billed)
    cost = cost_of(billed.mechanism, relation, unit=budget.unit, trusted=trusted, terms=terms)
    if trusted:
        return replace(price, cost=cost)
    job = over_rounds(billed.mechanism, private.rounds)
    return replace(price, cost=cost, epsilon=epsilon_by_rdp(job, budget.delta, relation))


def _terms(
    order: Train, private: Private, description: DatasetDescription, dimension: int, billed: Noise
) -> dict[str, object]:
    """Return every number that a price was made from: what the order said, and what this worker knew itself."""
    said: dict[str, object] = {**json.loads(private.text()), "dimension": dimension}
    match billed:
        case ExampleNoise():
            said |= {"rows": description.rows, "batch_size": order.batch_size, "epochs": order.epochs}
        case DistributedNoise():
            said |= {"honest": billed.honest}
    return said


def charged_under(mode: Mode, unit: str) -> Relation:
    """Return which neighbours a budget for each `unit` is charged for under `mode`.

    A mode that protects whole updates protects who is in the data of one too, but as one that is another: without a
    row, or a patient with all of theirs, a worker sends another update, not none. Private steps take one row of each
    patient, so they protect patients as they do rows. Raise `UsageError` for a mode that protects less than the unit.
    """
    if isinstance(mode, ExampleDP):
        if unit == WORKER:
            raise UsageError("a job that protects each row cannot be billed to a budget for each worker")
        return mode.relation
    return mode.relation if unit == WORKER else Relation.REPLACE_ONE


def _noises(
    order: Train, private: Private, description: DatasetDescription, dimension: int, share: Fraction
) -> tuple[Noise, Noise]:
    """Return the noise that is executed, and the same as it is billed: without what others may leave out of it."""
    mode, rounds = private.mode, private.rounds
    noise: Noise
    match mode:
        case CentralDP() | TreeDP():
            noise = mode.noise(rounds=rounds, workers=private.workers)
        case LocalDP():
            noise = mode.noise(rounds=rounds)
        case ExampleDP():
            if description.rows is None:
                raise UsageError("the sampling rate follows from how many rows are announced, and these are hidden")
            steps = LocalTraining(order.epochs, order.batch_size).steps_over(description.rows)
            noise = mode.noise(rows=description.rows, batch_size=order.batch_size, rounds=rounds, steps=steps)
        case DistributedDP():
            if order.invite is None:
                raise UsageError("a share of distributed noise protects nobody outside of a sum")
            among = order.invite.descriptor
            noise = private.shared_noise(dimension, workers=among.workers, least=among.least)
            honest = among.least - (_colluders(order, private, share) or 0)
            if honest < 1:
                raise UsageError(f"of {among.least} workers in the sum, as many may collude: no noise is certain")
            return noise, replace(noise, honest=honest)
    return noise, noise


def _colluders(order: Train, private: Private, share: Fraction) -> int | None:
    """Return how many workers' noise is not counted on: what the order says, or the owner's share of those invited."""
    if order.invite is None or not isinstance(private.mode, DistributedDP):
        return None
    return max(private.colluding, colluding(order.invite.descriptor.workers, share))


def _check(order: Train, private: Private, changed: Sequence[TensorSpec]) -> None:
    """Raise `UsageError` for what is no part of a private order, whatever its noise."""
    if order.metrics:
        raise UsageError(f"{', '.join(order.metrics)} of private training would leave without noise")
    check_clip(private.mode.clip)
    if not 1 <= order.round <= private.rounds:
        raise UsageError(f"round {order.round} of a job of {private.rounds}")
    if order.epochs < 1 or order.batch_size < 1:
        raise UsageError(f"{order.epochs} epochs of batches of {order.batch_size} rows")
    if not changed or not all(DTYPES[each.dtype].is_floating_point for each in changed):
        raise UsageError("the update would hold no floating-point tensors alone; whole numbers count rows")
    if isinstance(private.mode, ExampleDP) and (order.drop_last or not order.shuffle):
        raise UsageError("private steps draw Poisson samples; batches in order, or only whole ones, are none")
