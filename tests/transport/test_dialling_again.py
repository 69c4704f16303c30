"""Which ends of a dial are tried again: all but a certificate that we do not accept."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from ends import coordinator, listening, run, worker

from fedpriv.errors import NotTrusted, PeerLost
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial_with_retry
from fedpriv.transport.stream import StreamLink
from fedpriv.wire.messages import Role


async def nobody(_: StreamLink) -> None:
    pytest.fail("a peer that is not trusted was let in")


async def tried_twice(address: str, credentials: Credentials) -> str:
    """Dial twice, and return what was said between."""
    said: list[str] = []

    async def at_once(_: float) -> None:
        assert said

    with pytest.raises(PeerLost) as given_up:
        await dial_with_retry(
            address, credentials, on_wait=lambda *facts: said.append(facts[2]), attempts=2, sleep=at_once
        )
    assert not isinstance(given_up.value, NotTrusted)
    (reason,) = said
    return reason


def test_a_listener_that_hangs_up_during_tls_is_dialled_again() -> None:
    async def scenario() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert "TLS handshake" in await tried_twice(f"127.0.0.1:{port}", coordinator())

    run(scenario())


def test_a_listener_that_is_no_fedpriv_is_dialled_again() -> None:
    async def scenario() -> None:
        own = worker()
        server = grpc.aio.server()
        pair = grpc.ssl_server_credentials([(own.key_pem, own.chain_pem)], own.authorities_pem, True)
        port = server.add_secure_port("127.0.0.1:0", pair)
        await server.start()
        try:
            assert "no fedpriv" in await tried_twice(f"127.0.0.1:{port}", coordinator())
        finally:
            await server.stop(None)

    run(scenario())


def test_a_listener_that_does_not_trust_us_is_dialled_again() -> None:
    async def scenario() -> None:
        other = Authority.create().issue("coordinator-1", Role.COORDINATOR)
        mixed = Credentials(other.chain, other.key, coordinator().authorities, other.peer)
        async with listening(nobody) as listener:
            assert "may not trust our certificate" in await tried_twice(listener.address, mixed)

    run(scenario())
