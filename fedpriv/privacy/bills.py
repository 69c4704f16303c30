"""What a ledger entry says of a release's cost, and the sum of a ledger's bills recomputed from these words alone.

The event of an entry names the mechanism with every number of the order and of the owner that it was made from, the
delta and the unit of the budget, the accountant, whether the release was charged itself (a later round of a job that
was charged whole is not), and what the data set was charged with beside, for work of which nothing was recorded. So
`spent` of an entry follows from the entries up to it: the mechanisms of those that were charged, and what was beside
the last. Nothing is decided by this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import UsageError
from fedpriv.privacy.budget import Budget, Cost, epsilon_of, total_of
from fedpriv.privacy.events import from_json, to_json
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.renyi import rdp_of

MAXIMUM_BESIDE = 64
"""Different mechanisms that an entry names beside its own; how many more there are is said."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A mechanism that a data set was charged with `times` without a ledger entry: under way, cut short, or stopped."""

    event: str
    relation: str
    times: int


def event_of(cost: Cost, budget: Budget, *, charged: bool, beside: Sequence[Beside]) -> str:
    """Return the event of a ledger entry as JSON, the same for equal values."""
    said: dict[str, Any] = {
        **json.loads(cost.event),
        "accountant": cost.accountant,
        "budget": {"delta": budget.delta, "unit": budget.unit},
        "charged": charged,
    }
    named = [
        {"mechanism": json.loads(to_json(from_json(each.event))), "relation": each.relation, "times": each.times}
        for each in beside[:MAXIMUM_BESIDE]
    ]
    said |= {"beside": named} if named else {}
    said |= {"more_beside": len(beside) - MAXIMUM_BESIDE} if len(beside) > MAXIMUM_BESIDE else {}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def recomputed(entries: Iterable[tuple[str, str]]) -> float:
    """Return what a data set had spent by the last of `entries`: (event, relation) of each, in the ledger's order.

    Leave out entries that repeat an earlier one. Raise `UsageError` where an event cannot be read, or says that more
    was charged beside than it names.
    """
    losses: list[tuple[float, ...]] = []
    last: Mapping[str, Any] = {"budget": {"delta": 1e-5}}
    for event, relation in entries:
        last = _read(event)
        if last["charged"]:
            losses.append(rdp_of(from_json(event), _relation(relation)))
    if last.get("more_beside", 0):
        raise UsageError(f"{last['more_beside']} charges are not named; ask the owner for `fedpriv budget show`")
    for each in last.get("beside", []):
        loss = rdp_of(from_json(json.dumps(each["mechanism"])), _relation(each["relation"]))
        losses += [loss] * each["times"]
    return epsilon_of(total_of(losses), last["budget"]["delta"])


def _read(event: str) -> Mapping[str, Any]:
    try:
        read: Mapping[str, Any] = json.loads(event)
        read["charged"], read["budget"]["delta"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"not the event of a ledger entry: {event!r:.80}") from None
    return read


def _relation(said: str) -> Relation:
    try:
        return Relation(said.removesuffix(" trusted"))
    except ValueError:
        raise UsageError(f"relation {said!r:.80} is not known; use a later version") from None
