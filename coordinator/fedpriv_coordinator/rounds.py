"""The rounds of one run, one after the other, on the researcher's thread.

A round is saved before anybody hears of it, and closed at the workers only then: a run that ends in between asks for
the same round again, under the same request numbers, and the workers answer with the bytes that they made once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from fedpriv.errors import PeerLost, RoundAbandoned, RoundRefused, UsageError, counted
from fedpriv.learning.strategies import Setting, Standing
from fedpriv.transport.runtime import runtime
from fedpriv_coordinator.coordinator import Concluded, Coordinator
from fedpriv_coordinator.experiment import RoundRecord
from fedpriv_coordinator.job import Job, load_tensors
from fedpriv_coordinator.journal import FINISHED, RunFolder, Saved
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.resting import IN_A_ROW, resting
from fedpriv_coordinator.telling import why_each

log = logging.getLogger("fedpriv.coordinator")

Evaluate = Callable[[nn.Module], Mapping[str, float]]
MAXIMUM_ABANDONED = 3
"""So many rounds in a row may fall below the quorum before a run gives up."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens here after each round: the caller's evaluation and observer, the run's folder, notes for people."""

    model: nn.Module = field(repr=False)
    evaluate: Evaluate | None
    on_round: Callable[[RoundRecord], object] | None
    folder: RunFolder | None
    note: Callable[[str], None]

    def measure(self, concluded: Concluded) -> dict[str, float]:
        """Return what the caller's evaluation says of the model after the round."""
        if self.evaluate is None:
            return {}
        load_tensors(self.model, concluded.standing.model)
        return {name: float(value) for name, value in self.evaluate(self.model).items()}

    def save(self, reached: Saved) -> None:
        """Make the round durable, where the run has a folder."""
        if self.folder is not None:
            self.folder.save(reached)

    def tell(self, record: RoundRecord) -> None:
        """Tell the observer; what it raises loses nothing."""
        if self.on_round is not None:
            self.on_round(record)


def begin(folder: RunFolder | None, fresh: Saved, *, resume: bool) -> Saved:
    """Return where to begin: `fresh`, or what the run folder had reached under the same plan and strategy.

    Raise `UsageError` for a folder that holds another run, or none to resume.
    """
    if not resume:
        if folder is not None and (holds := folder.holds):
            raise UsageError(
                f"{folder.folder} holds a run {holds}; name another folder with run="
                + ("" if holds == FINISHED else ", or go on with that run: resume=True")
            )
        return fresh
    if folder is None:
        raise UsageError("resume needs the folder of the run: pass run=... (or --resume RUN)")
    saved, plan = folder.load(), fresh.plan
    if saved.plan != plan:
        raise UsageError(
            f"{folder.folder} trained plan {saved.plan[:16]}, this job is plan {plan[:16]}: the model, loss, optimiser "
            "or schema changed; resume with what the run was started with"
        )
    if saved.strategy != fresh.strategy:
        raise UsageError(
            f"{folder.folder} was trained by {saved.strategy}, this job by {fresh.strategy}; resume with what the "
            "run was started with"
        )
    return replace(saved, history=replace(saved.history, before=saved.history.before + fresh.history.before))


def train(
    coordinator: Coordinator,
    members: Membership,
    job: Job,
    setting: Setting,
    reached: Saved,
    watch: Watch,
    after_round: Callable[[], None],
) -> Saved:
    """Run the rounds that are left and return what was reached; `after_round` is called once each is closed."""
    if done := len(reached.history.rounds):
        runtime.run(coordinator.close_round(done))  # whoever saved it may have ended before saying so
    try:
        for number in range(done + 1, job.rounds + 1):
            standing = Standing(setting, reached.model, reached.memory)
            _assemble(coordinator.needed, members, number, job, watch.note)
            concluded = _round(coordinator, members, number, reached, standing, job)
            record = replace(concluded.record, metrics=watch.measure(concluded))
            history = replace(reached.history, rounds=(*reached.history.rounds, record))
            reached = replace(
                reached, history=history, model=concluded.standing.model, memory=concluded.standing.memory
            )
            watch.save(reached)
            runtime.run(coordinator.close_round(number))
            after_round()
            watch.tell(record)
    finally:
        runtime.run(coordinator.end())
    return reached


