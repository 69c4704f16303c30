"""What a private run came to, as its coordinator reckons: epsilon after each round, and for each worker's data set.

It is reckoned from the noise that was ordered and the rounds that each worker was asked in; a worker that dropped out
of one counts as if it had answered. Each worker's own ledger says what it really paid. After each round epsilon is by
RDP, which is what budgets enforce; the figure for the run is by the tightest accountant there is, and says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.ids import WorkerName
from fedpriv.privacy.accountants import RDP, epsilon_by_rdp, guarantee_of
from fedpriv.privacy.mechanisms import Repeated
from fedpriv_coordinator.experiment import History
from fedpriv_coordinator.private_job import Settled


@dataclass(frozen=True, slots=True)
class PrivacyReport:
    """What holds about one `unit` of the data set that is least protected, at `delta`, by `accountant`.

    `rounds` is epsilon after each round by RDP, `workers` that of the whole run for each worker's data set, by
    `accountant`. `trusted` says that the noise was this coordinator's promise. `words` says all of it in one sentence.
    """

    mode: str
    dataset: str
    unit: str
    relation: str
    epsilon: float
    delta: float
    accountant: str
    trusted: bool
    noise_multiplier: float
    rounds: tuple[float, ...]
    workers: Mapping[str, float]
    words: str

    def document(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "mode": self.mode,
            "unit": self.unit,
            "relation": self.relation,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "trusted": self.trusted,
            "noise_multiplier": self.noise_multiplier,
            "rounds": {"accountant": RDP, "epsilon": list(self.rounds)},
            "workers": dict(self.workers),
            "words": self.words,
        }


def privacy_of(settled: Settled, dataset: str, history: History) -> PrivacyReport | None:
    """Return what the rounds of `history` came to; None where no worker was asked for anything."""
    mode = settled.mode
    asked = {worker: sum(_rounds_of(worker, history)) for worker in settled.costs}
    costs = {worker: _cost(settled, worker, rounds) for worker, rounds in asked.items() if rounds}
    if not costs:
        return None
    found = {
        cost: guarantee_of(cost, delta=mode.delta, relation=mode.relation, unit=mode.unit)
        for cost in set(costs.values())
    }
    by_worker = {worker: found[cost] for worker, cost in sorted(costs.items())}
    worst = max(by_worker.values(), key=lambda each: each.epsilon)
    promise = "; the noise is the coordinator's promise" if mode.trusted else ""
    multiplier = settled.private.mode.noise_multiplier
    assert multiplier is not None  # `Private` promises it
    return PrivacyReport(
        mode=type(mode).__name__,
        dataset=dataset,
        unit=mode.unit,
        relation=mode.relation.value,
        epsilon=worst.epsilon,
        delta=mode.delta,
        accountant=worst.accountant,
        trusted=mode.trusted,
        noise_multiplier=multiplier,
        rounds=_after_each(settled, history),
        workers={worker: each.epsilon for worker, each in by_worker.items()},
        words=f"{type(mode).__name__}: {worst.in_words()}{promise}",
    )


def _rounds_of(worker: WorkerName, history: History) -> list[bool]:
    """Return of each round whether `worker` may have let something out for it."""
    return [
        any(part.worker == worker and part.status != "refused" for part in record.workers) for record in history.rounds
    ]


def _after_each(settled: Settled, history: History) -> tuple[float, ...]:
    """Return epsilon by RDP after each round, of the worker that paid most until then."""
    delta, relation = settled.mode.delta, settled.mode.relation
    known: dict[Repeated, float] = {}
    found: list[float] = []
    counts = dict.fromkeys(settled.costs, 0)
    asked = {worker: _rounds_of(worker, history) for worker in settled.costs}
    for at in range(len(history.rounds)):
        for worker in counts:
            counts[worker] += asked[worker][at]
        costs = {_cost(settled, worker, count) for worker, count in counts.items() if count}
        for cost in costs - known.keys():
            known[cost] = epsilon_by_rdp(cost, delta, relation)
        found.append(max((known[cost] for cost in costs), default=0.0))
    return tuple(found)


def _cost(settled: Settled, worker: WorkerName, rounds: int) -> Repeated:
    """Return what `rounds` rounds cost one worker; the noise of a tree is one mechanism, whole from the first."""
    single, times = settled.costs[worker]
    return Repeated(single, times if settled.whole else times * rounds)
