"""A port on loopback that passes connections on to another one and counts the bytes of each direction.

It counts what a network sees, TLS and all. It neither changes nor understands what it passes on, and what was read
counts also when nobody takes it any more, because it did leave its sender.
"""

from __future__ import annotations

import asyncio
import contextlib

CHUNK_BYTES = 1 << 16
PATIENCE_SECONDS = 10.0


class CountingProxy:
    """A port in front of `target`, "host:port"; its counts only grow, and are final once `close` returned."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.from_dialer_bytes = 0
        self.from_target_bytes = 0

    @property
    def address(self) -> str:
        """What to dial instead of the target."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def start(self) -> None:
        """Listen on a port that the system picks."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)

    async def close(self) -> None:
        """Free the port once both ends of every connection are closed; raise `TimeoutError` if they stay open."""
        assert self._server is not None
        self._server.close()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*self._passing)
        finally:
            for task in self._passing:
                task.cancel()

    async def _pass_on(self, from_dialer: asyncio.StreamReader, to_dialer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._passing.add(task)
        try:
            from_target, to_target = await asyncio.open_connection(self._host, int(self._port))
            try:
                await asyncio.gather(self._outward(from_dialer, to_target), self._inward(from_target, to_dialer))
            finally:
                to_target.close()
        finally:
            to_dialer.close()
            self._passing.discard(task)

    async def _outward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await _read(reader):
            self.from_dialer_bytes += len(chunk)
            await _write(writer, chunk)
        await _end(writer)

    async def _inward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await _read(reader):
            self.from_target_bytes += len(chunk)
            await _write(writer, chunk)
        await _end(writer)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what came, nothing once the connection ended, in order or not."""
    with contextlib.suppress(ConnectionError):
        return await reader.read(CHUNK_BYTES)
    return b""


async def _write(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    if not writer.is_closing():
        with contextlib.suppress(ConnectionError):
            writer.write(chunk)
            await writer.drain()


async def _end(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        with contextlib.suppress(OSError):  # a socket that was reset is "not connected", which is no ConnectionError
            await writer.drain()
            writer.write_eof()
