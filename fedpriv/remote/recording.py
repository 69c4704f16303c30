"""What arrives over a connection, told to whoever keeps a record of it.

A recorder that comes after the handshake is told of that too: the connection keeps what came first until a recorder is
there, or until something is asked without one. It does not judge what it hears.
"""

from __future__ import annotations

from typing import Protocol

from fedpriv.errors import WireError
from fedpriv.sealed import Envelope
from fedpriv.transport.link import Link, Peer, RawLink
from fedpriv.wire.codec import decode, kind_of
from fedpriv.wire.messages import Message

UNREADABLE = "unreadable"
"""The kind under which bytes are recorded that are no message."""


class Recorder(Protocol):
    """Keeps a record of what was received.

    Called on the loop's thread for every envelope, in the order of arrival, before anything is done with it; it must
    neither wait nor raise. The envelope's buffers stay as they are.
    """

    def record(self, peer: str, kind: str, envelope: Envelope) -> None:
        """Take note that `peer` sent `envelope`, a message of `kind`."""
        ...


class Hearing:
    """A link that passes on what it receives, and remembers it until somebody asks for it."""

    def __init__(self, link: Link[Envelope]) -> None:
        self._link = link
        self.heard: list[Envelope] = []

    @property
    def raw(self) -> RawLink:
        """The stream below."""
        return self._link.raw

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        return self._link.peer

    def identify(self, peer: Peer) -> None:
        """Record whom the handshake proved; once."""
        self._link.identify(peer)

    async def send(self, message: Envelope) -> None:
        """Send one message."""
        await self._link.send(message)

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other side closed in order."""
        envelope = await self._link.receive()
        if envelope is not None:
            self.heard.append(envelope)
        return envelope

    async def close(self) -> None:
        """End the stream in order and free it."""
        await self._link.close()

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to the transport."""
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from the transport."""
        return self._link.bytes_received


class Record:
    """What one peer sent, on its way to a recorder; keeps it while there is none yet."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._recorder: Recorder | None = None
        self._early: list[tuple[str, Envelope]] | None = []

    def heard(self, envelope: Envelope) -> Message:
        """Record `envelope` and return the message in it; raise `WireError`, also recorded, if there is none."""
        try:
            message = decode(envelope)
        except WireError:
            self._take(UNREADABLE, envelope)
            raise
        self._take(kind_of(message), envelope)
        return message

    def give_to(self, recorder: Recorder) -> None:
        """Tell `recorder` of everything from now on, and of what is still kept."""
        self._recorder = recorder
        for kind, envelope in self._early or ():
            recorder.record(self._peer, kind, envelope)
        self._early = None

    def keep_no_longer(self) -> None:
        """Forget what nobody came to record, and keep nothing more."""
        self._early = None

    def _take(self, kind: str, envelope: Envelope) -> None:
        if self._recorder is not None:
            self._recorder.record(self._peer, kind, envelope)
        elif self._early is not None:
            self._early.append((kind, envelope))
