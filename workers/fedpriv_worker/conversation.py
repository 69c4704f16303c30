"""One peer's session at a worker: waits for whichever comes first, a message or an outcome, and performs what follows.

`session` decides, `worker` executes and `release` is the door; this is what carries from one to the other, in order.
When the link ends, what was being computed for it is never sent to anyone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fedpriv.errors import QuotaExceeded, StorageFailed
from fedpriv.ids import DatasetName
from fedpriv.occasion import about
from fedpriv.policy.decision import NOTHING_STANDS, Recipient
from fedpriv.privacy.budget import Account
from fedpriv.sealed import Sealed
from fedpriv.transport.link import SealedLink
from fedpriv.wire import codec
from fedpriv.wire.messages import (
    AskMock,
    AskStatistics,
    BudgetLeft,
    ErrorCode,
    Evaluate,
    Failure,
    Goodbye,
    Message,
    OfferPlan,
    Parting,
    Train,
)
from fedpriv.wire.plans import encode_plan
from fedpriv.wire.rounds import Summable
from fedpriv_worker.actions import (
    Acknowledge,
    Action,
    Answered,
    Broken,
    Close,
    Contribute,
    Execute,
    Hear,
    KeepCosignature,
    Loaded,
    Note,
    Outcome,
    Point,
    Publish,
    Release,
    ShowBudget,
    ShowCheckpoint,
    Tell,
    Validate,
)
from fedpriv_worker.aggregation import Aggregation
from fedpriv_worker.attached import Attached
from fedpriv_worker.enrolment import Enrolment
from fedpriv_worker.journal import Journal
from fedpriv_worker.leases import Leases
from fedpriv_worker.pace import Paces, pace_of
from fedpriv_worker.publishing import Publisher
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import (
    Facts,
    Session,
    executed,
    handle,
    open_session,
    unlisted,
)
from fedpriv_worker.sizes import largest_message
from fedpriv_worker.steps import Reached, Step

log = logging.getLogger("fedpriv.worker")

T = TypeVar("T")

_ORDERS = (OfferPlan, Train, Evaluate, AskStatistics, AskMock)
"""What a worker that drains does not begin."""

_TURNED_AWAY: Mapping[Parting, str] = {
    Parting.NOT_EXPECTED: "it expects no worker of this name; ask whoever runs it to add {name!r} to names under "
    "[workers] in the job, or dial with a certificate under a name that is there",
    Parting.NAME_TAKEN: "a worker called {name!r} is connected there already; stop that one, or dial with another "
    "certificate, under a name of its own",
    Parting.LEDGER_REFUSED: "this ledger of {name!r} is not the one that it saw before; restore the latest copy of the "
    "state folder, or tell whoever runs it why there is another",
}
"""What each code means for the owner, and what to do; nothing in it comes from the peer."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What carrying out a request came to, and what was admitted for it; `again` is the answer that it had before."""

    outcome: Outcome
    admitted: Admitted | None = None
    again: Sealed | None = None


class Host(Protocol):
    """The worker, as one conversation sees it; all methods run on the loop's thread."""

    facts: Facts
    journal: Journal
    leases: Leases
    publisher: Publisher
    reached: Reached
    paces: Paces
    closing: bool
    draining: asyncio.Event
    door: Door
    enrolment: Enrolment | None

    async def carry_out(
        self,
        action: Validate | Execute,
        recipient: Recipient,
        stopped: Callable[[], bool],
        admitted: Admitted | None = None,
    ) -> Carried:
        """Carry out one request, for which is reserved first unless it was `admitted`; raise `StorageFailed`."""
        ...

    async def admit(self, action: Execute, recipient: Recipient) -> Admitted | Carried:
        """Reserve for one order; return what came of it instead where it is not to be carried out."""
        ...

    async def aside(self, work: Callable[[], T]) -> T:
        """Do `work` on the journal."""
        ...

    async def seal(self, action: Tell | Release, recipient: Recipient, admitted: Admitted | None) -> Sealed:
        """Take a message through the door; raise `StorageFailed`."""
        ...

    async def give_up(self, admitted: Admitted, *, begun: bool) -> None:
        """Settle what an order reserved of which nothing leaves."""
        ...

    def bar(self, peer: Recipient, datasets: frozenset[DatasetName]) -> None:
        """Remember that `peer` lost the right to `datasets`."""
        ...

    def leave(self, carried: Iterable[asyncio.Task[Carried]]) -> None:
        """Let requests end that nobody waits for any more."""
        ...

    def with_bars(self, session: Session) -> Session:
        """Return the session knowing what its peer lost the right to."""
        ...


