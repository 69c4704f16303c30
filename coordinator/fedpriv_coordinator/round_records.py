"""Records of rounds: what became of each worker's part, the means, and the bytes that went each way."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Gathering
from fedpriv.secagg.server_states import Finding
from fedpriv.wire.messages import Evaluation
from fedpriv_coordinator.asking import Part
from fedpriv_coordinator.experiment import RoundFinding, RoundRecord, Summands, SumRecord, WorkerRound
from fedpriv_coordinator.summing import Summed

Evaluations = Mapping[WorkerName, Evaluation | str]
"""What each worker measured, or the metrics that it was asked for and why it gave none."""
Traffic = Mapping[WorkerName, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a round gathered before the next model is made of it; `reason` says why it was abandoned, "" if not.

    `loss` is the mean training loss where only a sum is known.
    """

    parts: Mapping[WorkerName, Part]
    gathering: Gathering
    reason: str = ""
    loss: float | None = None
    saturated: int = 0
    findings: tuple[Finding, ...] = ()
    sums: tuple[SumRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What the workers measured on their own validation rows: each one's, or no more than the means."""

    evaluations: Evaluations = field(default_factory=dict)
    means: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    sums: tuple[SumRecord, ...] = ()


def sums_of(summands: Summands, summed: Summed) -> tuple[SumRecord, ...]:
    """Return the record of a sum, nothing for one that never began."""
    descriptor = summed.descriptor
    if descriptor is None:
        return ()
    return (
        SumRecord(
            summands=summands,
            sid=descriptor.sid.hex(),
            graph=descriptor.graph.kind.value,
            threshold=descriptor.threshold,
            minimum=descriptor.minimum_cohort,
            invited=tuple(sorted(summed.invited)),
            members=summed.members,
            reason=summed.reason,
        ),
    )


def record_of(
    number: int,
    gathered: Gathered,
    measured: Measured,
    before: Traffic,
    after: Traffic,
    seconds: float,
    present: Container[WorkerName],
) -> RoundRecord:
    """Return the record of a round; bytes are what the counters gained since it began, `present` is who is left."""
    workers = []
    for worker, part in sorted(gathered.parts.items()):
        received, sent = (now - then for now, then in zip(after[worker], before[worker], strict=True))
        metrics, unmeasured = _measured(measured.evaluations.get(worker, ""))
        workers.append(
            WorkerRound(
                worker,
                part.status,
                part.weight,
                received,
                sent,
                part.seconds,
                metrics,
                part.reason or ("" if worker in present else _went(part)),
                unmeasured,
                gone=worker not in present,
                staleness=part.staleness,
                anew=part.anew,
            )
        )
    return RoundRecord(
        number,
        "abandoned" if gathered.reason else "complete",
        seconds,
        loss=_loss(gathered),
        metrics={},
        worker_metrics=measured.means or _means(measured.evaluations),
        bytes_in=sum(each.bytes_in for each in workers),
        bytes_out=sum(each.bytes_out for each in workers),
        workers=tuple(workers),
        findings=_findings(gathered, measured),
        saturated=gathered.saturated,
        sums=(*gathered.sums, *measured.sums),
        reason=gathered.reason,
    )


def _went(part: Part) -> str:
    return "it went away once its part was in" if part.status == "folded" else "it went away"


def _measured(found: Evaluation | str) -> tuple[Mapping[str, float], str]:
    """Return a worker's metrics, or why it gave none."""
    return ({}, found) if isinstance(found, str) else (found.metrics, "")


def _findings(gathered: Gathered, measured: Measured) -> tuple[RoundFinding, ...]:
    updates = (_finding(each, "updates") for each in gathered.findings)
    return (*updates, *(_finding(each, "metrics") for each in measured.findings))


def _loss(gathered: Gathered) -> float | None:
    """Return the mean training loss, as far as workers said theirs."""
    folded = (part for part in gathered.parts.values() if part.status == "folded")
    losses = [(part.weight, part.loss) for part in folded if part.loss is not None]
    return weighted_mean(losses) if gathered.loss is None else gathered.loss


def _finding(finding: Finding, summands: Summands) -> RoundFinding:
    abort = finding.abort
    return RoundFinding(
        worker=finding.worker,
        reason="" if finding.reason is None else finding.reason.value,
        explanation=finding.explanation,
        sid="" if abort is None else abort.sid.hex(),
        subject="" if abort is None else abort.subject,
        phase=-1 if abort is None else abort.round,
        signature="" if abort is None else abort.signature.hex(),
        summands=summands,
    )


def _means(evaluations: Evaluations) -> dict[str, float]:
    given = [each for each in evaluations.values() if isinstance(each, Evaluation)]
    names = sorted({name for evaluation in given for name in evaluation.metrics})
    return {name: mean for name in names if (mean := weighted_mean(_weighted(given, name))) is not None}


def _weighted(given: Iterable[Evaluation], name: str) -> list[tuple[float, float]]:
    return [(each.weight, each.metrics[name]) for each in given if name in each.metrics]


def weighted_mean(weighted: Sequence[tuple[float, float]]) -> float | None:
    """Return the weighted mean, or None of nothing."""
    total = sum(weight for weight, _ in weighted)
    return sum(weight * value for weight, value in weighted) / total if total > 0 else None