def _assemble(needed: int, members: Membership, number: int, job: Job, note: Callable[[str], None]) -> None:
    """Wait for lost workers to come back where a round needs them; raise `RoundAbandoned` where they do not."""
    here = len(members.connected)
    if here >= needed:
        return
    lacking = f"{here} of {counted(len(members.expected), 'worker')} connected, and {needed} are needed"
    if not members.returning:
        raise RoundAbandoned(
            f"round {number} cannot begin: {lacking}; missing: {members.absent}, which nobody waits for, as they do "
            "not dial in; reach them with a new Federation and go on with resume=True, or lower the quorum"
        )
    note(f"round {number} waits, {job.deadline_seconds:g} s at most: {lacking}; missing: {members.absent}")
    try:
        runtime.run(members.wait_for(needed, job.deadline_seconds))
    except PeerLost as loss:
        raise RoundAbandoned(f"round {number} cannot begin: {loss}") from None


def _round(
    coordinator: Coordinator, members: Membership, number: int, course: Saved, standing: Standing, job: Job
) -> Concluded:
    """Run one round and return how it ended; raise where it was abandoned and no other would be better."""
    rested = resting(course.history.rounds, tuple(members.connected), coordinator.suffices)
    if rested:
        log.warning("round %d does not ask %s: lost in %d rounds in a row", number, ", ".join(sorted(rested)), IN_A_ROW)
    concluded = runtime.run(coordinator.run_round(number, standing, rested))
    if concluded.abandoned:
        _end_if_hopeless((*course.history.rounds, concluded.record), concluded, job)
    return concluded


def _end_if_hopeless(rounds: Sequence[RoundRecord], concluded: Concluded, job: Job) -> None:
    """Raise after an abandoned round that too many refused, that followed too many others, or that was the last."""
    last = rounds[-1]
    abandoned = f"the run ends with round {last.number}: {concluded.abandoned}"
    message = "; ".join((abandoned, *_awaited(concluded), *_reasons(last, concluded.pending)))
    willing = sum(part.status != "refused" for part in last.workers)
    if last.workers and willing < job.quorum:
        # owners decided, or have to; asking again does not change that
        raise RoundRefused(message)
    if leads_nowhere(rounds, job.rounds):
        raise RoundAbandoned(message)


def leads_nowhere(rounds: Sequence[RoundRecord], planned: int) -> bool:
    """Return whether too many rounds in a row were abandoned, or all that were planned."""
    recent = rounds[-MAXIMUM_ABANDONED:]
    in_a_row = len(recent) == MAXIMUM_ABANDONED and all(record.outcome == "abandoned" for record in recent)
    return in_a_row or (len(rounds) == planned and all(record.outcome == "abandoned" for record in rounds))


def _awaited(concluded: Concluded) -> Iterator[str]:
    """Yield whose owners have been asked and what they type, where that is why a round could not be."""
    if concluded.pending:
        several = len(concluded.pending) > 1
        yield (
            f"the owner{'s' if several else ''} of {', '.join(concluded.pending)} {'have' if several else 'has'} been "
            "asked (again, if an approval was used up or expired): there, `fedpriv worker requests` shows what for, "
            "and `fedpriv worker approve ID` lets it out (of a virtual worker: requests() and approve()); run again "
            "when they approved"
        )


def _reasons(record: RoundRecord, said: Collection[str]) -> Iterator[str]:
    """Return why each worker did not contribute, but for those of whom that was said."""
    return why_each((part.worker, part.reason) for part in record.workers if part.worker not in said)
