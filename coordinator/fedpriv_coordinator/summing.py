"""The shell of a round of secure aggregation: sends the orders, passes on the protocol's messages, hands out the sum.

It performs what `masked_round` says and reports who was in the sum and why others were not. What it learns of one
worker is who it is, when it answered, and masked words: it has no way to learn more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from fedpriv.clock import Clock
from fedpriv.errors import PeerLost, VerificationFailed, WireError, WorkerRefused, counted
from fedpriv.ids import WorkerName
from fedpriv.remote.connection import Connection
from fedpriv.secagg import server
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.messages import FromWorker, Invite
from fedpriv.secagg.reasons import Refused
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.server_states import Abandoned, Complete, Finding
from fedpriv.secagg.vector import Sum
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.rounds import Summable
from fedpriv_coordinator.asking import Part
from fedpriv_coordinator.masked_round import Collecting, Event, Gone, Heard, Send, Tick, advance, begin
from fedpriv_coordinator.round import Cause
from fedpriv_coordinator.secure_aggregation import SecureAggregation

Ready = Callable[[WorkerName], Awaitable[Connection]]
OrderFor = Callable[[WorkerName, Invite], Summable]


@dataclass(slots=True)
class Summed:
    """How a round ended: the sum, or why there is none; each worker's part, and what was found out about them.

    `descriptor` is what it was about, None where it never began, `invited` who was asked, `members` who is in the sum.
    """

    parts: dict[WorkerName, Part]
    sum: Sum | None = None
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    descriptor: Descriptor | None = None
    invited: tuple[WorkerName, ...] = ()
    members: tuple[WorkerName, ...] = ()


@dataclass(slots=True)
class Summing:
    """One round under way; `ready` returns a worker's connection once it knows the plan, `order_for` its order."""

    asked: SecureAggregation
    roster: Roster
    descriptor: Descriptor
    ready: Ready
    order_for: OrderFor
    clock: Clock
    parts: dict[WorkerName, Part] = field(default_factory=dict)
    _connections: dict[WorkerName, Connection] = field(default_factory=dict)
    _leaving: list[Callable[[], None]] = field(default_factory=list)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    _started: float = 0.0

    async def run(self, workers: Sequence[WorkerName]) -> Summed:
        """Run the round among `workers` and return how it ended."""
        self._started = self.clock.monotonic()
        self.parts = {worker: Part() for worker in workers}
        try:
            turn = server.begin(self.descriptor, self.roster, workers, self.asked.terms)
        except Refused as refusal:
            return Summed({}, reason=f"nobody was asked: {refusal}")
        state, sends = begin(turn, self.clock.monotonic())
        try:
            while True:
                for send in sends:
                    self._start(send)
                if not isinstance(state, Collecting):
                    return self._ended(state)
                event = await self._next_event(state.deadline)
                state, sends = await asyncio.to_thread(advance, state, event, self.clock.monotonic())
        finally:
            for leave in self._leaving:
                leave()
            for task in tuple(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def _next_event(self, deadline: float) -> Event:
        try:
            return await asyncio.wait_for(self._events.get(), max(0.0, deadline - self.clock.monotonic()))
        except TimeoutError:
            return Tick()

    def _start(self, send: Send) -> None:
        task = asyncio.create_task(self._send(send))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, send: Send) -> None:
        """Send one message; whoever cannot be reached is gone."""
        worker, message = send.worker, send.message
        try:
            if isinstance(message, Invite):
                connection = self._connections[worker] = await self.ready(worker)
                order = self.order_for(worker, message)
                self._leaving.append(await connection.invite(order, lambda event: self._hear(worker, event)))
            else:
                await self._connections[worker].tell(message)
        except (PeerLost, WorkerRefused) as error:
            self._hear(worker, error)
        except WireError as error:
            self._leave(worker, "rejected", str(error))

    def _hear(self, worker: WorkerName, event: FromWorker | WorkerRefused | PeerLost) -> None:
        match event:
            case WorkerRefused():
                self.parts[worker].code = event.code
                self._leave(worker, "refused", f"{event}{self._in_a_sum(event.code)}")
            case PeerLost():
                self._leave(worker, "lost", str(event))
            case _:
                self.parts[worker].seconds = self.clock.monotonic() - self._started
                self._events.put_nowait(Heard(worker, event))

    def _in_a_sum(self, code: str) -> str:
        """Return what a refusal means for a sum, where that is more than its own words."""
        if code == ErrorCode.SUM_TOO_SMALL.name:
            return f" (here {self.descriptor.least} of {counted(self.descriptor.workers, 'worker')} have to be in it)"
        if code == ErrorCode.RELEASE_DENIED.name:
            return " (what is summed leaves under the rule secure-sum, for this recipient and this purpose)"
        return ""

    def _leave(self, worker: WorkerName, cause: Cause, reason: str) -> None:
        part = self.parts[worker]
        if not part.reason:
            part.status, part.reason = cause, reason
        self._events.put_nowait(Gone(worker))

    def _ended(self, state: Complete | Abandoned) -> Summed:
        """Return how the round ended; who is in the sum stays in it, whatever became of it afterwards."""
        findings = tuple(state.round.findings)
        for finding in findings:
            part = self.parts[finding.worker]
            if not part.reason:
                part.reason = finding.explanation
                if finding.reason is not None and finding.holder is None:
                    part.status = "rejected" if finding.abort is None else "refused"
                elif finding.reason is None:
                    part.status = "late"
        without = Summed(self.parts, findings=findings, descriptor=self.descriptor, invited=tuple(self.parts))
        if isinstance(state, Abandoned):
            return replace(without, reason=state.explanation)
        for worker in state.members:
            self.parts[worker].status = "folded"
        try:
            return replace(without, sum=state.sum, members=state.members)
        except VerificationFailed as error:
            return replace(without, reason=str(error))
