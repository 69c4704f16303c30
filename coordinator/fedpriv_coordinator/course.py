"""The collecting part of one round: asks who `round` says, waits, folds when it is told to.

Everything that arrives becomes an event, every action is performed at once, and the loop ends when the state does.
A worker that comes back while the round lasts is asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Contribution, Gathering
from fedpriv.wire.messages import Update
from fedpriv_coordinator.asking import Asking, Part
from fedpriv_coordinator.pacing import Pacing
from fedpriv_coordinator.round import (
    Abandoned,
    Action,
    Ask,
    Begin,
    Collecting,
    Complete,
    Event,
    Fold,
    Leave,
    Returned,
    Selecting,
    State,
    Terms,
    Tick,
    advance,
)

Contribute = Callable[[WorkerName], Awaitable[Update]]
FoldUpdate = Callable[[Gathering, Contribution], None]
Return = Callable[[WorkerName], Awaitable[None]]


class Course:
    """One round under way; `parts` and `gathering` are whole once `run` returned."""

    def __init__(
        self,
        terms: Terms,
        *,
        contribute: Contribute,
        asking: Asking,
        fold: FoldUpdate,
        pacing: Pacing,
        back: Return,
        factors: Mapping[WorkerName, float] | None = None,
    ) -> None:
        """Make a course; `back` returns when a worker that was lost is connected again, if it ever is.

        An update counts by its weight times its worker's factor, 1 where `factors` has none.
        """
        self.parts: dict[WorkerName, Part] = {}
        self.gathering = Gathering()
        self._terms = terms
        self._contribute = contribute
        self._asking = asking
        self._fold = fold
        self._factors = factors or {}
        self._pacing = pacing
        self._back = back

    async def run(self, workers: Sequence[WorkerName]) -> Complete | Abandoned:
        """Ask `workers` and return how the round ended, at its deadline at the latest."""
        state: State = Selecting(self._terms)
        event: Event = Begin(tuple(workers), self._pacing.monotonic())
        try:
            while True:
                state, actions = advance(state, event)
                for action in actions:
                    self._perform(action)
                if isinstance(state, Complete | Abandoned):
                    return state
                if isinstance(state, Collecting):
                    event = await self._pacing.next(state.deadline) or Tick(state.deadline)
        finally:
            await self._pacing.stop()
            self._asking.arrivals.close()

    def _perform(self, action: Action) -> None:
        match action:
            case Ask(worker):
                part = self.parts[worker] = Part()
                work = self._asking.outcome(worker, part, lambda: self._contribute(worker))
                self._pacing.start(worker, self._terms.number, work)
            case Fold(worker):
                part = self.parts[worker]
                weight = part.weight * self._factors.get(worker, 1.0)
                self._fold(self.gathering, Contribution(self._asking.arrivals.take(worker), weight, part.loss))
                part.status = "folded"
            case Leave(worker, cause, reason):
                self.parts[worker].status = cause
                self.parts[worker].reason = reason
                if cause == "lost" and self._terms.returning:
                    self._pacing.watch(self._returned(worker))

    async def _returned(self, worker: WorkerName) -> Returned:
        """Turn the return of a lost worker into an event."""
        await self._back(worker)
        return Returned(worker)
