"""Who is connected: one live connection per worker name.

A worker that comes back after a loss takes its place again. A second worker under the name of one that is still
connected is refused, and so is a name that nobody expects. Who was shut out, and why, is said where it is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedpriv.errors import PeerLost, UsageError, nearest
from fedpriv.ids import WorkerName
from fedpriv.remote.connection import Connection
from fedpriv.wire.messages import Goodbye, Parting

TELL_SECONDS = 2.0

Received = Mapping[WorkerName, Mapping[str, tuple[int, int]]]
"""Messages and bytes from each worker, by kind."""


class NotAdmitted(UsageError):
    """A worker cannot take part under its name; `parting` is the code that it is told."""

    def __init__(self, message: str, parting: Parting) -> None:
        super().__init__(message)
        self.parting = parting


@dataclass(frozen=True, slots=True)
class _Past:
    """What a connection that is over had carried."""

    bytes_in: int
    bytes_out: int
    received: Mapping[str, tuple[int, int]]


class Membership:
    """The live connections of a federation; all methods run on the loop's thread."""

    def __init__(self, expected: Sequence[WorkerName], *, returning: bool = False) -> None:
        """Expect these workers; `returning` says that they dial us, and so can come back by themselves."""
        repeated = sorted({name for name in expected if list(expected).count(name) > 1})
        if repeated:
            raise UsageError(f"two workers have the name {repeated[0]!r}; give each worker its own")
        if not expected:
            raise UsageError("a federation needs at least one worker")
        self.expected = tuple(sorted(expected))
        self.returning = returning
        self._connections: dict[WorkerName, Connection] = {}
        self._shut_out: dict[WorkerName, str] = {}
        self._past: dict[WorkerName, list[_Past]] = {}
        self._changed = asyncio.Condition()

    @property
    def connected(self) -> dict[WorkerName, Connection]:
        """The open connections by name, in order of name."""
        present = ((name, self._connections.get(name)) for name in self.expected)
        return {name: connection for name, connection in present if connection is not None and connection.is_open}

    @property
    def missing(self) -> tuple[WorkerName, ...]:
        """The expected workers that are not connected."""
        return tuple(name for name in self.expected if name not in self.connected)

    def check(self, name: WorkerName) -> None:
        """Raise `NotAdmitted` for a name that is unknown or taken."""
        if name not in self.expected:
            close = nearest(name, self.expected)
            raise NotAdmitted(
                f"worker {name!r} is not one of {', '.join(self.expected)}{close}; to let it in, add it to names under "
                "[workers] in the job (workers= in Python), or give it a certificate under a name that is there",
                Parting.NOT_EXPECTED,
            )
        current = self._connections.get(name)
        if current is not None and current.is_open:
            raise NotAdmitted(
                f"a worker named {name!r} is connected already; give each its own name and certificate",
                Parting.NAME_TAKEN,
            )

    async def join(self, connection: Connection) -> None:
        """Admit a connection; raise `NotAdmitted` for a name that is unknown or taken."""
        name = connection.name
        async with self._changed:
            self.check(name)
            self._shut_out.pop(name, None)
            current = self._connections.get(name)
            if current is not None:
                self._past.setdefault(name, []).append(_Past(current.bytes_in, current.bytes_out, current.received))
            self._connections[name] = connection
            self._changed.notify_all()

    async def shut_out(self, connection: Connection, why: str) -> None:
        """Close a connection; `why` is what we say where the worker is missed, until it is admitted again."""
        await turn_away(connection, Parting.LEDGER_REFUSED)
        async with self._changed:
            self._shut_out[connection.name] = why
            self._changed.notify_all()

    @property
    def absent(self) -> str:
        """The workers that are not connected, with the reason why where we shut them out."""
        return "; ".join(self._shut_out.get(name, name) for name in self.missing)

    @property
    def nobody_may_come(self) -> bool:
        """Whether every expected worker was shut out."""
        return not self.connected and all(name in self._shut_out for name in self.expected)

    async def wait_for(
        self, count: int, timeout_seconds: float, *, in_all: float | None = None, remedy: str = "lower the quorum"
    ) -> None:
        """Wait until at least `count` workers are connected; raise `PeerLost` naming those that did not come.

        `in_all` is how long the caller has waited, where that is longer.
        """
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: len(self.connected) >= count), timeout_seconds)
            except TimeoutError:
                waited = timeout_seconds if in_all is None else in_all
                raise PeerLost(
                    f"{len(self.connected)} of {len(self.expected)} workers connected within {waited:g} s "
                    f"and {count} are needed; missing: {self.absent}; start them, or {remedy}"
                ) from None

    async def wait_for_all(self, timeout_seconds: float, *, in_all: float | None = None) -> None:
        """Wait until every expected worker is connected, but for those that were shut out: nobody waits for them.

        Raise `PeerLost` naming those that did not come, and at once where nobody is left to wait for.
        """
        if self.nobody_may_come:
            raise PeerLost(f"no worker takes part: {self.absent}")
        hopeless = sum(name in self._shut_out for name in self.missing)
        remedy = "take them out of the workers that are expected, or wait longer (wait_seconds)"
        await self.wait_for(len(self.expected) - hopeless, timeout_seconds, in_all=in_all, remedy=remedy)

    async def wait_for_another(self, name: WorkerName, than: Connection | None) -> Connection:
        """Wait until `name` is connected by another connection than `than`, and return it."""

        def another() -> Connection | None:
            current = self.connected.get(name)
            return None if current is than else current

        async with self._changed:
            await self._changed.wait_for(lambda: another() is not None)
            return self.connected[name]

    def traffic(self) -> dict[WorkerName, tuple[int, int]]:
        """Return bytes received from and sent to each worker so far, over all its connections."""
        totals: dict[WorkerName, tuple[int, int]] = {}
        for name in self.expected:
            connections = self._all(name)
            totals[name] = sum(each.bytes_in for each in connections), sum(each.bytes_out for each in connections)
        return totals

    def received(self) -> Received:
        """Return messages and bytes received from each worker so far, by kind, over all its connections."""
        totals: dict[WorkerName, dict[str, tuple[int, int]]] = {}
        for name in self.expected:
            kinds = totals.setdefault(name, {})
            for connection in self._all(name):
                for kind, (messages, size) in connection.received.items():
                    before = kinds.get(kind, (0, 0))
                    kinds[kind] = before[0] + messages, before[1] + size
        return totals

    def _all(self, name: WorkerName) -> list[_Past | Connection]:
        current = self._connections.get(name)
        return [*self._past.get(name, ()), *(() if current is None else (current,))]

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            await connection.close()


async def turn_away(connection: Connection, parting: Parting) -> None:
    """Close a connection and tell the worker why, as a code, if it takes that in time."""
    with contextlib.suppress(PeerLost, TimeoutError):
        async with asyncio.timeout(TELL_SECONDS):
            await connection.tell(Goodbye(parting))
    await connection.close()
