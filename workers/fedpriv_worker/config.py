"""A worker's one TOML file, as its owner wrote it.

Everything is checked before anything starts: keys, types, names, addresses and rules. Paths are relative to the file.
A key for a promise that this version cannot keep (a budget, a mock) is refused with that reason. It reads
no data: `loading.check` does, and it too runs before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from fedpriv import settings
from fedpriv.errors import UsageError
from fedpriv.ids import checked_name
from fedpriv.policy.rules import Rule, parse_rules
from fedpriv_worker.datasets import FeaturesDtype, RowCount, check_promises

FILE = "worker.toml"
FILE_KINDS = (".parquet", ".csv", ".npz")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_LOADER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class WorkerSection:
    """Who the worker is, where it keeps its journal, ledger and keys, and what it computes on.

    `threads` bounds torch's threads; None leaves torch's own choice.
    """

    name: str
    state: Path = Path("state")
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        checked_name("worker", self.name)
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"device is {self.device!r}; use cpu, mps, cuda or cuda:0, cuda:1, ...")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise UsageError(f"threads is {self.threads}; use 1 to 1024, or leave it out")


@dataclass(frozen=True, slots=True)
class Dial:
    """The coordinator that the worker opens its one outbound stream to."""

    address: str = field(metadata=settings.key("address", parse=settings.address))


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the worker waits for a coordinator or researcher; port 0 lets the system pick."""

    address: str = field(metadata=settings.key("address", parse=settings.listening_address))


@dataclass(frozen=True, slots=True)
class Tls:
    """The authority that both sides trust, and this worker's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """One data set as declared: where its rows are, what is learned from them, and what may leave.

    `columns` picks the feature columns of a table (None: all but the target); `classes` names or numbers the
    classes of an integer or text target.
    """

    LATER: ClassVar[Mapping[str, str]] = {
        "budget": "this version cannot enforce a budget, and one that is not enforced would mislead; remove it",
        "unit_column": "it belongs to a budget, which this version cannot enforce; remove it",
        "maximum_rows_per_unit": "it belongs to a budget, which this version cannot enforce; remove it",
        "mock": "this version does not serve stand-ins; remove it",
    }
    name: str
    path: Path
    target: str
    tags: tuple[str, ...] = ()
    description: str = ""
    validation: float = 0.0
    rows: RowCount = "rounded"
    columns: tuple[str, ...] | None = None
    classes: int | tuple[str, ...] | None = None
    features_dtype: FeaturesDtype = "float32"
    release: tuple[Rule, ...] = field(default=(), metadata=settings.key("release", parse=parse_rules))

    def __post_init__(self) -> None:
        if not self.loader and self.path.suffix.lower() not in FILE_KINDS:
            raise UsageError(
                f"data set {self.name!r}: path {str(self.path)!r} is neither a file ending in {', '.join(FILE_KINDS)} "
                "nor a loader 'package.module:function'"
            )
        if self.columns is not None and self.target in self.columns:
            raise UsageError(f"data set {self.name!r}: columns holds the target {self.target!r}; remove it there")
        check_promises(self.name, self.release, self.validation, self.rows)

    @property
    def loader(self) -> str | None:
        """The "package.module:function" that makes the rows, or None when they come from a file."""
        return str(self.path) if _LOADER.fullmatch(str(self.path)) else None


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker's whole configuration; exactly one of `dial` and `listen` is set."""

    worker: WorkerSection
    tls: Tls
    dial: Dial | None = None
    listen: Listen | None = None
    datasets: tuple[DatasetConfig, ...] = field(default=(), metadata=settings.key("dataset"))

    def __post_init__(self) -> None:
        if (self.dial is None) == (self.listen is None):
            found = "neither" if self.dial is None else "both"
            raise UsageError(
                f"it has {found} of [dial] and [listen]; keep exactly one: [dial] to open a stream to "
                "the coordinator, [listen] to wait for one"
            )
        names = [dataset.name for dataset in self.datasets]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two data sets are called {name!r}; rename one of them")


def load_config(path: Path) -> WorkerConfig:
    """Return the configuration in the TOML file at `path`; raise `ConfigError` with the place and the remedy."""
    config = settings.load(path, WorkerConfig)
    folder = path.resolve().parent
    return replace(
        config,
        worker=replace(config.worker, state=folder / config.worker.state),
        tls=Tls(folder / config.tls.ca, folder / config.tls.certificate, folder / config.tls.key),
        datasets=tuple(
            dataset if dataset.loader else replace(dataset, path=folder / dataset.path) for dataset in config.datasets
        ),
    )
