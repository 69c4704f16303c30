"""`grpc.health.v1` on a loopback port of its own, for whatever watches the process; off unless it is configured.

The protocol is two messages of one field (github.com/grpc/grpc/blob/master/doc/health-checking.md), written by hand
here so that nothing more has to be installed. "" is the process: it serves, and is not going down. `fedpriv.link` is
whether it has a link to anybody. It says nothing else, and has no TLS because nothing but this host can reach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from fedpriv.errors import PeerLost, UsageError, WireError

SERVICE = "grpc.health.v1.Health"
PROCESS, LINK = "", "fedpriv.link"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
WATCH_SECONDS = 1.0
_MAXIMUM_NAME = 64
_TAG_SERVICE, _TAG_STATUS = 0x0A, 0x08
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Health:
    """A health service at `address`; `states` says, by service, whether it serves; use it as an async context."""

    def __init__(self, address: str, states: Mapping[str, Callable[[], bool]]) -> None:
        self._wanted, self._states = address, states
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1024)))
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self.port = server.add_insecure_port(self._wanted)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise UsageError(f"[operations] health: cannot listen on {self._wanted}; choose another port")
        await server.start()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def _check(self, request: bytes, context: _Context) -> bytes:
        status = self._status(request)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return bytes((_TAG_STATUS, status))

    async def _watch(self, request: bytes, _: _Context) -> AsyncIterator[bytes]:
        last = 0
        while True:
            if (status := self._status(request)) != last:
                last = status
                yield bytes((_TAG_STATUS, status))
            await asyncio.sleep(WATCH_SECONDS)

    def _status(self, request: bytes) -> int:
        try:
            state = self._states.get(_service(request))
        except WireError:
            state = None
        if state is None:
            return SERVICE_UNKNOWN
        return SERVING if state() else NOT_SERVING


def is_serving(address: str, service: str = PROCESS, *, timeout_seconds: float = 5.0) -> bool:
    """Return whether the process whose health answers at `address` serves; raise `PeerLost` if nothing answers."""
    name = service.encode()
    request = bytes((_TAG_SERVICE, len(name))) + name if name else b""
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            answer = channel.unary_unary(f"/{SERVICE}/Check")(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise PeerLost(
                f"no health at {address} ({error.code().name.lower()}); is [operations] health configured, and running?"
            ) from None
    return bool(answer == bytes((_TAG_STATUS, SERVING)))


def _service(request: bytes) -> str:
    """Return the name in a HealthCheckRequest; raise `WireError` for any other bytes."""
    if not request:
        return PROCESS
    if len(request) < 2 or request[0] != _TAG_SERVICE or request[1] != len(request) - 2 or request[1] > _MAXIMUM_NAME:
        raise WireError("no health check request")
    try:
        return request[2:].decode()
    except UnicodeDecodeError:
        raise WireError("no health check request") from None
