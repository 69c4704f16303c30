"""Links in memory share buffers, wait like a network, and fail when told to."""

from __future__ import annotations

import asyncio

import pytest
from ends import content, message, run

from fedpriv.errors import PeerLost
from fedpriv.sealed import Envelope
from fedpriv.transport.memory import memory_pair


def test_an_envelope_is_handed_over_without_copying() -> None:
    async def scenario() -> None:
        near, far = memory_pair()
        sent = message(100)
        await near.send(sent)
        assert await far.receive() is sent

    run(scenario())


def test_a_sender_waits_while_nobody_reads() -> None:
    async def scenario() -> None:
        near, far = memory_pair(window=2)
        sending = [asyncio.create_task(near.send(message(n))) for n in range(4)]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({sending[1]})
        assert [task.done() for task in sending] == [True, True, False, False]
        for _ in sending:
            await far.receive()
        await asyncio.gather(*sending)

    run(scenario())


def test_the_link_is_lost_after_so_many_messages() -> None:
    async def scenario() -> None:
        near, far = memory_pair()
        near.faults.lose_after = 1
        await near.send(message(1))
        assert await far.receive() is not None
        with pytest.raises(PeerLost):
            await near.send(message(1))
        with pytest.raises(PeerLost):
            await far.receive()
        with pytest.raises(PeerLost):
            await near.receive()

    run(scenario())


def test_what_is_unread_is_lost_with_the_link() -> None:
    async def scenario() -> None:
        near, far = memory_pair()
        await near.send(message(1))
        await near.lose()
        with pytest.raises(PeerLost):
            await far.receive()

    run(scenario())


def test_messages_are_held_back_until_released() -> None:
    async def scenario() -> None:
        near, far = memory_pair()
        near.faults.hold()
        sending = asyncio.create_task(near.send(message(1, b"late")))
        receiving = asyncio.create_task(far.receive())
        await far.send(message(1, b"overtakes"))
        assert content(await near.receive())[0] == b"overtakes"
        assert not sending.done()
        near.faults.release()
        await sending
        assert content(await receiving)[0] == b"late"

    run(scenario())


def test_a_message_is_changed_or_swallowed_on_its_way() -> None:
    async def scenario() -> None:
        near, far = memory_pair()
        near.faults.change = lambda envelope: Envelope(envelope.header[:3])
        await near.send(message(10))
        assert content(await far.receive()) == (b"hea", b"")
        near.faults.change = lambda _: None
        await near.send(message(10))
        near.faults.change = None
        await near.send(message(1, b"after"))
        assert content(await far.receive())[0] == b"after"

    run(scenario())
