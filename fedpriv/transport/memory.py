"""Links inside one process, without copying, and with faults on demand.

`memory_pair` returns both ends of one stream. Envelopes are handed over as they are, so both sides share their
buffers; the byte counters show what gRPC would have counted. An end holds at most `window` unread messages, then the
other end's `send` waits, as on a network. `Faults` make one end misbehave, without clocks and without sleeping.
Both ends belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fedpriv.errors import PeerLost, WireError
from fedpriv.sealed import Envelope
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES
from fedpriv.wire.framing import envelope_bytes

DEFAULT_WINDOW = 16


@dataclass(slots=True)
class Faults:
    """How one end misbehaves: it loses the link, holds messages back, or changes them on their way.

    `lose_after` messages were sent, the link is lost and the next one vanishes with it. While `held` is set,
    `send` waits until `release`. `change` returns what arrives instead of a message, None for nothing.
    """

    lose_after: int | None = None
    change: Callable[[Envelope], Envelope | None] | None = None
    _gate: asyncio.Event | None = field(default=None, repr=False)

    def hold(self) -> None:
        """Make every following `send` wait."""
        self._gate = asyncio.Event()

    def release(self) -> None:
        """Let what waits go on."""
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    async def wait(self) -> None:
        """Return when nothing holds messages back."""
        if self._gate is not None:
            await self._gate.wait()


class _Pipe:
    """One direction: what was sent and not yet received, and whether more can come."""

    __slots__ = ("changed", "ended", "lost", "unread", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.unread: deque[Envelope] = deque()
        self.ended = False
        self.lost = False
        self.changed = asyncio.Condition()

    async def put(self, envelope: Envelope) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.lost or self.ended or len(self.unread) < self.window)
            if self.lost or self.ended:
                raise PeerLost("the other side of this in-memory link is gone; open another link")
            self.unread.append(envelope)
            self.changed.notify_all()

    async def get(self) -> Envelope | None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.lost or self.ended or bool(self.unread))
            if self.lost:
                raise PeerLost("the other side of this in-memory link went away; open another link")
            if not self.unread:
                return None
            envelope = self.unread.popleft()
            self.changed.notify_all()
            return envelope

    async def stop(self, *, lost: bool) -> None:
        async with self.changed:
            self.lost = self.lost or (lost and not self.ended)
            self.ended = True
            self.changed.notify_all()


class MemoryLink:
    """One end of a stream inside this process."""

    tls_certificate: bytes | None = None

    def __init__(self, outward: _Pipe, inward: _Pipe) -> None:
        self.faults = Faults()
        self.maximum_message_bytes = STRANGER_MESSAGE_BYTES
        self._outward = outward
        self._inward = inward
        self._sent = 0
        self._bytes_sent = 0
        self._bytes_received = 0
        self._sending = asyncio.Lock()

    @property
    def bytes_sent(self) -> int:
        """Bytes that the same messages have on a network."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that the same messages have on a network."""
        return self._bytes_received

    async def send(self, envelope: Envelope) -> None:
        """Hand `envelope` to the other end; wait while it has a full window unread."""
        async with self._sending:
            await self.faults.wait()
            if self.faults.lose_after is not None and self._sent >= self.faults.lose_after:
                await self.lose()
            self._sent += 1
            arriving = self.faults.change(envelope) if self.faults.change else envelope
            if arriving is not None:
                await self._outward.put(arriving)
            self._bytes_sent += envelope_bytes(envelope)

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other end closed."""
        envelope = await self._inward.get()
        if envelope is not None:
            size = len(envelope.header) + envelope.payload_bytes
            if size > self.maximum_message_bytes:
                await self.lose()
                raise WireError(f"a message of {size} bytes; {self.maximum_message_bytes} at most are accepted")
            self._bytes_received += envelope_bytes(envelope)
        return envelope

    async def close(self) -> None:
        """End both directions; the other end still receives what was sent."""
        await self._outward.stop(lost=False)
        await self._inward.stop(lost=False)

    async def lose(self) -> None:
        """Break both directions, as a cut cable does; what is unread is lost."""
        await self._outward.stop(lost=True)
        await self._inward.stop(lost=True)


def memory_pair(window: int = DEFAULT_WINDOW) -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of one stream."""
    there, back = _Pipe(window), _Pipe(window)
    return MemoryLink(there, back), MemoryLink(back, there)
