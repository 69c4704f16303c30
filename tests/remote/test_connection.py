"""Requests go out under numbers, replies find whoever asked, and a lost worker keeps nobody waiting."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedpriv.errors import HandshakeFailed, PeerLost, UsageError, WireError, WorkerRefused
from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.remote.connection import _ADVICE, Connection, order_number
from fedpriv.sealed import Envelope, Sealed
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.memory import MemoryLink, memory_pair
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import decode, encode
from fedpriv.wire.messages import (
    Announcement,
    AskCheckpoint,
    AskMock,
    AskStatistics,
    Checkpoint,
    CloseRound,
    Cosigned,
    ErrorCode,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    Message,
    Mock,
    Role,
    Statistics,
    Train,
    Update,
)

WORKER = Credentials.throwaway("st-elsewhere", Role.WORKER)
COORDINATOR = Credentials.throwaway("coordinator-1", Role.COORDINATOR)
ANNOUNCEMENT = Announcement("2.13", ())
ROWS = DatasetName("rows")
ASK = AskStatistics(0, ROWS, ("count",), "protocol")
EVALUATE = Evaluate(0, JobId("j"), 1, ROWS, PlanDigest(bytes(32)), 8, ("loss",), "", TensorSet())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def seal(message: Message) -> Sealed:
    return Sealed(encode(message))


def statistics(request: int, count: float = 3.0) -> Statistics:
    return Statistics(request, TensorSet({"count": torch.tensor(count, dtype=torch.float64)}))


class Worker:
    """The far end of a connection, played by hand."""

    def __init__(self, raw: MemoryLink) -> None:
        self.raw = raw
        self.link = SealedLink(raw)

    async def greet(self, *announcements: Message) -> None:
        await greet(Side.LISTENER, self.link, WORKER, seal)
        for announcement in announcements:
            await self.say(announcement)

    async def say(self, message: Message) -> None:
        await self.link.send(seal(message))

    async def hear(self) -> Message:
        envelope = await self.link.receive()
        assert envelope is not None
        return decode(envelope)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Worker, MemoryLink]]:
    near, far = memory_pair()
    worker = Worker(far)
    connection, _ = await asyncio.gather(
        Connection.open(OpenLink(near), Side.DIALER, COORDINATOR), worker.greet(ANNOUNCEMENT)
    )
    yield connection, worker, near
    await connection.close()


def test_an_open_connection_knows_the_worker_and_what_it_announced() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            assert (connection.name, connection.announcement) == ("st-elsewhere", ANNOUNCEMENT)
            assert connection.is_open
            assert connection.bytes_in == worker.link.bytes_sent
            assert connection.bytes_out == worker.link.bytes_received

    run(scenario())


def test_replies_find_their_requests_in_any_order() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = [asyncio.create_task(connection.ask(ASK)) for _ in range(5)]
            numbers = [(await worker.hear()).request for _ in asking]  # type: ignore[union-attr]
            assert len(set(numbers)) == 5
            for number in reversed(numbers):
                await worker.say(statistics(number, float(number)))
            replies = await asyncio.gather(*asking)
            assert [float(reply.values["count"]) for reply in replies] == numbers  # type: ignore[union-attr]

    run(scenario())


def test_every_byte_received_is_counted_under_a_kind() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(statistics(1))
            await asking
            assert {kind: messages for kind, (messages, _) in connection.received.items()} == {
                "handshake": 2,
                "announcement": 1,
                "statistics": 1,
            }
            assert sum(size for _, size in connection.received.values()) == connection.bytes_in

    run(scenario())


@pytest.mark.parametrize("code", ErrorCode)
def test_a_failure_is_raised_in_words(code: ErrorCode) -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(Failure(1, code, 4, "aten.addmm.default"))
            with pytest.raises(WorkerRefused, match="'st-elsewhere' refused at step 4") as caught:
                await asking
            assert (caught.value.code, caught.value.step, caught.value.operation) == (
                code.name,
                4,
                "aten.addmm.default",
            )
            assert _ADVICE[code] in str(caught.value)
            assert connection.is_open

    run(scenario())


def test_a_request_that_takes_too_long_is_given_up_and_its_reply_ignored() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            with pytest.raises(PeerLost, match=r"did not answer a AskStatistics within 0\.01 s"):
                await connection.ask(ASK, timeout_seconds=0.01)
            await worker.hear()
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(statistics(1, 1.0))
            await worker.say(statistics(2, 2.0))
            reply = await asking
            assert isinstance(reply, Statistics)
            assert float(reply.values["count"]) == 2.0

    run(scenario())


def test_a_lost_link_wakes_everybody_who_waits() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, near):
            asking = [asyncio.create_task(connection.ask(ASK)) for _ in range(3)]
            for _ in asking:
                await worker.hear()
            await near.lose()
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(result) for result in results] == [PeerLost] * 3
            await connection.ended()
            assert not connection.is_open
            with pytest.raises(PeerLost):
                await connection.ask(ASK)
            with pytest.raises(PeerLost):
                await connection.tell(CloseRound(JobId("j"), 1))

    run(scenario())


@pytest.mark.parametrize("polite", [True, False])
def test_a_worker_that_leaves_wakes_everybody_too(*, polite: bool) -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            if polite:
                await worker.say(Goodbye())
            await worker.link.close()
            with pytest.raises(PeerLost, match="goodbye" if polite else "closed the link"):
                await asking
            await connection.ended()

    run(scenario())


@pytest.mark.parametrize(
    "message",
    [ANNOUNCEMENT, CloseRound(JobId("j"), 1), ASK, Evaluation(1, 1, 1.0, {}), Update(1, 1, 1.0, {}, TensorSet())],
    ids=lambda message: type(message).__name__,
)
def test_a_worker_that_says_what_no_worker_may_say_loses_its_link(message: Message) -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await worker.say(message)
            with pytest.raises(PeerLost, match="no worker may send"):
                await asking
            assert await worker.link.receive() is None
            assert not connection.is_open

    run(scenario())


def test_bytes_that_are_no_message_end_the_connection() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(EVALUATE))
            await worker.hear()
            await worker.link.send(Sealed(Envelope(b"\xff\xff")))
            with pytest.raises(PeerLost, match="not a protobuf Header"):
                await asking

    run(scenario())


def test_closing_says_goodbye() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ASK))
            await worker.hear()
            await connection.close()
            assert isinstance(await worker.hear(), Goodbye)
            assert await worker.link.receive() is None
            with pytest.raises(PeerLost, match="closed here"):
                await asking
            await connection.close()

    run(scenario())


def opening(worker_does: Any, **options: Any) -> BaseException:
    """Return what opening a connection raises when the worker does something else than it should."""

    async def scenario() -> BaseException:
        near, far = memory_pair()
        results = await asyncio.gather(
            Connection.open(OpenLink(near), Side.DIALER, COORDINATOR, **options),
            worker_does(Worker(far)),
            return_exceptions=True,
        )
        with pytest.raises(PeerLost):
            await near.send(Envelope(b"closed"))
        return results[0]  # type: ignore[return-value]

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_worker_announces_itself_first_or_is_left() -> None:
    assert isinstance(opening(lambda worker: worker.greet(Goodbye())), WireError)

    async def leaves(worker: Worker) -> None:
        await worker.greet()
        await worker.link.close()

    assert "closed the link after the handshake" in str(opening(leaves))
    silent = opening(lambda worker: worker.greet(), timeout_seconds=0.2)
    assert isinstance(silent, PeerLost)
    assert "announced nothing" in str(silent)


def test_another_worker_than_expected_is_refused() -> None:
    assert isinstance(opening(lambda worker: worker.greet(ANNOUNCEMENT), name="mercy"), HandshakeFailed)


TRAIN = Train(
    0, JobId("j"), 1, ROWS, PlanDigest(bytes(32)), 1, 8, True, False, 7, {"lr": 0.1}, (), "protocol", TensorSet()
)


def test_an_order_has_the_same_number_whoever_sends_it_and_no_counter_reaches_it() -> None:
    changed = replace(TRAIN, request=9, seed=8, hyperparameters={"lr": 0.2}, metrics=("loss",), purpose="other")
    assert order_number(TRAIN) == order_number(changed)
    assert 1 << 62 <= order_number(TRAIN) < 1 << 63
    orders = [
        TRAIN,
        EVALUATE,
        replace(TRAIN, job=JobId("k")),
        replace(TRAIN, round=2),
        replace(TRAIN, dataset=DatasetName("other")),
        replace(TRAIN, plan=PlanDigest(bytes(31) + b"1")),
    ]
    for one, other in itertools.combinations(orders, 2):
        assert order_number(one) != order_number(other)


def test_a_retried_order_carries_its_first_number_over_any_connection() -> None:
    async def scenario() -> None:
        numbers = []
        for _ in range(2):
            async with connected() as (connection, worker, _):
                with pytest.raises(PeerLost):
                    await connection.ask(TRAIN, timeout_seconds=0.01)
                numbers.append((await worker.hear()).request)  # type: ignore[union-attr]
                asking = asyncio.create_task(connection.ask(TRAIN))
                numbers.append((await worker.hear()).request)  # type: ignore[union-attr]
                await worker.say(Update(numbers[-1], 1, 1.0, {}, TensorSet()))
                assert isinstance(await asking, Update)
        assert set(numbers) == {order_number(TRAIN)}

    run(scenario())


def test_an_order_under_way_is_not_sent_twice() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(TRAIN))
            await worker.hear()
            with pytest.raises(UsageError, match="at work on this Train already"):
                await connection.ask(TRAIN)
            await worker.say(Update(order_number(TRAIN), 1, 1.0, {}, TensorSet()))
            assert isinstance(await asking, Update)

    run(scenario())


@pytest.mark.parametrize(
    ("ask", "reply"),
    [
        (AskCheckpoint(0, b"note"), Checkpoint(1, b"note", (bytes(32),), "key")),
        (AskMock(0, ROWS), Mock(1, TensorSet({"features": torch.ones(2, 3), "target": torch.zeros(2)}))),
    ],
    ids=["checkpoint", "mock"],
)
def test_a_checkpoint_and_a_stand_in_answer_their_requests(ask: Any, reply: Message) -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            asking = asyncio.create_task(connection.ask(ask))
            await worker.hear()
            await worker.say(reply)
            assert type(await asking) is type(reply)

    run(scenario())


def test_a_cosignature_is_told_without_a_reply() -> None:
    async def scenario() -> None:
        async with connected() as (connection, worker, _):
            cosigned = Cosigned("fedpriv.witness/me+00000000+BA==", b"line")
            await connection.tell(cosigned)
            assert await worker.hear() == cosigned

    run(scenario())
