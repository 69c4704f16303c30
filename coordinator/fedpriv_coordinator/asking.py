"""Asking one worker for an update: whatever comes of it becomes an event, and an update that can be used is kept.

A worker that is lost, refuses or sends something unusable costs its own contribution and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fedpriv.clock import Clock
from fedpriv.errors import PeerLost, WireError, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.wire.messages import Memory, Update
from fedpriv_coordinator.arrivals import Arrivals
from fedpriv_coordinator.experiment import WorkerStatus
from fedpriv_coordinator.round import Arrived, Failed

Inspect = Callable[[WorkerName, Update], str | None]


@dataclass(slots=True)
class Part:
    """One worker's part in a round, as far as it is known; `code` is the error code of one that refused.

    `memory` is what the worker says it found of what its strategy keeps there, `anew` that it had been kept before.
    """

    status: WorkerStatus = "unused"
    weight: float = 0.0
    loss: float | None = None
    seconds: float = 0.0
    reason: str = ""
    code: str = ""
    staleness: int = 0
    memory: Memory = Memory.NONE
    anew: bool = False


class Asking:
    """Turns answers into events; usable updates are in `arrivals` until they are folded."""

    def __init__(self, inspect: Inspect, clock: Clock) -> None:
        self.arrivals = Arrivals()
        self._inspect = inspect
        self._clock = clock

    async def outcome(self, worker: WorkerName, part: Part, ask: Callable[[], Awaitable[Update]]) -> Arrived | Failed:
        """Return what came of asking `worker`, and write down in `part` what is known of it."""
        started = self._clock.monotonic()
        try:
            return self._arrived(worker, part, await ask())
        except WorkerRefused as refusal:
            part.code = refusal.code
            return Failed(worker, "refused", str(refusal))
        except WireError as error:
            return Failed(worker, "rejected", str(error))
        except PeerLost as loss:
            return Failed(worker, "lost", str(loss))
        finally:
            part.seconds = self._clock.monotonic() - started

    def _arrived(self, worker: WorkerName, part: Part, update: Update) -> Arrived | Failed:
        unusable = self._inspect(worker, update)
        if unusable is not None:
            return Failed(worker, "rejected", f"its update cannot be used: {unusable}")
        self.arrivals.put(worker, update.delta)
        part.weight = update.weight
        part.loss = update.metrics.get("loss")
        part.memory = update.memory
        return Arrived(worker)
