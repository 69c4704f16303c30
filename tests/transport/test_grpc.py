"""Real gRPC over loopback mutual TLS: who gets in, what a person reads, and what a bad peer costs."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path

import grpc
import pytest
from ends import authority, content, coordinator, grpc_ends, listening, message, run, worker

from fedpriv.errors import FedprivError, HandshakeFailed, NotTrusted, PeerLost, UsageError, WireError
from fedpriv.sealed import Envelope, Sealed
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial, dial_with_retry
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.stream import METHOD, SERVICE, StreamLink
from fedpriv.wire.codec import encode
from fedpriv.wire.messages import Message, Role


async def echo(link: StreamLink) -> None:
    while (envelope := await link.receive()) is not None:
        await link.send(envelope)


def seal(message: Message) -> Sealed:
    return Sealed(encode(message))


@pytest.mark.parametrize("worker_dials", [False, True], ids=["dial-in", "dial-out"])
def test_both_sides_greet_each_other_whoever_dials(*, worker_dials: bool) -> None:
    async def scenario() -> None:
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def attached(raw: StreamLink) -> None:
            if worker_dials:
                peer = await greet(Side.LISTENER, OpenLink(raw), coordinator(), encode)
            else:
                peer = await greet(Side.LISTENER, SealedLink(raw), worker(), seal)
            answered.set_result(peer)
            assert await raw.receive() is None

        async with listening(attached, coordinator() if worker_dials else worker()) as listener:
            if worker_dials:
                link: OpenLink | SealedLink = SealedLink(await dial(listener.address, worker()))
                peer = await greet(Side.DIALER, link, worker(), seal)
                assert (peer, await answered) == (coordinator().peer, worker().peer)
            else:
                link = OpenLink(await dial(listener.address, coordinator(), expected_name="st-elsewhere"))
                peer = await greet(Side.DIALER, link, coordinator(), encode)
                assert (peer, await answered) == (worker().peer, coordinator().peer)
            await link.close()

    run(scenario())


def test_a_relay_with_a_certificate_of_its_own_gets_nothing() -> None:
    """Mallory holds a valid certificate, is dialled by the coordinator, and forwards everything to the worker."""
    mallory = authority().issue("mallory", Role.COORDINATOR)

    async def scenario() -> None:
        refusals: list[FedprivError] = []

        async def honest(raw: StreamLink) -> None:
            await greet(Side.LISTENER, SealedLink(raw), worker(), seal)

        async with Listener("127.0.0.1:0", worker(), honest, on_failure=refusals.append) as target:

            async def relay(raw: StreamLink) -> None:
                onward = await dial(target.address, mallory)
                hello = await raw.receive()
                assert hello is not None
                await onward.send(hello)
                assert await onward.receive() is None
                assert onward.bytes_received == 0
                await onward.close()

            async with listening(relay, mallory) as middle:
                link = OpenLink(await dial(middle.address, coordinator()))
                with pytest.raises(PeerLost):
                    await greet(Side.DIALER, link, coordinator(), encode)
        assert [type(refusal) for refusal in refusals] == [HandshakeFailed]
        assert "stands in between" in str(refusals[0])

    run(scenario())


def refused(credentials: Credentials, reason: str, *, expected_name: str | None = None) -> None:
    async def scenario() -> None:
        reached: list[StreamLink] = []

        async def attached(link: StreamLink) -> None:
            reached.append(link)

        async with listening(attached) as listener:
            with pytest.raises(HandshakeFailed, match=reason):
                await dial(listener.address, credentials, expected_name=expected_name)
        assert reached == []

    run(scenario())


def test_a_listener_of_another_authority_is_not_believed() -> None:
    refused(Authority.create().issue("coordinator-1", Role.COORDINATOR), "our authority did not issue")


def test_a_dialler_of_another_authority_is_not_let_in() -> None:
    other = Authority.create().issue("coordinator-1", Role.COORDINATOR)
    mixed = Credentials(other.chain, other.key, coordinator().authorities, other.peer)
    refused(mixed, "may not trust our certificate")


def test_a_listener_under_another_name_is_not_believed() -> None:
    refused(coordinator(), "another name", expected_name="mercy")


def test_an_expired_listener_is_not_believed() -> None:
    async def scenario() -> None:
        old = authority().issue("st-elsewhere", Role.WORKER, days=1, now=1_600_000_000.0)
        async with listening(echo, old) as listener:
            with pytest.raises(HandshakeFailed, match="expired"):
                await dial(listener.address, coordinator())

    run(scenario())


def test_a_dialler_without_a_certificate_is_not_let_in() -> None:
    async def scenario() -> None:
        async with listening(echo) as listener:
            bare = grpc.ssl_channel_credentials(coordinator().authorities_pem)
            async with grpc.aio.secure_channel(listener.address, bare) as channel:
                call = channel.stream_stream(f"/{SERVICE}/{METHOD}", None, None)(None)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.wait_for_connection()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_nothing_but_the_one_method_is_served() -> None:
    async def scenario() -> None:
        async with listening(echo) as listener:
            own = coordinator()
            tls = grpc.ssl_channel_credentials(own.authorities_pem, own.key_pem, own.chain_pem)
            async with grpc.aio.secure_channel(listener.address, tls) as channel:
                for path in (f"/{SERVICE}/Other", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
                    call = channel.stream_stream(path, None, None)(None)
                    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED

    run(scenario())


def test_a_failing_session_tells_the_peer_nothing() -> None:
    async def scenario() -> None:
        failures: list[FedprivError] = []

        async def attached(_: StreamLink) -> None:
            raise WireError("patient 7 is ill")

        async with Listener("127.0.0.1:0", worker(), attached, on_failure=failures.append) as listener:
            own = coordinator()
            tls = grpc.ssl_channel_credentials(own.authorities_pem, own.key_pem, own.chain_pem)
            async with grpc.aio.secure_channel(listener.address, tls) as channel:
                call = channel.stream_stream(f"/{SERVICE}/{METHOD}", None, None)(None)
                await call.wait_for_connection()
                await call.write(b"")
                while isinstance(await call.read(), bytes):
                    pass
                assert "patient" not in f"{await call.details()} {await call.trailing_metadata()}"
        assert [str(failure) for failure in failures] == ["patient 7 is ill"]

    run(scenario())


def test_a_port_in_use_is_named() -> None:
    async def scenario() -> None:
        async with listening(echo) as listener:
            with pytest.raises(UsageError, match=f"{listener.port}: the port is in use"):
                await Listener(listener.address, worker(), echo).start()

    run(scenario())


def test_a_listener_that_stops_loses_its_peers() -> None:
    async def scenario() -> None:
        async with listening(echo) as listener:
            link = await dial(listener.address, coordinator())
            await link.send(message(10))
            assert await link.receive() is not None
            waiting = asyncio.create_task(link.receive())
        with pytest.raises(PeerLost, match="went away"):
            await waiting
        with pytest.raises(PeerLost):
            await link.send(message(10))
        await link.close()

    run(scenario())


def test_a_dialler_that_breaks_off_is_noticed_at_once() -> None:
    async def scenario() -> None:
        async with grpc_ends() as (near, far):
            waiting = asyncio.create_task(far.receive())
            breaking = asyncio.create_task(near.receive())
            await near.send(message(3))
            assert content(await waiting) == (b"header", bytes(3))
            breaking.cancel()
            with pytest.raises(PeerLost):
                await far.receive()

    run(scenario())


@pytest.mark.parametrize(
    "junk", [b"\xff" * 40, b"\x08\x05\x2a\x01x" * 2, bytes(3 << 20)], ids=["noise", "twice", "zeros"]
)
def test_bytes_that_are_no_frame_end_the_link(junk: bytes) -> None:
    async def scenario() -> None:
        failures: list[FedprivError] = []
        async with Listener("127.0.0.1:0", worker(), echo, on_failure=failures.append) as listener:
            own = coordinator()
            tls = grpc.ssl_channel_credentials(own.authorities_pem, own.key_pem, own.chain_pem)
            async with grpc.aio.secure_channel(listener.address, tls) as channel:
                call = channel.stream_stream(f"/{SERVICE}/{METHOD}", None, None)(None)
                await call.write(junk)
                assert not isinstance(await call.read(), bytes)
        assert [type(failure) for failure in failures] == [WireError]

    run(scenario())


def test_64_megabytes_arrive_whole() -> None:
    async def scenario() -> None:
        async with grpc_ends() as (near, far):
            block = bytes(range(256)) * (1 << 18)
            sending = asyncio.create_task(near.send(Envelope(b"big", (memoryview(block),))))
            assert content(await far.receive()) == (b"big", block)
            await sending

    run(scenario())


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the resident size from Linux's /proc")
def test_a_peer_that_does_not_read_makes_the_sender_wait_and_not_grow() -> None:
    async def scenario() -> None:
        async with grpc_ends() as (near, far):
            block = memoryview(bytes(1 << 20))
            endless = Envelope(b"h", (block,) * 400)
            gc.collect()
            before = resident()
            sending = asyncio.create_task(near.send(endless))
            sent = -1
            while near.bytes_sent != sent:  # until nothing more gets through
                sent = near.bytes_sent
                await asyncio.wait({sending}, timeout=0.2)
            assert not sending.done()
            assert sent < 64 << 20
            assert resident() - before < 100 << 20
            received = await far.receive()
            assert received is not None
            assert received.payload_bytes == 400 << 20
            await sending

    run(scenario())


def test_an_address_that_is_none_is_a_usage_error() -> None:
    for address in ("localhost", "localhost:", ":7443", "localhost:port", "localhost:70000"):
        with pytest.raises(UsageError, match="host:port"):
            run(dial(address, coordinator()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dialling_again_pauses_longer_each_time_and_says_why() -> None:
    async def scenario() -> None:
        said: list[tuple[int, float, str]] = []
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        with pytest.raises(PeerLost, match="does not listen"):
            await dial_with_retry(
                f"127.0.0.1:{free_port()}",
                coordinator(),
                on_wait=lambda *facts: said.append(facts),
                attempts=4,
                sleep=sleep,
                jitter=lambda: 1.0,
            )
        assert slept == [seconds for _, seconds, _ in said] == [0.5, 1.0, 2.0]
        assert [attempt for attempt, _, _ in said] == [1, 2, 3]
        assert "does not listen" in said[0][2]

    run(scenario())


def test_dialling_again_succeeds_when_the_other_side_is_back() -> None:
    async def scenario() -> None:
        port = free_port()
        listener = Listener(f"127.0.0.1:{port}", worker(), echo)

        async def comes_back(_: float) -> None:
            await listener.start()

        link = await dial_with_retry(
            f"127.0.0.1:{port}", coordinator(), on_wait=lambda *_: None, attempts=3, sleep=comes_back
        )
        await link.send(message(4))
        assert content(await link.receive()) == (b"header", bytes(4))
        await link.close()
        await listener.close()

    run(scenario())


def test_dialling_again_does_not_wait_for_a_certificate_to_mend_itself() -> None:
    async def scenario() -> None:
        async with listening(echo) as listener:
            with pytest.raises(NotTrusted):
                await dial_with_retry(
                    listener.address,
                    Authority.create().issue("coordinator-1", Role.COORDINATOR),
                    on_wait=lambda *_: pytest.fail("it waited"),
                )

    run(scenario())
