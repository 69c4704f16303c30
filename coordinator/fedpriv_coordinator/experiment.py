"""What a run leaves behind: a record of every round, what left each worker, and the model.

Values first: `WorkerRound`, `RoundRecord` and `History` go to JSON and come back equal (`history_json`). `Result` is
what `Federation.fit` returns; it draws and saves itself, and never writes over another run. It verifies nothing:
whether a ledger holds is found by whoever fills a `LedgerSummary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import nn

    from fedpriv_coordinator.evidence import Evidence
    from fedpriv_coordinator.privacy_report import PrivacyReport

WorkerStatus: TypeAlias = Literal["folded", "lost", "refused", "rejected", "late", "unused"]
"""What became of a worker's part; "unused" says that it was asked, and the round was over before its part counted."""
Outcome: TypeAlias = Literal["complete", "abandoned"]
Summands: TypeAlias = Literal["updates", "metrics", "statistics"]

HISTORY, CURVES, MODEL, REPORT = "history.json", "curves.png", "model.safetensors", "report.html"
_RECORD_COLUMNS = ("loss", "seconds", "bytes_in", "bytes_out")


@dataclass(frozen=True, slots=True)
class WorkerRound:
    """One worker's part in one round; `bytes_in` is what the coordinator received from it, `bytes_out` what it sent.

    `unmeasured` names the metrics of the model that it was asked for and did not give, with the reason; "" otherwise.
    `gone` says that it went away before the round was over, whatever it had given by then. `staleness` is how many
    steps the model had taken since the worker was given the one that it trained on; 0 in a run of rounds. `anew` says
    that what its strategy keeps at the worker was gone, as after a restart, and began anew; in a sum nobody is told.
    """

    worker: str
    status: WorkerStatus
    weight: float
    bytes_in: int
    bytes_out: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    unmeasured: str = ""
    gone: bool = False
    staleness: int = 0
    anew: bool = False

    @property
    def lost(self) -> bool:
        """Whether the worker went away in the round, with its part in it or without."""
        return self.gone or self.status == "lost"


@dataclass(frozen=True, slots=True)
class RoundFinding:
    """Why a worker did not stay to the end of a sum, of what `summands`; one that stopped itself signed that.

    Its part may be in the sum all the same. `sid`, `phase`, `reason`, `subject` and `signature` (hexadecimal) are what
    it signed; "" and -1 where nothing was.
    """

    worker: str
    reason: str
    explanation: str
    sid: str = ""
    subject: str = ""
    phase: int = -1
    signature: str = ""
    summands: Summands = "updates"


