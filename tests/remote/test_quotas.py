"""What an owner grants one peer: which limit was met, how much it is, and how to get more, is what the peer reads."""

from __future__ import annotations

import pytest
import torch
from by_hand import Hand, dense
from sites import Site

import fedpriv as fp
from fedpriv.errors import PeerLost, QuotaExceeded, UsageError, WorkerRefused
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.inference import Quota
from fedpriv.plans.plan import Slot, Step
from fedpriv.wire.values import AskObjects, Fetch, Granted, Objects
from fedpriv_worker.config import Limits
from fedpriv_worker.quotas import PointerQuota, quota_of

SMALL = PointerQuota(1 << 20, 50, Quota(maximum_bytes=1 << 20, maximum_work=10**7))


@pytest.fixture
def small(site: Site) -> Site:
    site.worker._quota = SMALL
    return site


def test_memory(small: Site) -> None:
    pointer = small.pointed.send(torch.ones(1000))
    with pytest.raises(
        QuotaExceeded,
        match=r"bob grants 0\.000977 GiB of memory at once in all your sessions, and aten\.repeat\.default "
        r"\(operation 0\) goes over that; free values with del, .* \(memory_gib under \[limits\] in worker\.toml\)",
    ):
        pointer.repeat(1000).sum().get()
    assert pointer.sum().get() == 1000


def test_work(small: Site) -> None:
    square = small.pointed.send(torch.ones(250, 250))
    with pytest.raises(QuotaExceeded, match=r"grants 1e\+07 elementary operations .*aten\.mm.*ask its owner .* \(work"):
        (square @ square).get()


def test_how_many_values_there_are(small: Site) -> None:
    pointer = small.pointed.send(torch.ones(2))
    kept = [pointer + each for each in range(60)]
    with pytest.raises(QuotaExceeded, match=r"grants 50 values at once .*aten\.add.* \(values under \[limits\]"):
        kept[-1].get()
    del kept
    assert (pointer + 1).get().tolist() == [2, 2]


def test_memory_is_one_for_all_sessions_of_a_peer(small: Site) -> None:
    first, second = Hand(small), Hand(small, b"another session.")
    first.put(1, torch.ones(200_000))
    first.ask(AskObjects(0))
    second.put(1, torch.ones(200_000))
    with pytest.raises(WorkerRefused) as refused:
        second.ask(Fetch(0, 1))
    assert refused.value.code == "OVER_QUOTA"
    first.calls([], 0, 1)
    first.ask(AskObjects(0))
    second.put(2, torch.ones(200_000))
    assert second.ask(AskObjects(0)).objects[0].id == 2
    first.close()
    second.close()


def test_sessions_of_one_peer_take_turns(small: Site) -> None:
    """Were they judged at the same time, each would be granted what only one of them may have."""
    first, second = Hand(small), Hand(small, b"another session.")
    one, other = small.worker.leases._held.values()
    assert one.turn is other.turn
    first.close()
    second.close()


def test_refused_operations_take_no_memory_either(small: Site) -> None:
    """A refused operation of many results costs its sender a few bytes: what is remembered of it is bounded."""
    hand = Hand(small)
    many = Call(Step("os.system", (Slot(0),), (), 4096), (dense("float32", 2),))
    hand.put(1, torch.ones(2))
    hand.calls([many], *(word for use in range(100) for word in (1, 1, 2 + 4096 * use)))
    assert isinstance(hand.ask(AskObjects(0)), Objects)
    (session,) = small.worker.leases._held.values()
    assert len(session._table.shelf) <= 2 * 50
    hand.close()


def test_a_value_of_too_many_steps_says_to_trace_it(site: Site) -> None:
    value = site.pointed.dataset("toy").features
    for _ in range(10_001):
        value = value + 1
    with pytest.raises(QuotaExceeded, match=r"@fp\.plan"):
        value.request("a long way")


def test_too_many_requests_wait_already(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpriv.storage.requests.MAXIMUM_PENDING", 1)
    features = site.pointed.dataset("toy").features
    features.sum().request("one")
    with pytest.raises(QuotaExceeded, match="too many of your requests"):
        features.mean().request("two")


def test_limits_are_told_and_come_from_the_owners_file(site: Site) -> None:
    quota = quota_of(Limits(memory_gib=0.5, work=1e9, values=10))
    assert (quota.maximum_bytes, quota.each.maximum_bytes) == (1 << 29, 1 << 29)
    site.worker._quota = quota
    site.pointed.send(torch.ones(1)).get()
    assert site.pointed.values.line.granted == Granted(1 << 29, 10, 10**9)


@pytest.mark.parametrize("wrong", [{"memory_gib": 0.0}, {"work": -1.0}, {"values": 0}, {"memory_gib": float("nan")}])
def test_limits_that_grant_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} is .*; use a number above 0"):
        Limits(**wrong)  # type: ignore[arg-type]


def test_nothing_is_known_of_limits_before_a_session_is_open() -> None:
    bob = fp.VirtualWorker("bob", [])
    assert bob.values.line.granted is None
    bob.close()


def test_memory_between_the_elements_of_a_result_counts(small: Site) -> None:
    """A copy that keeps the strides of one column of a large table takes as much memory as the table."""
    hand = Hand(small)
    spread = Layout("float32", (64,), (2048,))
    fill = Call(Step("aten.new_full.default", (Slot(0), (64, 2048), 1.0)), (dense("float32", 1),))
    column = Call(Step("aten.select.int", (Slot(0), 1, 0)), (dense("float32", 64, 2048),))
    copy = Call(Step("aten.copy.default", (Slot(0), Slot(1))), (spread, dense("float32", 1)))
    hand.put(1, torch.ones(1))
    hand.calls([fill, column, copy], 1, 1, 2, 2, 2, 3, 3, 3, 1, 4, 3, 3, 1, 5)
    with pytest.raises(WorkerRefused) as refused:
        hand.ask(Fetch(0, 5))
    assert refused.value.code == "OVER_QUOTA"
    hand.close()


def test_what_definitions_describe_is_bounded_and_shared(small: Site) -> None:
    hand = Hand(small)
    many = Call(Step("aten.unbind.int", (Slot(0), 0), (), 4096), (dense("float32", 4096),))
    hand.calls([many] * 40)
    hand.ask(AskObjects(0))
    (session,) = small.worker.leases._held.values()
    assert len(session._bench._known) == 1
    hand.calls([many] * 40)
    with pytest.raises(PeerLost):
        hand.ask(AskObjects(0))


def test_a_session_that_somebody_is_attached_to_is_not_pushed_out(small: Site) -> None:
    hands = [Hand(small, b"a session under way"[:15] + bytes([at])) for at in range(5)]
    for at in range(20):
        Hand(small, b"another session"[:15] + bytes([at])).close()
    marks = {mark for _, mark in small.worker.leases._held}
    assert {hand._mark for hand in hands} <= marks
    for hand in hands:
        hand.close()
