"""The door: everything that leaves a worker leaves through here.

    admit: decide -> reserve, durably     compute     release: decide -> make fresh -> record, durably -> seal
                                                      mask: decide -> mask -> record, durably -> seal
                                                      unmask: check -> decide -> record, durably -> seal

It promises that a value derived from private data leaves only if a rule of the owner permits it, to the peer that the
handshake proved, at this moment, whatever was decided before; that what it uses up was reserved before it was computed
and is settled in the transaction that records it; that of a private order exactly what was paid for is executed, and
stands on record; that no more leaves than the rule says and than was foreseen; that the ledger entry, with the exact
number of bytes that go on the wire, is durable before the first of them can be sent; that an order which was answered
once gets the identical bytes again; that what was ordered into a sum leaves masked, once, or not at all, and the shares
that unmask the sum only when this worker's own checks passed; and that what derives from nothing private is still
recorded. `Sealed` is made in this file and nowhere else, and a worker's link sends nothing else. It does not compute,
and it does not send.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from fedpriv.errors import ReleaseDenied, ReleaseLost
from fedpriv.ids import DatasetName
from fedpriv.labels import Label
from fedpriv.ledger.entries import NO_SPEND, Draft, PrivacySpend
from fedpriv.policy.decision import NOTHING_STANDS, Ask, Deny, Permit, Recipient, Standing, decide
from fedpriv.policy.rules import DifferentialPrivacy, Rule, SecureSum, cite, rounded_rows, weight_of
from fedpriv.privacy.bills import event_of
from fedpriv.privacy.budget import Account
from fedpriv.privacy.reservations import DAY_SECONDS, Limit, Reservation, State
from fedpriv.sealed import Envelope, Sealed
from fedpriv.secagg import client
from fedpriv.secagg.messages import Abort, Advertise, Agreement, Confirm, Masked, Shares, Unmask
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire import codec
from fedpriv.wire.framing import framed_bytes
from fedpriv.wire.messages import (
    Announcement,
    BudgetLeft,
    Checkpoint,
    Evaluation,
    Failure,
    Goodbye,
    Hello,
    HelloProof,
    Mock,
    PlanAccepted,
    Statistics,
    Train,
    Update,
)
from fedpriv.wire.rounds import Summable
from fedpriv.wire.values import Objects, SessionOpen, Ticket, Value
from fedpriv_worker.contribution import Contribution
from fedpriv_worker.forecast import ENTRY_KEY_BYTES, Forecast
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import (
    Answer,
    Owed,
    asks_in,
    asks_of,
    kind_of_value,
    model_digest,
    order_digest,
    place_of,
)
from fedpriv_worker.outbox import DURABLE_BYTES, Kept
from fedpriv_worker.pricing import Price
from fedpriv_worker.recording import Settlement
from fedpriv_worker.session import Facts

Protocol: TypeAlias = Advertise | Shares | Confirm | Abort
"""Of a round of secure aggregation: public keys, sealed shares of fresh secrets, signatures. Nothing of the rows."""
Public: TypeAlias = (
    Hello
    | HelloProof
    | Announcement
    | PlanAccepted
    | BudgetLeft
    | Checkpoint
    | SessionOpen
    | Objects
    | Ticket
    | Failure
    | Goodbye
    | Protocol
)

UNIDENTIFIED = "unidentified"
"""The recipient of a hello: the peer has not yet proved who it is."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An order that may be carried out: what it reserved, under which number, and the digest of its model in hex.

    `number` is None where nothing is used up, so that nothing had to be reserved. `price` is what has to be executed of
    a private order: what was reserved is its cost.
    """

    reservation: Reservation
    number: int | None
    model: str
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """The one way out of a worker. Safe to call from any thread: it keeps nothing but the journal, which is."""

    facts: Facts
    journal: Journal

    def tell(self, message: Public, recipient: Recipient | None) -> Sealed:
        """Seal a message that derives from no private data; `recipient` is None before the peer is known."""
        name = UNIDENTIFIED if recipient is None else recipient.name
        sid = message.sid.hex() if isinstance(message, Protocol) else ""
        return self._record(message, Draft(peer=name, method="Attach", kind=codec.kind_of(message), bytes=0, sid=sid))

    def admit(
        self, order: Owed, foreseen: Forecast, recipient: Recipient, price: Price | None = None
    ) -> Admitted | Sealed:
        """Reserve what carrying out `order` will use up, durably; return its answer instead where there was one.

        Raise `ReleaseDenied` when no rule permits it now or a limit is used up, `BudgetExceeded` when the budget is,
        and `ReleaseLost` for an answer that a crash took.
        """
        model = model_digest(order)
        release = order_digest(order, recipient, model)
        asks = asks_of(order, foreseen.label, recipient, price)
        if (again := self._again(release, asks, order.dataset)) is not None:
            return again
        permits = self._permitted(asks, self.journal.standing(order.dataset))
        place = place_of(order)
        reservation = Reservation(
            release, order.dataset, recipient.name, place.plan, place.job, place.round, _limits(permits),
            None if price is None else price.cost, self.facts.budgets.get(order.dataset), _ceiling(permits),
            whole=price is not None and price.whole,
        )  # fmt: skip  # one line of what is charged
        number = None if reservation.is_free else self.journal.reserve(reservation)
        return Admitted(reservation, number, model.hex(), price)

    def release(
        self, message: Answer, order: Owed, foreseen: Forecast, recipient: Recipient, admitted: Admitted
    ) -> Sealed:
        """Seal a value that derives from private data; raise `ReleaseDenied` unless rules permit all of it."""
        asks = asks_in(message, order, foreseen.label, recipient, admitted.price)
        permits = self._permitted_still(asks, order, admitted)
        message = self._reduced(message, order, [permit.rule for permit in permits])
        draft = self._draft(message, order, foreseen, recipient, admitted, permits)
        return self._record(message, draft, admitted, foreseen)

    def mask(
        self,
        state: client.Ready,
        own: Contribution,
        order: Summable,
        foreseen: Forecast,
        recipient: Recipient,
        admitted: Admitted,
    ) -> tuple[client.State, Sealed]:
        """Mask this worker's own words and seal them; raise `ReleaseDenied`, with nothing masked, unless rules permit.

        They are kept for nobody: what was lost on its way is never masked or sent again.
        """
        asks = asks_of(order, foreseen.label, recipient, admitted.price)
        permits = self._permitted_still(asks, order, admitted)
        step = client.submit(state, own.words)
        assert isinstance(step.message, Masked)  # all that `submit` makes
        draft = self._draft(step.message, order, foreseen, recipient, admitted, permits)
        return step.state, self._record(step.message, draft, admitted, foreseen)

    def unmask(
        self,
        state: client.Confirmed,
        agreement: Agreement,
        order: Summable,
        foreseen: Forecast,
        recipient: Recipient,
        admitted: Admitted,
    ) -> tuple[client.State, Sealed]:
        """Seal the shares that unmask the sum, or the abort of whoever was not shown that all agree on who is in it.

        Raise `ReleaseDenied`, with no share made, where the owner's rules would not let the sum out any more.
        """
        asks = asks_of(order, foreseen.label, recipient, admitted.price)
        permits = self._permitted_still(asks, order, admitted)
        step = client.receive(state, agreement)
        if isinstance(step.message, Unmask):
            draft = self._draft(step.message, order, foreseen, recipient, admitted, permits)
            return step.state, self._record(step.message, draft)
        assert isinstance(step.message, Abort)  # the other way that this ends
        return step.state, self.tell(step.message, recipient)

    def _permitted_still(self, asks: Iterable[Ask], order: Owed, admitted: Admitted) -> list[Permit]:
        """Return the permissions by the rules as they are now; raise `ReleaseDenied` where they are not as before."""
        permits = self._permitted(asks, self.journal.standing(order.dataset, without=admitted.number))
        if not set(_limits(permits)) <= set(admitted.reservation.limits):
            raise ReleaseDenied("the answer to this order stays here: the rules changed while it was computed")
        return permits

    def _draft(
        self,
        message: Answer | Masked | Unmask,
        order: Owed,
        foreseen: Forecast,
        recipient: Recipient,
        admitted: Admitted,
        permits: Iterable[Permit],
    ) -> Draft:
        """Return what the ledger says of a release, all but its size."""
        permits, place = tuple(permits), place_of(order)
        return Draft(
            peer=recipient.name,
            method="Attach",
            kind=codec.kind_of(message),
            bytes=0,
            labels=tuple(sorted(f"{origin.dataset}/{origin.principal}" for origin in foreseen.label.origins)),
            policy=" ".join(dict.fromkeys(cite(permit.rule) for permit in permits if permit.rule is not None)),
            approval=" ".join(sorted({permit.grant.digest for permit in permits if permit.grant is not None})),
            plan=place.plan,
            model=admitted.model,
            sid=message.sid.hex() if isinstance(message, Masked | Unmask) else "",
            round=place.round,
            dp=NO_SPEND if isinstance(message, Unmask) else _spend(admitted, self.journal),
            purpose=place.purpose,
            legal_basis=self.facts.legal_basis.get(order.dataset, ""),
        )

    def give_back(self, message: Value, label: Label, recipient: Recipient) -> Sealed:
        """Seal a value that its recipient asked back; raise `ReleaseDenied` unless nothing private is in it."""
        specs = message.values.specs
        ask = Ask("value", label, recipient, tuple(map(kind_of_value, specs)))
        self._permitted([ask], NOTHING_STANDS)
        own = replace(message, values=_fresh(message.values))
        return self._record(own, Draft(peer=recipient.name, method="Attach", kind=codec.kind_of(own), bytes=0))

    def give_up(self, admitted: Admitted, *, begun: bool, failed: bool = False) -> None:
        """End an order that nothing left for; give back what it reserved where that is certain.

        It stays charged where it `failed` on rows, since that tells something, and where it has a privacy cost and work
        on rows had `begun`: how long that took may have been seen. So does what was charged for a whole job, since a
        later round counts on it.
        """
        held = admitted.reservation
        charged = failed or held.whole or (begun and held.cost is not None)
        if admitted.number is not None:
            settle = self.journal.holds.forfeit if charged else self.journal.holds.cancel
            settle(admitted.number)

    def _permitted(self, asks: Iterable[Ask], standing: Standing) -> list[Permit]:
        """Return the permission for each of `asks`; raise `ReleaseDenied` with the reasons where one has none."""
        permits: list[Permit] = []
        for ask in asks:
            decision = decide(ask, self.facts.rules, standing)
            if isinstance(decision, Deny):
                raise ReleaseDenied(
                    f"{ask.release} for {ask.recipient.name!r} stays here: {'; '.join(decision.reasons)}; "
                    "add a rule to the data set's release list if it may leave"
                )
            permits.append(decision)
        return permits

    def _again(self, release: bytes, asks: Sequence[Ask], dataset: DatasetName) -> Sealed | None:
        """Return the answer that this very order got already, as a new message with the identical bytes, or None."""
        kept = self.journal.outbox.find(release) or self._kept(release)
        if kept is None:
            return None
        now = self.journal.standing(dataset)
        self._permitted(asks, replace(now, used={}))  # it was counted then
        (first,) = self.journal.entries(kept.entry, kept.entry + 1)
        draft = replace(first.draft, dp=NO_SPEND, source=kept.entry)
        receipt = self.journal.append(draft, kept.header, kept.payload)
        return Sealed(Envelope(kept.header, kept.payload, receipt.seq, receipt.key))

    def _kept(self, release: bytes) -> Kept | None:
        """Return what the disk keeps of a release that was charged; raise if it is under way, or lost."""
        held = self.journal.holds.live(release)
        if held is None:
            return None
        if held.state is State.RESERVED:
            raise ReleaseDenied("the same order is being carried out already; wait for its answer")
        bytes_kept = self.journal.holds.waiting(held.number)
        if bytes_kept is None:
            raise ReleaseLost(
                f"the answer to this order was recorded as entry {held.entry} and then lost with a crash; it is never "
                "made again: go on with another round"
            )
        header, payload = bytes_kept
        return Kept(held.recipient, held.job, held.round, held.entry, header, (memoryview(payload),))

    def _reduced(self, message: Answer, order: Owed, rules: Sequence[Rule | None]) -> Answer:
        """Return what the rules let through of `message`, made of fresh numbers."""
        match message:
            case Update():
                private = isinstance(order, Train) and order.privacy is not None
                weight = 1.0 if private else weight_of(rules[0], int(message.weight))
                return replace(message, weight=weight, metrics=_plain(message.metrics), delta=_fresh(message.delta))
            case Evaluation():
                weight = self._announced_weight(order, int(message.weight))
                return replace(message, weight=weight, metrics=_plain(message.metrics))
            case Statistics() | Mock() | Value():
                return replace(message, values=_fresh(message.values))

    def _announced_weight(self, order: Owed, rows: int) -> float:
        """Return the weight of an evaluation: its rows rounded down to tens, and 1 where the owner hides rows."""
        announced = self.facts.datasets[order.dataset].rows
        if announced is None:
            return 1.0
        return float(max(1, rounded_rows(rows)))

    def _record(
        self,
        message: Public | Answer | Masked | Unmask,
        draft: Draft,
        admitted: Admitted | None = None,
        foreseen: Forecast | None = None,
    ) -> Sealed:
        """Write the ledger entry of `message`, wait until it is durable, and only then seal the bytes."""
        envelope = codec.encode(message)
        length = len(envelope.header) + envelope.payload_bytes
        total = framed_bytes(len(envelope.header), envelope.payload_bytes, entry=0, entry_key_bytes=ENTRY_KEY_BYTES)
        if foreseen is not None:
            foreseen.check(draft.kind, _specs(message), total)
        settles, again = None, not isinstance(message, Masked)
        if admitted is not None and admitted.number is not None:
            settles = Settlement(admitted.number, keep=again and length <= DURABLE_BYTES)
        receipt = self.journal.append(replace(draft, bytes=total), envelope.header, envelope.payload, settles=settles)
        if admitted is not None and again:
            held = admitted.reservation
            kept = Kept(
                held.recipient, held.job, held.round, receipt.seq, envelope.header, envelope.payload,
                charged=settles is not None,
            )  # fmt: skip  # one line of facts
            self.journal.outbox.put(held.release, kept)
        return Sealed(Envelope(envelope.header, envelope.payload, receipt.seq, receipt.key))


def _limits(permits: Iterable[Permit]) -> tuple[Limit, ...]:
    """Return what `permits` use up, each once: an approval covers all of one message."""
    limits: dict[str, Limit] = {}
    for permit in permits:
        if permit.rule is not None and permit.rule.rounds_per_day is not None:
            limits[cite(permit.rule)] = Limit(cite(permit.rule), permit.rule.rounds_per_day, DAY_SECONDS)
        if permit.grant is not None:
            limits[permit.grant.digest] = Limit(permit.grant.digest, permit.grant.releases)
    return tuple(limits.values())


def _spend(admitted: Admitted, journal: Journal) -> PrivacySpend:
    """Return what the ledger says of a release's cost: its event, and all that was spent so far, this included."""
    price, reservation = admitted.price, admitted.reservation
    if price is None or price.cost is None:
        return NO_SPEND
    assert reservation.budget is not None  # it was charged
    account = Account(reservation.budget, journal.holds.spent(reservation.dataset))
    charged, beside = (False, ()) if admitted.number is None else journal.holds.beside(admitted.number)
    event = event_of(price.cost, reservation.budget, charged=charged, beside=beside)
    relation = f"{price.cost.relation} trusted" if price.cost.trusted else price.cost.relation
    return PrivacySpend(event, relation, f"{account.spent:.6g}", f"{reservation.budget.epsilon:g}")