@dataclass(frozen=True, slots=True)
class SumRecord:
    """One sum of a round of secure aggregation: of what, under which session, and who is in it.

    `members` is empty where there is no sum, and `reason` says why. `threshold` workers had to stay to the end, and at
    least `minimum` had to be in the sum; `graph` is "complete" or "harary".
    """

    summands: Summands
    sid: str
    graph: str
    threshold: int
    minimum: int
    invited: tuple[str, ...]
    members: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round: the weighted training loss, the coordinator's own evaluation, and the workers' weighted mean.

    `reason` says why it was abandoned, "" if it was not. Under secure aggregation no worker's own weight and metrics
    are known; `sums` say who was in each sum, `findings` who did not stay to its end and why, and `saturated` how many
    numbers in the sum were out of bounds, and so were clipped. `simulated_seconds` is what the round would have taken
    simulated devices; None where there are none.
    """

    number: int
    outcome: Outcome
    seconds: float
    loss: float | None
    metrics: Mapping[str, float]
    worker_metrics: Mapping[str, float]
    bytes_in: int
    bytes_out: int
    workers: tuple[WorkerRound, ...]
    findings: tuple[RoundFinding, ...] = ()
    saturated: int = 0
    sums: tuple[SumRecord, ...] = ()
    reason: str = ""
    simulated_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that went away: the first round that missed it, and why."""

    worker: str
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Egress:
    """What left one worker under one kind of message, over the whole run."""

    worker: str
    kind: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """What one worker's ledger says after the run, and whether it was verified; `root` is its Merkle root in hex."""

    worker: str
    verified: bool
    entries: int
    bytes: int
    root: str
    kinds: tuple[Egress, ...]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the run was for; `plan` is the digest of the training plan in hex, `ledgers` where WORKER's ledger lies."""

    name: str
    purpose: str = ""
    dataset: str = ""
    parameters: int = 0
    plan: str = ""
    ledgers: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """Every round in order, and what training on all rows in one place would have reached, where that is known.

    `before` are the sums of statistics that whoever ran it was shown before the run.
    """

    rounds: tuple[RoundRecord, ...] = ()
    baseline: Mapping[str, float] | None = None
    before: tuple[SumRecord, ...] = ()

    def column(self, name: str) -> tuple[float | None, ...]:
        """Return one value per round, None where a round has none.

        `name` is loss (training), seconds, simulated_seconds, bytes_in, bytes_out, a metric of the coordinator's
        evaluation, "worker/" and a metric of the workers' own validation, or "evaluation/loss"; raise `UsageError` for
        a name that no round has.
        """
        if name in _RECORD_COLUMNS or name == "simulated_seconds":
            return tuple(getattr(record, name) for record in self.rounds)
        if name not in (known := self.columns):
            raise UsageError(f"no round has a column {name!r}{nearest(name, known)}; there are {', '.join(known)}")
        if name.startswith("worker/"):
            return tuple(record.worker_metrics.get(name.removeprefix("worker/")) for record in self.rounds)
        return tuple(record.metrics.get(name.removeprefix("evaluation/")) for record in self.rounds)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that `column` accepts."""
        names = dict.fromkeys(name for record in self.rounds for name in record.metrics)
        evaluated = (f"evaluation/{name}" if name in _RECORD_COLUMNS else name for name in names)
        validated = dict.fromkeys(f"worker/{name}" for record in self.rounds for name in record.worker_metrics)
        simulated = any(record.simulated_seconds is not None for record in self.rounds)
        return (*_RECORD_COLUMNS, *(("simulated_seconds",) if simulated else ()), *evaluated, *validated)

    @property
    def arrivals(self) -> tuple[tuple[str, ...], ...]:
        """Whose updates each step of the model took: what `FedBuff(arrivals=...)` takes to run it again."""
        complete = (record.workers for record in self.rounds if record.outcome == "complete")
        return tuple(tuple(part.worker for part in parts if part.status == "folded") for parts in complete)

    @property
    def lost(self) -> tuple[LostWorker, ...]:
        """Workers that went away, once for each time that they did, in the order of the rounds."""
        gone: set[str] = set()
        found: list[LostWorker] = []
        for record in self.rounds:
            for part in record.workers:
                if part.lost and part.worker not in gone:
                    found.append(LostWorker(part.worker, record.number, part.reason))
                (gone.add if part.lost else gone.discard)(part.worker)
        return tuple(found)

    def to_json(self) -> str:
        """Return the history as JSON text; a number that is not finite is written as a string."""
        from fedpriv_coordinator import history_json  # noqa: PLC0415 - it imports the values of this module

        return history_json.written(self)

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` wrote; raise `UsageError` naming the first thing that does not read."""
        from fedpriv_coordinator import history_json  # noqa: PLC0415 - it imports the values of this module

        return history_json.read(text)


