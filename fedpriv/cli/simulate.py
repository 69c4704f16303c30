"""`fedpriv simulate JOB.toml`: try a job out on described workers, on this machine alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from fedpriv.cli.display import RoundDisplay
from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError
from fedpriv.simulation.config import load_simulation
from fedpriv.simulation.simulate import simulate as simulated
from fedpriv_coordinator.config import load_code
from fedpriv_coordinator.experiment import HISTORY


def simulate(job: Path, engine: str | None, as_json: bool) -> None:  # noqa: FBT001 - the command line's own flags
    """Train as JOB.toml says over its population and save the run."""
    config = load_simulation(job)
    code, population, folder = load_code(config), config.described(), config.run_folder(SystemClock().now())
    if (folder / HISTORY).exists():
        raise UsageError(f"{folder} holds a finished run; choose another folder with run = in {job}")
    with RoundDisplay(config.rounds, title=f"simulated {config.name}") as display:
        result = simulated(
            code.model, population, loss=code.loss, dataset=config.dataset, rounds=config.rounds, local=config.local,
            strategy=config.strategy, sampling=config.sampling, secure_aggregation=config.secure_aggregation,
            privacy=config.privacy, evaluate=code.evaluate, worker_metrics=config.worker_metrics,
            on_round=display.on_round, seed=config.seed, purpose=config.purpose, name=config.name,
            quorum=config.simulation.quorum, engine=engine or config.simulation.engine, on_note=display.note,
        )  # fmt: skip  # one line of terms
    result.save(folder)
    if as_json:
        last = result.history.rounds[-1]
        document = {
            "run": str(folder), "simulated": population.size, "rounds": len(result.history.rounds),
            "loss": last.loss, "metrics": dict(last.metrics), "worker_metrics": dict(last.worker_metrics),
            "privacy": None if result.privacy is None else result.privacy.document(),
        }  # fmt: skip  # one line a kind
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(f"simulated over {population.size} workers\n{replace(result, run=folder)!r}\n")
    sys.stderr.write(f"saved in {folder}\n")
