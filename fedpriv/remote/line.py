"""The link of a session of values: numbered messages out, in order, and answers back.

Only as many messages may be under way as the worker keeps up with. A link that was lost is opened again once, and what
the worker had not taken is sent again under the numbers that it had, so that everything happens exactly once; how much
is kept for that is bounded. When no link can be had, everything from then on raises the same `PeerLost`.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fedpriv.errors import PeerLost
from fedpriv.ids import PeerName
from fedpriv.remote.connection import Connection
from fedpriv.remote.reach import Reachable
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Reply, Request
from fedpriv.wire.values import Granted, OpenSession, Pointing, SessionOpen

MESSAGES_UNDER_WAY = 64
KEPT_BYTES = 32 << 20
"""How much is kept to be sent again before the worker is asked what it has taken."""
_MARK_BYTES = 16

T = TypeVar("T")


class Line:
    """One session's link to one worker; `post` and `close` are called by one thread at a time."""

    def __init__(self, worker: Reachable, name: PeerName) -> None:
        self.worker = worker
        self.round_trips = 0
        """How often an answer was waited for."""
        self.granted: Granted | None = None
        """What the owner grants us; None before a session was opened."""
        self._name = name
        self._mark = secrets.token_bytes(_MARK_BYTES)
        self._sequence = 0
        self._sent_last = 0
        self._under_way = threading.BoundedSemaphore(MESSAGES_UNDER_WAY)
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._kept: deque[tuple[Pointing, int]] = deque()
        self._kept_bytes = 0
        self._lost: PeerLost | None = None

    @property
    def lost(self) -> bool:
        """Whether there is no link any more, and none can be had."""
        return self._lost is not None

    def post(self, message: Callable[[int], Pointing], size: int) -> None:
        """Send the message of the next number, about `size` bytes, without waiting for it; raise `PeerLost`."""
        if self._lost is not None:
            raise PeerLost(str(self._lost))
        self._sequence += 1
        self._under_way.acquire()
        runtime.start(self._sent(message(self._sequence), size))

    def ask(self, request: Request) -> Reply:
        """Return the answer to a request, after everything posted before."""
        self.round_trips += 1
        return runtime.run(self._answered(request))

    def ask_beside(self, request: Request, timeout_seconds: float) -> Reply:
        """Return the answer to a request that may take long; other messages go on meanwhile."""
        self.round_trips += 1
        return runtime.run(self._beside(request, timeout_seconds))

    def close(self) -> None:
        """Close the link; the worker frees the session's values after a while."""
        runtime.run(self._closed())

    # --- on the loop's thread ---

    async def _sent(self, message: Pointing, size: int) -> None:
        try:
            async with self._turn:
                await self._again(self._nothing)  # a link first: a new one is sent everything that is kept
                self._kept.append((message, size))
                self._kept_bytes += size
                self._sent_last = message.sequence
                if self._kept_bytes > KEPT_BYTES:
                    await self._again(self._synchronise)
                else:
                    await self._again(lambda connection: connection.tell(message))
        except PeerLost as loss:
            self._lost = loss
        finally:
            self._under_way.release()

    async def _answered(self, request: Request) -> Reply:
        async with self._turn:
            reply = await self._again(lambda connection: connection.ask(request))
            self._kept.clear()  # a worker answers after it has taken everything before
            self._kept_bytes = 0
            return reply

    async def _beside(self, request: Request, timeout_seconds: float) -> Reply:
        async with self._turn:
            connection = await self._connected()
        return await connection.ask(request, timeout_seconds=timeout_seconds)

    async def _closed(self) -> None:
        async with self._turn:
            if self._connection is not None:
                await self._connection.close()

    async def _again(self, do: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something over the link, over a new one if it was lost; raise `PeerLost` when that is lost as well."""
        if self._lost is not None:
            raise PeerLost(str(self._lost))
        try:
            return await do(await self._connected())
        except PeerLost:
            if self._connection is not None:
                await self._connection.close()
            self._connection = None
            try:
                return await do(await self._connected())
            except PeerLost as loss:
                self._lost = loss
                raise

    async def _connected(self) -> Connection:
        """Return an open link on which the session is open and everything that was kept is sent."""
        if self._connection is not None and self._connection.is_open:
            return self._connection
        connection = await self.worker.reach(self._name)
        try:
            reply = await connection.ask(OpenSession(0, self._mark))
            assert isinstance(reply, SessionOpen)
            self._check_taken(reply.sequence, connection)
            self.granted = reply.granted
            for message, _ in self._kept:
                if message.sequence > reply.sequence:
                    await connection.tell(message)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection

    def _check_taken(self, sequence: int, connection: Connection) -> None:
        """Raise `PeerLost` where the worker has not taken something that is not kept here either."""
        oldest = self._kept[0][0].sequence if self._kept else self._sent_last + 1
        if sequence < oldest - 1:
            raise PeerLost(f"worker {connection.name!r} has none of your values any more; send them again")

    async def _nothing(self, connection: Connection) -> None:
        """Be content with the link."""

    async def _synchronise(self, connection: Connection) -> None:
        """Learn what the worker has taken, and keep no more of it."""
        await connection.tell(self._kept[-1][0])
        reply = await connection.ask(OpenSession(0, self._mark))
        assert isinstance(reply, SessionOpen)
        while self._kept and self._kept[0][0].sequence <= reply.sequence:
            self._kept_bytes -= self._kept.popleft()[1]
