"""Whether a reservation may be paid: by what its job was charged already, and what is left of the data set's budget.

Pure: `storage.holds` reads what was charged, and calls this in the transaction that then charges. A cost that another
version of the accountant found counts as the larger of both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from fedpriv.errors import ReleaseDenied
from fedpriv.privacy.budget import Account, Budget, Cost, epsilon_of, total_of
from fedpriv.privacy.reservations import Reservation

_ROUNDING = 1 + 1e-9
"""Each round's cost is rounded up: so much do all rounds together exceed what was calibrated for them."""


def owing(reservation: Reservation, job: Sequence[Cost]) -> Cost | None:
    """Return what `reservation` adds to the budget: nothing where its whole `job` was charged with that before."""
    cost = reservation.cost
    return None if cost is not None and reservation.whole and cost in job else cost


def check_once(reservation: Reservation, answered: Collection[int]) -> None:
    """Raise `ReleaseDenied` where a whole job asks again for one of the rounds that it was `answered`.

    Correlated noise covers a worker once in each round. Twice in one would move the sums twice as far, and cost four
    times as much, not twice.
    """
    if reservation.whole and reservation.round in answered:
        raise ReleaseDenied(
            f"job {reservation.job!r} of {reservation.recipient!r} was answered in round {reservation.round} already, "
            "and its correlated noise covers one answer in each round; begin another job"
        )


def check_cost(
    reservation: Reservation, cost: Cost, job: Sequence[Cost], units: Iterable[str], spent: tuple[float, ...]
) -> None:
    """Raise `ReleaseDenied` where `cost` is more than the job may spend, and `BudgetExceeded` where the budget can.

    `job` is what the peer's job was charged with already, `units` those of all that the data set was charged with,
    and `spent` its sum.
    """
    dataset, budget = reservation.dataset, _budget(reservation)
    other = next((each for each in units if each != cost.unit), cost.unit)
    if other != cost.unit:
        raise ReleaseDenied(
            f"the budget of data set {dataset!r} is for each {cost.unit}, and what was spent of it before was counted "
            f"for each {other}; what that comes to for a {cost.unit} is not known: keep the unit"
        )
    if reservation.ceiling is not None:
        so_far = epsilon_of(total_of(each.rdp for each in (*job, cost)), budget.delta)
        if not so_far <= reservation.ceiling * _ROUNDING:
            raise ReleaseDenied(
                f"job {reservation.job!r} of {reservation.recipient!r} would have cost epsilon {so_far:.4g} with this "
                f"round, and its rule allows {reservation.ceiling:g}; it asks for more rounds than it said"
            )
    Account(budget, spent).after(cost, dataset=dataset)


def _budget(reservation: Reservation) -> Budget:
    if reservation.budget is None:
        raise ReleaseDenied(
            f"data set {reservation.dataset!r} has no budget to pay a privacy cost from; give it one, as in "
            "budget = { epsilon = 8.0, delta = 1e-5 }"
        )
    return reservation.budget
