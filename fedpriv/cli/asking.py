"""How the owner's commands reach a worker: over its control socket while it runs, through its state folder otherwise.

Which of the two it was is said on stderr. Reading a stopped worker's folder takes no lock and writes nothing; an
approval or denial takes the folder's lock for a moment, and a worker that is just starting makes it fail rather
than wait. Nothing here goes over a network.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpriv import settings
from fedpriv.errors import ConfigError, UsageError
from fedpriv_worker import control
from fedpriv_worker.control import NoWorkerRunning

if TYPE_CHECKING:
    from fedpriv.ids import WorkerName
    from fedpriv_worker.holdings import Holding

CONFIG = Path("worker.toml")
_WRITES = ("approve", "deny", "deny-all")


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's state folder, and its configuration file where one is known."""

    state: Path
    config: Path | None


def place_of(config: Path | None, state: Path | None) -> Place:
    """Return where a worker is, from the options --config and --state; raise `UsageError` for both or neither."""
    if config is not None and state is not None:
        raise UsageError("--config and --state were given; give one of them, the configuration if you can")
    if state is not None:
        return Place(state, _beside(state))
    path = CONFIG if config is None else config
    if config is None and not path.exists():
        raise UsageError("there is no worker.toml here; name it with --config, or the state folder with --state")
    return Place(_state_in(path), path)


def place_at(path: Path) -> Place:
    """Return where a worker is, from a configuration file, its state folder, or the folder that holds the file."""
    if not path.exists():
        raise UsageError(f"{path} does not exist; name a worker.toml, the folder that holds it, or a state folder")
    if path.is_file():
        return place_of(path, None)
    return place_of(path / CONFIG, None) if (path / CONFIG).is_file() else place_of(None, path)


def ask(place: Place, question: Mapping[str, object], *, loading: bool = False) -> Any:  # noqa: ANN401 - JSON
    """Return the answer of the owner's desk, and say on stderr who gave it.

    `loading` reads the rows of a worker that does not run, so that they can be counted.
    """
    try:
        answer = control.ask(place.state, question)
    except NoWorkerRunning:
        return _answer_without(place, question, loading=loading)
    say(f"asked the worker that runs on {place.state}")
    return answer


def ask_files(place: Place, question: Mapping[str, object], *, loading: bool = False) -> Any:  # noqa: ANN401 - JSON
    """Return what the files of a state folder answer to a question that changes nothing, worker or not.

    Before the first start there is no such folder: then the configuration answers alone, and that is said.
    """
    from fedpriv_worker.desk import Desk  # noqa: PLC0415 - brings torch
    from fedpriv_worker.records import empty, reading  # noqa: PLC0415

    name, holdings = _held(place, loading=loading)
    if place.config is not None and _is_unused(place.state):
        say(f"no worker has run on {place.state} yet: this is what {place.config} says")
        records = empty()
    else:
        records = reading(place.state)
    with records as stored:
        return Desk(name, holdings, stored).answer(question)


def say(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")


def _answer_without(place: Place, question: Mapping[str, object], *, loading: bool) -> Any:  # noqa: ANN401 - JSON
    """Return the answer from the state folder of a worker that does not run."""
    if question["ask"] not in _WRITES:
        answer = ask_files(place, question, loading=loading)
        if not _is_unused(place.state):
            say(f"no worker runs on {place.state}; read from its files")
        return answer
    from fedpriv.clock import SystemClock  # noqa: PLC0415
    from fedpriv.entropy import SystemEntropy  # noqa: PLC0415
    from fedpriv_worker.desk import Desk  # noqa: PLC0415 - brings torch
    from fedpriv_worker.journal import Journal  # noqa: PLC0415
    from fedpriv_worker.records import reading  # noqa: PLC0415

    name, holdings = _held(place, loading=False)
    with reading(place.state):
        pass  # refuses a folder where no worker has run, before anything is made there
    journal = Journal.open(place.state, worker=name, clock=SystemClock(), entropy=SystemEntropy())
    try:
        answer = Desk(name, holdings, journal).answer(question)
    finally:
        journal.close()
    say(f"no worker runs on {place.state}; written to its files")
    return answer


def _held(place: Place, *, loading: bool) -> tuple[WorkerName, tuple[Holding, ...] | None]:
    """Return the worker's name and its data sets; None instead, with a word on stderr, where no file is known."""
    from fedpriv.ids import WorkerName  # noqa: PLC0415
    from fedpriv_worker.records import worker_of  # noqa: PLC0415

    if place.config is None:
        say(f"no worker.toml is known for {place.state}, so rules and budgets are not; name it with --config")
        return worker_of(place.state), None
    from fedpriv_worker.config import load_config  # noqa: PLC0415 - brings torch
    from fedpriv_worker.holdings import declared, holding_of  # noqa: PLC0415
    from fedpriv_worker.loading import load_dataset  # noqa: PLC0415

    config = load_config(place.config)
    holdings = (holding_of(load_dataset(each)) if loading else declared(each) for each in config.datasets)
    return WorkerName(config.worker.name), tuple(holdings)


def _is_unused(state: Path) -> bool:
    """Return whether nothing lies in a state folder: a worker that ran leaves its keys there before anything else."""
    try:
        return not any(state.iterdir())
    except FileNotFoundError:
        return True
    except OSError as error:
        raise UsageError(
            f"{state} cannot be read ({error.strerror}); correct [worker] state or ask its owner"
        ) from None


def _state_in(config: Path) -> Path:
    """Return the state folder that a configuration names, without reading the rest of it."""
    worker = settings.parse(config).get("worker", {})
    state = worker.get("state", "state") if isinstance(worker, dict) else None
    if not isinstance(state, str):
        raise ConfigError(f'{config} has no usable [worker] state; write it as a path, such as state = "state/"')
    return config.resolve().parent / state


def _beside(state: Path) -> Path | None:
    """Return the configuration that lies beside a state folder and names it, or None."""
    config = state.resolve().parent / CONFIG
    try:
        return config if _state_in(config).resolve() == state.resolve() else None
    except UsageError:
        return None
