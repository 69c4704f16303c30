"""What both ends of a gRPC stream share: its name, its limits, and the link over it.

One generic method carries frames as bytes; gRPC neither parses them nor knows their meaning. Back-pressure is HTTP/2's:
a frame is read when somebody receives, and written when the one before is on its way. A message that was begun has to
come at some pace, so that nobody holds a buffer with a byte now and then. An empty frame ends a direction in order; a
stream that ends without one was lost. Nothing of gRPC's own error texts reaches a peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from fedpriv.errors import PeerLost, WireError
from fedpriv.sealed import Envelope
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES
from fedpriv.transport.tally import tally
from fedpriv.wire.framing import END, FRAME_BYTES, Assembler, frames

SERVICE = "fedpriv.wire.v1.Worker"
METHOD = "Attach"
WELCOME = "fedpriv"
"""Key of the initial metadata with which a listener takes a stream in; a refused stream has none."""
SOFTWARE_KEY, CLOCK_KEY = "fedpriv-software", "fedpriv-clock"
CLOSE_GRACE_SECONDS = 5.0
MESSAGE_SECONDS, MESSAGE_BYTES_PER_SECOND = 60.0, 16 << 10
"""A message that has begun is whole within the first, and a second more for so many of its bytes."""
_MESSAGE_BYTES = 4 << 20
_METADATA_BYTES = 8 << 10

Options = Sequence[tuple[str, int | str]]

COMMON_OPTIONS: Options = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stream:
    """One end of a gRPC stream: `read` returns None at its end, `finish` ends our direction, `abort` breaks both."""

    read: Callable[[], Awaitable[bytes | None]]
    write: Callable[[bytes], Awaitable[None]]
    finish: Callable[[], Awaitable[None]]
    abort: Callable[[], None]
    tls_certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a listener says of itself with its first metadata: protocol, software, Unix seconds; nothing is proved."""

    protocol: str
    software: str
    clock: float | None


class StreamLink:
    """A `RawLink` over one gRPC stream; `welcome` is what a listener said of itself, None at its own end."""

    def __init__(
        self, stream: Stream, *, whom: str, frame_bytes: int = FRAME_BYTES, welcome: Welcome | None = None
    ) -> None:
        self.tls_certificate = stream.tls_certificate
        self.welcome = welcome
        self._stream = stream
        self._whom = whom
        self._frame_bytes = frame_bytes
        self._assembler = Assembler(STRANGER_MESSAGE_BYTES)
        self._sending = asyncio.Lock()
        self._receiving = asyncio.Lock()
        self._bytes_sent = 0
        self._bytes_received = 0
        self._ended = False
        self._closed = False
        self._broken = False
        self._due: float | None = None
        tally.links_opened += 1

    @property
    def maximum_message_bytes(self) -> int:
        """What one received message may have at most."""
        return self._assembler.maximum_message_bytes

    @maximum_message_bytes.setter
    def maximum_message_bytes(self, count: int) -> None:
        self._assembler.maximum_message_bytes = count

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to gRPC."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from gRPC."""
        return self._bytes_received

    async def send(self, envelope: Envelope) -> None:
        """Send one message, frame by frame; wait while the other side does not read."""
        async with self._sending:
            if self._closed or self._broken:
                raise self._lost()
            try:
                for frame in frames(envelope, self._frame_bytes):
                    await self._guarded(self._stream.write(frame))
                    self._bytes_sent += len(frame)
                    tally.bytes_sent += len(frame)
            except BaseException:
                self._break()
                raise

    async def receive(self) -> Envelope | None:
        """Return the next message, or None when the other side ended its direction in order."""
        async with self._receiving:
            try:
                return await self._receive()
            except BaseException:
                self._break()
                raise

    async def close(self) -> None:
        """End our direction, give the other side a moment to end its own, and free the stream."""
        if self._closed or self._broken:
            self._closed = True
            self._break()
            return
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_GRACE_SECONDS):
                async with self._sending:
                    await self._guarded(self._stream.write(END))
                await self._guarded(self._stream.finish())
                while not self._ended:
                    async with self._receiving:
                        await self._receive()
        except (PeerLost, WireError, TimeoutError):
            pass  # the other side is gone, or does not listen: there is nobody left to be polite to
        finally:
            self._break()

    async def _receive(self) -> Envelope | None:
        while not self._ended:
            if self._broken:
                raise self._lost()
            frame = await self._next_frame()
            if frame is None:
                raise self._lost()
            if frame == END:
                if not self._assembler.is_between_messages:
                    raise WireError(f"{self._whom} ended the stream in the middle of a message")
                self._ended = True
                break
            self._bytes_received += len(frame)
            tally.bytes_received += len(frame)
            envelope = self._assembler.feed(frame)
            if envelope is not None:
                return envelope
        return None

    async def _next_frame(self) -> bytes | None:
        """Return the next frame; raise `PeerLost` for one of a message that takes too long."""
        announced = self._assembler.announced_bytes
        if not announced:
            self._due = None
            return await self._guarded(self._stream.read())
        if self._due is None:
            allowed = MESSAGE_SECONDS + announced / MESSAGE_BYTES_PER_SECOND
            self._due = asyncio.get_running_loop().time() + allowed
        try:
            async with asyncio.timeout_at(self._due):
                return await self._guarded(self._stream.read())
        except TimeoutError:
            raise PeerLost(
                f"{self._whom} began a message of {announced} bytes and did not finish it in time; the link is closed"
            ) from None

    async def _guarded(self, operation: Awaitable[T]) -> T:
        """Await one gRPC operation; raise `PeerLost` however gRPC says that the stream is over."""
        try:
            return await operation
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._lost() from None
        except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError):
            raise self._lost() from None

    def _break(self) -> None:
        if not self._broken:
            self._broken = True
            tally.links_closed += 1
            self._stream.abort()

    def _lost(self) -> PeerLost:
        if self._closed:
            return PeerLost(f"the link to {self._whom} is closed; open another one")
        return PeerLost(f"{self._whom} went away without closing the link; connect again when it is back")
