"""What a worker's abort means for whoever runs the round: the numbers of the round, and what would do.

An abort has a reason and a subject alone, so what the owner insists on is not known here: what the round offered is,
and which option of the job, or line of the owner's `worker.toml`, it was held against.
"""

from __future__ import annotations

from fedpriv.errors import counted
from fedpriv.ids import WorkerName
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import GraphKind
from fedpriv.secagg.messages import Abort
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.roster import Roster

PHASES = (
    "its keys",
    "its sealed shares",
    "its masked words",
    "its signature over who is in the sum",
    "the shares that take the masks off",
)
"""What a worker sends in each of the five phases of a round; an abort says before which it stopped."""
ROSTER_VERSION = "roster version "
"""Before the number of the roster that a worker accepted, in the subject of an abort about another one."""


def stopped(worker: WorkerName, abort: Abort, descriptor: Descriptor, roster: Roster) -> str:
    """Return that `worker` stopped, before what, why, and what would do."""
    subject = f" ({abort.subject})" if abort.subject else ""
    before = PHASES[min(abort.round, len(PHASES) - 1)]
    said = f"worker {worker!r} stopped before {before}: {abort.reason.value}{subject}"
    meaning = _meaning(abort, descriptor, roster)
    return f"{said}: {meaning}" if meaning else said


def _meaning(abort: Abort, descriptor: Descriptor, roster: Roster) -> str:
    """Return what the round offered and what would do, "" where the reason says all."""
    invited, enrolled = counted(descriptor.workers, "worker"), len(roster.keys)
    ask = "or ask the owner, whose log says what would do"
    match abort.reason:
        case Reason.COHORT_TOO_SMALL:
            return (
                f"{descriptor.least} of {invited} have to be in this sum, and its owner insists on more "
                f"(minimum_cohort and colluding in its worker.toml); raise minimum_workers, {ask}"
            )
        case Reason.THRESHOLD_TOO_LOW if descriptor.graph.kind is GraphKind.COMPLETE:
            stands = max(0, 2 * descriptor.threshold - descriptor.workers - 1)
            return (
                f"threshold {descriptor.threshold} of {invited} stands {stands} that collude, and its owner reckons "
                f"with more of the {enrolled} on the roster; raise colluding to the owner's share, {ask}"
            )
        case Reason.THRESHOLD_TOO_LOW | Reason.GRAPH_TOO_THIN:
            return (
                f"degree {descriptor.graph.degree} and threshold {descriptor.threshold} over {invited}, of whom "
                f"{descriptor.graph.lost} may be lost, are less than its owner's colluding share needs; raise "
                f'colluding to the owner\'s share, use graph "complete", {ask}'
            )
        case Reason.DESCRIPTOR_DIFFERS if abort.subject.startswith(ROSTER_VERSION):
            return _versions(abort.subject.removeprefix(ROSTER_VERSION), roster)
        case _:
            return ""


def _versions(accepted: str, roster: Roster) -> str:
    own = f"this run has version {roster.version} of the federation {roster.federation!r}"
    if accepted == str(roster.version):
        return f"{own}, and so has it, but another; have the administrator sign one of a higher version for all"
    return (
        f"{own}, and its owner accepted version {accepted}; whoever has the older one takes the newer: owners with "
        "fedpriv worker roster accept, the job with roster ="
    )
