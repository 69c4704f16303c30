"""One round as a state machine: who is asked, who counts, when it is over.

    Selecting --begin--> Collecting --> Complete
                              |
                              +-------> Abandoned

It promises that a round always ends, at its deadline at the latest; that it is complete exactly when at least
`quorum` updates were folded; and that updates are folded in order of worker name, whatever order they arrive in,
so that the next model does not depend on who was fastest. Where lost workers can come back, one that does is asked
again, a few times, and the round waits for them as long as it lacks its quorum. It holds no tensor, opens no link and
reads no clock: messages come in as events, what to do goes out as actions, and `coordinator` does it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fedpriv.errors import counted
from fedpriv.ids import WorkerName

MAXIMUM_RETURNS = 3
"""So often may a worker be lost and come back within one round before nobody waits for it."""

Cause: TypeAlias = Literal["lost", "refused", "rejected", "late"]
"""Why a worker did not contribute: gone, unwilling, unusable, or too slow."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed before the round: its number, how many updates it needs, how long it may take.

    `returning` says that a lost worker can come back, as those can that dial us. With `enough`, the round is over once
    so many updates are there, whoever is still awaited.
    """

    number: int
    quorum: int
    deadline_seconds: float
    returning: bool = False
    enough: int | None = None


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Start with the workers that are connected at `now` (monotonic seconds)."""

    workers: tuple[WorkerName, ...]
    now: float


@dataclass(frozen=True, slots=True)
class Arrived:
    """A usable update of `worker` is here."""

    worker: WorkerName


@dataclass(frozen=True, slots=True)
class Failed:
    """`worker` will not contribute to this round."""

    worker: WorkerName
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """`worker` was lost in this round and is connected again."""

    worker: WorkerName


@dataclass(frozen=True, slots=True)
class Tick:
    """It is `now` (monotonic seconds)."""

    now: float


Event: TypeAlias = Begin | Arrived | Failed | Returned | Tick


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the model to `worker` and ask for an update."""

    worker: WorkerName


@dataclass(frozen=True, slots=True)
class Fold:
    """Add the update of `worker` to the sum; its turn has come."""

    worker: WorkerName


@dataclass(frozen=True, slots=True)
class Leave:
    """Go on without `worker` and record why."""

    worker: WorkerName
    cause: Cause
    reason: str


Action: TypeAlias = Ask | Fold | Leave


# --- states ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selecting:
    """Nobody was asked yet."""

    terms: Terms


@dataclass(frozen=True, slots=True)
class Collecting:
    """Updates are under way. The five sets are disjoint; together they are all workers that were asked.

    Who is `lost` may still come back; who is `left` is out of this round for good. `returns` names each return.
    """

    terms: Terms
    deadline: float
    waiting: frozenset[WorkerName]
    arrived: frozenset[WorkerName] = frozenset()
    folded: tuple[WorkerName, ...] = ()
    lost: frozenset[WorkerName] = frozenset()
    left: frozenset[WorkerName] = frozenset()
    returns: tuple[WorkerName, ...] = ()


@dataclass(frozen=True, slots=True)
class Complete:
    """At least `quorum` updates are in the sum, in order of worker name."""

    terms: Terms
    folded: tuple[WorkerName, ...]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The round ended below its quorum; the model stays as it was."""

    terms: Terms
    reason: str


State: TypeAlias = Selecting | Collecting | Complete | Abandoned
Step: TypeAlias = tuple[State, tuple[Action, ...]]


def advance(state: State, event: Event) -> Step:
    """Return the state after `event` and what to do now."""
    match state:
        case Selecting():
            return _while_selecting(state, event)
        case Collecting():
            return _while_collecting(state, event)
        case Complete() | Abandoned():
            return state, ()  # late events are expected, not errors


def _while_selecting(state: Selecting, event: Event) -> Step:
    match event:
        case Begin(workers, now):
            chosen = sorted(set(workers))
            if len(chosen) < state.terms.quorum:
                reason = (
                    f"nobody was asked: {counted(len(chosen), 'worker')} there, and the quorum is {state.terms.quorum}"
                )
                return Abandoned(state.terms, reason), ()
            deadline = now + state.terms.deadline_seconds
            return Collecting(state.terms, deadline, frozenset(chosen)), tuple(Ask(worker) for worker in chosen)
        case Arrived() | Failed() | Returned() | Tick():
            return state, ()  # echoes of an earlier round


def _while_collecting(state: Collecting, event: Event) -> Step:
    match event:
        case Arrived(worker) if worker in state.waiting:
            return _settle(replace(state, waiting=state.waiting - {worker}, arrived=state.arrived | {worker}))
        case Failed(worker, "lost", reason) if worker in state.waiting and _may_return(state, worker):
            after, actions = _settle(replace(state, waiting=state.waiting - {worker}, lost=state.lost | {worker}))
            return after, (Leave(worker, "lost", reason), *actions)
        case Returned(worker) if worker in state.lost:
            again = (*state.returns, worker)
            back = replace(state, waiting=state.waiting | {worker}, lost=state.lost - {worker}, returns=again)
            return back, (Ask(worker),)
        case Failed(worker, cause, reason) if worker in state.waiting:
            return _leave(state, frozenset({worker}), cause, reason)
        case Tick(now) if now >= state.deadline:
            for_good = replace(state, lost=frozenset(), left=state.left | state.lost)
            return _leave(for_good, state.waiting, "late", f"no update within {state.terms.deadline_seconds:g} s")
        case Begin() | Arrived() | Failed() | Returned() | Tick():
            return state, ()  # said twice, too late, or not asked


def _may_return(state: Collecting, worker: WorkerName) -> bool:
    return state.terms.returning and state.returns.count(worker) < MAXIMUM_RETURNS


def _leave(state: Collecting, workers: frozenset[WorkerName], cause: Cause, reason: str) -> Step:
    gone = tuple(Leave(worker, cause, reason) for worker in sorted(workers))
    after, actions = _settle(replace(state, waiting=state.waiting - workers, left=state.left | workers))
    return after, gone + actions


def _settle(state: Collecting) -> Step:
    """Fold whose turn has come, and end the round when nobody is awaited or the quorum is out of reach."""
    usable = len(state.arrived) + len(state.folded)
    reachable = len(state.waiting) + len(state.lost) + usable
    if reachable < state.terms.quorum:
        asked = reachable + len(state.left)
        reason = (
            f"{len(state.left)} of {counted(asked, 'worker')} did not contribute; the quorum is {state.terms.quorum}"
        )
        return Abandoned(state.terms, reason), ()
    enough = state.terms.enough is not None and usable >= max(state.terms.enough, state.terms.quorum)
    if enough and (late := state.waiting | state.lost):
        gone = tuple(Leave(worker, "late", f"{usable} updates were there before") for worker in sorted(state.waiting))
        after, actions = _settle(replace(state, waiting=frozenset(), lost=frozenset(), left=state.left | late))
        return after, gone + actions
    over = not state.waiting and usable >= state.terms.quorum
    first_awaited = None if over else min(state.waiting | state.lost)
    turn = tuple(worker for worker in sorted(state.arrived) if first_awaited is None or worker < first_awaited)
    folds = tuple(Fold(worker) for worker in turn)
    folded = state.folded + turn
    if over:
        return Complete(state.terms, folded), folds
    return replace(state, arrived=state.arrived - set(turn), folded=folded), folds
