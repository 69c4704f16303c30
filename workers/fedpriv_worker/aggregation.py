"""A worker's part in secure aggregation over one link: an invited order joins a round and is masked into its sum.

    join         admitted, every check passed, the round's number durable -> keys
    hear         who is there, shares -> masks: only now the order is carried out
    contribute   what it came to -> masked, and let out, by the door
    hear         who is in the sum, that all agree -> shares out, by the door, or an abort
    withdraw     an order of which nothing comes -> an abort, which does not say why

A link takes part in one round at a time: an invitation to another ends the one before. Nothing is computed before the
masks are there, so that nobody can hear from an abort, or its absence, how a computation on rows went. Secrets of a
round lie in memory and are erased when it ends, aborts or loses its link, so a worker that was started again has
dropped out. Whatever leaves goes through the door; what the checks of the protocol find is signed, sent and logged with
its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import FedprivError, ReleaseDenied, StorageFailed, UsageError
from fedpriv.policy.decision import Recipient
from fedpriv.sealed import Sealed
from fedpriv.secagg import client
from fedpriv.secagg.checks import Expectation
from fedpriv.secagg.messages import Agreement, FromCoordinator, Invite, Masked, Unmask
from fedpriv.secagg.reasons import OutOfTurn
from fedpriv.secagg.thresholds import colluding
from fedpriv.transport.link import SealedLink
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.rounds import NO_MODEL, Summable
from fedpriv_worker.actions import Contribute, Execute
from fedpriv_worker.contribution import contribution_of
from fedpriv_worker.enrolment import Enrolment, expected
from fedpriv_worker.forecast import Forecast, changed_specs
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import Order
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import Facts
from fedpriv_worker.steps import Reached, Step

log = logging.getLogger("fedpriv.worker")

LAST_ROUND = "last-round/"
"""Under this, in the journal, lies the last round of each federation: one that was begun is never begun again."""


class Host(Protocol):
    """The worker, as far as its parts in sums need it."""

    facts: Facts
    journal: Journal
    door: Door
    reached: Reached
    enrolment: Enrolment | None


@dataclass(slots=True)
class Part:
    """One round: the order that invited to it, and how far the protocol is; `admitted` once its words are masked."""

    order: Summable
    forecast: Forecast
    state: client.State
    admitted: Admitted | None = None

    def over(self) -> bool:
        """Return whether nothing more comes of the round."""
        return isinstance(self.state, client.Finished | client.Aborted)


class Rounds:
    """One link's rounds, one after the other; one thread at a time. What a method returns has to be sent, in order."""

    def __init__(self, worker: Host, recipient: Recipient) -> None:
        self._worker = worker
        self._recipient = recipient
        self.part: Part | None = None

    def join(self, action: Execute, admitted: Admitted) -> Sealed | ErrorCode:
        """Begin the round that an admitted order invites to; return its keys or its abort, or why there is neither."""
        worker, order, enrolment = self._worker, action.order, self._worker.enrolment
        assert isinstance(order, Summable)  # the session sends no other here, and none without an invitation
        assert order.invite is not None
        descriptor = order.invite.descriptor
        try:
            if enrolment is None:
                raise UsageError("this worker takes part in no sums; add [secure_aggregation] to worker.toml if it may")
            roster, now = enrolment.roster(), worker.journal.now()
            own = expected(
                order,
                roster,
                model=bytes.fromhex(admitted.model) or NO_MODEL,
                changed=() if action.plan is None else changed_specs(action.plan),
                features=len(worker.facts.datasets[order.dataset].features),
                noise=None if admitted.price is None else admitted.price.noise,
                now=now,
            )
        except FedprivError as error:
            log.warning("request %d of %s: %s", action.number, self._recipient.name, error)
            return ErrorCode.NOT_ENROLLED
        hostile = colluding(len(roster.keys), enrolment.terms.colluding_share)
        if admitted.price is not None and admitted.price.colluders is not None and admitted.price.colluders < hostile:
            log.warning(
                "request %d: its noise counts on too many: of the roster %d may collude", action.number, hostile
            )
            return ErrorCode.BAD_REQUEST
        key, rows = f"{LAST_ROUND}{roster.federation}", worker.journal.rows
        step = self._begun(order.invite, own, enrolment, before := rows.highest(key))
        if isinstance(step.state, client.Advertised) and (last := rows.raise_to(key, descriptor.round)) > before:
            step = self._begun(order.invite, own, enrolment, last)  # another link began it in between
        self.end("another round begins")
        self.part = Part(order, action.forecast, step.state)
        return self._told(step)

    def hear(self, message: FromCoordinator) -> list[Sealed]:
        """Answer a message of the round; one that is late, repeated or of another round changes nothing."""
        part = self.part
        if part is None:
            log.info("a %s of %s came late and was dropped", type(message).__name__, self._recipient.name)
            return []
        try:
            if isinstance(message, Agreement) and isinstance(part.state, client.Confirmed):
                return self._unmasked(part, part.state, message)
            step = client.receive(part.state, message)
        except OutOfTurn as error:
            log.info("%s: %s", self._recipient.name, error)
            return []
        part.state = step.state
        return [] if step.message is None else [self._told(step)]

    def ready_for(self, order: Order) -> bool:
        """Return whether the masks are there for what `order` comes to."""
        part = self.part
        return part is not None and part.order is order and isinstance(part.state, client.Ready)

    def contribute(self, action: Contribute, admitted: Admitted) -> list[Sealed]:
        """Return the words of what an order came to as the door masked them; none where its round is over."""
        part, enrolment = self.part, self._worker.enrolment
        if part is None or part.order is not action.order or not isinstance(part.state, client.Ready):
            self._give_up(admitted)
            return []
        assert enrolment is not None  # it joined
        descriptor, price = part.state.own.descriptor, admitted.price
        hidden = price is not None or self._worker.facts.datasets[action.order.dataset].rows is None
        weight = enrolment.weight(action.outcome, 1 if hidden else descriptor.vector.maximum_weight)
        noise = None if price is None else price.noise
        try:
            own = contribution_of(action.outcome, weight, descriptor, SystemEntropy(), noise)
            part.state, sealed = self._worker.door.mask(
                part.state, own, part.order, part.forecast, self._recipient, admitted
            )
        except (ReleaseDenied, UsageError) as denial:
            self._give_up(admitted)
            return [self._withdrawn(part, str(denial))]
        part.admitted = admitted
        return [sealed]

    def withdraw(self, order: Order) -> list[Sealed]:
        """Stop in the round that `order` invited to, if it is under way: nothing comes of the order.

        What is signed is the same whatever the reason, so that a failure on somebody's rows says no more than any
        other. What the order reserved is settled elsewhere.
        """
        part = self.part
        if part is None or part.order is not order or part.over():
            return []
        return [self._withdrawn(part, "the order was not carried out")]

    def end(self, why: str) -> None:
        """Erase what is left of the round under way."""
        part, self.part = self.part, None
        if part is not None and not isinstance(part.state, client.Finished | client.Aborted):
            client.withdraw(part.state, why)  # what it would send is for nobody

    def _begun(self, invite: Invite, own: Expectation, enrolment: Enrolment, last: int) -> client.Step:
        """Return the first step of a round, when `last` is the highest that was ever begun."""
        name, terms = self._worker.facts.worker, enrolment.judged_by(last)
        return client.begin(invite, own, name=name, identity=enrolment.identity, terms=terms, entropy=SystemEntropy())

    def _unmasked(self, part: Part, state: client.Confirmed, agreement: Agreement) -> list[Sealed]:
        if agreement.sid != state.own.descriptor.sid:
            raise OutOfTurn("an Agreement of another session came; it was dropped")
        assert part.admitted is not None  # its words were masked
        try:
            part.state, sealed = self._worker.door.unmask(
                state, agreement, part.order, part.forecast, self._recipient, part.admitted
            )
        except ReleaseDenied as denial:
            return [self._withdrawn(part, str(denial))]
        self._log_abort(part.state)
        return [sealed]

    def _withdrawn(self, part: Part, explanation: str) -> Sealed:
        """Stop because this worker itself cannot go on; the peer is not told why."""
        assert not isinstance(part.state, client.Finished | client.Aborted)
        step = client.withdraw(part.state, explanation)
        part.state = step.state
        return self._told(step)

    def _told(self, step: client.Step) -> Sealed:
        """Record a message of the protocol that derives from nothing private."""
        assert step.message is not None
        assert not isinstance(step.message, Masked | Unmask)  # those the door makes itself
        self._log_abort(step.state)
        return self._worker.door.tell(step.message, self._recipient)

    def _log_abort(self, state: client.State) -> None:
        if isinstance(state, client.Aborted):
            log.warning("stopped in a round of %s: %s", self._recipient.name, state.explanation)

    def _give_up(self, admitted: Admitted) -> None:
        with suppress(StorageFailed):  # it then stays charged
            self._worker.door.give_up(admitted, begun=True)


