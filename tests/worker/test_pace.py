"""How fast a peer is listened to, and how large its messages may be: the arithmetic, without a clock."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import DatasetName, PeerName
from fedpriv.plans.plan import BATCH, Input, InputRole, Plan
from fedpriv.policy.decision import Recipient
from fedpriv.policy.rules import Mock, PlainUpdate
from fedpriv.wire.framing import MAXIMUM_HEADER_BYTES, MAXIMUM_MESSAGE_BYTES
from fedpriv.wire.messages import AskMock, CloseRound
from fedpriv.wire.values import MAXIMUM_PUT_BYTES, Calls, Fetch, OpenDataset
from fedpriv_worker import pace
from fedpriv_worker.pace import NAMED, STRANGER, Bucket, Pace, Paces, pace_of
from fedpriv_worker.sizes import largest_message, model_bytes

HUB = Recipient(PeerName("hub"), "coordinator")
NOTES = DatasetName("notes")
OPEN = PlainUpdate(recipients=("hub", "other"))
ASK, CALLS = AskMock(1, NOTES), Calls(1, (), b"")


def test_a_burst_goes_through_and_then_one_message_at_a_time():
    bucket, waits = Bucket.full(Pace(3, 2), 10.0), []
    for _ in range(5):
        bucket, wait = bucket.take(10.0)
        waits.append(wait)
    assert waits == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert bucket.take(11.0)[1] == 0.5
    assert bucket.take(1000.0) == (Bucket(Pace(3, 2), 2.0, 1000.0), 0.0)


def test_a_clock_that_runs_backwards_gives_and_takes_nothing():
    bucket, _ = Bucket.full(Pace(2, 1), 10.0).take(10.0)
    back, wait = bucket.take(3.0)
    assert (back.tokens, back.at, wait) == (0.0, 10.0, 0.0)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(1, 20), st.floats(0.1, 20))
def test_no_one_is_taken_up_faster_than_the_pace_over_any_time(gaps, burst, per_second):
    bucket, now, taken = Bucket.full(Pace(burst, per_second), 0.0), 0.0, []
    for gap in gaps:
        now += gap
        bucket, wait = bucket.take(now)
        taken.append(now + wait)
    for count, until in enumerate(sorted(taken), 1):
        assert count <= burst + per_second * until + 1e-6


@pytest.mark.parametrize(
    ("rules", "message", "expected"),
    [
        ({NOTES: (PlainUpdate(recipients=("hub",)),)}, ASK, NAMED),
        ({NOTES: (OPEN,)}, Fetch(1, 1), NAMED),
        ({NOTES: (OPEN,)}, CALLS, None),
        ({NOTES: (OPEN,)}, OpenDataset(1, 1, NOTES), None),
        ({NOTES: (OPEN,)}, CloseRound("j", 1), None),
        ({}, ASK, NAMED),
        ({}, CALLS, None),
        ({NOTES: ()}, ASK, STRANGER),
        ({NOTES: ()}, CALLS, STRANGER),
        ({NOTES: ()}, CloseRound("j", 1), STRANGER),
        ({NOTES: (PlainUpdate(recipients=("other",)),)}, ASK, STRANGER),
        ({NOTES: (Mock(recipients=("hub",)),)}, ASK, STRANGER),
    ],
)
def test_whom_a_rule_names_is_listened_to_faster_and_calls_are_not_held_up(rules, message, expected):
    assert pace_of(message, HUB, rules) == expected


class Clock:
    """A clock that a sleep moves on."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def keep(paces, messages, who="mallory", kept=STRANGER):
    async def scenario():
        for _ in range(messages):
            await paces.keep(who, kept)

    asyncio.run(scenario())


def test_a_flood_waits_and_others_do_not_wait_for_it():
    clock = Clock()
    paces = Paces(now=lambda: clock.now, sleep=clock.sleep)
    keep(paces, 1032)
    assert clock.now == 1000 / STRANGER.per_second
    keep(paces, 32, who="eve")
    keep(paces, 1000, who="mallory", kept=None)
    assert clock.now == 1000 / STRANGER.per_second
    clock.now += 3600
    clock.slept.clear()
    keep(paces, 32)
    assert clock.slept == []


def test_peers_that_are_quiet_again_are_forgotten(monkeypatch):
    monkeypatch.setattr(pace, "MAXIMUM_BUCKETS", 3)
    clock = Clock()
    paces = Paces(now=lambda: clock.now, sleep=clock.sleep)
    for number in range(10):
        keep(paces, 1, who=f"peer {number}")
        clock.now += 1
    assert len(paces._buckets) <= 3
    keep(paces, 40, who="busy")
    keep(paces, 1, who="another")
    slept = len(clock.slept)
    keep(paces, 1, who="busy")
    assert len(clock.slept) == slept + 1  # it was not forgotten


def plan_of(elements):
    inputs = (
        Input("weight", InputRole.PARAMETER, "float32", (elements - 1,)),
        Input("mean", InputRole.STATE, "float32", (1,)),
        Input("lookup", InputRole.FROZEN, "int64", (2, 3)),
        Input("momentum", InputRole.OPTIMIZER, "float32", (elements,)),
        Input("lr", InputRole.HYPERPARAMETER, "float64", ()),
        Input("features", InputRole.FEATURES, "float32", (BATCH, 4)),
    )
    return Plan(inputs, (), (), (), "2")


def test_a_message_may_be_as_large_as_the_largest_model_needs_and_never_less_than_a_put():
    small, large = plan_of(10), plan_of(MAXIMUM_PUT_BYTES)
    assert model_bytes(small) == 4 * 10 + 8 * 6
    assert largest_message() == largest_message([small]) == MAXIMUM_PUT_BYTES + MAXIMUM_HEADER_BYTES
    assert largest_message([small, large, small]) == 4 * MAXIMUM_PUT_BYTES + 8 * 6 + MAXIMUM_HEADER_BYTES
    assert largest_message([plan_of(MAXIMUM_MESSAGE_BYTES)]) == MAXIMUM_MESSAGE_BYTES
