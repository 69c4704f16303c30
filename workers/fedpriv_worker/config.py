"""A worker's one TOML file, as its owner wrote it.

Everything is checked before anything starts: keys, types, names, addresses and rules. Paths are relative to the file.
A key for a promise that this version cannot keep is refused with that reason. It reads no data: `loading.check`
does, and it too runs before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from fedpriv import settings
from fedpriv.errors import ConfigError, UsageError
from fedpriv.ids import checked_name
from fedpriv.ledger.checkpoint import Algorithm, parse_verifier_key
from fedpriv.policy.rules import Rule, parse_rules
from fedpriv.privacy.budget import Budget
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING, LEAST_WORKERS
from fedpriv.storage.rosters import key_of
from fedpriv_worker.datasets import FeaturesDtype
from fedpriv_worker.enrolment import OwnerTerms
from fedpriv_worker.payloads import check_simulated
from fedpriv_worker.promises import RowCount, check_promises

FILE_KINDS = (".parquet", ".arrow", ".feather", ".csv", ".npz")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_LOADER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class WorkerSection:
    """Who the worker is, where it keeps its journal, ledger and keys, and what it computes on.

    `threads` bounds torch's threads; None leaves torch's own choice. `record_payloads` keeps simulated rows and all
    that leaves in the state folder, for attacks on it; it is refused where a data set is not marked as simulated.
    """

    name: str
    state: Path = Path("state")
    device: str = "cpu"
    threads: int | None = None
    record_payloads: bool = False

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
    """The authority that both sides trust, and this worker's certificate and key; `registrar` is who renews it."""

    ca: Path
    certificate: Path
    key: Path
    registrar: str | None = field(default=None, metadata=settings.key("registrar", parse=settings.address))


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """One data set as declared: where its rows are, what is learned from them, and what may leave.

    `path` is a table, arrays, images or a folder of pictures, as `loading` reads them. `columns` picks the feature
    columns of a table (None: all but the target); `classes` names or numbers the classes of an integer or text
    target. `mock` is a stand-in for anyone to read, a file or loader as `path` is. `simulated` says that no row is of
    anybody.
    """

    LATER: ClassVar[Mapping[str, str]] = Budget.LATER
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
    mock: Path | None = None
    budget: Budget | None = None
    legal_basis: str = ""
    simulated: bool = False
    release: tuple[Rule, ...] = field(default=(), metadata=settings.key("release", parse=parse_rules))

    def __post_init__(self) -> None:
        for what, path in (("path", self.path), ("mock", self.mock)):
            if path is None or loader_of(path) or is_folder(path) or is_idx(path):
                continue
            if path.suffix.lower() not in FILE_KINDS:
                raise UsageError(
                    f"data set {self.name!r}: {what} {str(path)!r} is neither a file ending in "
                    f"{', '.join(FILE_KINDS)}, images in IDX (NAME-images-idx3-ubyte), a folder of pictures (its name "
                    "has no ending), nor a loader 'package.module:function'"
                )
        if self.mock == self.path:
            raise UsageError(f"data set {self.name!r}: mock is the data itself, which nobody may read; write another")
        if self.columns is not None and self.target in self.columns:
            raise UsageError(f"data set {self.name!r}: columns holds the target {self.target!r}; remove it there")
        if self.unit_column is not None and self.unit_column in (self.target, *(self.columns or ())):
            raise UsageError(f"data set {self.name!r}: unit_column {self.unit_column!r} is learned from; name another")
        check_promises(
            self.name,
            self.release,
            self.validation,
            self.rows,
            budget=self.budget,
            has_mock=self.mock is not None,
            legal_basis=self.legal_basis,
        )

    @property
    def unit_column(self) -> str | None:
        """The column that says whose each row is, or None."""
        return None if self.budget is None else self.budget.unit_column

    @property
    def loader(self) -> str | None:
        """The "package.module:function" that makes the rows, or None when they come from a file."""
        return loader_of(self.path)

    def beside(self, folder: Path) -> DatasetConfig:
        """Return the same data set with its files looked up in `folder`."""
        mock = self.mock
        return replace(
            self,
            path=self.path if self.loader else folder / self.path,
            mock=mock if mock is None or loader_of(mock) else folder / mock,
        )


