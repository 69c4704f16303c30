"""What a mechanism costs: RDP for the budget that enforces, and the tightest figure known for the report.

Enforcing is always by RDP, as a `budget.Cost`: it adds up over releases, recipients and years. Reporting is by privacy
loss distributions (PLD) where dp-accounting has them, else by RDP, and a `Guarantee` says which. There is no central
limit ("GDP") accountant: it reports less than the true loss. No accountant here knows data or draws noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata

from fedpriv.errors import UsageError
from fedpriv.privacy.budget import ROW, Account, Cost, epsilon_of
from fedpriv.privacy.events import accounting, dp_event, from_json, to_json
from fedpriv.privacy.mechanisms import (
    Gaussian,
    Mechanism,
    PoissonSampled,
    Repeated,
    Single,
    is_number,
    name_of,
    parts_of,
)
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.renyi import rdp_of

RDP, PLD = "RDP", "PLD"
MAXIMUM_TIMES = 10**9
LEAST_DISTRIBUTED, LARGEST_DISTRIBUTED = 0.05, 50.0
"""Least noise multiplier and largest epsilon (by RDP) of a privacy loss distribution: it has 10^4 values for each 1."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What holds about one `unit`: (epsilon, delta) between neighbours under `relation`, as `accountant` found."""

    epsilon: float
    delta: float
    relation: Relation
    unit: str
    accountant: str

    def in_words(self) -> str:
        """Return the guarantee as a sentence."""
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:g}, by {self.accountant}, "
            f"{self.relation.in_words(self.unit)}"
        )


def cost_of(
    mechanism: Mechanism,
    relation: Relation,
    *,
    unit: str = ROW,
    trusted: bool = False,
    terms: Mapping[str, object] | None = None,
) -> Cost:
    """Return what a budget for each `unit` is charged for `mechanism`: its name, its event as JSON, relation and RDP.

    A mechanism that protects whole updates is charged to a budget of rows under REPLACE_ONE: a worker whose data lacks
    a row sends another update, not none, so its update may move by twice the clip. `terms` are the numbers that the
    mechanism was made from, as JSON holds them; they stand in the event.
    """
    rdp = rdp_of(mechanism, relation)
    return Cost(name_of(mechanism), to_json(mechanism, terms), relation.value, rdp, unit, accountant_version(), trusted)


def renewed(cost: Cost) -> Cost:
    """Return `cost`; where another version of the accountant found its RDP, computed anew, the larger at each order.

    An event that cannot be read, or not without an accountant, keeps its RDP.
    """
    if cost.accountant == accountant_version():
        return cost
    try:
        fresh = rdp_of(from_json(cost.event), Relation(cost.relation))
    except (UsageError, ValueError):
        return cost
    return replace(cost, rdp=tuple(map(max, cost.rdp, fresh)), accountant=accountant_version())