def _ceiling(permits: Iterable[Permit]) -> float | None:
    """Return the most epsilon that a job may cost by the rules that permit it and what was approved, None for none."""
    most = [
        permit.rule.maximum_epsilon for permit in permits if isinstance(permit.rule, SecureSum | DifferentialPrivacy)
    ]
    most += [permit.grant.request.epsilon for permit in permits if permit.grant is not None]
    return min((each for each in most if each is not None), default=None)


def _specs(message: Public | Answer | Masked | Unmask) -> tuple[TensorSpec, ...]:
    match message:
        case Update(delta=tensors) | Statistics(values=tensors) | Mock(values=tensors) | Value(values=tensors):
            return tensors.specs
        case _:
            return ()


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics with every NaN the same NaN: its spare bits could carry something."""
    return {name: math.nan if math.isnan(value) else float(value) for name, value in metrics.items()}


def _fresh(tensors: TensorSet) -> TensorSet:
    """Return contiguous tensors without gradient, every NaN the same NaN."""
    fresh: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        own = tensor.detach().contiguous()
        if (own.dtype.is_floating_point or own.dtype.is_complex) and bool(torch.isnan(own).any()):
            own = torch.where(torch.isnan(own), torch.full_like(own, math.nan), own)
        fresh[name] = own
    return TensorSet(fresh)
