"""Messages to envelopes and back: a protobuf header, and the raw bytes of the tensors.

`decode` accepts only what `encode` could have made: a message it knows, without unknown or repeated fields, with every
count and length within its bound, and a payload exactly as long as the shapes say. Anything else raises `WireError`.
See `tensors` for whose memory a decoded tensor shares. Values are not judged here: whether a number is finite, a
data set exists or a plan may run is for whoever acts on the message.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from fedpriv.errors import WireError
from fedpriv.sealed import Envelope
from fedpriv.secagg.messages import FromCoordinator, FromWorker
from fedpriv.updates import TensorSet
from fedpriv.wire.bodies import KINDS, KINDS_BY_FIELD
from fedpriv.wire.framing import MAXIMUM_HEADER_BYTES
from fedpriv.wire.messages import Message
from fedpriv.wire.secagg import decode_secagg, encode_secagg
from fedpriv.wire.tensors import Payload, read_specs, read_tensors, write_tensors
from fedpriv.wire.v1 import session_pb2 as v1


def kind_of(message: Message) -> str:
    """Return the name of a message's kind, as ledgers and reports say it: "plan-accepted" for a `PlanAccepted`.

    Those of secure aggregation begin with "secagg-".
    """
    if isinstance(message, FromCoordinator | FromWorker):
        return f"secagg-{type(message).__name__.lower()}"
    return KINDS[type(message)].field.replace("_", "-")


def encode(message: Message) -> Envelope:
    """Return `message` in its wire form; its tensors must not be written to until it was sent."""
    header = v1.Header()
    if isinstance(message, FromCoordinator | FromWorker):
        own = encode_secagg(message)
        header.secagg = own.header
        return Envelope(header.SerializeToString(deterministic=True), own.payload)
    kind = KINDS[type(message)]
    body = getattr(header, kind.field)
    body.SetInParent()
    payload: Payload = ()
    try:
        kind.pack(message, body)
        if kind.tensors:
            payload = write_tensors(getattr(message, kind.tensors), getattr(body, kind.tensors))
        serialised = header.SerializeToString(deterministic=True)
    except (TypeError, ValueError):
        # Protobuf's own text quotes the value, which may be private.
        raise WireError(f"a {type(message).__name__} cannot be sent: a number or text in it does not fit") from None
    if len(serialised) > MAXIMUM_HEADER_BYTES:
        raise WireError(f"a {type(message).__name__} of {len(serialised)} header bytes; {MAXIMUM_HEADER_BYTES} at most")
    return Envelope(serialised, payload)


def decode(envelope: Envelope) -> Message:
    """Return the message in `envelope`; raise `WireError` unless it is one that `encode` could have made."""
    header = v1.Header()
    try:
        header.ParseFromString(envelope.header)
    except DecodeError:
        raise WireError("a header is not a protobuf Header") from None
    field = header.WhichOneof("body")
    if field is None:
        raise WireError("a header holds no message that this fedpriv knows")
    header.DiscardUnknownFields()
    if header.ByteSize() != len(envelope.header):
        raise WireError(f"a {field} message has unknown or repeated fields; both sides need the same protocol version")
    if field == "secagg":
        return decode_secagg(Envelope(header.secagg, envelope.payload))
    kind = KINDS_BY_FIELD[field]
    body = getattr(header, field)
    tensors = TensorSet()
    if kind.tensors:
        tensors = read_tensors(read_specs(getattr(body, kind.tensors)), envelope.payload)
    elif envelope.payload_bytes:
        raise WireError(f"a {field} message carries {envelope.payload_bytes} payload bytes, but none belong to it")
    return kind.unpack(body, tensors)