def epsilon_by_rdp(mechanism: Mechanism, delta: float, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> float:
    """Return the epsilon at `delta` that the RDP of `mechanism` implies (`budget.epsilon_of`)."""
    check_delta(delta)
    return epsilon_of(rdp_of(mechanism, relation), delta)


def epsilon_by_pld(mechanism: Mechanism, delta: float, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> float:
    """Return the epsilon at `delta` by privacy loss distributions (Koskela et al. 2020; dp-accounting).

    Raise `UsageError` where dp-accounting has none, for Skellam and discrete Gaussian noise, and for losses so large
    that their distribution in steps of 10^-4 would not fit into memory.
    """
    check_delta(delta)
    event = dp_event(mechanism)
    if event is None:
        raise UsageError(f"{name_of(mechanism)} noise has no privacy loss distribution here; report it by RDP")
    if (reason := _why_no_distribution(mechanism, epsilon_by_rdp(mechanism, delta, relation))) is not None:
        raise UsageError(reason)
    dp = accounting()
    accountant = dp.pld.PLDAccountant(dp.NeighboringRelation[_EQUIVALENT[relation].value])
    accountant.compose(event)
    return float(accountant.get_epsilon(delta))


_EQUIVALENT: Mapping[Relation, Relation] = {
    Relation.ADD_OR_REMOVE_ONE: Relation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_SPECIAL: Relation.ADD_OR_REMOVE_ONE,
    Relation.REPLACE_ONE: Relation.REPLACE_ONE,
}
"""The relation under which dp-accounting has the same figure: a contribution or zero is a contribution or none."""
ACCOUNTANTS: Mapping[str, Callable[[Mechanism, float, Relation], float]] = {RDP: epsilon_by_rdp, PLD: epsilon_by_pld}
"""Each accountant by its name: from (mechanism, delta, relation) to epsilon, never below the true one."""


def guarantee_of(
    mechanism: Mechanism, *, delta: float, relation: Relation, unit: str, total_variation: float = 0.0
) -> Guarantee:
    """Return the tightest guarantee known for `mechanism`, at `delta`.

    `total_variation` is how far the executed noise of everything released is from the ideal one (samplers): it is
    taken from the delta first. Raise `UsageError` where it leaves none.
    """
    check_delta(delta)
    rest = delta - 2 * total_variation
    if rest <= 0:
        raise UsageError(f"the noise is {total_variation:g} from the ideal one, which delta {delta:g} cannot cover")
    by_rdp = epsilon_by_rdp(mechanism, rest, relation)
    if dp_event(mechanism) is None or _why_no_distribution(mechanism, by_rdp) is not None:
        return Guarantee(by_rdp, delta, relation, unit, RDP)
    by_pld = epsilon_by_pld(mechanism, rest, relation)
    # the discretisation of a PLD errs upwards, and for a very small loss by more than the loss
    return Guarantee(
        *((by_pld, delta, relation, unit, PLD) if by_pld <= by_rdp else (by_rdp, delta, relation, unit, RDP))
    )


def _why_no_distribution(mechanism: Mechanism, by_rdp: float) -> str | None:
    """Return why the losses of `mechanism` are too large for a distribution, or None; `by_rdp` is its epsilon."""
    singles = (single.mechanism if isinstance(single, PoissonSampled) else single for single, _ in parts_of(mechanism))
    least = min((each.noise_multiplier for each in singles if isinstance(each, Gaussian)), default=math.inf)
    if least < LEAST_DISTRIBUTED:
        return (
            f"noise multiplier {least:g} is below {LEAST_DISTRIBUTED:g}, the least that a privacy loss distribution is "
            "made for; use more noise, or report by RDP"
        )
    if not by_rdp <= LARGEST_DISTRIBUTED:
        return (
            f"epsilon {by_rdp:.4g} is above {LARGEST_DISTRIBUTED:g}, the most that a privacy loss distribution is made "
            "for; use more noise, or report by RDP"
        )
    return None


def times_left(account: Account, mechanism: Single, relation: Relation) -> int:
    """Return how often `mechanism` can still be released within what `account` has left, at most 10^9 times."""

    def fits(times: int) -> bool:
        loss = rdp_of(Repeated(mechanism, times), relation) if times else (0.0,) * len(account.rdp)
        total = tuple(one + other for one, other in zip(account.rdp, loss, strict=True))
        return epsilon_of(total, account.budget.delta) <= account.budget.epsilon

    if not fits(1):
        return 0
    low, high = 1, 2
    while high < MAXIMUM_TIMES and fits(high):
        low, high = high, high * 2
    high = min(high, MAXIMUM_TIMES + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def check_delta(delta: float, *, units: int | None = None) -> None:
    """Raise `UsageError` unless delta is between 0 and 1, and below 1/`units` where the number of units is known.

    A mechanism that publishes one unit of n at random is (0, 1/n)-private: such a delta promises nothing.
    """
    if not is_number(delta) or not 0 < delta < 1:
        raise UsageError(f"delta is {delta!r}; use a number between 0 and 1, such as 1e-5")
    if units is not None and not delta < 1 / units:
        raise UsageError(
            f"delta is {delta:g}, not below 1/{units}: that would allow to publish one of {units}; use at most "
            f"{_one_digit_below(1 / (10 * units)):g}"
        )


@cache
def accountant_version() -> str:
    """Return which accountant made a figure, such as "fedpriv/1 dp-accounting 0.6.0", so that another recomputes it."""
    try:
        return f"{BOUNDS} dp-accounting {metadata.version('dp-accounting')}"
    except metadata.PackageNotFoundError:
        return BOUNDS


BOUNDS = "fedpriv/1"
"""The version of the bounds in `renyi`: it rises with each change of one."""


def _one_digit_below(value: float) -> float:
    """Return `value` rounded down to one digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit) * unit
