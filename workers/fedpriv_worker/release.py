"""The door: everything that leaves a worker leaves through here.

    decide -> make the bytes fresh -> record, durably -> seal

It promises that a value derived from private data leaves only if a rule of the owner permits it, to the peer
that the handshake proved, at this moment, whatever the session decided before; that no more leaves than the
rule says (the weight of an update, for one); that the ledger entry, with the exact number of bytes that go on the
wire, is durable before the first of them can be sent; and that what derives from nothing private is still recorded.
`Sealed` is made in this file and nowhere else, and a worker's link sends nothing else. It does not compute,
and it does not send.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from fedpriv.errors import ReleaseDenied
from fedpriv.labels import Label
from fedpriv.ledger.entries import Draft
from fedpriv.policy.decision import Ask, Deny, Recipient, decide
from fedpriv.policy.rules import PlainUpdate, Rule, cite, rounded_rows, weight_of
from fedpriv.sealed import Envelope, Sealed
from fedpriv.updates import TensorSet
from fedpriv.wire import codec
from fedpriv.wire.framing import framed_bytes
from fedpriv.wire.messages import (
    Announcement,
    AskStatistics,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    Hello,
    HelloProof,
    PlanAccepted,
    Statistics,
    Train,
    Update,
)
from fedpriv_worker.journal import Journal
from fedpriv_worker.session import Facts

Public: TypeAlias = Hello | HelloProof | Announcement | PlanAccepted | Failure | Goodbye
Private: TypeAlias = Update | Evaluation | Statistics

ENTRY_KEY_BYTES = 32
"""Length of the digest key that travels with an envelope, part of its size on the wire."""

UNIDENTIFIED = "unidentified"
"""The recipient of a hello: the peer has not yet proved who it is."""


@dataclass(frozen=True, slots=True)
class Door:
    """The one way out of a worker. Safe to call from any thread: it keeps nothing but the journal, which is."""

    facts: Facts
    journal: Journal

    def tell(self, message: Public, recipient: Recipient | None) -> Sealed:
        """Seal a message that derives from no private data; `recipient` is None before the peer is known."""
        name = UNIDENTIFIED if recipient is None else recipient.name
        return self._record(message, Draft(peer=name, method="Attach", kind=codec.kind_of(message), bytes=0))

    def release(
        self, message: Private, label: Label, request: Train | Evaluate | AskStatistics, recipient: Recipient
    ) -> Sealed:
        """Seal a value that derives from private data; raise `ReleaseDenied` unless rules permit all of it."""
        rules = tuple(self._permitted(ask) for ask in _asks(message, label, request, recipient))
        draft = Draft(
            peer=recipient.name,
            method="Attach",
            kind=codec.kind_of(message),
            bytes=0,
            labels=tuple(sorted(f"{origin.dataset}/{origin.principal}" for origin in label.origins)),
            policy=" ".join(cite(rule) for rule in rules if rule is not None),
            plan="" if isinstance(request, AskStatistics) else request.plan.hex(),
            round=-1 if isinstance(request, AskStatistics) else request.round,
            purpose=request.purpose,
        )
        return self._record(self._reduced(message, request, rules), draft)

    def _permitted(self, ask: Ask) -> Rule | None:
        decision = decide(ask, self.facts.rules)
        if isinstance(decision, Deny):
            raise ReleaseDenied(
                f"{ask.release} for {ask.recipient.name!r} stays here: {'; '.join(decision.reasons)}; "
                "add a rule to the data set's release list if it may leave"
            )
        return decision.rule

    def _reduced(
        self, message: Private, request: Train | Evaluate | AskStatistics, rules: tuple[Rule | None, ...]
    ) -> Private:
        """Return what the rules let through of `message`, made of fresh numbers."""
        match message:
            case Update():
                weight = next(
                    (weight_of(rule, int(message.weight)) for rule in rules if isinstance(rule, PlainUpdate)), 1.0
                )
                return replace(message, weight=weight, metrics=_plain(message.metrics), delta=_fresh(message.delta))
            case Evaluation():
                weight = self._announced_weight(request, int(message.weight))
                return replace(message, weight=weight, metrics=_plain(message.metrics))
            case Statistics():
                return replace(message, values=_fresh(message.values))

    def _announced_weight(self, request: Train | Evaluate | AskStatistics, rows: int) -> float:
        """Return the weight of an evaluation: its rows rounded down to tens, and 1 where the owner hides rows."""
        announced = self.facts.datasets[request.dataset].rows
        if announced is None:
            return 1.0
        return float(max(1, rounded_rows(rows)))

    def _record(self, message: Public | Private, draft: Draft) -> Sealed:
        """Write the ledger entry of `message`, wait until it is durable, and only then seal the bytes."""
        envelope = codec.encode(message)
        draft = replace(
            draft,
            bytes=framed_bytes(len(envelope.header), envelope.payload_bytes, entry=0, entry_key_bytes=ENTRY_KEY_BYTES),
        )
        receipt = self.journal.append(draft, envelope.header, envelope.payload)
        return Sealed(Envelope(envelope.header, envelope.payload, receipt.seq, receipt.key))


def _asks(
    message: Private, label: Label, request: Train | Evaluate | AskStatistics, recipient: Recipient
) -> tuple[Ask, ...]:
    """Return every permission that sending `message` needs, read from the message itself."""
    match message:
        case Update(metrics=metrics):
            update = Ask("update", label, recipient, (), request.purpose)
            return (update, Ask("metrics", label, recipient, tuple(metrics), request.purpose)) if metrics else (update,)
        case Evaluation(metrics=metrics):
            return (Ask("metrics", label, recipient, tuple(metrics), request.purpose),)
        case Statistics(values=values):
            kinds = tuple(name for name, _ in values)
            return (Ask("statistics", label, recipient, kinds, request.purpose),)


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
