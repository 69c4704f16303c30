"""Privacy budget of one data set: what every release costs, what all of them together cost, and when that is too much.

Losses are Renyi differential privacy at fixed orders, which add up over releases whatever was learned in between and
whoever asked; the budget is judged at its own delta. An account is a filter: it never counts less than the true
sum (additions round up), a release that would pass the limit raises, and one that meets it exactly does not. It
knows no mechanism, draws no noise and stores nothing: a cost is reserved durably by the worker's journal first.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from fedpriv.errors import BudgetExceeded, UsageError
from fedpriv.ids import checked_name

ORDERS: tuple[float, ...] = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *map(float, range(11, 64)),
    128.0,
    256.0,
    512.0,
    1024.0,
)
"""The orders at which a loss is kept, the same for every release ever: another set could not be added to this one."""

ROW, WORKER = "row", "worker"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be learned of one `unit` of a data set, ever, by everybody together: (epsilon, delta) of all releases.

    `unit` is "row", "worker" for all rows of one, or the name of what several rows may belong to, such as "patient";
    `unit_column` is then the column that says whose each row is, where rows are read from a file. Raise `UsageError`
    unless epsilon is above 0 and delta between 0 and 1.
    """

    LATER: ClassVar[Mapping[str, str]] = {
        "maximum_rows_per_unit": "each private step takes one row of a unit, however many there are; remove it",
    }
    epsilon: float
    delta: float
    unit: str = ROW
    unit_column: str | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.epsilon) or not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise UsageError(f"epsilon is {_shown(self.epsilon)}; use a number above 0, such as 8.0")
        if not _is_number(self.delta) or not 0 < self.delta < 1:
            raise UsageError(f"delta is {_shown(self.delta)}; use a number between 0 and 1, such as 1e-5")
        checked_name("unit", self.unit)
        if self.unit_column is not None and not self.grouped:
            raise UsageError(f"unit_column says whose rows they are, and unit is {self.unit!r}; name it, as 'patient'")
        object.__setattr__(self, "epsilon", float(self.epsilon))
        object.__setattr__(self, "delta", float(self.delta))

    @property
    def grouped(self) -> bool:
        """Whether several rows may belong to one unit."""
        return self.unit not in (ROW, WORKER)


@dataclass(frozen=True, slots=True)
class Cost:
    """The loss of one release: the mechanism that made it, its event as JSON text, and its RDP at each of `ORDERS`.

    `relation` says which data sets count as neighbours, by one `unit`; `accountant` which version found the RDP.
    `trusted` says that the noise was promised by whoever received the release. Raise `UsageError` for a loss that is
    negative or no number.
    """

    mechanism: str
    event: str
    relation: str
    rdp: tuple[float, ...] = field(repr=False)
    unit: str = ROW
    accountant: str = ""
    trusted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rdp", _checked(self.rdp))
        try:
            json.loads(self.event)
        except ValueError:
            raise UsageError(f"the event of {self.mechanism!r} is not JSON: {self.event!r:.80}") from None


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent of one budget so far, as the sum of the RDP of every release, one value per order."""

    budget: Budget
    rdp: tuple[float, ...] = field(default=(0.0,) * len(ORDERS), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rdp", _checked(self.rdp))

    @property
    def spent(self) -> float:
        """The epsilon of all releases so far, at the budget's delta."""
        return epsilon_of(self.rdp, self.budget.delta)

    @property
    def left(self) -> float:
        """The budget's epsilon less what was spent; 0 when more was spent, under an earlier and larger budget."""
        return max(0.0, self.budget.epsilon - self.spent)

    def after(self, cost: Cost, *, dataset: str = "") -> Account:
        """Return the account with `cost` spent too; raise `BudgetExceeded`, which names `dataset`, if that is too much.

        At the limit exactly is within it. This account stays as it is.
        """
        total = total_of((self.rdp, cost.rdp))
        spent = epsilon_of(total, self.budget.delta)
        if not (spent <= self.budget.epsilon and all(map(math.isfinite, total))):
            raise BudgetExceeded(dataset=dataset, requested=spent - self.spent, remaining=self.left)
        return replace(self, rdp=total)

    def in_words(self) -> str:
        """Return how much of the budget is spent and left, as a sentence that its owner can check."""
        spent, budget = self.spent, self.budget
        limits = f"epsilon {budget.epsilon:g} (delta {budget.delta:g}, for each {budget.unit})"
        if spent > budget.epsilon:
            return (
                f"epsilon {spent:.4g} was spent already, more than the budget of {limits}: nothing that costs privacy "
                f"leaves until its owner raises the budget above {spent:.4g}"
            )
        return f"epsilon {spent:.4g} is spent of the budget of {limits}; {self.left:.4g} is left"


def total_of(losses: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the sum of `losses`, each one value per order of `ORDERS`, rounded up in its last digit."""
    total = (0.0,) * len(ORDERS)
    for loss in losses:
        total = tuple(_sum_rounded_up(one, other) for one, other in zip(total, loss, strict=True))
    return total


def epsilon_of(rdp: Sequence[float], delta: float) -> float:
    """Return the least epsilon for which RDP `rdp`, one value per order of `ORDERS`, implies (epsilon, delta).

    Canonne, Kamath, Steinke 2020, Proposition 12, and 0 where delta >= sqrt(1 - exp(-KL)) by Bretagnolle and Huber
    1979, since no RDP is less than KL. Infinite for delta 0, unless nothing was lost at all.
    """
    if not any(rdp):
        return 0.0
    if not delta > 0:
        return math.inf
    return max(0.0, min(_epsilon_at(order, loss, delta) for order, loss in zip(ORDERS, rdp, strict=True)))


def _epsilon_at(order: float, loss: float, delta: float) -> float:
    if delta**2 + math.expm1(-loss) > 0:
        return 0.0
    return loss + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _sum_rounded_up(one: float, other: float) -> float:
    """Return the least float that is not below the true sum of two losses (Knuth's two-sum gives the remainder)."""
    total = one + other
    if not math.isfinite(total):
        return total
    part = total - one
    lost = (one - (total - part)) + (other - part)
    return math.nextafter(total, math.inf) if lost > 0 else total


def _checked(rdp: Iterable[float]) -> tuple[float, ...]:
    """Return one loss per order; raise `UsageError` unless each is finite and at least 0."""
    kept = tuple(rdp)
    if len(kept) != len(ORDERS):
        raise UsageError(f"a loss has {len(kept)} values; give one for each of the {len(ORDERS)} orders")
    for order, loss in zip(ORDERS, kept, strict=True):
        if not _is_number(loss) or not (math.isfinite(loss) and loss >= 0):
            raise UsageError(f"the loss at order {order:g} is {_shown(loss)}; a loss is a finite number of at least 0")
    return tuple(map(float, kept))


def _is_number(value: object) -> bool:
    """Return whether `value` is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not _is_vast(value)


def _is_vast(value: object) -> bool:
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _shown(value: object) -> str:
    return "a number beyond every float" if _is_vast(value) else repr(value)
