"""What a run leaves behind: a record of every round, what left each worker, and the model.

Values first: `WorkerRound`, `RoundRecord` and `History` go to JSON and come back equal; a document that does not
read exactly is refused. `Result` is what `Federation.fit` returns; it draws and saves itself, and never writes
over another run. It verifies nothing: whether a ledger holds is found by whoever fills a `LedgerSummary`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import nn

    from fedpriv_coordinator.evidence import Evidence
    from fedpriv_coordinator.privacy_report import PrivacyReport

WorkerStatus: TypeAlias = Literal["folded", "lost", "refused", "rejected", "late"]
Outcome: TypeAlias = Literal["complete", "abandoned"]

T = TypeVar("T")

FORMAT = "fedpriv/history/v1"
HISTORY, CURVES, MODEL, REPORT = "history.json", "curves.png", "model.safetensors", "report.html"
_RECORD_COLUMNS = ("loss", "seconds", "bytes_in", "bytes_out")


@dataclass(frozen=True, slots=True)
class WorkerRound:
    """One worker's part in one round; `bytes_in` is what the coordinator received from it, `bytes_out` what it sent.

    `unmeasured` names the metrics of the model that it was asked for and did not give, with the reason; "" otherwise.
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


@dataclass(frozen=True, slots=True)
class RoundFinding:
    """Why a worker did not count in a round of secure aggregation; one that stopped itself signed that.

    `sid`, `phase`, `reason`, `subject` and `signature` (hexadecimal) are what it signed; "" and -1 where nothing was.
    """

    worker: str
    reason: str
    explanation: str
    sid: str = ""
    subject: str = ""
    phase: int = -1
    signature: str = ""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round: the weighted training loss, the coordinator's own evaluation, and the workers' weighted mean.

    Under secure aggregation no worker's own weight and metrics are known, `findings` say who was left out and why, and
    `saturated` how many of all numbers in the sum were out of bounds, and so were clipped.
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
    """Every round in order, and what training on all rows in one place would have reached, where that is known."""

    rounds: tuple[RoundRecord, ...] = ()
    baseline: Mapping[str, float] | None = None

    def column(self, name: str) -> tuple[float | None, ...]:
        """Return one value per round, None where a round has none.

        `name` is loss (training), seconds, bytes_in, bytes_out, a metric of the coordinator's evaluation, "worker/" and
        a metric of the workers' own validation, or "evaluation/loss"; raise `UsageError` for a name that no round has.
        """
        if name in _RECORD_COLUMNS:
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
        return (*_RECORD_COLUMNS, *evaluated, *validated)

    @property
    def lost(self) -> tuple[LostWorker, ...]:
        """Workers that went away, once for each time that they did, in the order of the rounds."""
        gone: set[str] = set()
        found: list[LostWorker] = []
        for record in self.rounds:
            for part in record.workers:
                if part.status == "lost" and part.worker not in gone:
                    found.append(LostWorker(part.worker, record.number, part.reason))
                (gone.add if part.status == "lost" else gone.discard)(part.worker)
        return tuple(found)

    def to_json(self) -> str:
        """Return the history as JSON text; a number that is not finite is written as a string."""
        document = {
            "format": FORMAT,
            "rounds": [_document(record) for record in self.rounds],
            "baseline": None if self.baseline is None else _document(self.baseline),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` wrote; raise `UsageError` naming the first thing that does not read."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the history is not JSON: {error}") from None
        top = _keys(document, {"format", "rounds", "baseline"}, "history")
        if top["format"] != FORMAT:
            raise UsageError(f"history.format is {top['format']!r}, but this version reads {FORMAT!r}")
        baseline = top["baseline"]
        return cls(
            tuple(_round(item, f"rounds[{at}]") for at, item in _items(top["rounds"], "rounds")),
            None if baseline is None else _metrics(baseline, "baseline"),
        )


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


# Reading back: every function names the place in the document, and accepts nothing that `to_json` does not write.


def _document(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _document(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_document(item) for item in value]
    if isinstance(value, WorkerRound | RoundRecord | RoundFinding):
        return {each.name: _document(getattr(value, each.name)) for each in fields(value)}
    return value


def _round(document: object, where: str) -> RoundRecord:
    found = _keys(document, {each.name for each in fields(RoundRecord)}, where)
    loss = found["loss"]
    return RoundRecord(
        number=_integer(found["number"], f"{where}.number"),
        outcome=_one_of(found["outcome"], get_args(Outcome), f"{where}.outcome"),
        seconds=_number(found["seconds"], f"{where}.seconds"),
        loss=None if loss is None else _number(loss, f"{where}.loss"),
        metrics=_metrics(found["metrics"], f"{where}.metrics"),
        worker_metrics=_metrics(found["worker_metrics"], f"{where}.worker_metrics"),
        bytes_in=_integer(found["bytes_in"], f"{where}.bytes_in"),
        bytes_out=_integer(found["bytes_out"], f"{where}.bytes_out"),
        workers=tuple(
            _worker(item, f"{where}.workers[{at}]") for at, item in _items(found["workers"], f"{where}.workers")
        ),
        findings=tuple(
            _finding(item, f"{where}.findings[{at}]") for at, item in _items(found["findings"], f"{where}.findings")
        ),
        saturated=_integer(found["saturated"], f"{where}.saturated"),
    )


def _finding(document: object, where: str) -> RoundFinding:
    found = _keys(document, {each.name for each in fields(RoundFinding)}, where)
    phase = found.pop("phase")
    texts = {name: _text(value, f"{where}.{name}") for name, value in found.items()}
    return RoundFinding(**texts, phase=-1 if phase == -1 else _integer(phase, f"{where}.phase"))


def _worker(document: object, where: str) -> WorkerRound:
    found = _keys(document, {each.name for each in fields(WorkerRound)}, where)
    return WorkerRound(
        worker=_text(found["worker"], f"{where}.worker"),
        status=_one_of(found["status"], get_args(WorkerStatus), f"{where}.status"),
        weight=_number(found["weight"], f"{where}.weight"),
        bytes_in=_integer(found["bytes_in"], f"{where}.bytes_in"),
        bytes_out=_integer(found["bytes_out"], f"{where}.bytes_out"),
        seconds=_number(found["seconds"], f"{where}.seconds"),
        metrics=_metrics(found["metrics"], f"{where}.metrics"),
        reason=_text(found["reason"], f"{where}.reason"),
        unmeasured=_text(found["unmeasured"], f"{where}.unmeasured"),
    )


def _keys(document: object, expected: set[str], where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UsageError(f"{where} is a {type(document).__name__}, not an object")
    if wrong := sorted(set(document) ^ expected):
        unknown = [key for key in wrong if key in document]
        kind = "does not know" if unknown else "misses"
        raise UsageError(f"{where} {kind} {(unknown or wrong)[0]!r}; it has exactly {', '.join(sorted(expected))}")
    return document


def _items(document: object, where: str) -> Iterator[tuple[int, object]]:
    if not isinstance(document, list):
        raise UsageError(f"{where} is a {type(document).__name__}, not a list")
    return iter(enumerate(document))


def _metrics(document: object, where: str) -> dict[str, float]:
    if not isinstance(document, dict):
        raise UsageError(f"{where} is a {type(document).__name__}, not an object")
    return {name: _number(value, f"{where}.{name}") for name, value in document.items()}


def _number(value: object, where: str) -> float:
    if isinstance(value, str) and value in {"nan", "inf", "-inf"}:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UsageError(f"{where} is {value!r}, not a finite number")
    return float(value)


def _integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{where} is {value!r}, not a whole number of 0 or more")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}, not a text")
    return value


def _one_of(value: object, allowed: tuple[T, ...], where: str) -> T:
    for each in allowed:
        if value == each:
            return each
    raise UsageError(f"{where} is {value!r}, not one of {', '.join(map(str, allowed))}")
