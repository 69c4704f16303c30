"""A worker's part in secure aggregation over one link: an invited order joins a round and is masked into its sum.

    join         admitted, the round's number durable -> keys; local training goes on meanwhile
    contribute   what training came to, once the shares are in -> masked, and let out, by the door
    hear         who is there, shares, who is in the sum, that all agree -> shares out, by the door, or an abort

A link takes part in one round at a time: an invitation to another ends the one before. Secrets of a round lie in memory
and are erased when it ends, aborts or loses its link, so a worker that was started again has dropped out. Whatever
leaves goes through the door; what the checks of the protocol find is signed, sent and logged with its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import FedprivError, ReleaseDenied, StorageFailed, UsageError
from fedpriv.policy.decision import Recipient
from fedpriv.sealed import Sealed
from fedpriv.secagg import client
from fedpriv.secagg.messages import Agreement, FromCoordinator, Masked, Unmask
from fedpriv.secagg.reasons import OutOfTurn
from fedpriv.transport.link import SealedLink
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.rounds import NO_MODEL, Summable
from fedpriv_worker.actions import Contribute, Execute
from fedpriv_worker.contribution import Contribution, contribution_of
from fedpriv_worker.enrolment import FUTURE_MILLISECONDS, Enrolment, expected
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
    """One round: the order that invited to it, how far the protocol is, and the words that wait to be masked.

    `admitted` is what the order reserved, from when it was carried out; `masked` says that it is settled.
    """

    order: Summable
    forecast: Forecast
    state: client.State
    own: Contribution | None = field(default=None, repr=False)
    admitted: Admitted | None = None
    masked: bool = False

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
        near = descriptor.round <= int(now * 1000) + FUTURE_MILLISECONDS
        key = f"{LAST_ROUND}{roster.federation}"
        last = worker.journal.rows.raise_to(key, descriptor.round) if near else descriptor.round
        name, terms = worker.facts.worker, enrolment.judged_by(last)
        step = client.begin(
            order.invite, own, name=name, identity=enrolment.identity, terms=terms, entropy=SystemEntropy()
        )
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
        return self._masked(part) if step.message is None else [self._told(step)]

    def contribute(self, action: Contribute, admitted: Admitted) -> list[Sealed]:
        """Hold what an order came to until it can be masked; give back what it reserved where its round is over."""
        part, enrolment = self.part, self._worker.enrolment
        if part is None or part.order is not action.order or part.over():
            self._give_up(admitted)
            return []
        part.admitted = admitted
        assert enrolment is not None  # it joined
        assert action.order.invite is not None
        descriptor = action.order.invite.descriptor
        price = admitted.price
        hides_rows = price is not None or self._worker.facts.datasets[action.order.dataset].rows is None
        weight = enrolment.weight(action.outcome, uniform=hides_rows or descriptor.vector.maximum_weight == 1)
        noise = None if price is None else price.noise
        try:
            part.own = contribution_of(action.outcome, weight, descriptor, SystemEntropy(), noise)
        except UsageError as error:  # it weighs more than the round declares
            return [self._withdrawn(part, str(error))]
        return self._masked(part)

    def end(self, why: str) -> None:
        """Erase what is left of the round under way, and give back what it reserved unless that was let out."""
        part, self.part = self.part, None
        if part is None:
            return
        if not isinstance(part.state, client.Finished | client.Aborted):
            client.withdraw(part.state, why)  # erases; what it would send is for nobody
        part.own = None
        if part.admitted is not None and not part.masked:
            self._give_up(part.admitted)

    def _masked(self, part: Part) -> list[Sealed]:
        """Return the words as the door masked them, once both they and the masks are there."""
        if not isinstance(part.state, client.Ready) or part.own is None:
            return []
        assert part.admitted is not None  # nothing is computed that was not
        try:
            part.state, sealed = self._worker.door.mask(
                part.state, part.own, part.order, part.forecast, self._recipient, part.admitted
            )
        except (ReleaseDenied, UsageError) as denial:
            return [self._withdrawn(part, str(denial))]
        part.own, part.masked = None, True
        return [sealed]

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
            self._worker.door.give_up(admitted, charged=False)


class Aggregation:
    """The rounds of one link as its conversation waits for them: worked on in another thread, one thing at a time."""

    def __init__(self, worker: Host, link: SealedLink, recipient: Recipient) -> None:
        self._worker = worker
        self._link = link
        self._rounds = Rounds(worker, recipient)
        self._turn = asyncio.Lock()

    async def join(self, action: Execute, admitted: Admitted) -> ErrorCode | None:
        """Begin the round of an admitted order and send what begins it; return why there is none, or None."""
        async with self._turn:
            joined = await asyncio.to_thread(self._rounds.join, action, admitted)
        if isinstance(joined, ErrorCode):
            return joined
        await self._send(joined)
        return None

    def takes_part(self, order: Order) -> bool:
        """Return whether the round that `order` invited to is the one under way; safe to ask from any thread."""
        part = self._rounds.part
        return part is not None and part.order is order and not part.over()

    async def hear(self, message: FromCoordinator) -> None:
        """Answer a message of the round."""
        await self._work(lambda: self._rounds.hear(message))

    async def contribute(self, action: Contribute, admitted: Admitted) -> None:
        """Put what an order came to into its round."""
        await self._work(lambda: self._rounds.contribute(action, admitted))

    async def leave(self, order: Order) -> None:
        """End the round of `order`, of which nothing comes; what it reserved is settled elsewhere."""
        if self.takes_part(order):
            async with self._turn:
                await asyncio.to_thread(self._rounds.end, "the order was not carried out")

    async def close(self) -> None:
        """End the round that is under way: its link is gone."""
        async with self._turn:
            await asyncio.to_thread(self._rounds.end, "the link ended")

    async def _work(self, work: Callable[[], list[Sealed]]) -> None:
        async with self._turn:
            outgoing = await asyncio.to_thread(work)
        for sealed in outgoing:
            await self._send(sealed)

    async def _send(self, sealed: Sealed) -> None:
        self._worker.reached(Step.SEND)
        await self._link.send(sealed)
        self._worker.reached(Step.SENT)
