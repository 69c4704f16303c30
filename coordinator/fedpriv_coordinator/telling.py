"""A result in words: the lines that `print(result)` shows. It reads values and judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedpriv.errors import counted
from fedpriv_coordinator.experiment import Result, size_text

OF_THIS_RUN = "handshakes, announcements and statistics come before it"
OUTSIDE_ROUNDS = "handshakes, announcements, statistics and the last checkpoint come outside of rounds"
MORE_CLIP = "raise clip in secure aggregation, or scale what is trained"
AFTER_THE_RUN = "a worker's ledger can have more: its checkpoint as the run ends, and what never arrived"


def why_each(reasons: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield each reason once, after the workers that it holds for; "" is none."""
    found: dict[str, list[str]] = {}
    for worker, reason in reasons:
        if reason:
            found.setdefault(reason.removeprefix(f"worker {worker!r} "), []).append(worker)
    for reason, workers in found.items():
        yield f"{', '.join(workers)}: {reason}"


def summary(result: Result) -> Iterator[str]:
    """Yield the lines that `print(result)` shows."""
    rounds = result.history.rounds
    complete = sum(record.outcome == "complete" for record in rounds)
    abandoned = f", {len(rounds) - complete} abandoned" if complete < len(rounds) else ""
    yield f"{counted(complete, 'round')} complete{abandoned} in {sum(record.seconds for record in rounds):.1f} s"
    losses = [loss for loss in result.history.column("loss") if loss is not None]
    if losses:
        yield f"  training loss {losses[0]:.4f} -> {losses[-1]:.4f}"
    baseline = result.history.baseline or {}
    for name, value in rounds[-1].metrics.items() if rounds else ():
        beside = f" (all rows in one place: {baseline[name]:.4f})" if name in baseline else ""
        yield f"  {name} {value:.4f}{beside}"
    for name, value in rounds[-1].worker_metrics.items() if rounds else ():
        yield f"  {name} {value:.4f} on the workers' own validation rows"
    yield from _clipped(result)
    yield from _unmeasured(result)
    if result.privacy is not None:
        yield f"  {result.privacy.words}"
    received, sent = (sum(getattr(record, name) for record in rounds) for name in ("bytes_in", "bytes_out"))
    yield f"  rounds: received {size_text(received)} from the workers, sent {size_text(sent)} to them"
    for number, worker in ((record.number, part.worker) for record in rounds for part in record.workers if part.anew):
        yield f"  {worker} began anew in round {number}: what it kept for its strategy was gone"
    for lost in result.lost:
        yield f"  lost {lost.worker} in round {lost.round}: {lost.reason or 'no reason given'}"
    for worker in sorted({row.worker for row in result.egress}):
        rows = [row for row in result.egress if row.worker == worker]
        kinds = ", ".join(f"{row.messages} x {row.kind}" for row in rows)
        yield f"  left {worker}: {size_text(sum(row.bytes for row in rows))} in {kinds}"
    if result.egress:
        yield f"  (what came in this run: {OF_THIS_RUN}, and checkpoints outside of rounds;"
        yield f"  {AFTER_THE_RUN})"


def _clipped(result: Result) -> Iterator[str]:
    """Say how many numbers were out of bounds in sums, and what to do."""
    clipped = [record.saturated for record in result.history.rounds if record.saturated]
    if clipped:
        yield (
            f"  {counted(sum(clipped), 'number')} of the workers' out of bounds, and so clipped, in {len(clipped)} of "
            f"{counted(len(result.history.rounds), 'round')}: {MORE_CLIP}"
        )


def _unmeasured(result: Result) -> Iterator[str]:
    """Say which worker gave no metrics of the model, in how many rounds, and why in the last of them."""
    rounds = result.history.rounds
    parts = [part for record in rounds for part in record.workers if part.unmeasured]
    for worker in sorted({part.worker for part in parts}):
        found = [part.unmeasured for part in parts if part.worker == worker]
        yield f"  no metrics from {worker} in {len(found)} of {len(rounds)} rounds: {found[-1]}"
