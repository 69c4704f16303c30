"""An asynchronous run as a state machine: who trains on which model, and when the model steps.

    Between --begin--> Filling --> Between, with the workers of a step or the reason why there is none
       ^                  |
       +------------------+

A worker has one order at a time and trains on the model that it was last given; when its update is here it rests until
the next step begins. The model steps as soon as a buffer of updates is there, each from another worker, whoever is
still training: `Fold` says how many steps the model has taken since the worker was given its own. Updates are folded in
order of worker name, so that the next model depends on whose updates a step took and not on who was first among them.
Where `order` says whose those are, a step waits for them and for nobody else. A step that does not come within the
deadline is given up, and what is there stays there. It holds no tensor, opens no link and reads no clock;
`buffered_rounds` does what its actions say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from fedpriv.ids import WorkerName
from fedpriv_coordinator.round import Arrived, Ask, Failed, Leave, Returned, Tick

Given: TypeAlias = Mapping[WorkerName, int]
"""Workers by the number of steps that the model had taken when they were given it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How many updates a step takes, how long it may take, and whose updates those of the first rounds are.

    `returning` says that a lost worker can come back, as those can that dial us.
    """

    size: int
    deadline_seconds: float
    order: tuple[frozenset[WorkerName], ...] = ()
    returning: bool = False

    def wanted(self, steps: int) -> frozenset[WorkerName] | None:
        """Return whose updates the step after so many takes; None for the first that come."""
        return self.order[steps] if steps < len(self.order) else None


@dataclass(frozen=True, slots=True)
class Begin:
    """Fill a buffer with the workers that are connected at `now` (monotonic seconds)."""

    workers: tuple[WorkerName, ...]
    now: float


@dataclass(frozen=True, slots=True)
class Fold:
    """Add the update of `worker`, given a model that is `staleness` steps behind."""

    worker: WorkerName
    staleness: int


Event: TypeAlias = Begin | Arrived | Failed | Returned | Tick
Action: TypeAlias = Ask | Fold | Leave


@dataclass(frozen=True, slots=True)
class Between:
    """No buffer is being filled; the last one ended in a step, or for `reason` in none.

    `training` and `resting` are disjoint: who has an order, and whose update is here and not folded.
    """

    terms: Terms
    steps: int = 0
    training: Given = field(default_factory=dict)
    resting: Given = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Filling:
    """Updates of the next step are under way; `left` will not contribute before the next begin, unless they return."""

    terms: Terms
    steps: int
    deadline: float
    training: Given
    resting: Given
    left: frozenset[WorkerName] = frozenset()


State: TypeAlias = Between | Filling
Step: TypeAlias = tuple[State, tuple[Action, ...]]


def advance(state: State, event: Event) -> Step:
    """Return the state after `event` and what to do now."""
    match state:
        case Between():
            return _while_between(state, event)
        case Filling():
            return _while_filling(state, event)


def _while_between(state: Between, event: Event) -> Step:
    match event:
        case Begin(workers, now):
            idle = sorted(set(workers) - state.training.keys() - state.resting.keys())
            deadline = now + state.terms.deadline_seconds
            training = {**state.training, **dict.fromkeys(idle, state.steps)}
            after, actions = _settle(Filling(state.terms, state.steps, deadline, training, state.resting))
            return after, (*map(Ask, idle), *actions)
        case Arrived() | Failed() | Returned() | Tick():
            return state, ()  # whoever performs the actions asks for no event between two steps


def _while_filling(state: Filling, event: Event) -> Step:
    match event:
        case Arrived(worker) if worker in state.training:
            resting = {**state.resting, worker: state.training[worker]}
            return _settle(replace(state, training=_without(state.training, worker), resting=resting))
        case Failed(worker, cause, reason) if worker in state.training:
            gone = replace(state, training=_without(state.training, worker), left=state.left | {worker})
            after, actions = _settle(gone)
            return after, (Leave(worker, cause, reason), *actions)
        case Returned(worker) if worker in state.left:
            training = {**state.training, worker: state.steps}
            return replace(state, training=training, left=state.left - {worker}), (Ask(worker),)
        case Tick(now) if now >= state.deadline:
            there = len(state.resting)
            return _given_up(
                state, f"{there} updates within {state.terms.deadline_seconds:g} s, and a step takes {state.terms.size}"
            )
        case Begin() | Arrived() | Failed() | Returned() | Tick():
            return state, ()  # said twice, too late, or not asked


def _settle(state: Filling) -> Step:
    """Step where the buffer is full; give up where it cannot become full."""
    wanted = state.terms.wanted(state.steps)
    there, coming = state.resting.keys(), state.training.keys()
    if wanted is None and len(there) >= state.terms.size:
        wanted = frozenset(there)
    if wanted is not None and wanted <= there:
        folds = tuple(Fold(worker, state.steps - state.resting[worker]) for worker in sorted(wanted))
        rest = _without(state.resting, *wanted)
        return Between(state.terms, state.steps + 1, state.training, rest), folds
    if state.terms.returning:
        return state, ()
    if wanted is None and len(there) + len(coming) < state.terms.size:
        return _given_up(state, f"{len(there) + len(coming)} workers are left, and a step takes {state.terms.size}")
    if wanted is not None and (missed := wanted - there - coming):
        return _given_up(state, f"the step took an update of {', '.join(sorted(missed))} before, and there is none now")
    return state, ()


def _given_up(state: Filling, reason: str) -> Step:
    return Between(state.terms, state.steps, state.training, state.resting, reason), ()


def _without(given: Given, *workers: WorkerName) -> Given:
    return {worker: steps for worker, steps in given.items() if worker not in workers}


def folded(actions: Iterable[Action]) -> tuple[WorkerName, ...]:
    """Return whose updates `actions` fold, in order."""
    return tuple(action.worker for action in actions if isinstance(action, Fold))
