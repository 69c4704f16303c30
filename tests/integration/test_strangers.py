"""Who must not get in, and what they send to a worker that listens: it answers a good coordinator all the while."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from fleets import make_worker, toy

import fedpriv as fp
from fedpriv.errors import FedprivError, PeerLost
from fedpriv.remote.connection import Connection
from fedpriv.sealed import Envelope
from fedpriv.transport import stream
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials, CredentialsSource
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink, RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.revocation import REVOKED, read_revoked
from fedpriv.transport.stream import METHOD, SERVICE
from fedpriv.wire.codec import encode
from fedpriv.wire.framing import frames
from fedpriv.wire.messages import AskMock, Hello, Role
from fedpriv_worker import worker as worker_module
from fedpriv_worker.worker import Worker, serve_quietly

AUTHORITY = Authority.create()
HUB = AUTHORITY.issue("hub", Role.COORDINATOR)
OLD = Authority.create("old-ca", now=time.time() - 90 * 86_400)


def self_signed() -> Credentials:
    """Return credentials that vouch for themselves, under a name that the worker's owner named."""
    own = Authority.create("hub")
    return own.issue("hub", Role.COORDINATOR)


def trusting_us(credentials: Credentials) -> Credentials:
    """Return the same, of somebody who would talk to our worker."""
    return replace(credentials, authorities=HUB.authorities)


STRANGERS: dict[str, Callable[[], Credentials]] = {
    "self-signed": lambda: trusting_us(self_signed()),
    "another authority": lambda: trusting_us(Authority.create().issue("hub", Role.COORDINATOR)),
    "expired": lambda: AUTHORITY.issue("hub", Role.COORDINATOR, days=1, now=time.time() - 5 * 86_400),
    "not valid yet": lambda: AUTHORITY.issue("hub", Role.COORDINATOR, now=time.time() + 86_400),
    "expired authority": lambda: trusting_us(OLD.issue("hub", Role.COORDINATOR, days=1, now=time.time() - 80 * 86_400)),
    "a worker": lambda: AUTHORITY.issue("mallory", Role.WORKER),
    "an auditor": lambda: AUTHORITY.issue("mallory", Role.AUDITOR),
    "an administrator": lambda: AUTHORITY.issue("mallory", Role.ADMINISTRATOR),
    "a registrar": lambda: AUTHORITY.issue("registrar", Role.REGISTRAR),
    "signed by a leaf": lambda: trusting_us(
        Authority((leaf := AUTHORITY.issue("mallory", Role.COORDINATOR)).chain[0], leaf.key).issue(
            "hub", Role.COORDINATOR
        )
    ),
}


async def ends(raw: RawLink) -> None:
    """Wait until the worker ended a link, in order or not; whatever it says before is not looked at."""
    with suppress(PeerLost):
        while await raw.receive() is not None:
            pass


class Site:
    """A worker that listens, and the good coordinator that it answers."""

    def __init__(self, address: str, worker: Worker) -> None:
        self.address, self.worker = address, worker

    async def serves_the_good(self) -> None:
        """Check that the good coordinator is answered now."""
        connection = await connect(self, HUB)
        assert [each.name for each in connection.announcement.datasets] == ["toy"]
        await connection.close()


@asynccontextmanager
async def site(credentials: CredentialsSource | None = None) -> AsyncIterator[Site]:
    own = credentials or AUTHORITY.issue("alice", Role.WORKER)
    worker, _ = make_worker("alice", [toy(8, release=(fp.PlainUpdate(recipients=("hub",)),))], own)

    async def attached(raw: RawLink) -> None:
        await serve_quietly(worker, raw, Side.LISTENER)

    async with Listener("127.0.0.1:0", own, attached) as listener:
        try:
            yield Site(listener.address, worker)
        finally:
            await worker.close()


async def connect(found: Site, who: Credentials) -> Connection:
    return await Connection.open(OpenLink(await dial(found.address, who)), Side.DIALER, who)


def play(scenario: Callable[[Site], Awaitable[None]], credentials: CredentialsSource | None = None) -> None:
    async def whole() -> None:
        async with site(credentials) as found:
            await scenario(found)
            await found.serves_the_good()

    asyncio.run(asyncio.wait_for(whole(), 60))


@pytest.mark.parametrize("who", STRANGERS)
def test_who_has_no_good_certificate_gets_no_announcement(who: str, caplog: pytest.LogCaptureFixture) -> None:
    stranger = STRANGERS[who]()

    async def scenario(found: Site) -> None:
        with pytest.raises(PeerLost) as refused:
            await connect(found, stranger)
        assert "alice" not in str(refused.value)

    play(scenario)


def test_who_was_revoked_gets_no_announcement_either() -> None:
    mallory, own = AUTHORITY.issue("hub", Role.COORDINATOR), AUTHORITY.issue("alice", Role.WORKER)
    pem = AUTHORITY.revoke({mallory.chain[0].serial_number: time.time()}, 1, now=time.time())
    revoked = read_revoked(pem, own.authorities, where=REVOKED)

    async def scenario(found: Site) -> None:
        with pytest.raises(PeerLost, match="closed the link during the handshake"):
            await connect(found, mallory)

    play(scenario, replace(own, revoked=revoked))


