"""A history as a JSON document, and back; a document that does not read exactly is refused.

Every function that reads names the place in the document, and accepts nothing that `written` does not write.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args

from fedpriv.errors import UsageError
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

T = TypeVar("T")

FORMAT = "fedpriv/history/v1"


def written(history: History) -> str:
    """Return the history as JSON text; a number that is not finite is written as a string."""
    document = {
        "format": FORMAT,
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
    top = _keys(document, {"format", "rounds", "baseline"}, "history")
    if top["format"] != FORMAT:
        raise UsageError(f"history.format is {top['format']!r}, but this version reads {FORMAT!r}")
    baseline = top["baseline"]
    return History(
        tuple(_round(item, f"rounds[{at}]") for at, item in _items(top["rounds"], "rounds")),
        None if baseline is None else _metrics(baseline, "baseline"),
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
        sums=tuple(_sum(item, f"{where}.sums[{at}]") for at, item in _items(found["sums"], f"{where}.sums")),
    )


def _sum(document: object, where: str) -> SumRecord:
    found = _keys(document, {each.name for each in fields(SumRecord)}, where)
    return SumRecord(
        summands=_one_of(found["summands"], get_args(Summands), f"{where}.summands"),
        sid=_text(found["sid"], f"{where}.sid"),
        graph=_text(found["graph"], f"{where}.graph"),
        threshold=_integer(found["threshold"], f"{where}.threshold"),
        minimum=_integer(found["minimum"], f"{where}.minimum"),
        invited=_names(found["invited"], f"{where}.invited"),
        members=_names(found["members"], f"{where}.members"),
        reason=_text(found["reason"], f"{where}.reason"),
    )


def _names(document: object, where: str) -> tuple[str, ...]:
    return tuple(_text(item, f"{where}[{at}]") for at, item in _items(document, where))


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
