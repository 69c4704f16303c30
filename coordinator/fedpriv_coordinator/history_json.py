"""A history as a JSON document, and back; a document that does not read exactly is refused.

Every function that reads names the place in the document, and accepts nothing that `written` does not write.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import get_args

from fedpriv.errors import UsageError
from fedpriv_coordinator import reading
from fedpriv_coordinator.experiment import (
    History,
    Outcome,
    RoundFinding,
    RoundRecord,
    Summands,
    SumRecord,
    WorkerRound,
    WorkerStatus,
)

FORMAT = "fedpriv/history/v1"


def written(history: History) -> str:
    """Return the history as JSON text; a number that is not finite is written as a string."""
    document = {
        "format": FORMAT,
        "before": [_document(record) for record in history.before],
        "rounds": [_document(record) for record in history.rounds],
        "baseline": None if history.baseline is None else _document(history.baseline),
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read(text: str) -> History:
    """Return the history that `written` wrote; raise `UsageError` naming the first thing that does not read."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the history is not JSON: {error}") from None
    top = reading.keys(document, {"format", "before", "rounds", "baseline"}, "history")
    if top["format"] != FORMAT:
        raise UsageError(f"history.format is {top['format']!r}, but this version reads {FORMAT!r}")
    baseline = top["baseline"]
    return History(
        tuple(_round(item, f"rounds[{at}]") for at, item in reading.items(top["rounds"], "rounds")),
        None if baseline is None else reading.metrics(baseline, "baseline"),
        tuple(_sum(item, f"before[{at}]") for at, item in reading.items(top["before"], "before")),
    )


def _document(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _document(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_document(item) for item in value]
    if isinstance(value, WorkerRound | RoundRecord | RoundFinding | SumRecord):
        return {each.name: _document(getattr(value, each.name)) for each in fields(value)}
    return value


def _round(document: object, where: str) -> RoundRecord:
    found = reading.keys(document, {each.name for each in fields(RoundRecord)}, where)
    loss, simulated = found["loss"], found["simulated_seconds"]
    return RoundRecord(
        number=reading.integer(found["number"], f"{where}.number"),
        outcome=reading.one_of(found["outcome"], get_args(Outcome), f"{where}.outcome"),
        seconds=reading.number(found["seconds"], f"{where}.seconds"),
        loss=None if loss is None else reading.number(loss, f"{where}.loss"),
        metrics=reading.metrics(found["metrics"], f"{where}.metrics"),
        worker_metrics=reading.metrics(found["worker_metrics"], f"{where}.worker_metrics"),
        bytes_in=reading.integer(found["bytes_in"], f"{where}.bytes_in"),
        bytes_out=reading.integer(found["bytes_out"], f"{where}.bytes_out"),
        workers=tuple(
            _worker(item, f"{where}.workers[{at}]") for at, item in reading.items(found["workers"], f"{where}.workers")
        ),
        findings=tuple(
            _finding(item, f"{where}.findings[{at}]")
            for at, item in reading.items(found["findings"], f"{where}.findings")
        ),
        saturated=reading.integer(found["saturated"], f"{where}.saturated"),
        sums=tuple(_sum(item, f"{where}.sums[{at}]") for at, item in reading.items(found["sums"], f"{where}.sums")),
        reason=reading.text(found["reason"], f"{where}.reason"),
        simulated_seconds=None if simulated is None else reading.number(simulated, f"{where}.simulated_seconds"),
    )


def _sum(document: object, where: str) -> SumRecord:
    found = reading.keys(document, {each.name for each in fields(SumRecord)}, where)
    return SumRecord(
        summands=reading.one_of(found["summands"], get_args(Summands), f"{where}.summands"),
        sid=reading.text(found["sid"], f"{where}.sid"),
        graph=reading.text(found["graph"], f"{where}.graph"),
        threshold=reading.integer(found["threshold"], f"{where}.threshold"),
        minimum=reading.integer(found["minimum"], f"{where}.minimum"),
        invited=_names(found["invited"], f"{where}.invited"),
        members=_names(found["members"], f"{where}.members"),
        reason=reading.text(found["reason"], f"{where}.reason"),
    )


def _names(document: object, where: str) -> tuple[str, ...]:
    return tuple(reading.text(item, f"{where}[{at}]") for at, item in reading.items(document, where))


def _finding(document: object, where: str) -> RoundFinding:
    found = reading.keys(document, {each.name for each in fields(RoundFinding)}, where)
    phase, summands = found.pop("phase"), found.pop("summands")
    summed = reading.one_of(summands, get_args(Summands), f"{where}.summands")
    texts = {name: reading.text(value, f"{where}.{name}") for name, value in found.items()}
    return RoundFinding(**texts, phase=-1 if phase == -1 else reading.integer(phase, f"{where}.phase"), summands=summed)


def _worker(document: object, where: str) -> WorkerRound:
    found = reading.keys(document, {each.name for each in fields(WorkerRound)}, where)
    return WorkerRound(
        worker=reading.text(found["worker"], f"{where}.worker"),
        status=reading.one_of(found["status"], get_args(WorkerStatus), f"{where}.status"),
        weight=reading.number(found["weight"], f"{where}.weight"),
        bytes_in=reading.integer(found["bytes_in"], f"{where}.bytes_in"),
        bytes_out=reading.integer(found["bytes_out"], f"{where}.bytes_out"),
        seconds=reading.number(found["seconds"], f"{where}.seconds"),
        metrics=reading.metrics(found["metrics"], f"{where}.metrics"),
        reason=reading.text(found["reason"], f"{where}.reason"),
        unmeasured=reading.text(found["unmeasured"], f"{where}.unmeasured"),
        gone=reading.one_of(found["gone"], (False, True), f"{where}.gone"),
        anew=reading.one_of(found["anew"], (False, True), f"{where}.anew"),
        staleness=reading.integer(found["staleness"], f"{where}.staleness"),
    )
