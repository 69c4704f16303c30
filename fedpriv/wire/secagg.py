"""Messages of secure aggregation to envelopes and back: a protobuf header, and the masked words as raw bytes.

`decode_secagg` accepts only what `encode_secagg` could have made: one message that it knows, without unknown, repeated
or reordered fields, with every count and length within its bound before anything is made of it. Whether keys, sets and
signatures are right is for the state machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from google.protobuf.message import DecodeError

from fedpriv.errors import UsageError, WireError
from fedpriv.ids import WorkerName, checked_name, checked_names
from fedpriv.sealed import Envelope
from fedpriv.secagg import messages as m
from fedpriv.secagg.descriptor import DIGEST_BYTES, Descriptor
from fedpriv.secagg.graph import GraphKind, GraphSpec
from fedpriv.secagg.keys import KEY_BYTES, SIGNATURE_BYTES
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.vector import Part, Treatment, VectorSpec
from fedpriv.wire.fields import text
from fedpriv.wire.framing import MAXIMUM_HEADER_BYTES
from fedpriv.wire.tensors import Payload, read_shape
from fedpriv.wire.v1 import secagg_pb2 as v1

MAXIMUM_WORKERS = 16_384
MAXIMUM_PARTS = 16_384
MAXIMUM_DEADLINES = 16
MAXIMUM_CIPHERTEXT_BYTES = 1024
MAXIMUM_SUBJECT = 160  # two workers' names and what joins them

Pack: TypeAlias = Callable[[Any, Any], None]
Unpack: TypeAlias = Callable[[bytes, Any], m.Message]


def encode_secagg(message: m.Message) -> Envelope:
    """Return `message` in its wire form; masked words must not be written to until it was sent."""
    header = v1.Secagg()
    payload: Payload = ()
    name, pack, _ = _KINDS[type(message)]
    body = getattr(header, name)
    body.SetInParent()
    pack(message, body)
    if not isinstance(message, m.Invite):
        header.sid = message.sid
    if isinstance(message, m.Masked):
        payload = (message.words.data.cast("B"),) if message.words.size else ()
    return Envelope(header.SerializeToString(deterministic=True), payload)


def decode_secagg(envelope: Envelope) -> m.Message:
    """Return the message in `envelope`; raise `WireError` unless it is one that `encode_secagg` could have made.

    Masked words share the payload's memory where it is one aligned piece.
    """
    if len(envelope.header) > MAXIMUM_HEADER_BYTES:
        raise WireError(f"a header of {len(envelope.header)} bytes; {MAXIMUM_HEADER_BYTES} at most are accepted")
    header = v1.Secagg()
    try:
        header.ParseFromString(envelope.header)
    except DecodeError:
        raise WireError("a header is not a protobuf Secagg") from None
    field = header.WhichOneof("body")
    if field is None:
        raise WireError("a header holds no message of secure aggregation that this fedpriv knows")
    header.DiscardUnknownFields()
    if header.SerializeToString(deterministic=True) != envelope.header:
        raise WireError(f"a {field} message has unknown, repeated or reordered fields; both sides need one version")
    if field != "masked" and envelope.payload_bytes:
        raise WireError(f"a {field} message carries {envelope.payload_bytes} payload bytes, but none belong to it")
    try:
        sid = b"" if field == "invite" else _exactly(header.sid, DIGEST_BYTES, "a session's id")
        if field == "invite" and header.sid:
            raise WireError("an invite names a session besides the one that its descriptor gives")
        if field == "masked":
            return _masked(sid, header.masked, envelope.payload)
        return _UNPACK[field](sid, getattr(header, field))
    except (UsageError, ValueError, OverflowError):  # what the values themselves refuse; their texts may quote input
        raise WireError(f"a {field} message has a field that no such message can have") from None


def _pack_invite(invite: m.Invite, body: v1.SecaggDescriptor) -> None:
    d = invite.descriptor
    body.protocol, body.federation, body.privacy = d.protocol, d.federation, d.privacy
    body.roster, body.model, body.plan, body.round = d.roster, d.model, d.plan, d.round
    for part in d.vector.parts:
        body.parts.add(
            name=part.name,
            dtype=part.dtype,
            shape=part.shape,
            bound=part.bound,
            fraction_bits=part.fraction_bits,
            treatment=part.treatment.value,
        )
    body.maximum_weight, body.noise_bound = d.vector.maximum_weight, d.vector.noise_bound
    body.modulus_bits, body.workers, body.threshold = d.modulus_bits, d.workers, d.threshold
    body.minimum_cohort = d.minimum_cohort
    body.graph.kind, body.graph.degree, body.graph.lost = d.graph.kind.value, d.graph.degree, d.graph.lost
    body.deadlines_seconds.extend(d.deadlines_seconds)


def _invite(_: bytes, body: v1.SecaggDescriptor) -> m.Invite:
    _at_most(len(body.parts), MAXIMUM_PARTS, "parts")
    _at_most(len(body.deadlines_seconds), MAXIMUM_DEADLINES, "deadlines")
    parts = tuple(map(_part, body.parts))
    return m.Invite(
        Descriptor(
            federation=text(body.federation),
            roster=_exactly(body.roster, DIGEST_BYTES, "a roster's digest"),
            round=body.round,
            model=_exactly(body.model, DIGEST_BYTES, "a model's digest"),
            plan=_exactly(body.plan, DIGEST_BYTES, "a plan's digest"),
            vector=VectorSpec(parts, body.maximum_weight, body.noise_bound),
            modulus_bits=body.modulus_bits,
            workers=_at_most(body.workers, MAXIMUM_WORKERS, "workers"),
            threshold=body.threshold,
            minimum_cohort=body.minimum_cohort,
            graph=GraphSpec(GraphKind(body.graph.kind), body.graph.degree, body.graph.lost),
            privacy=text(body.privacy),
            deadlines_seconds=tuple(body.deadlines_seconds),
            protocol=text(body.protocol),
        )
    )


def _part(body: v1.SecaggPart) -> Part:
    return Part(
        name=text(body.name),
        shape=read_shape(body.shape),
        bound=body.bound,
        fraction_bits=body.fraction_bits,
        treatment=Treatment(body.treatment),
        dtype=body.dtype,
    )


def _pack_advertise(message: m.Advertise, body: v1.SecaggAdvertise) -> None:
    body.worker, body.signature, body.commitment = message.worker, message.signature, message.commitment
    body.sealing, body.masking = message.sealing, message.masking


def _advertise(sid: bytes, body: v1.SecaggAdvertise) -> m.Advertise:
    return m.Advertise(
        sid,
        _name(body.worker),
        _exactly(body.sealing, KEY_BYTES, "a key"),
        _exactly(body.masking, KEY_BYTES, "a key"),
        _exactly(body.commitment, DIGEST_BYTES, "a commitment"),
        _signature(body.signature),
    )


def _pack_roll(message: m.Roll, body: v1.SecaggRoll) -> None:
    for each in message.members:
        _pack_advertise(each, body.members.add())
    body.everybody.extend(message.everybody)
    body.proof.extend(message.proof)


def _roll(sid: bytes, body: v1.SecaggRoll) -> m.Roll:
    _at_most(len(body.members), MAXIMUM_WORKERS, "workers")
    _at_most(len(body.proof), MAXIMUM_WORKERS, "hashes")
    proof = tuple(_exactly(each, DIGEST_BYTES, "a hash of a proof") for each in body.proof)
    return m.Roll(sid, tuple(_advertise(sid, each) for each in body.members), _names(body.everybody), proof)


def _pack_shares(message: m.Shares, body: v1.SecaggShares) -> None:
    _pack_named(message.ciphertexts, body.ciphertexts)
    body.signature = message.signature


def _shares(sid: bytes, body: v1.SecaggShares) -> m.Shares:
    return m.Shares(sid, _named(body.ciphertexts, MAXIMUM_CIPHERTEXT_BYTES), _signature(body.signature))


def _pack_delivery(message: m.Delivery, body: v1.SecaggDelivery) -> None:
    body.members.extend(message.members)
    _pack_named(message.ciphertexts, body.ciphertexts)


def _delivery(sid: bytes, body: v1.SecaggDelivery) -> m.Delivery:
    return m.Delivery(sid, _names(body.members), _named(body.ciphertexts, MAXIMUM_CIPHERTEXT_BYTES))


def _pack_masked(message: m.Masked, body: v1.SecaggMasked) -> None:
    body.modulus_bits, body.signature = 8 * message.words.itemsize, message.signature


def _masked(sid: bytes, body: v1.SecaggMasked, payload: Payload) -> m.Masked:
    dtype = Ring(body.modulus_bits).dtype
    data = payload[0] if len(payload) == 1 else memoryview(b"".join(payload))
    if data.nbytes % dtype.itemsize:
        raise WireError(f"{data.nbytes} bytes are not a whole number of words of {dtype.itemsize}")
    words = np.frombuffer(data, dtype)
    return m.Masked(sid, words if words.flags.aligned else words.copy(), _signature(body.signature))


def _pack_survivors(message: m.Survivors, body: v1.SecaggSurvivors) -> None:
    body.members.extend(message.members)


def _survivors(sid: bytes, body: v1.SecaggSurvivors) -> m.Survivors:
    return m.Survivors(sid, _names(body.members))


def _pack_confirm(message: m.Confirm, body: v1.SecaggConfirm) -> None:
    body.signature = message.signature


def _confirm(sid: bytes, body: v1.SecaggConfirm) -> m.Confirm:
    return m.Confirm(sid, _signature(body.signature))


def _pack_agreement(message: m.Agreement, body: v1.SecaggAgreement) -> None:
    _pack_named(message.signatures, body.signatures)


def _agreement(sid: bytes, body: v1.SecaggAgreement) -> m.Agreement:
    return m.Agreement(sid, _named(body.signatures, SIGNATURE_BYTES, SIGNATURE_BYTES))


def _pack_unmask(message: m.Unmask, body: v1.SecaggUnmask) -> None:
    _pack_named(message.self_shares, body.self_shares)
    _pack_named(message.key_shares, body.key_shares)
    body.signature = message.signature


def _unmask(sid: bytes, body: v1.SecaggUnmask) -> m.Unmask:
    width = SECRETS.share_bytes
    shares = _named(body.self_shares, width, width), _named(body.key_shares, width, width)
    return m.Unmask(sid, *shares, _signature(body.signature))


def _pack_abort(message: m.Abort, body: v1.SecaggAbort) -> None:
    body.round, body.reason, body.subject = message.round, message.reason.value, message.subject
    body.signature = message.signature


def _abort(sid: bytes, body: v1.SecaggAbort) -> m.Abort:
    _at_most(len(body.subject), MAXIMUM_SUBJECT, "characters about what")
    number = _at_most(body.round, 4, "as the number of a round of messages")
    return m.Abort(sid, number, Reason(body.reason), text(body.subject), _signature(body.signature))


def _pack_named(named: m.Named, into: Any) -> None:  # noqa: ANN401 - protobuf's repeated fields share no public type
    for worker, content in named:
        into.add(worker=worker, content=content)


def _named(items: Sequence[v1.SecaggNamed], most: int, least: int = 0) -> m.Named:
    _at_most(len(items), MAXIMUM_WORKERS, "workers")
    for each in items:
        if not least <= len(each.content) <= most:
            raise WireError(f"{len(each.content)} bytes by a worker's name; {least} to {most} are possible")
    return tuple((_name(each.worker), each.content) for each in items)


def _names(workers: Iterable[str]) -> tuple[WorkerName, ...]:
    names = cast("tuple[WorkerName, ...]", tuple(workers))
    _at_most(len(names), MAXIMUM_WORKERS, "workers")
    checked_names("worker", names)
    return names


def _name(worker: str) -> WorkerName:
    return WorkerName(checked_name("worker", worker))


def _signature(data: bytes) -> bytes:
    return _exactly(data, SIGNATURE_BYTES, "a signature")


def _exactly(data: bytes, count: int, what: str) -> bytes:
    if len(data) != count:
        raise WireError(f"{what} of {len(data)} bytes; it has {count}")
    return data


def _at_most(count: int, most: int, what: str) -> int:
    if count > most:
        raise WireError(f"{count} {what} in one message; {most} at most are accepted")
    return count


_KINDS: dict[type[m.Message], tuple[str, Pack, Unpack | None]] = {
    m.Invite: ("invite", _pack_invite, _invite),
    m.Advertise: ("advertise", _pack_advertise, _advertise),
    m.Roll: ("roll", _pack_roll, _roll),
    m.Shares: ("shares", _pack_shares, _shares),
    m.Delivery: ("delivery", _pack_delivery, _delivery),
    m.Masked: ("masked", _pack_masked, None),  # its words are in the payload
    m.Survivors: ("survivors", _pack_survivors, _survivors),
    m.Confirm: ("confirm", _pack_confirm, _confirm),
    m.Agreement: ("agreement", _pack_agreement, _agreement),
    m.Unmask: ("unmask", _pack_unmask, _unmask),
    m.Abort: ("abort", _pack_abort, _abort),
}
_UNPACK = {name: unpack for name, _, unpack in _KINDS.values() if unpack is not None}
