"""A worker that is told to stop sees through what it began, takes nothing more, and ends its links in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

import pytest
from fleets import Fleet, MakeFleet, make_worker, toy
from test_floods import Sender, order, play, wide_plan
from test_trouble import Hanging

import fedpriv as fp
from fedpriv.errors import PeerLost
from fedpriv.transport.authority import process_authority
from fedpriv.wire import codec
from fedpriv.wire.messages import ErrorCode, Failure, OfferPlan, PlanAccepted, Role, Update
from fedpriv_worker.worker import Worker

HUB = (fp.PlainUpdate(recipients=("hub",)),)


@dataclass
class Busy:
    """A worker that is in the middle of an order of `hub`, and what holds it there."""

    worker: Worker
    hanging: Hanging
    hub: Sender

    @classmethod
    async def make(cls) -> Busy:
        worker, _ = make_worker("alice", [toy(8, release=HUB)], process_authority().issue("alice", Role.WORKER))
        hanging = Hanging(worker._executor, at=1)
        worker._executor = hanging
        hub = await Sender.connect(worker, "hub")
        assert isinstance(await hub.ask(OfferPlan(1, plan())), PlanAccepted)
        await hub.link.send(codec.encode(order(plan(), 4)))
        await asyncio.to_thread(hanging.reached.wait, 20)
        return cls(worker, hanging, hub)

    async def heard(self) -> object:
        envelope = await self.hub.link.receive()
        return None if envelope is None else codec.decode(envelope)


@cache
def plan():
    return wide_plan(4)


def with_a_busy_worker(scenario: Callable[[Busy], Awaitable[None]]) -> None:
    async def whole() -> None:
        busy = await Busy.make()
        try:
            await asyncio.wait_for(scenario(busy), 60)
        finally:
            busy.hanging.go.set()
            await busy.worker.close()

    asyncio.run(whole())


def test_what_was_begun_is_answered_and_the_link_then_ends_in_order() -> None:
    async def scenario(busy: Busy) -> None:
        draining = asyncio.create_task(busy.worker.drain(60))
        await asyncio.sleep(0)
        busy.hanging.go.set()
        assert isinstance(await busy.heard(), Update)
        assert await busy.heard() is None
        assert await draining
        await busy.hub.serving

    with_a_busy_worker(scenario)


def test_a_new_order_is_refused_by_a_code_meanwhile() -> None:
    async def scenario(busy: Busy) -> None:
        draining = asyncio.create_task(busy.worker.drain(60))
        await asyncio.sleep(0)
        await busy.hub.link.send(codec.encode(order(plan(), 4, number=3)))
        assert await busy.heard() == Failure(3, ErrorCode.SHUTTING_DOWN)
        busy.hanging.go.set()
        assert isinstance(await busy.heard(), Update)
        assert await draining

    with_a_busy_worker(scenario)


def test_an_idle_link_ends_at_once_and_a_new_one_is_not_taken() -> None:
    worker, _ = make_worker("alice", [toy(8, release=HUB)], process_authority().issue("alice", Role.WORKER))

    async def scenario() -> None:
        hub = await Sender.connect(worker, "hub")
        assert await worker.drain(60)
        assert await hub.link.receive() is None
        with pytest.raises(PeerLost):
            await Sender.connect(worker, "hub")

    play(worker, scenario)


def test_it_takes_so_long_at_most() -> None:
    async def scenario(busy: Busy) -> None:
        assert not await busy.worker.drain(0.01)

    with_a_busy_worker(scenario)


def test_a_sum_that_was_begun_is_finished(make_fleet: MakeFleet) -> None:
    held = {name: [toy(20, seed=seed, release=[fp.SecureSum(minimum_workers=3)])] for seed, name in enumerate("abc")}
    fleet: Fleet = make_fleet(held)
    told: list[bool] = []

    def begins(worker: Worker) -> None:
        """Tell it to stop as soon as its keys are out."""
        ready = worker.reached

        def reached(step: object) -> None:
            ready(step)
            if not told:
                told.append(True)
                worker.draining.set()

        worker.reached = reached

    begins(fleet.workers["a"])
    found = fleet.federation.statistics("toy", secure_aggregation=fleet.secure())
    assert told
    assert found.count == 60
