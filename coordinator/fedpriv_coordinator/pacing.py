"""In which order what workers answer counts, and what time it is then: as it comes, or as simulated devices would.

A pacing runs the asking as tasks and gives one event after the other to whoever advances a state machine. Under
simulated time each answer is computed by its worker as ever, and counts at the moment at which its device would have
given it; nobody waits for that moment. Simulated seconds say how runs compare, never how long anything took.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fedpriv.clock import Clock, ManualClock
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv_coordinator.round import Arrived, Failed, Returned

Came = Arrived | Failed | Returned
Work = Coroutine[Any, Any, Came]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """When a device answers an order, in simulated seconds after it, and whether it drops out instead."""

    seconds: float
    drops_out: bool = False


class Devices(Protocol):
    """How the devices of a simulation behave: a pure function, so that a simulation is the same at every replay."""

    def answer(self, worker: WorkerName, round_number: int) -> Answer:
        """Return when `worker` answers what it is asked in a round."""
        ...


class Pacing(Protocol):
    """The order of events of one course; all methods run on the loop's thread."""

    def monotonic(self) -> float:
        """Return the time by which deadlines are reckoned, in seconds."""
        ...

    def start(self, worker: WorkerName, round_number: int, work: Work) -> None:
        """Ask `worker`; what comes of it is an event."""
        ...

    def watch(self, work: Work) -> None:
        """Wait beside the asking for something to happen, such as a return."""
        ...

    async def next(self, deadline: float) -> Came | None:
        """Return the next event, or None when there is none until `deadline`."""
        ...

    async def stop(self) -> None:
        """End all that is under way."""
        ...


class AsItComes:
    """Events in the order in which they happen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: asyncio.Queue[Came] = asyncio.Queue()
        self._under_way: set[asyncio.Task[Came]] = set()

    def monotonic(self) -> float:
        """Return the clock's seconds."""
        return self._clock.monotonic()

    def start(self, worker: WorkerName, round_number: int, work: Work) -> None:
        """Ask a worker; whoever answers first is first."""
        del worker, round_number
        self.watch(work)

    def watch(self, work: Work) -> None:
        """Turn what `work` returns into an event."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def next(self, deadline: float) -> Came | None:
        """Return what comes first."""
        try:
            return await asyncio.wait_for(self._events.get(), max(0.0, deadline - self._clock.monotonic()))
        except TimeoutError:
            return None

    async def stop(self) -> None:
        """Cancel all that is under way."""
        await _cancelled(self._under_way)

    def _ended(self, task: asyncio.Task[Came]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            self._events.put_nowait(task.result())


@dataclass(order=True, slots=True)
class _Due:
    """An answer under way, ordered by when it is due and then by name; `work` is None for one that never comes."""

    at: float
    worker: WorkerName
    work: asyncio.Task[Came] | None = field(compare=False)


def _at_zero() -> ManualClock:
    return ManualClock(0.0)


@dataclass(frozen=True, slots=True)
class SimulatedTime:
    """Devices, and the simulated clock of the runs that they take part in."""

    devices: Devices
    clock: ManualClock = field(default_factory=_at_zero)


def simulated_time(devices: Devices | None, secure: object | None) -> SimulatedTime | None:
    """Return the time of a run with `devices`; raise `UsageError` for one of sums, whose rounds have more messages."""
    if devices is None:
        return None
    if secure is not None:
        raise UsageError(
            "simulated devices pace updates in clear, and secure_aggregation has messages of its own in every round; "
            "leave one of them out"
        )
    return SimulatedTime(devices)


class BySimulatedDevices:
    """Events in the order in which simulated devices would answer, on a simulated clock."""

    def __init__(self, simulated: SimulatedTime) -> None:
        self._devices = simulated.devices
        self._clock = simulated.clock
        self._due: list[_Due] = []

    def monotonic(self) -> float:
        """Return the simulated clock's seconds."""
        return self._clock.monotonic()

    def start(self, worker: WorkerName, round_number: int, work: Work) -> None:
        """Ask a worker, unless its device drops out: then nobody is asked."""
        answer = self._devices.answer(worker, round_number)
        task = None
        if answer.drops_out:
            work.close()
        else:
            task = asyncio.create_task(work)
        heapq.heappush(self._due, _Due(self.monotonic() + answer.seconds, worker, task))

    def watch(self, work: Work) -> None:
        """Wait for nothing: a simulated device that dropped out is asked again in the next round."""
        work.close()

    async def next(self, deadline: float) -> Came | None:
        """Return what is due first, once it is computed, and set the clock to when it is due."""
        if not self._due or self._due[0].at > deadline:
            self._clock.advance(max(0.0, deadline - self.monotonic()))
            return None
        due = heapq.heappop(self._due)
        self._clock.advance(max(0.0, due.at - self.monotonic()))
        if due.work is None:
            return Failed(due.worker, "lost", "its simulated device dropped out")
        return await due.work

    async def stop(self) -> None:
        """Cancel all that is under way."""
        await _cancelled({each.work for each in self._due if each.work is not None})
        self._due.clear()


async def _cancelled(tasks: set[asyncio.Task[T]]) -> None:
    for task in (under_way := tuple(tasks)):
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
