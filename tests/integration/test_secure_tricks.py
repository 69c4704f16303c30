"""What a coordinator may ask of a sum without cheating in the protocol: none of it singles a worker out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cheating import Cheat
from fleets import MakeFleet, toy, virtual_fleet
from torch import nn

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName
from fedpriv.secagg.messages import Abort, Delivery, Invite
from fedpriv.wire.messages import AskStatistics, ErrorCode, Train
from fedpriv.wire.rounds import FixedPoint, vector_of
from fedpriv_worker.executor import InProcessExecutor

NAMES = ("alice", "bob", "carol", "dave", "erin")
DAY_MILLISECONDS = 86_400_000
IMPATIENT = (5.0, 5.0, 0.3, 5.0, 5.0)
LOSS = F.binary_cross_entropy_with_logits


@pytest.fixture
def cheat(tmp_path: Path) -> Iterator[Cheat]:
    rows = {name: [toy(40 + at, seed=at, release=[fp.SecureSum(rounds_per_day=3)])] for at, name in enumerate(NAMES)}
    fleet = virtual_fleet(rows, tmp_path)
    yield Cheat(fleet)
    fleet.close()


@pytest.mark.parametrize("change", [{"seed": 7}, {"drop_last": True}], ids=str)
def test_no_order_of_a_sum_picks_which_rows_count(cheat: Cheat, change) -> None:
    """A seed picks the row that dropout spares; leftover rows can be those of all workers but one."""
    cheating, summed = cheat.play(alter_order=lambda _, order: replace(order, **change))
    assert summed.sum is None
    assert {event.code for _, event in cheating.heard} == {ErrorCode.BAD_REQUEST.name}


def test_leaving_rows_out_is_refused_before_anything_is_sent(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({name: [toy(40, release=[fp.SecureSum()])] for name in NAMES})
    with pytest.raises(UsageError, match=r"drop_last leaves rows out.*use drop_last=False"):
        fleet.federation.fit(
            nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), dataset="toy", loss=LOSS, rounds=1,
            local=fp.LocalTraining(drop_last=True), secure_aggregation=fleet.secure(),
        )  # fmt: skip  # two lines of terms


def test_a_worker_orders_its_rows_itself(cheat: Cheat) -> None:
    """The same order twice, and two sums: what orders the rows is drawn by each worker, anew."""
    sums = [cheat.play()[1].sum for _ in range(2)]
    weights = [total.total("tensor/0.weight") for total in sums]
    assert (weights[0] != weights[1]).any()
    assert abs(weights[0] - weights[1]).max() < 0.2 * abs(weights[0]).max()


def test_a_weight_limit_below_the_rows_is_no_oracle_for_them(cheat: Cheat) -> None:
    """All weigh the limit at most: whether a worker withdraws would tell whether it has more rows than that."""
    order = cheat.order()
    for limit in (39, 42, 2):
        vector = vector_of(order, cheat.job.changed, 4, FixedPoint(16.0, 16, limit))
        cheating, summed = cheat.play(vector=vector)
        assert summed.sum is not None
        assert cheating.aborts() == {}
        assert summed.sum.weight == sum(min(limit, 40 + at) for at in range(5))


@pytest.mark.parametrize(
    "nonsense", [{"model": bytes(32)}, {"federation": "another"}, {"roster": bytes(32)}, {"minimum_cohort": 2}, {}]
)
def test_only_a_round_that_a_worker_accepts_counts_as_its_last(cheat: Cheat, nonsense) -> None:
    """Else one order would keep it out of everybody's rounds for as long as the number is ahead of the clock."""
    ahead = int(time.time() * 1000) + DAY_MILLISECONDS - 5000
    order = cheat.order()
    bad = cheat.descriptor(order, round=ahead, **nonsense)
    for name in NAMES:
        (abort,) = cheat.ask_one(name, replace(order, invite=Invite(bad)))
        assert isinstance(abort, Abort)
    _, summed = cheat.play()
    assert summed.sum is not None


def withheld(_: str, message: object) -> object:
    """Deliver no shares: the masks are never there."""
    return None if isinstance(message, Delivery) else message


def spoilt(_: str, message: object) -> object:
    """Deliver shares that fit nobody."""
    return replace(message, ciphertexts=()) if isinstance(message, Delivery) else message


@pytest.mark.parametrize("alter", [withheld, spoilt])
def test_nothing_is_computed_before_the_masks_are_there(cheat: Cheat, monkeypatch: pytest.MonkeyPatch, alter) -> None:
    """When it ends could be heard from an abort; so a round in which the shares never come trains nobody."""
    trained: list[str] = []
    original = InProcessExecutor._outcome

    def watched(self: InProcessExecutor, request, plan, stopped, peer):
        trained.extend(["trained"] if isinstance(request, Train) else [])
        return original(self, request, plan, stopped, peer)

    monkeypatch.setattr(InProcessExecutor, "_outcome", watched)
    _, summed = cheat.play(alter=alter, deadlines_seconds=IMPATIENT)
    assert summed.sum is None
    assert trained == []
    _, summed = cheat.play()
    assert summed.sum is not None
    assert len(trained) == len(NAMES)


@pytest.mark.parametrize("alter", [withheld, spoilt])
def test_a_round_that_was_given_up_uses_up_nothing(cheat: Cheat, alter) -> None:
    """Of three releases a day, two rounds that stopped halfway leave three: nothing was let out in them."""
    for _ in range(2):
        _, summed = cheat.play(alter=alter, deadlines_seconds=IMPATIENT)
        assert summed.sum is None
    for _ in range(3):
        _, summed = cheat.play()
        assert summed.sum is not None
    _, summed = cheat.play()
    assert summed.sum is None
    assert cheat.fleet.kinds("alice").count("secagg-masked") == 3


def test_time_tells_nothing_of_denormals() -> None:
    """With them a step takes a hundred times as long, on values that an order picks; so worker threads have none."""
    executor = InProcessExecutor([toy(8)])
    size = 1 << 22  # enough for every thread of torch's to have a part

    def kept() -> int:
        return int(torch.count_nonzero(torch.full((size,), 1e-40) * 1.0))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(kept).result() == size  # the control
    with ThreadPoolExecutor(1) as pool:
        pool.submit(executor.carry_out, AskStatistics(1, DatasetName("toy"), ("count",), ""), None, bool, "me").result()
        assert pool.submit(kept).result() == 0