class Aggregation:
    """The rounds of one link as its conversation waits for them: worked on in another thread, one thing at a time."""

    def __init__(self, worker: Host, link: SealedLink, recipient: Recipient) -> None:
        self._worker = worker
        self._link = link
        self._rounds = Rounds(worker, recipient)
        self._turn = asyncio.Condition()

    async def join(self, action: Execute, admitted: Admitted) -> ErrorCode | None:
        """Begin the round of an admitted order and send what begins it; return why there is none, or None."""
        async with self._turn:
            joined = await asyncio.to_thread(self._rounds.join, action, admitted)
            self._turn.notify_all()
        if isinstance(joined, ErrorCode):
            return joined
        await self._send(joined)
        return None

    async def masks_are_there(self, order: Order) -> bool:
        """Wait until what `order` comes to can be masked; return False where its round ended before."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._rounds.ready_for(order) or not self.takes_part(order))
            return self._rounds.ready_for(order)

    async def make_way(self, order: Summable) -> Summable | None:
        """End the round under way if `order` invites to another; return the order that had invited to it."""
        part = self._rounds.part
        if part is None or part.over() or part.order.invite == order.invite:
            return None
        async with self._turn:
            await asyncio.to_thread(self._rounds.end, "another round begins")
            self._turn.notify_all()
        return part.order

    def takes_part(self, order: Order) -> bool:
        """Return whether the round that `order` invited to is the one under way; safe to ask from any thread."""
        part = self._rounds.part
        return part is not None and part.order is order and not part.over()

    @property
    def is_under_way(self) -> bool:
        """Whether a round has begun and is not over."""
        part = self._rounds.part
        return part is not None and not part.over()

    async def hear(self, message: FromCoordinator) -> None:
        """Answer a message of the round."""
        await self._work(lambda: self._rounds.hear(message))

    async def contribute(self, action: Contribute, admitted: Admitted) -> None:
        """Put what an order came to into its round."""
        await self._work(lambda: self._rounds.contribute(action, admitted))

    async def withdraw(self, order: Order) -> None:
        """Stop in the round of `order`, of which nothing comes, and say so; what it reserved is settled elsewhere."""
        await self._work(lambda: self._rounds.withdraw(order))

    async def close(self) -> None:
        """End the round that is under way: its link is gone."""
        async with self._turn:
            await asyncio.to_thread(self._rounds.end, "the link ended")
            self._turn.notify_all()

    async def _work(self, work: Callable[[], list[Sealed]]) -> None:
        async with self._turn:
            outgoing = await asyncio.to_thread(work)
            self._turn.notify_all()
        for sealed in outgoing:
            await self._send(sealed)

    async def _send(self, sealed: Sealed) -> None:
        self._worker.reached(Step.SEND)
        await self._link.send(sealed)
        self._worker.reached(Step.SENT)
