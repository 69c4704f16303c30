"""A ledger as lineage: OpenLineage 2-0-2 run events, one run for each round of a job at a worker.

A run reads the worker's data sets and writes one data set for each recipient: what that recipient then has. START and
COMPLETE carry the times of its first and last message. Messages that derive from no data set are no part of it.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fedpriv import canonical
from fedpriv.cli.audit.choosing import dataset_of
from fedpriv.cli.audit.printing import iso_text
from fedpriv.ledger.entries import Entry

SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
STATISTICS = (
    "https://openlineage.io/spec/facets/1-0-2/OutputStatisticsOutputDatasetFacet.json"
    "#/$defs/OutputStatisticsOutputDatasetFacet"
)
PRODUCER = f"pkg:generic/fedpriv@{importlib.metadata.version('fedpriv')}"
UNNAMED = "unnamed"


@dataclass(slots=True)
class _Run:
    """The messages of one round of one job at one worker."""

    first: Entry
    last: Entry
    inputs: set[str] = field(default_factory=set)
    outputs: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.last = entry
        self.inputs.update(entry.draft.labels)
        self.outputs[entry.draft.peer] = self.outputs.get(entry.draft.peer, 0) + entry.draft.bytes


def run_events(entries: Iterable[Entry]) -> Iterator[dict[str, object]]:
    """Yield the events of each run once its last message was read; one run of each job is open at a time."""
    open_runs: dict[tuple[str, str, str], _Run] = {}
    for entry in entries:
        draft = entry.draft
        if not draft.labels:
            continue
        job = (entry.worker, draft.purpose, draft.sid)
        run = open_runs.get(job)
        if run is not None and run.first.draft.round != draft.round:
            yield from _events(open_runs.pop(job))
            run = None
        if run is None:
            run = open_runs[job] = _Run(entry, entry)
        run.add(entry)
    for run in open_runs.values():
        yield from _events(run)


def _events(run: _Run) -> Iterator[dict[str, object]]:
    first = run.first
    unique = canonical.digest("fedpriv/lineage/v1", first.worker, first.seq, first.time, first.digest)
    about = {
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_OID, unique.hex()))},
        "job": {"namespace": f"fedpriv/{first.worker}", "name": first.draft.purpose or UNNAMED},
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
    }
    inputs = [{"namespace": _holder(label), "name": dataset_of(label)} for label in sorted(run.inputs)]
    outputs = [_output(run, peer, size) for peer, size in sorted(run.outputs.items())]
    yield {"eventType": "START", "eventTime": iso_text(first.time), **about, "inputs": inputs}
    yield {"eventType": "COMPLETE", "eventTime": iso_text(run.last.time), **about, "inputs": inputs, "outputs": outputs}


def _holder(label: str) -> str:
    return f"fedpriv/{label.rpartition('/')[2] or label}"


def _output(run: _Run, peer: str, size: int) -> dict[str, object]:
    draft = run.first.draft
    number = f"/round-{draft.round}" if draft.round >= 0 else ""
    facet = {"_producer": PRODUCER, "_schemaURL": STATISTICS, "size": size}
    return {
        "namespace": f"fedpriv/{peer}",
        "name": f"{draft.purpose or UNNAMED}/{run.first.worker}{number}",
        "outputFacets": {"outputStatistics": facet},
    }
