"""Links: one ordered, two-way stream of messages between two peers, whoever dialled.

A transport makes a `RawLink`; a session wraps it in the link of its own side. A worker's is a `SealedLink`, which
sends only what the door made, checked by type and again at run time. Who the peer is comes from the signed hello alone
(`hello.greet`). Nothing here queues: `send` returns when the transport below has taken the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from fedpriv.errors import HandshakeFailed
from fedpriv.ids import PeerName, Role
from fedpriv.sealed import Envelope, Sealed
from fedpriv.wire.framing import MAXIMUM_MESSAGE_BYTES

Sent_contra = TypeVar("Sent_contra", contravariant=True)


STRANGER_MESSAGE_BYTES = 1 << 16
"""What one message may have before the handshake proved who sends it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as its certificate chain and its signature over both hellos prove."""

    name: PeerName
    role: Role
    fingerprint: bytes


class RawLink(Protocol):
    """An ordered stream of envelopes on one event loop.

    `send` may be called by several tasks; messages never interleave. It returns when the bytes are with the transport,
    not when they arrived, and waits while the other side does not read. One task at a time may `receive`.
    Cancelling a `send` or a `receive` in the middle of a message breaks the link. Both raise `PeerLost` once the other
    side is gone without a proper end; `receive` raises `WireError` for bytes that are no frame, which breaks the link.
    """

    maximum_message_bytes: int
    """What one received message may have at most; small until the peer is identified."""

    @property
    def tls_certificate(self) -> bytes | None:
        """The DER certificate that the other side showed in TLS; None where this side cannot see it."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to the transport."""
        ...

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from the transport."""
        ...

    async def send(self, envelope: Envelope) -> None:
        """Send one message; its buffers must stay unchanged until this returns."""
        ...

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other side closed in order."""
        ...

    async def close(self) -> None:
        """End the stream in order and free it; what was sent is delivered first. Closing again does nothing."""
        ...


class Link(Protocol[Sent_contra]):
    """A `RawLink` of one side: `Sent_contra` is what that side may send, `peer` is known after the handshake."""

    @property
    def raw(self) -> RawLink:
        """The stream below, for its counters and its TLS certificate."""
        ...

    @property
    def peer(self) -> Peer:
        """Who is at the other end; raise `HandshakeFailed` before the handshake proved it."""
        ...

    def identify(self, peer: Peer) -> None:
        """Record whom the handshake proved; once."""
        ...

    async def send(self, message: Sent_contra) -> None:
        """Send one message; see `RawLink.send`."""
        ...

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other side closed in order."""
        ...

    async def close(self) -> None:
        """End the stream in order and free it."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to the transport."""
        ...

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from the transport."""
        ...


class _Identified:
    """What the links of both sides share: the stream below and the peer, once it is proved."""

    __slots__ = ("_maximum_message_bytes", "_peer", "raw")

    def __init__(self, raw: RawLink, *, maximum_message_bytes: int = MAXIMUM_MESSAGE_BYTES) -> None:
        self.raw = raw
        self._maximum_message_bytes = maximum_message_bytes
        self._peer: Peer | None = None

    @property
    def peer(self) -> Peer:
        """Who is at the other end; raise `HandshakeFailed` before the handshake proved it."""
        if self._peer is None:
            raise HandshakeFailed("the peer of this link is not known yet; greet it first")
        return self._peer

    def is_with(self, name: str) -> bool:
        """Whether the handshake proved the other end to be `name`."""
        return self._peer is not None and self._peer.name == name

    def identify(self, peer: Peer) -> None:
        """Record whom the handshake proved, once; from now on large messages are accepted."""
        if self._peer is not None:
            raise HandshakeFailed(f"this link is already bound to {self._peer.name!r}; open another one")
        self._peer = peer
        self.raw.maximum_message_bytes = self._maximum_message_bytes

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other side closed in order."""
        return await self.raw.receive()

    async def close(self) -> None:
        """End the stream in order and free it."""
        await self.raw.close()

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to the transport."""
        return self.raw.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from the transport."""
        return self.raw.bytes_received


class SealedLink(_Identified):
    """A worker's link: sends what the door made, and nothing else."""

    __slots__ = ()

    async def send(self, message: Sealed) -> None:
        """Send one sealed message; raise `TypeError` for anything that the door did not make."""
        if type(message) is not Sealed:
            raise TypeError(f"a worker sends only what its door sealed, not a {type(message).__name__}")
        await self.raw.send(message.envelope)


class OpenLink(_Identified):
    """A coordinator's or researcher's link: sends envelopes, which hold nothing private."""

    __slots__ = ()

    async def send(self, message: Envelope) -> None:
        """Send one message."""
        await self.raw.send(message)
