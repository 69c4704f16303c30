"""The table of a session's values: what may run, what it derives from, and what is missing."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import ReleaseDenied, WireError
from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import PUBLIC, private
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.inference import Quota
from fedpriv.plans.plan import InputRole, Slot, Step
from fedpriv.wire.messages import ErrorCode
from fedpriv_worker.bench import Bench
from fedpriv_worker.definitions import Defined, Drop, Run
from fedpriv_worker.lineage import MAXIMUM_STEPS, OVERLAID, Source, as_plan, seen
from fedpriv_worker.pointers import Table
from fedpriv_worker.quotas import PointerQuota
from fedpriv_worker.shelf import Held, Missing

FOUR = Layout.dense("float32", (4,))
ROWS = private(DatasetName("toy"), PeerName("bob"))
SOURCE = Source("toy/features", FOUR, InputRole.FEATURES)
EXP = Call(Step("aten.exp.default", (Slot(0),)), (FOUR,))
ADD = Call(Step("aten.add.Tensor", (Slot(0), Slot(1))), (FOUR, FOUR))
WRITE = Call(Step("aten.add.Tensor", (Slot(0), Slot(1))), (FOUR, FOUR), writes=True)
SCALED = Call(Step("aten.mul.Scalar", (Slot(0), Slot(1))), (FOUR,), numbers=1)
VIEW = Call(Step("aten.slice.Tensor", (Slot(0), 0, 1, 3)), (FOUR,))


def words(*numbers: int | float) -> bytes:
    return b"".join(struct.pack("<d" if isinstance(each, float) else "<Q", each) for each in numbers)


def table(*calls: Call, quota: PointerQuota | None = None) -> Table:
    made = Table(quota)
    made.put(1, [FOUR])
    made.put(2, [SOURCE], ROWS)
    for each in calls:
        made.definitions.define(each)
    return made


def held(made: Table, number: int) -> Held:
    found = made.find(number)
    assert isinstance(found, Held)
    return found


def missing(made: Table, number: int) -> Missing:
    found = made.find(number)
    assert isinstance(found, Missing)
    return found


def test_results_derive_from_their_operands() -> None:
    made = table(EXP, ADD)
    made.admit(words(1, 1, 3, 1, 2, 4, 2, 1, 2, 5))
    assert [held(made, each).storage.label for each in (3, 4, 5)] == [PUBLIC, ROWS, ROWS]


def test_a_write_labels_the_memory_of_every_view_made_before() -> None:
    made = table(VIEW, WRITE)
    made.admit(words(1, 1, 3, 2, 1, 2, 0))
    assert held(made, 3).storage is held(made, 1).storage
    assert held(made, 3).storage.label == ROWS


def test_numbers_that_are_given_anew_arrive_bit_by_bit() -> None:
    (run,) = table(SCALED).admit(words(1, 1, -0.0, 3))
    assert isinstance(run, Run)
    assert str(run.numbers) == "(-0.0,)"


@pytest.mark.parametrize(
    "said",
    [
        words(7, 1, 3), words(1), words(1, 1), words(0), words(1, 1, 1), words(1, 1, 2), words(1, 1, 2**63),
        words(2**64 - 1, 1, 3),
    ],
)  # fmt: skip  # one line of cases
def test_words_that_make_no_sense_end_the_session(said: bytes) -> None:
    with pytest.raises(WireError):
        table(EXP).admit(said)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=30))
def test_no_words_break_the_table(numbers: list[int]) -> None:
    made = table(EXP, ADD, WRITE, SCALED, VIEW)
    try:
        for command in made.admit(words(*numbers)):
            assert isinstance(command, Run | Drop)
    except WireError:
        pass
    assert made.shelf.live_bytes >= 0
    assert sum(each.layout.nbytes for each in made.shelf.objects()) >= made.shelf.live_bytes


def test_what_is_missing_is_missing_in_all_that_reads_it() -> None:
    made = table(EXP, ADD, WRITE)
    assert made.admit(words(1, 99, 3, 2, 3, 1, 4, 3, 1, 3, 0)) == []
    assert missing(made, 3) == Missing(ErrorCode.BAD_REQUEST, 0, "aten.exp.default")
    assert missing(made, 4) == missing(made, 3)
    assert missing(made, 1) == missing(made, 3), "a write that did not happen leaves nothing to rely on"


def test_more_than_is_granted_is_refused_before_anything_is_allocated() -> None:
    made = table(EXP, quota=PointerQuota(maximum_bytes=40))
    made.admit(words(1, 1, 3))
    assert missing(made, 3).code is ErrorCode.OVER_QUOTA
    made = table(EXP, quota=PointerQuota(maximum_objects=3))
    made.admit(words(1, 1, 3, 1, 1, 4))
    assert isinstance(made.find(3), Held)
    assert missing(made, 4).code is ErrorCode.OVER_VALUES
    made = Table(PointerQuota(maximum_bytes=8))
    assert made.put(1, [FOUR]) is ErrorCode.OVER_QUOTA
    assert missing(made, 1).code is ErrorCode.OVER_QUOTA
    denied = table(EXP, quota=PointerQuota(each=Quota(maximum_work=1)))
    denied.admit(words(1, 1, 3))
    assert missing(denied, 3).code is ErrorCode.OVER_WORK


def test_freed_memory_counts_once_however_many_views_showed_it() -> None:
    made = table(VIEW)
    made.admit(words(1, 1, 3, 1, 1, 4, 0, 1, 0, 3))
    assert made.shelf.live_bytes == 32
    assert made.admit(words(0, 4, 0, 4, 0, 77)) == [Drop(4)]
    assert made.shelf.live_bytes == 16


def test_a_failure_on_rows_shows_in_nothing() -> None:
    made, bench = table(EXP, ADD), Bench(SystemEntropy())
    for at in range(2):
        defined = made.definitions[at]
        assert isinstance(defined, Defined)
        bench.prepare(at, defined)
    bench.keep(1, [torch.ones(4)])  # and nothing under 2: the kernel fails there
    commands = made.admit(words(1, 1, 3, 1, 2, 4, 1, 2, 5, 1, 1, 6))
    at = bench.run(commands)
    assert at == 1
    failed = commands[at]
    assert isinstance(failed, Run)
    assert made.failed(failed) == (FOUR,)
    bench.stand_in(failed.first, (FOUR,))
    rest = [each for each in commands[at + 1 :] if made.still_stands(each)]
    assert [each.first for each in rest if isinstance(each, Run)] == [5, 6]
    assert held(made, 4).storage.label == ROWS
    assert bench.fetch(4).tolist() == [0, 0, 0, 0]
    assert made.admit(words(1, 4, 7)) != []


def test_a_failure_on_the_callers_own_names_the_operation() -> None:
    made = table(EXP)
    (run,) = made.admit(words(1, 1, 3))
    assert isinstance(run, Run)
    assert made.failed(run) is None
    assert missing(made, 3) == Missing(ErrorCode.STEP_FAILED, 0, "aten.exp.default")


def test_a_lineage_says_every_step_that_touched_rows_and_no_other() -> None:
    made = table(EXP, ADD, WRITE, SCALED)
    made.admit(words(1, 1, 3, 1, 2, 4, 2, 4, 3, 5, 3, 5, 4, 0, 4, 5, 0.5, 6))
    plan = as_plan(seen(held(made, 6)), b"mark")
    assert [each.name for each in plan.inputs] == ["0: toy/features", "1: the caller's own"]
    assert [each.operation for each in plan.steps] == [
        "aten.exp.default", "aten.add.Tensor", "aten.add.Tensor", "aten.mul.Scalar",
    ]  # fmt: skip  # one line of steps
    assert plan.steps[-1].arguments[1] == 0.5
    assert as_plan(seen(held(made, 6)), b"other").digest != plan.digest


def test_what_another_view_wrote_is_part_of_the_lineage() -> None:
    half = Layout("float32", (2,), (1,))
    write = Call(Step("aten.add.Tensor", (Slot(0), Slot(0))), (half,), writes=True)
    made = table(VIEW, write, EXP)
    made.admit(words(1, 2, 3, 2, 3, 0, 3, 2, 4))
    steps = [each.operation for each in as_plan(seen(held(made, 4)), b"").steps]
    assert steps == ["aten.slice.Tensor", "aten.add.Tensor", OVERLAID, "aten.exp.default"]


def test_a_value_of_the_callers_that_changed_is_another_input() -> None:
    """Were it the same one, #1 - #1 would look like nothing where it is the difference that the caller chose."""
    own_write = Call(Step("aten.exp.default", (Slot(0),)), (FOUR,), writes=True)
    for writes, inputs in (0, 2), (1, 3):
        made = table(ADD, own_write)
        made.admit(words(1, 1, 2, 3, *((2, 1, 0) * writes), 1, 1, 3, 4))
        plan = as_plan(seen(held(made, 4)), b"")
        assert len(plan.inputs) == inputs


def test_a_lineage_that_nobody_could_read_is_refused_with_the_mend() -> None:
    made = table(EXP)
    made.admit(words(*(word for at in range(MAXIMUM_STEPS + 1) for word in (1, 2 + at, 3 + at))))
    with pytest.raises(ReleaseDenied, match=r"@fp\.plan"):
        as_plan(seen(held(made, MAXIMUM_STEPS + 3)), b"")


def test_a_lineage_with_the_same_step_on_both_sides_is_as_long_as_its_steps() -> None:
    made = table(ADD)
    made.admit(words(*(word for at in range(40) for word in (1, 2 + at, 2 + at, 3 + at))))
    assert len(as_plan(seen(held(made, 42)), b"").steps) == 40
