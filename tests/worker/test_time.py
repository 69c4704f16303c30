"""Rules that count by time, on a clock that goes on while something is computed, or that was wrong once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_desk import desk, note
from test_desk import update as asked_of_owner
from test_release import ASK, ME, ROWS, door, foreseen, released

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import ReleaseDenied, UsageError
from fedpriv.ids import WorkerName
from fedpriv.policy.rules import Statistics, cite
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import AskStatistics
from fedpriv.wire.messages import Statistics as StatisticsMessage
from fedpriv_worker.journal import Journal
from fedpriv_worker.records import reading
from fedpriv_worker.release import Admitted

ALICE = WorkerName("alice")
COUNT = StatisticsMessage(1, TensorSet({"count": torch.tensor(5.0)}))
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0


def counted(most: int) -> Statistics:
    return Statistics(kinds=("count",), recipients=("me",), rounds_per_day=most)


def journal(clock: ManualClock, state: Path | None = None) -> Journal:
    entropy = SeededEntropy(b"time")
    if state is None:
        return Journal.in_memory(worker=ALICE, clock=clock, entropy=entropy)
    return Journal.open(state, worker=ALICE, clock=clock, entropy=entropy)


def other(number: int) -> AskStatistics:
    """Return an order that is none of the others: a request of another number alone is the same order."""
    return replace(ASK, request=number, purpose=f"study {number}")


@pytest.mark.parametrize("seconds", [0.0, DAY + 0.001, 30 * DAY])
@pytest.mark.parametrize("most", [1, 2])
def test_a_release_leaves_however_long_it_was_computed(seconds: float, most: int) -> None:
    clock, rule = ManualClock(), counted(most)
    out = door((rule,), journal=journal(clock))
    admitted = out.admit(ASK, foreseen(COUNT), ME)
    assert isinstance(admitted, Admitted)
    clock.advance(seconds)
    assert out.release(COUNT, ASK, foreseen(COUNT), ME, admitted)
    (held,) = out.journal.holds.all()
    assert held.state.value == "committed"


def test_a_reservation_is_left_out_alone_and_only_where_it_is_named() -> None:
    out = door((counted(5),), journal=journal(ManualClock()))
    first, second = (out.admit(other(number), foreseen(COUNT), ME) for number in (1, 2))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    cited = cite(counted(5))
    assert out.journal.standing(ROWS).used == {cited: 2}
    assert out.journal.standing(ROWS, without=first.number).used == {cited: 1}


def test_after_a_wrong_jump_of_the_clock_nothing_leaves_that_is_counted_by_time() -> None:
    clock = ManualClock()
    out = door((counted(9),), journal=journal(clock))
    clock.advance(YEAR)
    assert released(out, COUNT, ASK)
    clock.advance(-YEAR)
    with pytest.raises(ReleaseDenied, match=r"8,760\.0 hours behind .* set it right"):
        out.admit(other(2), foreseen(COUNT), ME)
    free = Statistics(kinds=("count",), recipients=("me",))
    assert released(door((free,), journal=out.journal), COUNT, other(3))


@pytest.mark.parametrize(("back", "leaves"), [(5.0, True), (HOUR, True), (HOUR + 1, False)])
def test_a_clock_that_is_set_back_a_little_stops_nothing(back: float, leaves: bool) -> None:
    clock = ManualClock()
    out = door((counted(9),), journal=journal(clock))
    assert released(out, COUNT, ASK)
    clock.advance(-back)
    if leaves:
        assert released(out, COUNT, other(2))
    else:
        with pytest.raises(ReleaseDenied, match=r"1\.0 hours behind"):
            out.admit(other(2), foreseen(COUNT), ME)


def test_no_approval_is_given_while_the_clock_is_far_behind_and_a_rule_without_one_says_why() -> None:
    clock = ManualClock()
    records = journal(clock)
    identity = note(records, asked_of_owner())
    owner = desk(records=records)
    clock.advance(YEAR)
    records.now()
    clock.advance(-YEAR)
    with pytest.raises(UsageError, match="no approval can be given: the clock is"):
        owner.approve(identity, 1000, HOUR)
    assert "hours behind what it showed before" in " ".join(owner.explain(identity)["text"].split())
    clock.advance(YEAR + 1)
    assert owner.approve(identity, 1000, HOUR)["expires"] == clock.seconds + HOUR


def test_an_approval_lasts_by_the_clock_as_it_is_not_by_the_time_that_it_showed_before() -> None:
    clock = ManualClock()
    records = journal(clock)
    identity = note(records, asked_of_owner())
    clock.advance(HOUR / 2)
    records.now()
    clock.advance(-HOUR / 2)
    assert desk(records=records).approve(identity, 1, HOUR)["expires"] == clock.seconds + HOUR


def test_who_reads_the_records_of_a_worker_at_rest_sees_how_far_the_clock_is_behind(tmp_path: Path) -> None:
    clock = ManualClock(time.time() + YEAR)
    out = door((counted(9),), journal=journal(clock, tmp_path / "state"))
    assert released(out, COUNT, ASK)
    out.journal.close()
    with reading(tmp_path / "state") as stored:
        assert stored.standing(ROWS).behind == pytest.approx(YEAR, abs=HOUR)