def is_idx(path: Path) -> bool:
    """Return whether `path` is named as images in the IDX format are."""
    return path.name.lower().removesuffix(".gz").endswith("-idx3-ubyte")


def is_folder(path: Path) -> bool:
    """Return whether `path` is named as a folder of pictures is: without an ending."""
    return not path.suffix and not is_idx(path)


def loader_of(path: Path) -> str | None:
    """Return the "package.module:function" that `path` stands for, or None when it is a file."""
    return str(path) if _LOADER.fullmatch(str(path)) else None


@dataclass(frozen=True, slots=True)
class HttpWitness:
    """A C2SP witness that the owner trusts to hold the ledger's checkpoints: where it answers and its key.

    `plain_http` allows one without TLS that is not on this machine.
    """

    url: str
    vkey: str
    plain_http: bool = False

    def __post_init__(self) -> None:
        parse_verifier_key(self.vkey, Algorithm.COSIGNATURE)


def parse_key(value: object, where: str) -> bytes:
    """Return a public key from its base64; raise `ConfigError` for another text."""
    return key_of(value if isinstance(value, str) else "", where)


def parse_share(value: object, where: str) -> Fraction:
    """Return a share as an exact fraction, 1/3 for 0.333333; raise `ConfigError` for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{where} must be a share of at least 0 and below 1, such as 0.333333")
    return Fraction(value).limit_denominator(1_000_000)


@dataclass(frozen=True, slots=True)
class SecureAggregation:
    """On what terms the worker takes part in sums: whose roster counts, and what its owner insists on.

    `administrator` is the public key that signs rosters; the rest is as in `enrolment.OwnerTerms`.
    """

    administrator: bytes = field(metadata=settings.key("administrator", parse=parse_key))
    minimum_cohort: int = LEAST_WORKERS
    colluding: Fraction = field(default=DEFAULT_COLLUDING, metadata=settings.key("colluding", parse=parse_share))
    maximum_weight: int | None = None

    def __post_init__(self) -> None:
        self.terms.check()

    @property
    def terms(self) -> OwnerTerms:
        """What a coordinator cannot ask for less than."""
        return OwnerTerms(self.minimum_cohort, self.colluding, self.maximum_weight)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may use here.

    `memory_gib` is memory at once, of one batch of a plan and of all values behind pointers; `work` is elementary
    operations of one batch, or of one operation on pointers; `values` is how many there may be in one session.
    """

    memory_gib: float = 4.0
    work: float = 1e13
    values: int = 1_000_000

    def __post_init__(self) -> None:
        most = {"memory_gib": 1 << 20, "work": 1e18, "values": 1 << 40}
        for name, largest in most.items():
            if not 0 < getattr(self, name) <= largest:
                raise UsageError(f"{name} is {getattr(self, name):g}; use a number above 0 and up to {largest:g}")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker's whole configuration; exactly one of `dial` and `listen` is set."""

    worker: WorkerSection
    tls: Tls
    dial: Dial | None = None
    listen: Listen | None = None
    limits: Limits = Limits()
    operations: settings.Operations = settings.NOT_WATCHED
    secure_aggregation: SecureAggregation | None = None
    datasets: tuple[DatasetConfig, ...] = field(default=(), metadata=settings.key("dataset"))
    witnesses: tuple[HttpWitness, ...] = field(default=(), metadata=settings.key("witness"))

    def __post_init__(self) -> None:
        if (self.dial is None) == (self.listen is None):
            found = "neither" if self.dial is None else "both"
            raise UsageError(
                f"it has {found} of [dial] and [listen]; keep exactly one: [dial] to open a stream to "
                "the coordinator, [listen] to wait for one"
            )
        if self.worker.record_payloads:
            check_simulated([(each.name, each.simulated) for each in self.datasets])
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
        tls=replace(
            config.tls,
            ca=folder / config.tls.ca,
            certificate=folder / config.tls.certificate,
            key=folder / config.tls.key,
        ),
        datasets=tuple(dataset.beside(folder) for dataset in config.datasets),
    )
