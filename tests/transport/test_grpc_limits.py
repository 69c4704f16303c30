"""How many streams a listener takes in, from all and from one certificate."""

from __future__ import annotations

import asyncio

import pytest
from ends import authority, coordinator, run, worker

from fedpriv.errors import PeerLost
from fedpriv.transport.dial import dial
from fedpriv.transport.listen import Listener
from fedpriv.transport.stream import StreamLink
from fedpriv.wire.messages import Role


async def echo(link: StreamLink) -> None:
    while (envelope := await link.receive()) is not None:
        await link.send(envelope)


def test_more_links_than_the_limit_are_refused() -> None:
    async def scenario() -> None:
        async with Listener("127.0.0.1:0", worker(), echo, maximum_links=1) as listener:
            first = await dial(listener.address, coordinator())
            with pytest.raises(PeerLost, match="takes no more links now"):
                await dial(listener.address, coordinator())
            await first.close()

    run(scenario())


def test_a_certificate_that_holds_many_silent_links_keeps_nobody_else_out(caplog: pytest.LogCaptureFixture) -> None:
    silent = authority().issue("mallory", Role.WORKER)

    async def scenario() -> None:
        over = asyncio.Event()

        async def attached(link: StreamLink) -> None:
            assert await link.receive() is None
            over.set()

        async with Listener("127.0.0.1:0", worker(), attached, maximum_links=3, maximum_links_each=2) as listener:
            held = [await dial(listener.address, silent) for _ in range(2)]
            for _ in range(3):
                with pytest.raises(PeerLost, match="takes no more links now, or none of ours"):
                    await dial(listener.address, silent)
            honest = await dial(listener.address, coordinator())
            await honest.close()
            over.clear()
            await held.pop().close()
            await over.wait()
            while True:  # the place is free once the stream is over on both sides
                try:
                    held.append(await dial(listener.address, silent))
                    break
                except PeerLost:
                    await asyncio.sleep(0)
            for link in held:
                await link.close()

    run(scenario())
    logged = [record.getMessage() for record in caplog.records if record.name == "fedpriv.transport"]
    assert logged == ["'CN=mallory' holds 2 links; further ones are refused"]  # not one for each attempt


def test_many_links_of_one_certificate_at_once_are_counted_before_any_is_taken_in() -> None:
    async def scenario() -> None:
        async with Listener("127.0.0.1:0", worker(), echo, maximum_links_each=3) as listener:
            dialling = (dial(listener.address, coordinator()) for _ in range(12))
            ends = await asyncio.gather(*dialling, return_exceptions=True)
            links = [end for end in ends if isinstance(end, StreamLink)]
            assert len(links) == 3
            assert all(isinstance(end, PeerLost) for end in ends if end not in links)
            for link in links:
                await link.close()

    run(scenario())
