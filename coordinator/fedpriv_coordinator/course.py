"""The collecting part of one round: asks who `round` says, waits, inspects, folds when it is told to.

Everything that arrives becomes an event, every action is performed at once, and the loop ends when the state does.
A worker that is lost, refuses or sends something unusable costs its own contribution and nothing else; one that comes
back while the round lasts is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.clock import Clock
from fedpriv.errors import PeerLost, WireError, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Contribution, Gathering
from fedpriv.occasion import about
from fedpriv.wire.messages import Update
from fedpriv_coordinator.arrivals import Arrivals
from fedpriv_coordinator.experiment import WorkerStatus
from fedpriv_coordinator.round import (
    Abandoned,
    Action,
    Arrived,
    Ask,
    Begin,
    Cause,
    Collecting,
    Complete,
    Event,
    Failed,
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
Inspect = Callable[[WorkerName, Update], str | None]
FoldUpdate = Callable[[Gathering, Contribution], None]
Return = Callable[[WorkerName], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Part:
    """One worker's part in a round, as far as it is known; `code` is the error code of one that refused."""

    status: WorkerStatus = "late"
    weight: float = 0.0
    loss: float | None = None
    seconds: float = 0.0
    reason: str = ""
    code: str = ""


class Course:
    """One round under way; `parts` and `gathering` are whole once `run` returned."""

    def __init__(
        self,
        terms: Terms,
        *,
        contribute: Contribute,
        inspect: Inspect,
        fold: FoldUpdate,
        clock: Clock,
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
        self._inspect = inspect
        self._fold = fold
        self._factors = factors or {}
        self._clock = clock
        self._back = back
        self._arrivals = Arrivals()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._asking: list[asyncio.Task[None]] = []

    async def run(self, workers: Sequence[WorkerName]) -> Complete | Abandoned:
        """Ask `workers` and return how the round ended, at its deadline at the latest."""
        state: State = Selecting(self._terms)
        event: Event = Begin(tuple(workers), self._clock.monotonic())
        try:
            while True:
                state, actions = advance(state, event)
                for action in actions:
                    self._perform(action)
                if isinstance(state, Complete | Abandoned):
                    return state
                if isinstance(state, Collecting):
                    event = await self._next_event(state.deadline)
        finally:
            for task in self._asking:
                task.cancel()
            await asyncio.gather(*self._asking, return_exceptions=True)
            self._arrivals.close()

    async def _next_event(self, deadline: float) -> Event:
        try:
            return await asyncio.wait_for(self._events.get(), max(0.0, deadline - self._clock.monotonic()))
        except TimeoutError:
            return Tick(deadline)

    def _perform(self, action: Action) -> None:
        match action:
            case Ask(worker):
                self.parts[worker] = Part()
                self._start(self._ask(worker))
            case Fold(worker):
                part = self.parts[worker]
                weight = part.weight * self._factors.get(worker, 1.0)
                self._fold(self.gathering, Contribution(self._arrivals.take(worker), weight, part.loss))
                self.parts[worker].status = "folded"
            case Leave(worker, cause, reason):
                self.parts[worker].status = cause
                self.parts[worker].reason = reason
                if cause == "lost" and self._terms.returning:
                    self._start(self._await(worker))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._asking.append(asyncio.create_task(work))

    async def _await(self, worker: WorkerName) -> None:
        """Turn the return of a lost worker into an event."""
        await self._back(worker)
        self._events.put_nowait(Returned(worker))

    async def _ask(self, worker: WorkerName) -> None:
        """Turn whatever comes of one request into an event."""
        started = self._clock.monotonic()
        try:
            with about(worker=worker, round=self._terms.number):
                update = await self._contribute(worker)
        except WorkerRefused as refusal:
            self.parts[worker].code = refusal.code
            event: Event = Failed(worker, "refused", str(refusal))
        except WireError as error:
            event = Failed(worker, "rejected", str(error))
        except PeerLost as loss:
            event = Failed(worker, "lost", str(loss))
        else:
            event = self._arrived(worker, update)
        self.parts[worker].seconds = self._clock.monotonic() - started
        self._events.put_nowait(event)

    def _arrived(self, worker: WorkerName, update: Update) -> Event:
        unusable = self._inspect(worker, update)
        if unusable is not None:
            cause: Cause = "rejected"
            return Failed(worker, cause, f"its update cannot be used: {unusable}")
        self._arrivals.put(worker, update.delta)
        self.parts[worker].weight = update.weight
        self.parts[worker].loss = update.metrics.get("loss")
        return Arrived(worker)