@dataclass(frozen=True, repr=False)
class Result:
    """What `Federation.fit` returns: the model, every round, and what left each worker.

    `privacy` is what a private job came to, None of another. `job` and `ledgers` fill the report; `evidence` is
    what the coordinator received and cosigned.
    """

    model: nn.Module
    history: History
    egress: tuple[Egress, ...] = ()
    privacy: PrivacyReport | None = None
    run: Path | None = None
    lost: tuple[LostWorker, ...] = ()
    job: JobFacts | None = None
    ledgers: tuple[LedgerSummary, ...] = ()
    evidence: Evidence | None = None

    def __repr__(self) -> str:
        from fedpriv_coordinator import telling  # noqa: PLC0415 - it imports the values of this module

        return "\n".join(telling.summary(self))

    def plot(self, path: str | Path) -> Path:
        """Draw loss, accuracy and bytes per round to `path` (png, svg or pdf); needs the extra `plot`."""
        from fedpriv_coordinator import plots  # noqa: PLC0415 - matplotlib is optional, and slow to import

        return plots.write(self.history, Path(path))

    def to_tensorboard(self, folder: str | Path) -> Path:
        """Write every column of the history to TensorBoard's event files in `folder`; needs the extra `tensorboard`."""
        from fedpriv_coordinator import writers  # noqa: PLC0415 - it imports the values of this module

        return writers.to_tensorboard(self.history, Path(folder))

    def to_mlflow(self, uri: str | None = None, *, experiment: str = "fedpriv") -> str:
        """Log every column of the history as a run of MLflow and return the run's id; needs the extra `mlflow`.

        `uri` is the tracking server's, or MLflow's own choice for None. What is logged leaves this process for there.
        """
        from fedpriv_coordinator import writers  # noqa: PLC0415 - it imports the values of this module

        return writers.to_mlflow(self.history, self.job or JobFacts(""), uri=uri, experiment=experiment)

    def save(self, folder: str | Path) -> Path:
        """Write history.json, model.safetensors, report.html and, with the extra `plot`, curves.png to `folder`.

        Beside them go the ledger of what was received, ingress/, and what was cosigned, witness.json and witness/.

        Raises `UsageError`, with nothing written, when the folder holds any of these from another run.
        """
        from safetensors.torch import save_model  # noqa: PLC0415 - brings torch, which the values do without

        from fedpriv_coordinator import plots, report  # noqa: PLC0415 - they import the values of this module

        folder, history = Path(folder), self.history.to_json()
        _refuse_another_run(folder, history)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / HISTORY, lambda path: path.write_text(history, encoding="utf-8"))
        _replace(folder / MODEL, lambda path: save_model(self.model, str(path)))
        written = SystemClock().now()
        page = report.page(
            report.ReportInput(self._facts(folder), self.history, self.ledgers, self.lost, written, self.privacy)
        )
        _replace(folder / REPORT, lambda path: path.write_text(page, encoding="utf-8"))
        if plots.available():
            _replace(folder / CURVES, lambda path: plots.write(self.history, path))
        if self.evidence is not None:
            self.evidence.save(folder)
        return folder

    def _facts(self, folder: Path) -> JobFacts:
        """Return the job's facts; what nobody stated is counted, or seen in `folder`."""
        facts = self.job or JobFacts(folder.name)
        counted = sum(parameter.numel() for parameter in self.model.parameters())
        beside = "workers/WORKER/state/ledger" if (folder / "workers").is_dir() else ""
        name, parameters = facts.name or folder.name, facts.parameters or counted
        return replace(facts, name=name, parameters=parameters, ledgers=facts.ledgers or beside)


def size_text(count: int) -> str:
    """Return `count` bytes as people read them: 512 B, 34.5 kB, 1.2 GB (powers of 1,000)."""
    if count < 1000:
        return f"{count} B"
    power = min(4, int(math.log10(count) // 3))
    amount = count / 1000**power
    if amount >= 999.95 and power < 4:
        power, amount = power + 1, amount / 1000
    return f"{amount:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _refuse_another_run(folder: Path, history: str) -> None:
    """Raise `UsageError` when `folder` holds files of a run with another history."""
    there = folder / HISTORY
    if there.is_file() and there.read_text(encoding="utf-8") == history:
        return
    if taken := [name for name in (HISTORY, MODEL, REPORT, CURVES) if (folder / name).exists()]:
        raise UsageError(f"{folder} already holds {', '.join(taken)} of another run; save to a new folder")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` through a neighbour, so that a crash leaves the old file or the new one."""
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    partial.replace(path)
