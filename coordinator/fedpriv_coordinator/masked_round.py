"""One round of secure aggregation as a state machine: the protocol's own (`secagg.server`), and patience with it.

It promises that a round ends: each phase at its deadline at the latest, when whoever did not answer is left out, and
the round is abandoned as soon as too few are left. A worker that comes back in between stays out of it: its secrets
went with its link. It opens no link and reads no clock: messages come in as events, what to send goes out as actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fedpriv.ids import WorkerName
from fedpriv.secagg import server
from fedpriv.secagg.messages import FromCoordinator, FromWorker
from fedpriv.secagg.reasons import OutOfTurn
from fedpriv.secagg.server_states import (
    Abandoned,
    Advertising,
    Complete,
    Confirming,
    Masking,
    Running,
    Sharing,
    Turn,
    Unmasking,
)

_PHASES = (Advertising, Sharing, Masking, Confirming, Unmasking)


@dataclass(frozen=True, slots=True)
class Heard:
    """The link of `worker` brought a message."""

    worker: WorkerName
    message: FromWorker


@dataclass(frozen=True, slots=True)
class Gone:
    """`worker` is lost, or refused the order: nothing more of this round comes from it."""

    worker: WorkerName


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Heard | Gone | Tick


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to `worker`; an invitation goes with the order that it belongs to."""

    worker: WorkerName
    message: FromCoordinator


@dataclass(frozen=True, slots=True)
class Collecting:
    """A phase is under way until `deadline` (monotonic seconds)."""

    running: Running
    deadline: float


State: TypeAlias = Collecting | Complete | Abandoned
Step: TypeAlias = tuple[State, tuple[Send, ...]]


def begin(turn: Turn, now: float) -> Step:
    """Return the first state and the invitations, as `secagg.server.begin` made them, at `now`."""
    return _step(turn, None, now)


def advance(state: State, event: Event, now: float) -> Step:
    """Return the state after `event` at `now`, and what to send. What is not awaited changes nothing."""
    if not isinstance(state, Collecting):
        return state, ()
    match event:
        case Heard(worker, message):
            try:
                turn = server.receive(state.running, worker, message)
            except OutOfTurn:
                return state, ()  # late, repeated, or of a worker that does not count any more
        case Gone(worker):
            turn = server.lost(state.running, worker)
        case Tick():
            if now < state.deadline:
                return state, ()
            turn = server.close(state.running)
    return _step(turn, state, now)


def _step(turn: Turn, before: Collecting | None, now: float) -> Step:
    """Return the state of `turn`; a phase that begins has its own time."""
    sends = tuple(Send(worker, message) for worker, message in turn.outgoing)
    if isinstance(turn.state, Complete | Abandoned):
        return turn.state, sends
    if before is not None and type(before.running) is type(turn.state):
        return Collecting(turn.state, before.deadline), sends
    patience = turn.state.round.descriptor.deadlines_seconds[_PHASES.index(type(turn.state))]
    return Collecting(turn.state, now + patience), sends
