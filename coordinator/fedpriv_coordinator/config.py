"""JOB.toml: one federated job, and the researcher's own Python that it names.

Everything is checked before a worker is asked for anything. Paths are relative to the file. `load_code` imports what
the file names on this machine, the researcher's: nothing of it is ever sent, only plans traced from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar, get_type_hints

import torch
from torch import nn

from fedpriv import canonical, settings
from fedpriv.errors import ConfigError, UsageError, nearest
from fedpriv.ids import checked_name
from fedpriv.learning.catalogue import STRATEGIES
from fedpriv.learning.local import SGD, Adam, AdamW, LocalTraining
from fedpriv.learning.sampling import SAMPLINGS, Everybody, Sampling
from fedpriv.learning.strategies import FedAvg, Strategy
from fedpriv.policy.rules import MetricKind
from fedpriv.privacy.modes import Mode
from fedpriv_coordinator.private_job import MODES
from fedpriv_coordinator.secure_aggregation import SecureAggregation, Weights

T = TypeVar("T")
_OF_STRATEGIES = ("term", "personal")
"""What of local training is a strategy's to set."""
SIMULATION = "simulation"
"""The table of a job that says with whom it is tried out; a run with real workers does not read it."""
OPTIMIZERS: Mapping[str, type[SGD | Adam | AdamW]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


@dataclass(frozen=True, slots=True)
class Workers:
    """Who takes part, how many updates a round needs (None: a majority), and how long it may take.

    `wait_seconds` is how long a run waits for all of them before its first round.
    """

    names: tuple[str, ...]
    quorum: int | None = None
    deadline_seconds: float = 600.0
    wait_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError("names is empty; name every worker that may take part")
        for name in self.names:
            checked_name("worker", name)
            if self.names.count(name) > 1:
                raise UsageError(f"names has two workers called {name!r}; name each once")
        if self.quorum is not None and not 1 <= self.quorum <= len(self.names):
            raise UsageError(f"quorum is {self.quorum} of {len(self.names)} workers; use 1 to that number")
        if not (self.deadline_seconds > 0 and math.isfinite(self.deadline_seconds)):
            raise UsageError(f"deadline_seconds is {self.deadline_seconds}; give a round some seconds")
        if not (self.wait_seconds > 0 and math.isfinite(self.wait_seconds)):
            raise UsageError(f"wait_seconds is {self.wait_seconds}; give the workers some seconds to connect")


@dataclass(frozen=True, slots=True)
class Tls:
    """The authority that both sides trust, the coordinator's certificate and key, and who renews it, if anybody."""

    ca: Path
    certificate: Path
    key: Path
    registrar: str | None = field(default=None, metadata=settings.key("registrar", parse=settings.address))


def parse_local(value: object, where: str) -> LocalTraining:
    """Return `[local]` as `LocalTraining`; what is not a key of the loop is one of the optimiser it names."""
    section = settings.table(value, where)
    name = section.get("optimizer", "sgd")
    if not isinstance(name, str) or name not in OPTIMIZERS:
        close = nearest(name, OPTIMIZERS) if isinstance(name, str) else ""
        raise ConfigError(f"{where}: optimizer {name!r} is not known{close}; use one of {', '.join(OPTIMIZERS)}")
    loop_keys = [item.name for item in fields(LocalTraining) if item.name not in _OF_STRATEGIES]
    settings.refuse_unknown(section, [*loop_keys, *(item.name for item in fields(OPTIMIZERS[name]))], where)
    loop = {key: item for key, item in section.items() if key in loop_keys and key != "optimizer"}
    own = {key: item for key, item in section.items() if key not in loop_keys}
    optimizer = settings.read(own, OPTIMIZERS[name], where=f"{where} ({name})")
    parsed = {"optimizer": optimizer, **dict.fromkeys(_OF_STRATEGIES)}
    return settings.read(loop, LocalTraining, where=where, parsed=parsed)


def parse_strategy(value: object, where: str) -> Strategy:
    """Return `[strategy]`: `name`, and what the function of that name in the catalogue takes."""
    return _made(settings.table(value, where), STRATEGIES, "strategy", where)


def parse_sampling(value: object, where: str) -> Sampling:
    """Return `[sampling]`: `name`, and what the function of that name takes."""
    return _made(settings.table(value, where), SAMPLINGS, "sampling", where)


def _made(section: Mapping[str, Any], known: Mapping[str, Callable[..., T]], what: str, where: str) -> T:
    """Return what the function that `section` names makes of its other keys, each of the type that it declares."""
    name = section.get("name")
    if not isinstance(name, str) or name not in known:
        close = nearest(name, known) if isinstance(name, str) else ""
        raise ConfigError(f"{where}: {name!r} is no {what}{close}; use one of {', '.join(known)}")
    make = known[name]
    hints = get_type_hints(make)
    taken = [
        (each.name, hints[each.name]) if each.default is each.empty else (each.name, hints[each.name], each.default)
        for each in inspect.signature(make).parameters.values()
    ]
    options: Any = settings.read(
        {key: item for key, item in section.items() if key != "name"},
        make_dataclass("Options", taken, frozen=True),
        where=f"{where} ({name})",
    )
    try:
        return make(**{key: getattr(options, key) for key, *_ in taken})
    except UsageError as error:
        raise ConfigError(f"{where} ({name}): {error}") from None


@dataclass(frozen=True, slots=True)
class _SecureAggregation:
    """`[secure_aggregation]` as it is written: the roster is a file, and has to be named."""

    roster: Path
    minimum_workers: int = 3
    graph: Literal["complete", "harary"] = "complete"
    weights: Weights = "rows"
    maximum_weight: int | None = None
    clip: float = 16.0
    fraction_bits: int = 16
    colluding: float = 1 / 3
    lost: float = 0.05

    def __post_init__(self) -> None:
        SecureAggregation(**{each.name: getattr(self, each.name) for each in fields(self)})


def parse_secure_aggregation(value: object, where: str) -> SecureAggregation:
    """Return `[secure_aggregation]`; raise `ConfigError` for what no round could meet."""
    section = settings.read(settings.table(value, where), _SecureAggregation, where=where)
    return SecureAggregation(**{each.name: getattr(section, each.name) for each in fields(section)})


def parse_privacy(value: object, where: str) -> Mode:
    """Return `[privacy]` as the mode that it names; what is not `mode` is one of that mode's numbers."""
    section = dict(settings.table(value, where))
    name = section.pop("mode", None)
    if not isinstance(name, str) or name not in MODES:
        close = nearest(name, MODES) if isinstance(name, str) else ""
        raise ConfigError(f"{where}: mode {name!r} is not known{close}; use one of {', '.join(MODES)}")
    return settings.read(section, MODES[name], where=f"{where} ({name})")


@dataclass(frozen=True, slots=True)
class JobConfig:
    """One job as its researcher declares it; `folder` is where the file lies and what its paths are relative to.

    `state` is the coordinator's own folder, the same for all its jobs: its keys and the ledger of what it received.
    """

    folder: Path
    name: str
    dataset: str
    model: str
    loss: str
    rounds: int
    workers: Workers
    local: LocalTraining = field(metadata=settings.key("local", parse=parse_local))
    tls: Tls
    listen: str = field(metadata=settings.key("listen", parse=settings.listening_address))
    purpose: str = ""
    evaluate: str | None = None
    seed: int = 0
    worker_metrics: tuple[MetricKind, ...] = ()
    strategy: Strategy = field(default_factory=FedAvg, metadata=settings.key("strategy", parse=parse_strategy))
    sampling: Sampling = field(default_factory=Everybody, metadata=settings.key("sampling", parse=parse_sampling))
    secure_aggregation: SecureAggregation | None = field(
        default=None, metadata=settings.key("secure_aggregation", parse=parse_secure_aggregation)
    )
    privacy: Mode | None = field(default=None, metadata=settings.key("privacy", parse=parse_privacy))
    operations: settings.Operations = settings.NOT_WATCHED
    run: Path | None = None
    state: Path = Path("coordinator-state")

    def __post_init__(self) -> None:
        checked_name("job", self.name)
        checked_name("data set", self.dataset)
        if self.rounds < 1:
            raise UsageError(f"rounds is {self.rounds}; at least 1 is needed")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed is {self.seed}; use 0 to 2**63 - 1")

    def run_folder(self, now: float) -> Path:
        """Return where the run is kept: `run` if the file says so, or `runs/<UTC>-<name>` for `now` in Unix seconds."""
        if self.run is not None:
            return self.run
        return self.folder / "runs" / f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{self.name}"


class NamesCode(Protocol):
    """A job whose Python lies in `folder`, or is installed."""

    @property
    def folder(self) -> Path: ...  # noqa: D102 - as `JobConfig`
    @property
    def model(self) -> str: ...  # noqa: D102 - as above
    @property
    def loss(self) -> str: ...  # noqa: D102 - as above
    @property
    def evaluate(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def seed(self) -> int: ...  # noqa: D102 - as above


@dataclass(frozen=True, slots=True)
class Code:
    """The researcher's own model and functions, imported on this machine."""

    model: nn.Module = field(repr=False)
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None


def load_job(path: Path) -> JobConfig:
    """Return the job in the TOML file at `path`; raise `ConfigError` with the place and the remedy."""
    folder = path.resolve().parent
    document = {key: value for key, value in settings.parse(path).items() if key != SIMULATION}
    config = settings.read(document, JobConfig, where=path.name, parsed={"folder": folder})
    return replace(
        config,
        tls=replace(
            config.tls,
            ca=folder / config.tls.ca,
            certificate=folder / config.tls.certificate,
            key=folder / config.tls.key,
        ),
        run=None if config.run is None else folder / config.run,
        state=folder / config.state,
        secure_aggregation=_beside(config.secure_aggregation, folder),
    )


def _beside(secure: SecureAggregation | None, folder: Path) -> SecureAggregation | None:
    """Return the same with its roster looked up in `folder`."""
    if secure is None or not isinstance(secure.roster, Path):
        return secure
    return replace(secure, roster=folder / secure.roster)


def load_code(config: NamesCode) -> Code:
    """Return the model, loss and evaluation that `config` names; the model's first weights follow from its seed."""
    build, loss = load_function(config.model, config.folder), load_function(config.loss, config.folder)
    evaluate = None if config.evaluate is None else load_function(config.evaluate, config.folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            model = build()
        except Exception as error:
            raise ConfigError(f"model: {config.model} raised {_told(error)}; it is called without arguments") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config.model} returned a {type(model).__name__}; return a torch.nn.Module")
    return Code(model, loss, evaluate)


def load_function(reference: str, folder: Path) -> Callable[..., Any]:
    """Return the function that "model.py:build" (a file in `folder`) or "package.module:function" names."""
    source, _, name = reference.partition(":")
    if not source or not name.isidentifier():
        raise ConfigError(
            f"{reference!r} names no function; write 'model.py:build' or 'torch.nn.functional:cross_entropy'"
        )
    module = _load_file(folder / source) if source.endswith(".py") else _load_module(source)
    function: Callable[..., Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        public = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise ConfigError(f"{source} has no function {name!r}{nearest(name, public)}; define it or correct the name")
    return function


def _load_file(path: Path) -> ModuleType:
    """Return the module in the file at `path`, run once for its content however many functions of it are named."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; put the researcher's Python beside the job file or correct the path")
    digest = canonical.digest("fedpriv/job-file/v1", str(path.resolve()), path.read_bytes())
    name = f"fedpriv_job_{digest.hex()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a path that ends in .py always has a specification and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an ordinary import does, so that inspect and tracing find the source
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"{path} does not run: {_told(error)}; correct it, `python {path.name}` shows the same"
        ) from error
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"module {name!r} cannot be imported ({error}); install it, or name a file ending in .py"
        ) from None


def _told(error: Exception) -> str:
    """Return an error of the researcher's own code with its line; it is on the researcher's screen and nowhere else."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError on line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} on line {frames[-1].lineno} of {Path(frames[-1].filename).name}: {error}"
