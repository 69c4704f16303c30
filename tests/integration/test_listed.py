"""What is carried out for a peer stands in its owner's list, whatever else the peer asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleets import toy
from test_attacks import PLAN, UNIFORM, Attacker, order, play

import fedpriv as fp
from fedpriv.storage import requests as store
from fedpriv.wire.messages import ErrorCode, Failure, OfferPlan, Update


@pytest.fixture(params=["memory", "disk"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[fp.VirtualWorker]:
    state = None if request.param == "memory" else tmp_path / "state"
    made = fp.VirtualWorker("alice", [toy(64, release=UNIFORM)], state=state)
    yield made
    made.close()


def listed(worker: fp.VirtualWorker) -> dict[str, int]:
    return {each.request.purpose: each.times for each in worker._journal.requests.all()}


def test_every_order_is_counted(worker: fp.VirtualWorker) -> None:
    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        for number in range(5):
            assert isinstance(await attacker.ask(order(2 + number, purpose="wanted")), Update)

    play(scenario)
    assert listed(worker) == {"wanted": 5}


def test_an_order_that_others_pushed_out_is_listed_again_before_it_is_carried_out_again(
    worker: fp.VirtualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAXIMUM_REQUESTS", 3)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        await attacker.ask(order(2, purpose="wanted"))
        for number in range(3):
            await attacker.ask(order(3 + number, purpose=f"chaff {number}"))
        assert "wanted" not in listed(worker)
        assert isinstance(await attacker.ask(order(9, purpose="wanted")), Update)
        assert "wanted" in listed(worker)

    play(scenario)
    (found,) = (each for each in worker._journal.requests.all() if each.request.purpose == "wanted")
    assert found.plan


def test_an_order_that_cannot_be_listed_is_not_carried_out(
    worker: fp.VirtualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAXIMUM_DENIED", 1)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        assert isinstance(await attacker.ask(order(2, purpose="denied")), Update)
        (first,) = worker._journal.requests.all()
        worker._journal.requests.deny(first.request.id, why="no", now=worker._journal.now())
        for number, purpose, code in ((3, "denied", ErrorCode.APPROVAL_DENIED), (4, "denied ", ErrorCode.OVER_QUOTA)):
            answer = await attacker.ask(order(number, purpose=purpose))
            assert isinstance(answer, Failure)
            assert answer.code is code
        assert not isinstance(await attacker.ask(order(4, purpose="denied ")), Update)  # its number is free again

    play(scenario)
    assert listed(worker) == {"denied": 1}
    assert sum(entry.draft.kind == "update" for entry in worker.entries()) == 1
