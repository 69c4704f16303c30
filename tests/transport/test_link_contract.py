"""What every link promises, checked on links in memory and on gRPC over loopback mutual TLS."""

from __future__ import annotations

import asyncio

import pytest
from ends import Ends, content, grpc_ends, memory_ends, message, run

from fedpriv.errors import HandshakeFailed, PeerLost, WireError
from fedpriv.ids import PeerName
from fedpriv.sealed import Envelope, Sealed
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES, OpenLink, Peer, SealedLink
from fedpriv.wire.framing import envelope_bytes
from fedpriv.wire.messages import Role

PEER = Peer(PeerName("st-elsewhere"), Role.WORKER, bytes(32))


@pytest.mark.parametrize("ends", [memory_ends, grpc_ends])
class TestLinkContract:
    def test_messages_arrive_whole_and_in_order_both_ways(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                for size in (0, 1, 100_000, 3_000_000, 7):
                    await near.send(message(size, b"%d" % size))
                    await far.send(message(size, b"back %d" % size))
                    assert content(await far.receive()) == (b"%d" % size, bytes(size))
                    assert content(await near.receive()) == (b"back %d" % size, bytes(size))

        run(scenario())

    def test_the_entry_and_its_key_travel(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                await near.send(Envelope(b"h", (), 41, bytes(range(32))))
                received = await far.receive()
                assert received is not None
                assert (received.entry, received.entry_key) == (41, bytes(range(32)))

        run(scenario())

    def test_the_counters_are_the_bytes_that_a_ledger_records(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                messages = [message(size) for size in (0, 1, 2_500_000)]
                for each in messages:
                    await near.send(each)
                    await far.receive()
                assert near.bytes_sent == far.bytes_received == sum(map(envelope_bytes, messages))
                assert far.bytes_sent == near.bytes_received == 0

        run(scenario())

    def test_messages_of_two_tasks_never_interleave(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                sending = [asyncio.create_task(near.send(message(2_000_000, b"%d" % n))) for n in range(4)]
                headers = [content(await far.receive())[0] for _ in sending]
                await asyncio.gather(*sending)
                assert sorted(headers) == [b"0", b"1", b"2", b"3"]

        run(scenario())

    def test_closing_delivers_what_was_sent_and_then_ends_in_order(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                await near.send(message(10, b"last words"))
                closing = asyncio.create_task(near.close())
                assert content(await far.receive())[0] == b"last words"
                assert await far.receive() is None
                assert await far.receive() is None
                await far.close()
                await closing
                await near.close()

        run(scenario())

    def test_the_listener_may_close_first(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                await far.send(message(10))
                closing = asyncio.create_task(far.close())
                assert await near.receive() is not None
                assert await near.receive() is None
                await near.close()
                await closing

        run(scenario())

    def test_a_closed_link_sends_nothing(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                await asyncio.gather(near.close(), far.close())
                with pytest.raises(PeerLost):
                    await near.send(message(1))
                with pytest.raises(PeerLost):
                    await far.send(message(1))

        run(scenario())

    def test_a_stranger_sends_nothing_large(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                far.maximum_message_bytes = STRANGER_MESSAGE_BYTES
                sending = asyncio.create_task(near.send(message(STRANGER_MESSAGE_BYTES)))
                with pytest.raises(WireError, match="at most"):
                    await far.receive()
                await asyncio.gather(sending, return_exceptions=True)
                with pytest.raises(PeerLost):
                    await far.receive()

        run(scenario())

    def test_a_workers_link_sends_only_what_is_sealed(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, far):
                link = SealedLink(far)
                for other in (message(3), b"bytes", None):
                    with pytest.raises(TypeError, match="sealed"):
                        await link.send(other)  # type: ignore[arg-type]
                assert link.bytes_sent == 0
                await link.send(Sealed(message(3)))
                assert content(await near.receive()) == (b"header", bytes(3))

        run(scenario())

    def test_the_peer_is_known_once_and_only_after_the_handshake(self, ends: Ends) -> None:
        async def scenario() -> None:
            async with ends() as (near, _):
                link = OpenLink(near, maximum_message_bytes=12345)
                with pytest.raises(HandshakeFailed):
                    _ = link.peer
                link.identify(PEER)
                assert link.peer == PEER
                assert near.maximum_message_bytes == 12345
                with pytest.raises(HandshakeFailed, match="already"):
                    link.identify(PEER)

        run(scenario())
