"""What was used up of each data set: its budget, its releases by recipient, and its rules within the last day.

Read from reservations and ledger entries alone. A reservation whose release is under way, or was cut short by a crash,
counts as reserved: it is charged, and is given back only where it is certain that nothing left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpriv.ids import DatasetName, WorkerName
from fedpriv.policy.rules import cite, in_words
from fedpriv.privacy.accountants import renewed
from fedpriv.privacy.budget import epsilon_of, total_of
from fedpriv.privacy.reservations import State
from fedpriv.storage.holds import Held
from fedpriv_worker.holdings import Holding
from fedpriv_worker.records import Records

UNKNOWN_DELTA = 1e-5
"""The delta that a loss is told at where the data set has no budget of its own."""
_OUTSTANDING = (State.RESERVED, State.INTERRUPTED)


def spending(worker: WorkerName, holdings: Sequence[Holding], records: Records) -> list[dict[str, Any]]:
    """Return what was used up of each of `holdings`, and of each data set that only the records still know."""
    held = [each for each in records.holds.all() if each.state is not State.CANCELLED]
    left: dict[str, Counter[str]] = {}
    for entry in records.entries():
        for label in entry.draft.labels:
            dataset, _, owner = label.rpartition("/")
            if owner == worker and entry.draft.source < 0:
                left.setdefault(dataset, Counter())[entry.draft.peer] += 1
    known = {holding.name: holding for holding in holdings}
    names = dict.fromkeys([*known, *sorted({each.dataset for each in held} | left.keys())])
    spent: list[dict[str, Any]] = []
    for name in map(DatasetName, names):
        own = [each for each in held if each.dataset == name]
        used = records.holds.used(records.now(), name)
        spent.append(_of_one(name, known.get(name), own, left.get(name, Counter()), used))
    return spent


def _of_one(
    name: str, holding: Holding | None, held: Sequence[Held], left: Counter[str], used: Mapping[str, int]
) -> dict[str, Any]:
    budget = None if holding is None else holding.budget
    delta = UNKNOWN_DELTA if budget is None else budget.delta
    spent = _epsilon((each for each in held if each.state not in _OUTSTANDING), delta)
    charged = _epsilon(held, delta)
    recipients = sorted({*left, *(each.recipient for each in held)})
    return {
        "dataset": name,
        "held": holding is not None,
        "budget": None if budget is None else {"epsilon": budget.epsilon, "delta": budget.delta, "unit": budget.unit},
        "delta": delta,
        "spent": spent,
        "reserved": charged - spent,
        "left": None if budget is None else max(0.0, budget.epsilon - charged),
        "releases": left.total(),
        "recipients": [
            {
                "name": recipient,
                "releases": left[recipient],
                "epsilon": _epsilon((each for each in held if each.recipient == recipient), delta),
            }
            for recipient in recipients
        ],
        "rules": [
            {
                "rule": cite(rule),
                "words": in_words(rule),
                "used_today": used.get(cite(rule), 0),
                "rounds_per_day": rule.rounds_per_day,
            }
            for rule in (() if holding is None else holding.rules)
        ],
    }


def _epsilon(held: Iterable[Held], delta: float) -> float:
    """Return the epsilon of these reservations together; the whole is less than the sum of its parts."""
    return epsilon_of(total_of(renewed(each.cost).rdp for each in held if each.cost is not None), delta)
