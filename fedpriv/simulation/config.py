"""JOB.toml as `fedpriv simulate` reads it: the job as `fedpriv run` would, and with whom it is tried out.

The table `[simulation]` names the population. What is about real workers (`listen`, `[workers]`, `[tls]`, `state`) is
not read, so that one file serves both commands.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fedpriv import settings
from fedpriv.errors import ConfigError, UsageError
from fedpriv.ids import checked_name
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.sampling import Everybody, Sampling
from fedpriv.learning.strategies import FedAvg, Strategy
from fedpriv.policy.rules import MetricKind
from fedpriv.privacy.modes import Mode
from fedpriv.simulation.population import PREFIX, Population
from fedpriv_coordinator.config import (
    SIMULATION,
    load_function,
    parse_local,
    parse_privacy,
    parse_sampling,
    parse_strategy,
)
from fedpriv_coordinator.secure_aggregation import SecureAggregation

ABOUT_WORKERS = ("listen", "workers", "tls", "state")


@dataclass(frozen=True, slots=True)
class Simulated:
    """With whom a job is tried out: `population`, a function without arguments, or a folder of `files`."""

    population: str | None = None
    files: Path | None = None
    validation: float = 0.0
    engine: Literal["auto", "sequential", "threads", "stacked"] = "auto"
    quorum: int | None = None

    def __post_init__(self) -> None:
        if (self.population is None) == (self.files is None):
            raise UsageError('name either population = "model.py:population" or a folder with files = "workers/"')


def parse_simulation(value: object, where: str) -> Simulated:
    """Return `[simulation]`."""
    return settings.read(settings.table(value, where), Simulated, where=where)


def parse_sums(value: object, where: str) -> SecureAggregation:
    """Return `[secure_aggregation]`; simulated workers need no roster, so that it is not read."""
    section = {key: each for key, each in settings.table(value, where).items() if key != "roster"}
    settings.refuse_unknown(section, [each.name for each in fields(SecureAggregation)], where)
    return settings.read(section, SecureAggregation, where=where, parsed={"roster": None})


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """A job and its population; `folder` is where the file lies and what its paths are relative to."""

    folder: Path
    name: str
    model: str
    loss: str
    rounds: int
    local: LocalTraining = field(metadata=settings.key("local", parse=parse_local))
    simulation: Simulated = field(metadata=settings.key(SIMULATION, parse=parse_simulation))
    dataset: str = PREFIX
    purpose: str = ""
    evaluate: str | None = None
    seed: int = 0
    worker_metrics: tuple[MetricKind, ...] = ()
    strategy: Strategy = field(default_factory=FedAvg, metadata=settings.key("strategy", parse=parse_strategy))
    sampling: Sampling = field(default_factory=Everybody, metadata=settings.key("sampling", parse=parse_sampling))
    secure_aggregation: SecureAggregation | None = field(
        default=None, metadata=settings.key("secure_aggregation", parse=parse_sums)
    )
    privacy: Mode | None = field(default=None, metadata=settings.key("privacy", parse=parse_privacy))
    run: Path | None = None

    def __post_init__(self) -> None:
        checked_name("job", self.name)
        if self.rounds < 1:
            raise UsageError(f"rounds is {self.rounds}; at least 1 is needed")

    def run_folder(self, now: float) -> Path:
        """Return where the run is kept, `now` in Unix seconds: its name says that it was simulated."""
        if self.run is not None:
            return self.folder / f"{self.run}-{PREFIX}"
        return self.folder / "runs" / f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{self.name}-{PREFIX}"

    def described(self) -> Population:
        """Return the population; raise `ConfigError` where its function does not describe one."""
        chosen = self.simulation
        if chosen.files is not None:
            return Population.of_files(self.folder / chosen.files, validation=chosen.validation)
        assert chosen.population is not None  # one of the two is named
        found = load_function(chosen.population, self.folder)()
        if not isinstance(found, Population):
            raise ConfigError(
                f"population: {chosen.population} returned a {type(found).__name__}; return fp.Population"
            )
        return replace(found, validation=chosen.validation) if chosen.validation else found


def load_simulation(path: Path) -> SimulationConfig:
    """Return the job in the TOML file at `path` with its population; raise `ConfigError` with place and remedy."""
    document = {key: value for key, value in settings.parse(path).items() if key not in ABOUT_WORKERS}
    if SIMULATION not in document:
        raise ConfigError(
            f'{path.name} has no [{SIMULATION}]; add one with population = "model.py:population", a function that '
            "returns fp.Population(size, rows_of)"
        )
    return settings.read(document, SimulationConfig, where=path.name, parsed={"folder": path.resolve().parent})