PATHS = (
    f"/{SERVICE}/{METHOD}",
    f"/{SERVICE}/Train",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.channelz.v1.Channelz/GetTopChannels",
    "/",
)


def test_every_method_without_a_certificate_is_refused_by_tls() -> None:
    async def scenario(found: Site) -> None:
        for tls in (grpc.ssl_channel_credentials(HUB.authorities_pem), None):
            async with AsyncExitStack() as stack:
                channel = await stack.enter_async_context(
                    grpc.aio.insecure_channel(found.address)
                    if tls is None
                    else grpc.aio.secure_channel(found.address, tls)
                )
                for path in PATHS:
                    call = channel.stream_stream(path, None, None)(None)
                    assert await call.code() is grpc.StatusCode.UNAVAILABLE
                    assert not await call.trailing_metadata()

    play(scenario)


def test_a_connection_without_tls_at_all_gets_not_one_byte_of_ours() -> None:
    async def scenario(found: Site) -> None:
        host, _, port = found.address.rpartition(":")
        for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(4096)):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(said)
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
            assert b"fedpriv" not in answer
            assert len(answer) < 64  # at most an alert of TLS, or a frame that says goodbye
            writer.close()

    play(scenario)


def test_old_versions_of_tls_are_not_spoken() -> None:
    async def scenario(found: Site) -> None:
        host, _, port = found.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

        def attempt() -> None:
            with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain):
                pytest.fail("TLS 1.1 was spoken")

        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(attempt)

    with pytest.warns(DeprecationWarning, match="TLS"):
        play(scenario)


async def greeted(found: Site, who: Credentials = HUB) -> RawLink:
    """Return the raw link of a peer whose identity is proved."""
    raw = await dial(found.address, who)
    await greet(Side.DIALER, OpenLink(raw), who, encode)
    await raw.receive()
    return raw


TERABYTE = b"\x08\x01\x10" + bytes((0x80, 0x80, 0x80, 0x80, 0x80, 0x20)) + b"\x2a\x01x"


def test_twenty_bytes_that_announce_a_terabyte_allocate_nothing() -> None:
    assert len(TERABYTE) < 20

    async def scenario(found: Site) -> None:
        await found.serves_the_good()
        before = peak_memory()
        for proved in (False, True) * 5:
            raw = await (greeted(found) if proved else dial(found.address, HUB))
            await raw._stream.write(TERABYTE)
            await ends(raw)
        assert peak_memory() - before < 64 << 20

    play(scenario)


def peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def test_a_stream_without_an_end_is_cut_where_a_stranger_may_say_no_more() -> None:
    async def scenario(found: Site) -> None:
        raw = await dial(found.address, HUB)
        endless = large(1 << 30)
        written = 0
        with suppress(grpc.RpcError):
            for frame in frames(endless, 1 << 12):
                await raw._stream.write(frame)
                written += len(frame)
        assert written < 64 << 20
        await ends(raw)

    play(scenario)


def large(size: int) -> Envelope:
    return Envelope(b"header", (memoryview(bytes(1 << 20)),) * (size >> 20))


def test_a_message_that_trickles_ends_the_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "MESSAGE_SECONDS", 0.05)
    monkeypatch.setattr(stream, "MESSAGE_BYTES_PER_SECOND", 1e9)

    async def scenario(found: Site) -> None:
        raw = await greeted(found)
        first, *_ = frames(encode(AskMock(1, "toy")), 1)
        await raw._stream.write(first)
        await ends(raw)

    play(scenario)
    assert "did not finish it in time" in caplog.text


def test_a_hello_that_trickles_is_given_up_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = worker_module.greet

    async def hasty(*arguments: object, **options: object) -> object:
        return await quick(*arguments, **options, timeout_seconds=0.05)

    async def scenario(found: Site) -> None:
        monkeypatch.setattr(worker_module, "greet", hasty)
        held = [await dial(found.address, HUB) for _ in range(8)]
        for raw in held:
            first, *_ = frames(encode(Hello(HUB.chain_der, bytes(32))), 8)
            with suppress(grpc.RpcError, asyncio.InvalidStateError):  # it may be over already
                await raw._stream.write(first)
        for raw in held:
            await ends(raw)
        monkeypatch.setattr(worker_module, "greet", quick)

    play(scenario)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_connections_that_say_nothing_keep_nobody_out(count: int) -> None:
    async def scenario(found: Site) -> None:
        host, _, port = found.address.rpartition(":")
        open_ones = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
        await found.serves_the_good()
        for _, writer in open_ones:
            writer.close()

    play(scenario)


def test_metadata_beyond_the_limit_is_refused() -> None:
    async def scenario(found: Site) -> None:
        tls = grpc.ssl_channel_credentials(HUB.authorities_pem, HUB.key_pem, HUB.chain_pem)
        async with grpc.aio.secure_channel(found.address, tls) as channel:
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}", None, None)(metadata=(("x", "y" * 100_000),))
            assert await call.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)

    play(scenario)


def test_no_refusal_is_a_defect_of_ours(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def scenario(found: Site) -> None:
        for make in STRANGERS.values():
            stranger = make()
            try:
                await connect(found, stranger)
            except FedprivError:
                continue
            pytest.fail("a stranger was let in")

    play(scenario)
    assert "defect" not in caplog.text