class Conversation:
    """One link's session, from the announcement to the end."""

    def __init__(self, worker: Host, link: SealedLink, recipient: Recipient) -> None:
        self._worker = worker
        self._link = link
        self._recipient = recipient
        self._executing: dict[asyncio.Task[Carried], int] = {}
        self._attached = Attached(worker, link, recipient)
        self._aggregation = Aggregation(worker, link, recipient)
        self.turned_away = False
        self._open = True
        self._over = False

    async def run(self) -> None:
        """Go on until the peer closes the link, breaks it, or says what no peer may say; or until we drained.

        A worker that drains takes no order more, sees through what it has begun, and closes the link.
        """
        session, actions = open_session(self._worker.facts, self._recipient)
        await self._perform(actions)
        receiving, draining = asyncio.create_task(self._receive()), asyncio.create_task(self._worker.draining.wait())
        try:
            while self._open and (self._executing or self._aggregation.is_under_way or not draining.done()):
                waited = {receiving, *self._executing, *(() if draining.done() else (draining,))}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for done in [task for task in self._executing if task.done()]:
                    session = await self._conclude(session, done)
                if receiving.done():
                    message = receiving.result()
                    if message is None:
                        return
                    if isinstance(message, Goodbye):
                        self._turned_away(message.reason)
                    session, actions = await self._handled(session, message)
                    await self._perform(actions)
                    receiving = asyncio.create_task(self._receive())
        except StorageFailed as error:
            log.error("nothing more leaves to %s: %s", self._recipient.name, error)  # noqa: TRY400 - no traceback
        finally:
            self._over = True
            self._worker.leave(self._executing)
            receiving.cancel()
            draining.cancel()
            ends = self._attached.close(), self._aggregation.close()
            await asyncio.gather(receiving, draining, *ends, return_exceptions=True)

    async def _conclude(self, session: Session, task: asyncio.Task[Carried]) -> Session:
        """Return the session after a request was carried out, its answer sent and what it reserved settled."""
        number = self._executing.pop(task)
        carried = task.result()
        requested = session.running[number]
        session, actions = executed(self._worker.with_bars(session), number, carried.outcome)
        if isinstance(carried.outcome, Loaded):
            self._link.raw.maximum_message_bytes = largest_message(session.plans.values())
        if carried.again is not None:
            await self._send(carried.again)
        if not any(isinstance(action, Release | Contribute) for action in actions):
            if isinstance(requested, Execute) and not isinstance(carried.outcome, Answered):
                await self._aggregation.withdraw(requested.order)
            if carried.admitted is not None:
                await self._worker.give_up(carried.admitted, begun=True)  # its peer lost the right to it meanwhile
        await self._perform(actions, carried.admitted)
        return session

    async def _handled(self, session: Session, message: Message) -> tuple[Session, tuple[Action, ...]]:
        """Return the session after `message` and what to do; an order that cannot be noted is not carried out."""
        if self._worker.draining.is_set() and isinstance(message, _ORDERS):
            return session, (Tell(Failure(message.request, ErrorCode.SHUTTING_DOWN)),)
        session, actions = await self._judged(session, message)
        match actions:
            case (Note() as note, action):
                noted = await self._worker.aside(lambda: self._note(note))
                return (session, (action,)) if noted else unlisted(session, action)
            case _:
                return session, actions

    async def _perform(self, actions: tuple[Action, ...], admitted: Admitted | None = None) -> None:
        for action in actions:
            await self._do(action, admitted)

    async def _do(self, action: Action, admitted: Admitted | None) -> None:
        worker = self._worker
        match action:
            case Validate() | Execute():
                with about(request=action.number):
                    self._executing[asyncio.create_task(self._carry_out(action))] = action.number
            case Note():
                raise AssertionError("an order is noted before anything is done about it")
            case Tell():
                _report(action, self._recipient)
                await self._link.send(await worker.seal(action, self._recipient, None))
            case Release():
                await self._send(await worker.seal(action, self._recipient, admitted))
            case Contribute() | Hear():
                await self._sum(action, admitted)
            case Acknowledge(job, round_number):
                await worker.aside(lambda: worker.journal.acknowledge(self._recipient.name, job, round_number))
            case Point(message, plans):
                self._open = await self._attached.pass_on(message, plans) and self._open
            case Publish() | ShowCheckpoint() | ShowBudget() | KeepCosignature():
                await self._show(action)
            case Close():
                self._open = False

    async def _carry_out(self, action: Validate | Execute) -> Carried:
        """Carry out one request; an order that invites to a sum only for as long as this worker takes part in it."""
        worker = self._worker
        if isinstance(action, Validate) or not action.invited:
            return await worker.carry_out(action, self._recipient, self._nobody_waits)
        order = action.order
        assert isinstance(order, Summable)  # nothing else invites
        if (before := await self._aggregation.make_way(order)) is not None:
            await _ended(self._executing, before)  # what it reserved is there again
        admitted = await worker.admit(action, self._recipient)
        if isinstance(admitted, Carried):
            return admitted
        code = await self._aggregation.join(action, admitted)
        if code is not None or not await self._aggregation.masks_are_there(order):
            await worker.give_up(admitted, begun=False)
            return Carried(Answered() if code is None else Broken(code))

        def stopped() -> bool:
            return self._nobody_waits() or not self._aggregation.takes_part(order)

        return await worker.carry_out(action, self._recipient, stopped, admitted)

    async def _sum(self, action: Contribute | Hear, admitted: Admitted | None) -> None:
        """Go on with the round of secure aggregation."""
        match action:
            case Contribute():
                assert admitted is not None  # nothing is computed that was not admitted
                await self._aggregation.contribute(action, admitted)
            case Hear(message):
                await self._aggregation.hear(message)

    async def _show(self, action: Publish | ShowCheckpoint | ShowBudget | KeepCosignature) -> None:
        """Publish the ledger, show it or what is left of a budget, or keep what the peer says of the ledger."""
        worker = self._worker
        match action:
            case Publish():
                worker.publisher.soon()
            case ShowCheckpoint(request):
                shown = Tell(await worker.publisher.show(request))
                await self._link.send(await worker.seal(shown, self._recipient, None))
            case ShowBudget(request, budget):
                spent = await worker.aside(lambda: worker.journal.holds.spent(request.dataset))
                left = BudgetLeft(request.request, None if budget is None else Account(budget, spent))
                await self._link.send(await worker.seal(Tell(left), self._recipient, None))
            case KeepCosignature(cosigned):
                await worker.publisher.keep(cosigned, self._recipient)

    async def _send(self, sealed: Sealed) -> None:
        """Send an answer that derives from private data."""
        self._worker.reached(Step.SEND)
        await self._link.send(sealed)
        self._worker.reached(Step.SENT)

    async def _receive(self) -> Message | None:
        """Return the next message, when its peer's pace allows it; None at the end."""
        envelope = await self._link.receive()
        if envelope is None:
            return None
        message = codec.decode(envelope)
        pace = pace_of(message, self._recipient, self._worker.facts.rules)
        await self._worker.paces.keep(self._recipient.name, pace)
        return message

    async def _judged(self, session: Session, message: Message) -> tuple[Session, tuple[Action, ...]]:
        """Return what `session` makes of a message, by what the owner's rules are judged by at this moment.

        In a thread where a price has to be found, which can take a while.
        """
        worker, standing = self._worker, NOTHING_STANDS
        if isinstance(message, Train | Evaluate | AskStatistics | AskMock):
            standing = await worker.aside(lambda: worker.journal.standing(message.dataset))
        known = worker.with_bars(session)
        if isinstance(message, Train) and message.privacy is not None:
            return await asyncio.to_thread(handle, known, message, standing)
        return handle(known, message, standing)

    def _nobody_waits(self) -> bool:
        """Whether what is being computed has lost its recipient; read from the training thread."""
        return self._over or self._worker.closing

    def _note(self, note: Note) -> bool:
        """Put a request before the owner, and return whether it is there: a peer may ask for too much at once."""
        journal, request = self._worker.journal, note.request
        try:
            if not journal.requests.again(request, permitted_by=note.permitted_by, now=journal.now()):
                plan = b"" if note.plan is None else encode_plan(note.plan)  # only now: a large one takes its time
                journal.requests.note(request, plan, permitted_by=note.permitted_by, now=journal.now())
        except QuotaExceeded as error:
            log.warning("request %s of %s is refused: %s", request.id, self._recipient.name, error)
            return False
        if not (note.permitted_by or note.again):
            log.warning("%s needs your approval: fedpriv worker explain %s", self._recipient.name, request.id)
        return True

    def _turned_away(self, reason: Parting) -> None:
        """Log why the peer ends the link, in our own words, and what this worker's owner can do about it."""
        if reason is not Parting.DONE:
            self.turned_away = True
            log.warning(
                "%s turned us away: %s",
                self._recipient.name,
                _TURNED_AWAY[reason].format(name=self._worker.facts.worker),
            )


async def _ended(executing: Mapping[asyncio.Task[Carried], int], order: Summable) -> None:
    """Wait until an order whose round is over has ended too."""
    if tasks := [task for task, number in executing.items() if number == order.request]:
        await asyncio.wait(tasks)


def _report(action: Tell, recipient: Recipient) -> None:
    """Log a refusal, so that the owner sees what was asked and not given."""
    if isinstance(action.message, Failure):
        failure = action.message
        log.warning("request %d of %s refused: %s", failure.request, recipient.name, failure.code.name)
