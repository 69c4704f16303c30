"""Taking streams that others open, under mutual TLS.

`attached` is called with each stream, in a task of its own, and the stream lives until it returns; what it raises of
ours goes to `on_failure` and never to the peer. Every other method is refused by gRPC itself. A port that is in use is
an error, never shared. The number of open streams is bounded, in all and for each certificate: one that opens many and
says nothing keeps nobody else out. Who a peer is, the signed hello proves afterwards, and how long that may take, its
`greet` bounds: here it only holds a certificate of our authority.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedpriv.errors import FedprivError, UsageError
from fedpriv.transport.credentials import Credentials, CredentialsSource
from fedpriv.transport.software import SOFTWARE
from fedpriv.transport.stream import (
    CLOCK_KEY,
    COMMON_OPTIONS,
    METHOD,
    SERVICE,
    SOFTWARE_KEY,
    WELCOME,
    Stream,
    StreamLink,
)
from fedpriv.wire.framing import FRAME_BYTES
from fedpriv.wire.messages import PROTOCOL

log = logging.getLogger("fedpriv.transport")

MAXIMUM_LINKS = 1024
MAXIMUM_LINKS_EACH = 16
"""Streams that one certificate may hold open: twice what a worker answers, so that it says so itself."""
_STREAMS_PER_CONNECTION = 8
_STOP_GRACE_SECONDS = 2.0
_REFRESH_SECONDS, _REBIND_SECONDS = 30.0, 0.02
_LONGEST_LINK_SECONDS = 7 * 86_400.0
"""So long may a link go on that was met with a certificate that was renewed since."""

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Listener:
    """A port on which peers attach; use it as an async context."""

    def __init__(
        self,
        address: str,
        credentials: CredentialsSource,
        attached: Callable[[StreamLink], Awaitable[None]],
        *,
        on_failure: Callable[[FedprivError], None] = lambda _: None,
        maximum_links: int = MAXIMUM_LINKS,
        maximum_links_each: int = MAXIMUM_LINKS_EACH,
        frame_bytes: int = FRAME_BYTES,
    ) -> None:
        self._wanted = address
        self._credentials = credentials
        self._attached = attached
        self._on_failure = on_failure
        self._maximum_links = maximum_links
        self._maximum_links_each = maximum_links_each
        self._held: Counter[bytes] = Counter()
        """Open streams by certificate."""
        self._refused: set[bytes] = set()
        """Certificates that hold all they may, and of which that was logged."""
        self._frame_bytes = frame_bytes
        self._server: grpc.aio.Server | None = None
        self._shown: tuple[bytes, ...] = ()
        """The certificate chain that new connections are met with."""
        self._leaving: set[asyncio.Task[None]] = set()
        """Servers with an older certificate, whose links go on."""
        self._keeping: asyncio.Task[None] | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def address(self) -> str:
        """The host and port that peers dial; the port is the chosen one where 0 was asked for."""
        return f"{self._wanted.rpartition(':')[0]}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; raise `UsageError` if the port cannot be had."""
        own = self._credentials.current()
        self._server, self.port = _bound(self._wanted, own, self._serve)
        if not self.port:
            raise UsageError(
                f"cannot listen on {self._wanted}: the port is in use, or the host is not this machine's; "
                "stop what listens there, or choose another port (port 0 lets the system choose)"
            )
        await self._server.start()
        self._shown = own.chain_der
        kept = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(kept), name=f"listener on {self.address}")
        await kept.wait()

    async def refresh(self) -> None:
        """Meet new connections with the certificate that is current now; links that are open go on.

        The port is let go and taken again: for an instant nobody listens, and who dials just then dials again.
        """
        own = self._credentials.current()
        if own.chain_der == self._shown:
            return
        assert self._server is not None
        self._shown = own.chain_der
        leaving = asyncio.create_task(self._server.stop(_LONGEST_LINK_SECONDS))  # stops listening at once
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        while True:
            server, port = _bound(self.address, own, self._serve)
            if port:
                break
            await server.stop(None)
            await asyncio.sleep(_REBIND_SECONDS)
        self._server = server
        await server.start()
        log.info("listening on %s with a renewed certificate", self.address)

    async def close(self) -> None:
        """Cancel what `attached` still does, which breaks its streams, wait for it to clean up, and free the port."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))

    async def _keep(self, kept: asyncio.Event) -> None:
        """Follow the credentials; stop when cancelled, by `close` or the end of the loop: what never ran could not."""
        try:
            kept.set()
            while True:
                await asyncio.sleep(_REFRESH_SECONDS)
                await self.refresh()
        finally:
            for session in self._sessions:
                session.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)
            for leaving in self._leaving:
                leaving.cancel()
            if self._server is not None:
                await self._server.stop(_STOP_GRACE_SECONDS)

    async def _serve(self, _: object, context: _Context) -> None:
        """Run one stream; whatever goes wrong, the peer learns only that the stream is over."""
        certificate = _certificate(context)
        if len(self._sessions) >= self._maximum_links or self._has_enough(certificate):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED)
        self._held[certificate] += 1  # before anything is awaited, so that many at once are counted too
        try:
            await context.send_initial_metadata(
                ((WELCOME, str(PROTOCOL)), (SOFTWARE_KEY, SOFTWARE), (CLOCK_KEY, str(int(time.time()))))
            )
            over = asyncio.Event()
            link = StreamLink(_stream(context, over, certificate), whom="the peer", frame_bytes=self._frame_bytes)
            session = asyncio.create_task(self._run(link))
        except BaseException:
            self._let_go(certificate)
            raise
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)
        session.add_done_callback(lambda _: self._let_go(certificate))
        await over.wait()

    def _has_enough(self, certificate: bytes) -> bool:
        """Return whether `certificate` holds as many streams as it may; log that once until it lets one go."""
        enough = self._held[certificate] >= self._maximum_links_each
        if enough and certificate not in self._refused:
            self._refused.add(certificate)
            log.warning("%s holds %d links; further ones are refused", _subject(certificate), self._held[certificate])
        return enough

    def _let_go(self, certificate: bytes) -> None:
        self._held[certificate] -= 1
        self._refused.discard(certificate)
        if not self._held[certificate]:
            del self._held[certificate]

    async def _run(self, link: StreamLink) -> None:
        try:
            await self._attached(link)
        except FedprivError as error:
            self._on_failure(error)
        finally:
            await link.close()


def _bound(
    address: str, own: Credentials, serve: Callable[[object, _Context], Awaitable[None]]
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is bound to `address`, not started, and its port: 0 if that cannot be had.

    Its certificate is fixed: grpcio 1.85 with one that it asks for anew (`dynamic_ssl_server_credentials`) aborts the
    process when many connections that never said anything are closed at once, which any stranger can do.
    """
    server = grpc.aio.server(
        options=(
            *COMMON_OPTIONS,
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
            ("grpc.server_handshake_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
        )
    )
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    tls = grpc.ssl_server_credentials(
        [(own.key_pem, own.chain_pem)], root_certificates=own.authorities_pem, require_client_auth=True
    )
    try:
        return server, server.add_secure_port(address, tls)
    except RuntimeError:
        return server, 0


def _stream(context: _Context, over: asyncio.Event, certificate: bytes) -> Stream:
    async def read() -> bytes | None:
        frame = await context.read()
        return frame if isinstance(frame, bytes) else None

    async def finish() -> None:
        """Do nothing: a listener's direction ends with the call, when the dialer has ended its own."""

    return Stream(read=read, write=context.write, finish=finish, abort=over.set, tls_certificate=certificate)


def _certificate(context: _Context) -> bytes:
    """Return the DER certificate that the other side showed in TLS, b"" if it showed none."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) if pem else b""


def _subject(certificate: bytes) -> str:
    """Return whom a certificate names, for the log; it claims that, and its authority vouches for it."""
    return repr(x509.load_der_x509_certificate(certificate).subject.rfc4514_string()) if certificate else "a peer"
