"""A peer that sends much, fast or at once: it is made to wait, or its link ends; nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fleets import make_worker, toy
from torch import nn

import fedpriv as fp
from fedpriv.errors import PeerLost, UsageError
from fedpriv.ids import DatasetName, JobId
from fedpriv.learning.local import SGD
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import Plan
from fedpriv.plans.tracing import trace_training
from fedpriv.remote import values
from fedpriv.transport.authority import process_authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES, OpenLink
from fedpriv.transport.memory import memory_pair
from fedpriv.updates import TensorSet
from fedpriv.wire import codec
from fedpriv.wire.messages import AskMock, Failure, Message, OfferPlan, PlanAccepted, Role, Train, Update
from fedpriv.wire.values import Calls, OpenSession, SessionOpen
from fedpriv_worker import pace, sizes
from fedpriv_worker.pace import GREETING, NAMED, STRANGER, Pace, Paces
from fedpriv_worker.worker import Worker, serve_quietly

TOY = DatasetName("toy")
WIDTH = 1 << 15
"""Of a model of 128 KiB."""


class Clock:
    """A clock that a sleep moves on, after everybody else had a turn."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


def held_by_alice(datasets: Sequence[fp.Dataset]) -> tuple[Worker, Clock]:
    worker, _ = make_worker("alice", datasets, process_authority().issue("alice", Role.WORKER))
    clock = Clock()
    worker.paces = Paces(now=lambda: clock.now, sleep=clock.sleep)
    return worker, clock


@cache
def throwaway(name: str) -> Credentials:
    return Credentials.throwaway(name, Role.RESEARCHER)


class Sender:
    """A researcher's end of a link that says whatever it likes."""

    def __init__(self, link: OpenLink, serving: asyncio.Task[None]) -> None:
        self.link, self.serving = link, serving

    @classmethod
    async def connect(cls, worker: Worker, name: str, *, over_tls: bool = False) -> Sender:
        ours, theirs = memory_pair()
        credentials = throwaway(name)
        theirs.tls_certificate = credentials.chain_der[0] if over_tls else None
        serving = asyncio.create_task(serve_quietly(worker, theirs, Side.LISTENER))
        link = OpenLink(ours)
        await greet(Side.DIALER, link, credentials, codec.encode)
        await link.receive()
        return cls(link, serving)

    async def ask(self, message: Message) -> Message:
        await self.link.send(codec.encode(message))
        envelope = await self.link.receive()
        if envelope is None:
            raise PeerLost("the worker closed the link")
        return codec.decode(envelope)


