"""Everything that a worker sends is recorded, in order, also what it sent before anybody recorded."""

from __future__ import annotations

import asyncio

import pytest
from test_connection import ANNOUNCEMENT, ASK, connected, run, statistics

from fedpriv.errors import PeerLost
from fedpriv.sealed import Envelope, Sealed
from fedpriv.wire.codec import encode


class Notebook:
    """A recorder that keeps kinds and envelopes."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.envelopes: list[Envelope] = []

    def record(self, peer: str, kind: str, envelope: Envelope) -> None:
        assert peer == "st-elsewhere"
        self.kinds.append(kind)
        self.envelopes.append(envelope)


def test_a_recorder_hears_of_the_handshake_although_it_came_after_it() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            notebook = Notebook()
            connection.record_with(notebook)
            assert notebook.kinds == ["hello", "hello-proof", "announcement"]
            assert notebook.envelopes[-1].header == encode(ANNOUNCEMENT).header
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(statistics(1))
            await asking
            assert notebook.kinds[3:] == ["statistics"]

    run(scenario())


def test_what_nobody_recorded_is_not_kept_once_something_was_asked() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(statistics(1))
            await asking
            notebook = Notebook()
            connection.record_with(notebook)
            assert notebook.kinds == []

    run(scenario())


def test_bytes_that_are_no_message_are_on_record_too() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            notebook = Notebook()
            connection.record_with(notebook)
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.link.send(Sealed(Envelope(b"\xff\xff")))
            with pytest.raises(PeerLost):
                await asking
            assert notebook.kinds[3:] == ["unreadable"]

    run(scenario())


def test_we_know_the_name_that_the_worker_knows_us_by() -> None:
    async def scenario() -> None:
        async with connected() as (connection, _, __):
            assert connection.own_name == "coordinator-1"

    run(scenario())
