"""Both ends of a link, in memory and over gRPC, for tests that every kind of link passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

from fedpriv.sealed import Envelope
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.link import RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.memory import memory_pair
from fedpriv.transport.stream import StreamLink
from fedpriv.wire.framing import MAXIMUM_MESSAGE_BYTES
from fedpriv.wire.messages import Role

PATIENCE_SECONDS = 20.0

Ends = Callable[[], AbstractAsyncContextManager[tuple[RawLink, RawLink]]]


@cache
def authority() -> Authority:
    return Authority.create()


@cache
def worker() -> Credentials:
    return authority().issue("st-elsewhere", Role.WORKER)


@cache
def coordinator() -> Credentials:
    return authority().issue("coordinator-1", Role.COORDINATOR)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine; a test that hangs fails instead."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_SECONDS))


def message(size: int, header: bytes = b"header") -> Envelope:
    return Envelope(header, (memoryview(bytearray(size)),) if size else ())


def content(envelope: Envelope | None) -> tuple[bytes, bytes]:
    assert envelope is not None
    return envelope.header, b"".join(envelope.payload)


@asynccontextmanager
async def listening(
    attached: Callable[[StreamLink], Awaitable[None]], credentials: Credentials | None = None
) -> AsyncIterator[Listener]:
    async with Listener("127.0.0.1:0", credentials or worker(), attached) as listener:
        yield listener


@asynccontextmanager
async def grpc_ends() -> AsyncIterator[tuple[RawLink, RawLink]]:
    """Yield (dialler's end, listener's end) over loopback mutual TLS."""
    arrived: asyncio.Future[StreamLink] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def attached(link: StreamLink) -> None:
        arrived.set_result(link)
        await over.wait()

    async with listening(attached) as listener:
        near = await dial(listener.address, coordinator())
        far = await arrived
        for link in (near, far):
            link.maximum_message_bytes = MAXIMUM_MESSAGE_BYTES
        try:
            yield near, far
        finally:
            over.set()
            await asyncio.gather(near.close(), far.close())


@asynccontextmanager
async def memory_ends() -> AsyncIterator[tuple[RawLink, RawLink]]:
    near, far = memory_pair()
    for link in (near, far):
        link.maximum_message_bytes = MAXIMUM_MESSAGE_BYTES
    yield near, far
