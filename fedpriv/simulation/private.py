"""Simulated runs under secure aggregation or differential privacy: every worker a whole virtual one.

The roles, the noise and the bill are those of a deployed run. Each worker's owner is played here: it lets out what
the job needs, out of a budget that is wide, and `result.privacy` says what the run would cost a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedpriv.errors import UsageError
from fedpriv.policy.rules import DifferentialPrivacy, Metrics, PlainUpdate, Rule, SecureSum
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.modes import CentralDP, Mode, TreeDP
from fedpriv.simulation.population import Source
from fedpriv.simulation.virtual import VirtualWorker
from fedpriv_coordinator.experiment import Result
from fedpriv_coordinator.federation import Federation
from fedpriv_coordinator.secure_aggregation import SecureAggregation
from fedpriv_worker.datasets import Dataset

MOST_WORKERS = 256
RESEARCHER = "me"
WIDE = 1e6
"""The epsilon that a simulated owner grants."""


def simulated(
    model: Any,  # noqa: ANN401 - passed on to `fit`
    source: Source,
    engine: str,
    note: Callable[[str], None],
    secure: SecureAggregation | None,
    mode: Mode | None,
    **terms: Any,  # noqa: ANN401 - as above
) -> Result:
    """Return what `Federation.fit` makes of virtual workers; raise `UsageError` for what they cannot do."""
    population, what = source.population, "secure aggregation" if mode is None else "differential privacy"
    if engine not in {"auto", "sequential"}:
        raise UsageError(
            f"engine {engine!r} shares one computation among workers, and {what} needs each to be its own; use "
            'engine="sequential", or leave privacy and secure_aggregation out'
        )
    if population.size > MOST_WORKERS:
        raise UsageError(
            f"{what} makes a whole virtual worker of each of the population's {population.size}; {MOST_WORKERS} at "
            "most: describe fewer workers"
        )
    if engine == "auto":
        note(f"engine: sequential ({what}: every worker is a whole virtual one)")
    delta = getattr(mode, "delta", 1e-5)
    rules, budget = _consent(secure, mode), None if mode is None else Budget(WIDE, delta)
    workers: list[VirtualWorker] = []
    try:
        for name in population.names:
            rows = population.rows_of(source.number(name))
            held = Dataset(
                terms["dataset"], *rows, release=rules, validation=population.validation, rows="exact", budget=budget,
                simulated=True,
            )  # fmt: skip  # one line of terms
            workers.append(VirtualWorker(name, [held]))
        with Federation(workers, name=RESEARCHER) as federation:
            return federation.fit(model, secure_aggregation=secure, privacy=mode, on_note=note, **terms)
    finally:
        for worker in workers:
            worker.close()


def _consent(secure: SecureAggregation | None, mode: Mode | None) -> list[Rule]:
    """Return the rules of an owner who allows the job."""
    trusted = mode is None or isinstance(mode, CentralDP | TreeDP)
    if secure is not None:
        return [SecureSum() if trusted else SecureSum(maximum_epsilon=WIDE)]
    if trusted:
        return [PlainUpdate(recipients=(RESEARCHER,)), Metrics(recipients=(RESEARCHER,))]
    return [DifferentialPrivacy(WIDE)]