def play(worker: Worker, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        try:
            await asyncio.wait_for(scenario(), 60)
        finally:
            await worker.close()

    asyncio.run(whole())


def named(*recipients: str) -> fp.Dataset:
    return toy(64, release=(fp.PlainUpdate(recipients=recipients),))


def test_a_strangers_refusals_come_as_slowly_as_its_ledger_may_grow_over_all_its_links() -> None:
    worker, clock = held_by_alice([named("hub")])

    async def flood(sender: Sender) -> None:
        for number in range(1, 51):
            assert isinstance(await sender.ask(AskMock(number, TOY)), Failure)

    async def scenario() -> None:
        senders = [await Sender.connect(worker, "mallory") for _ in range(4)]
        await asyncio.gather(*map(flood, senders))
        assert clock.now >= (200 - STRANGER.burst) / STRANGER.per_second
        before = clock.now
        hub = await Sender.connect(worker, "hub")
        for number in range(1, 101):
            await hub.ask(AskMock(number, TOY))
        assert clock.now == before

    play(worker, scenario)


def test_whom_a_rule_names_waits_for_its_requests_alone_and_only_beyond_a_large_burst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert NAMED.burst >= 1000
    assert NAMED.per_second >= 100
    few = Pace(100, 10)
    monkeypatch.setattr(pace, "NAMED", few)
    worker, clock = held_by_alice([named("hub")])

    async def scenario() -> None:
        hub = await Sender.connect(worker, "hub")
        assert isinstance(await hub.ask(OpenSession(1, bytes(16))), SessionOpen)
        for number in range(1, int(few.burst) + 100):
            await hub.link.send(codec.encode(Calls(number, (), b"")))
        await hub.ask(AskMock(2, TOY))
        assert clock.now == 0
        for number in range(3, int(few.burst) + 2):
            await hub.ask(AskMock(number, TOY))
        assert clock.now == pytest.approx(1 / few.per_second)

    play(worker, scenario)


def test_a_certificate_that_greets_again_and_again_is_made_to_wait_before_anything_is_recorded() -> None:
    worker, clock = held_by_alice([named("hub")])

    async def scenario() -> None:
        for _ in range(int(GREETING.burst) + 4):
            sender = await Sender.connect(worker, "mallory", over_tls=True)
            await sender.link.close()
            await sender.serving
        assert clock.now == pytest.approx(4 / GREETING.per_second)

    play(worker, scenario)


def wide_plan(width: int) -> Plan:
    model = nn.Sequential(nn.Linear(width, 1), nn.Flatten(0))
    rows, target = TensorExample("float32", (width,)), TensorExample("float32", ())
    return trace_training(model, F.binary_cross_entropy_with_logits, SGD(lr=0.1), rows, target)


def order(plan: Plan, width: int, number: int = 2) -> Train:
    model = TensorSet({"0.weight": torch.zeros(1, width), "0.bias": torch.zeros(1)})
    return Train(
        request=number, job=JobId("j"), round=1, dataset=TOY, plan=plan.digest, epochs=1, batch_size=2, shuffle=False,
        drop_last=False, seed=0, hyperparameters={"lr": 0.1}, metrics=(), purpose="", model=model,
    )  # fmt: skip  # one order


@pytest.fixture
def small_puts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, size in ((sizes, "MAXIMUM_PUT_BYTES"), (sizes, "MAXIMUM_HEADER_BYTES"), (values, "MAXIMUM_PUT_BYTES")):
        monkeypatch.setattr(module, size, 1 << 15)


@pytest.mark.usefixtures("small_puts")
def test_a_large_message_is_taken_only_for_a_plan_that_needs_it() -> None:
    wide = fp.Dataset("toy", torch.zeros(4, WIDTH), torch.zeros(4), release=(fp.PlainUpdate(recipients=("hub",)),))
    worker, _ = held_by_alice([wide])
    plan, narrow = wide_plan(WIDTH), wide_plan(4)

    async def scenario() -> None:
        for offered in ((), (narrow,)):
            hub = await Sender.connect(worker, "hub")
            for number, each in enumerate(offered, 10):
                assert isinstance(await hub.ask(OfferPlan(number, each)), PlanAccepted)
            with pytest.raises(PeerLost):
                await hub.ask(order(plan, WIDTH))
            await hub.serving
        hub = await Sender.connect(worker, "hub")
        for number, each in enumerate((plan, narrow), 10):
            assert isinstance(await hub.ask(OfferPlan(number, each)), PlanAccepted)
        assert isinstance(await hub.ask(order(plan, WIDTH)), Update)
        with pytest.raises(PeerLost):
            await hub.ask(order(plan, WIDTH * 2, number=3))

    play(worker, scenario)


def test_a_stranger_may_send_what_a_stranger_needs_and_no_more() -> None:
    worker, _ = held_by_alice([named("hub")])

    async def scenario() -> None:
        mallory = await Sender.connect(worker, "mallory")
        assert isinstance(await mallory.ask(OfferPlan(1, wide_plan(4))), Failure)
        with pytest.raises(PeerLost):
            await mallory.ask(order(wide_plan(4), STRANGER_MESSAGE_BYTES // 4))

    play(worker, scenario)


@pytest.mark.usefixtures("small_puts")
def test_a_tensor_that_no_message_may_hold_is_refused_before_it_is_sent() -> None:
    with closing(fp.VirtualWorker("bob", ())) as bob:
        kept = bob.send(torch.zeros(1 << 13))
        with pytest.raises(UsageError, match="32,772 bytes in one tensor; a worker takes 32,768 at most"):
            bob.send(torch.zeros((1 << 13) + 1))
        assert kept.sum().get() == 0
