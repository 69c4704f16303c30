"""A small HTTP proxy that knows one method, CONNECT, and where names lead that nobody else can resolve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """What a proxy was asked, and how it answers; `routes` leads from "host:port" to a port of this machine."""

    routes: Mapping[str, int]
    status: str = "200 Connection established"
    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        target = self.routes.get(head.split(b" ")[1].decode())
        if target is None or not self.status.startswith("200"):
            writer.write(f"HTTP/1.1 {self.status if target else '502 Bad Gateway'}\r\n\r\n".encode())
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", target)
        writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
        await asyncio.gather(_pour(reader, back), _pour(there, writer))


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while part := await source.read(1 << 16):
            sink.write(part)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
