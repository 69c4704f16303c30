"""`simulate`: train over described workers, with the strategies, plans, records and result of a federation.

Nothing here protects rows: whoever simulates has them all. Where secure aggregation or differential privacy is asked
for, every worker is a whole virtual one and the run is `Federation.fit`'s, roles, noise and bill included.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError, nearest
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.sampling import Sampling
from fedpriv.learning.strategies import Standing, Strategy, checked_strategy
from fedpriv.plans.interpreter import Program
from fedpriv.plans.stacking import NotStackable
from fedpriv.plans.validation import validate
from fedpriv.privacy.modes import Mode
from fedpriv.simulation import private
from fedpriv.simulation.engines import ENGINES, Engine, OneByOne
from fedpriv.simulation.population import PREFIX, Population, Source
from fedpriv.simulation.rounds import Rounds
from fedpriv.simulation.stacked import Stacked
from fedpriv_coordinator.experiment import JobFacts, Result, RoundRecord
from fedpriv_coordinator.job import Job, Loss, load_tensors, prepare
from fedpriv_coordinator.journal import RunFolder
from fedpriv_coordinator.rounds import Evaluate, Watch, begin
from fedpriv_coordinator.secure_aggregation import SecureAggregation
from fedpriv_coordinator.starting import fresh_start, setting_of

HEAVY = 1 << 27
"""Elementary operations of one worker's step beyond which stacking workers gains nothing: its products are large."""


def simulate(
    model: nn.Module,
    population: Population,
    *,
    loss: Loss,
    dataset: str = PREFIX,
    rounds: int = 10,
    local: LocalTraining | None = None,
    strategy: Strategy | None = None,
    sampling: Sampling | None = None,
    secure_aggregation: SecureAggregation | None = None,
    privacy: Mode | None = None,
    evaluate: Evaluate | None = None,
    worker_metrics: Sequence[str] = (),
    on_round: Callable[[RoundRecord], object] | None = None,
    seed: int = 0,
    purpose: str = "",
    name: str = "",
    quorum: int | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    engine: str = "auto",
    on_note: Callable[[str], None] | None = None,
) -> Result:
    """Train `model` over a simulated `population` and return the result, as `Federation.fit` would.

    `engine` is "sequential" (a worker after the other, each computing what a real one computes), "threads" (the same on
    every core), "stacked" (many workers at once, equal to 1e-6), or "auto", which picks and says so to `on_note`
    (default: a line on stderr). A plan that cannot be stacked runs on "threads", and the note says which operation is
    why. The other arguments are those of `Federation.fit`. Raise `UsageError` for what cannot be.
    """
    note, chosen, source = on_note or _to_stderr, checked_strategy(strategy), _checked(population, dataset, engine)
    terms: dict[str, Any] = {"dataset": dataset, "loss": loss, "rounds": rounds, "sampling": sampling, "seed": seed,
        "purpose": purpose, "quorum": quorum, "worker_metrics": worker_metrics}  # fmt: skip  # one line of terms
    if privacy is not None or secure_aggregation is not None:
        return private.simulated(
            model, source, engine, note, secure_aggregation, privacy, local=local, strategy=chosen, evaluate=evaluate,
            on_round=on_round, name=_named(name), run=run, resume=resume, **terms,
        )  # fmt: skip  # as above
    local = chosen.prepare(local or LocalTraining())
    job = prepare(model, local=local, schema=source.schema, workers=population.size, deadline_seconds=1.0, **terms)
    watch = Watch(copy.deepcopy(model), evaluate, on_round, None if run is None else RunFolder(Path(run)), note)
    return _run(model, job, chosen, source, engine, note, watch, _named(name), resume=resume)


def _checked(population: Population, dataset: str, engine: str) -> Source:
    """Return the rows of `population`; raise `UsageError` where that, or `engine`, is none."""
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not known{nearest(engine, ENGINES)}; use one of {', '.join(ENGINES)}")
    if not isinstance(population, Population):
        raise UsageError(f"population is a {type(population).__name__}; describe one with fp.Population(size, rows_of)")
    return Source(population, dataset)


def _run(
    model: nn.Module, job: Job, strategy: Strategy, source: Source, engine: str, note: Callable[[str], None],
    watch: Watch, name: str, *, resume: bool,
) -> Result:  # fmt: skip  # one line of terms
    population = source.population
    setting = setting_of(job, strategy, population.counts or (0,) * population.size)
    start = begin(watch.folder, fresh_start(job, strategy, setting, model, ()), resume=resume)
    program = Program(validate(job.training))
    evaluation = None if job.evaluation is None else Program(validate(job.evaluation))
    with_engine = picked(engine, program, job, note)
    rounds = Rounds(job, source, strategy, with_engine, evaluation, SystemClock())
    threads = torch.get_num_threads()
    try:
        reached = rounds.run(Standing(setting, start.model, start.memory), start, watch)
    finally:
        torch.set_num_threads(threads)
    load_tensors(watch.model, reached.model)
    facts = JobFacts(name, job.purpose, job.dataset, plan=reached.plan)
    run = None if watch.folder is None else watch.folder.folder
    return Result(watch.model, reached.history, run=run, lost=reached.history.lost, job=facts)


def picked(engine: str, program: Program, job: Job, note: Callable[[str], None]) -> Engine:
    """Return the engine that `engine` names or, for "auto", the one that suits; `note` hears which, and why."""
    threads, batch = torch.get_num_threads(), job.local.batch_size
    if engine == "sequential":
        return OneByOne(program)
    if engine == "threads":
        return OneByOne(program, threads)
    work = program.checked.at(batch).work
    if engine == "auto" and (work > HEAVY or job.sampling.least(2) < 2):
        note(
            f"engine: threads (one step of a worker takes {work:.2g} operations, which leaves nothing to gain by more)"
        )
        return OneByOne(program, threads)
    stacked = Stacked(program, threads)
    try:
        stacked.check(batch)
    except NotStackable as refusal:
        note(f"engine: threads (the plan cannot be stacked: {refusal})")
        return OneByOne(program, threads)
    if engine == "auto":
        note("engine: stacked")
    return stacked


def _named(name: str) -> str:
    """Return the name of a run, which says that it was simulated."""
    return f"{PREFIX} {name}".strip()


def _to_stderr(note: str) -> None:
    sys.stderr.write(f"fedpriv: {note}\n")
