"""What a private job would cost, before it is run: `fedpriv budget plan`.

It reckons from the job's file alone, and for one worker from its own files too: then with its announced rows, its
budget and what is left of it. Nothing is sent, nothing is charged, and what each worker bills it makes out itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.cli.asking import Place, say
from fedpriv.errors import UsageError, nearest
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.privacy.accountants import epsilon_by_rdp, guarantee_of, times_left
from fedpriv.privacy.budget import Account, Budget
from fedpriv.privacy.mechanisms import Repeated
from fedpriv.privacy.modes import DistributedDP, ExampleDP
from fedpriv_coordinator.config import JobConfig, load_code, load_job
from fedpriv_coordinator.private_job import Setting, Settled, settle
from fedpriv_worker.config import load_config
from fedpriv_worker.datasets import announced_rows
from fedpriv_worker.loading import load_dataset
from fedpriv_worker.pricing import charged_under
from fedpriv_worker.records import empty, reading


@dataclass(frozen=True, slots=True)
class Purse:
    """One data set's budget: what is spent of it, and how many rows its worker announces."""

    worker: WorkerName
    account: Account
    rows: int | None


def plan(job: Path, rows: int | None, worker: Place | None) -> dict[str, Any]:
    """Return what `job` will cost, as JSON; with a `worker`, its data set's budget too, and the rounds that it pays."""
    config = load_job(job)
    if config.privacy is None:
        raise UsageError(f"{job} has no [privacy], so it costs no budget anything; add it, as in mode = 'example'")
    purse = None if worker is None else _purse(config, worker)
    settled = settle(config.privacy, _setting(config, purse.rows if purse is not None and rows is None else rows))
    ((single, times),) = set(settled.costs.values())
    whole = Repeated(single, times if settled.whole else times * config.rounds)
    mode = settled.mode
    found = guarantee_of(whole, delta=mode.delta, relation=mode.relation, unit=mode.unit)
    document: dict[str, Any] = {
        "job": config.name,
        "mode": type(mode).__name__,
        "rounds": config.rounds,
        "noise_multiplier": settled.private.mode.noise_multiplier,
        "epsilon": found.epsilon,
        "delta": found.delta,
        "accountant": found.accountant,
        "words": found.in_words(),
        "trusted": mode.trusted,
    }
    return document | ({} if purse is None else {"dataset": config.dataset, **_paid(settled, config.rounds, purse)})


def _paid(settled: Settled, rounds: int, purse: Purse) -> dict[str, Any]:
    """Return what the job costs one data set's budget, and how many of its rounds that still pays."""
    ((single, times),) = set(settled.costs.values())
    budget = purse.account.budget
    relation = charged_under(settled.mode, budget.unit)
    fitting = times_left(purse.account, single, relation) // times
    left = (rounds if fitting else 0) if settled.whole else fitting
    cost = epsilon_by_rdp(Repeated(single, times if settled.whole else times * rounds), budget.delta, relation)
    return {
        "worker": purse.worker,
        "unit": budget.unit,
        "relation": relation.value,
        "cost": cost,
        "budget": budget.epsilon,
        "budget_delta": budget.delta,
        "left": purse.account.left,
        "rounds_left": left,
        "runs_out_in_round": left + 1 if left < rounds else None,
    }


def in_words(plan: dict[str, Any]) -> list[str]:
    """Return a plan as lines for people."""
    promise = " (the noise is the coordinator's promise)" if plan["trusted"] else ""
    noise = f"noise multiplier {plan['noise_multiplier']:.4g}{promise}"
    lines = [f"{plan['job']}: {plan['mode']}, {plan['rounds']} rounds, {noise}", f"  {plan['words']}"]
    if "dataset" in plan:
        lines.append(
            f"  it costs data set {plan['dataset']} of {plan['worker']} epsilon {plan['cost']:.4g} (by RDP, at delta "
            f"{plan['budget_delta']:g}, for each {plan['unit']}); {plan['left']:.4g} of {plan['budget']:g} is left, "
            f"for {plan['rounds_left']:,} rounds at this noise"
        )
        if (last := plan["runs_out_in_round"]) is not None:
            lines.append(f"  warning: the budget runs out in round {last}; ask for fewer rounds or more noise")
    return lines


def _setting(config: JobConfig, rows: int | None) -> Setting:
    """Return what the mode is settled against; raise `UsageError` where a number is missing."""
    mode, names = config.privacy, config.workers.names
    if isinstance(mode, ExampleDP) and rows is None:
        raise UsageError(
            "what private steps cost follows from how many rows a worker announces; name them with --rows, or the "
            "worker with --worker"
        )
    dimension = 1
    if isinstance(mode, DistributedDP):
        if config.secure_aggregation is None:
            raise UsageError("distributed noise needs [secure_aggregation] in the job; add it, or use mode = 'local'")
        model = load_code(config).model
        dimension = sum(each.numel() for each in model.parameters() if each.requires_grad)
    quorum = config.workers.quorum or len(names) // 2 + 1
    held = dict.fromkeys(map(WorkerName, names), rows)
    return Setting(config.rounds, config.local, held, dimension, quorum, config.secure_aggregation)


def _purse(config: JobConfig, place: Place) -> Purse:
    """Return the budget of the job's data set at one worker; raise `UsageError` where it has none."""
    if place.config is None:
        raise UsageError(f"no worker.toml is known for {place.state}, so its budgets are not; name that file")
    worker = load_config(place.config)
    declared = {each.name: each for each in worker.datasets}
    if config.dataset not in declared:
        raise UsageError(
            f"{place.config} has no data set {config.dataset!r}{nearest(config.dataset, declared)}; the job names it"
        )
    own = declared[config.dataset]
    budget: Budget | None = own.budget
    if budget is None:
        raise UsageError(
            f"data set {own.name!r} has no budget, so nothing is billed; add budget = {{ epsilon = 8.0, ... }}"
        )
    rows = announced_rows(len(load_dataset(own)), own.rows)
    started = place.state.is_dir() and any(place.state.iterdir())
    if not started:
        say(f"no worker has run on {place.state} yet: nothing is spent")
    with reading(place.state) if started else empty() as stored:
        account = Account(budget, stored.holds.spent(DatasetName(own.name)))
    return Purse(WorkerName(worker.worker.name), account, rows)
