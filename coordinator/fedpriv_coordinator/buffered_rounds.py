"""The steps of an asynchronous run: orders that outlive the step in which they were sent, and buffers that fill.

What a worker is asked carries the number of the step under way when it was asked. A step is over as soon as its buffer
is full; who is still training goes on with the model that it has. When the run ends, what is under way is given up: its
worker may have released an update that nobody uses, and its ledger says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Buffered, Contribution, Gathering
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Update
from fedpriv_coordinator.asking import Asking, Part
from fedpriv_coordinator.buffering import Action, Begin, Between, Event, Fold, State, Terms, advance
from fedpriv_coordinator.course import FoldUpdate, Return
from fedpriv_coordinator.pacing import Pacing
from fedpriv_coordinator.round import Ask, Leave, Returned, Tick
from fedpriv_coordinator.round_records import Gathered

Contribute = Callable[[WorkerName, int, TensorSet], Awaitable[Update]]
"""Ask a worker for an update of a model, in the round of a number."""


class BufferedRounds:
    """An asynchronous run under way, one step after the other; `stop` ends what is left of it."""

    def __init__(
        self,
        buffered: Buffered,
        *,
        deadline_seconds: float,
        contribute: Contribute,
        asking: Asking,
        fold: FoldUpdate,
        pacing: Pacing,
        back: Return | None,
        steps: int = 0,
    ) -> None:
        """Begin after `steps`; `back` returns when a worker that was lost is connected again, None: it cannot be."""
        terms = Terms(buffered.size, deadline_seconds, buffered.order, returning=back is not None)
        self._state: State = Between(terms, steps)
        self._contribute = contribute
        self._asking = asking
        self._fold = fold
        self._pacing = pacing
        self._back = back
        self._parts: dict[WorkerName, Part] = {}  # of who has an order or an update here
        self._rounds: dict[WorkerName, int] = {}  # in which each was asked
        self._over: dict[WorkerName, int] = {}

    async def gather(self, number: int, model: TensorSet, workers: Sequence[WorkerName]) -> Gathered:
        """Give `model` to those of `workers` that have no order, and return what fills the buffer."""
        gathering, ended = Gathering(), dict[WorkerName, Part]()
        event: Event = Begin(tuple(workers), self._pacing.monotonic())
        while True:
            self._state, actions = advance(self._state, event)
            for action in actions:
                self._perform(action, number, model, gathering, ended)
            if isinstance(self._state, Between):
                break
            event = await self._pacing.next(self._state.deadline) or Tick(self._state.deadline)
        if self._state.reason:
            ended |= {worker: part for worker, part in self._parts.items() if worker not in ended}
        return Gathered(ended, gathering, self._state.reason)

    def closing(self) -> dict[WorkerName, int]:
        """Return whose orders are over since this was asked last, by the round in which each was sent."""
        over, self._over = self._over, {}
        return over

    async def stop(self) -> None:
        """Give up what is under way."""
        await self._pacing.stop()
        self._asking.arrivals.close()

    def _perform(
        self,
        action: Action,
        number: int,
        model: TensorSet,
        gathering: Gathering,
        ended: dict[WorkerName, Part],
    ) -> None:
        match action:
            case Ask(worker):
                part, self._rounds[worker] = Part(reason="its update is under way"), number
                self._parts[worker] = part
                work = self._asking.outcome(worker, part, lambda: self._contribute(worker, number, model))
                self._pacing.start(worker, number, work)
            case Fold(worker, staleness):
                part = ended[worker] = self._parts.pop(worker)
                part.status, part.reason, part.staleness = "folded", "", staleness
                delta = self._asking.arrivals.take(worker)
                self._fold(gathering, Contribution(delta, part.weight, part.loss, staleness))
                self._over[worker] = self._rounds.pop(worker)
            case Leave(worker, cause, reason):
                part = ended[worker] = self._parts.pop(worker)
                part.status, part.reason = cause, reason
                if cause == "lost" and self._back is not None:
                    self._pacing.watch(self._returned(worker, self._back))

    async def _returned(self, worker: WorkerName, back: Return) -> Returned:
        await back(worker)
        return Returned(worker)
