"""Plans to bytes and back: exactly, and for any other bytes a `WireError` in bounded time."""

from __future__ import annotations

import random

import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedpriv.errors import PlanRefused, WireError
from fedpriv.learning.local import Adam
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import (
    MAXIMUM_RESULTS,
    Constant,
    Dtype,
    Input,
    InputRole,
    Output,
    OutputRole,
    Plan,
    Slot,
    Step,
)
from fedpriv.plans.tracing import trace_training
from fedpriv.plans.validation import Quota, validate
from fedpriv.wire.plans import MAXIMUM_DEPTH, MAXIMUM_PLAN_BYTES, decode_plan, encode_plan

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))
TRACED = trace_training(MODEL, F.cross_entropy, Adam(), TensorExample("float32", (1, 8, 8)), TensorExample("int64"))
BYTES = encode_plan(TRACED)
NAMES = st.text(max_size=8)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    NAMES,
    st.builds(Slot, st.integers(0, 2**32 - 1)),
    st.builds(Dtype, NAMES),
)
ARGUMENTS = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
SHAPES = st.lists(st.integers(-1, 2**62), max_size=4).map(tuple)
PLANS = st.builds(
    Plan,
    st.lists(st.builds(Input, NAMES, st.sampled_from(InputRole), NAMES, SHAPES), max_size=3).map(tuple),
    st.lists(st.builds(Output, NAMES, st.sampled_from(OutputRole), st.integers(0, 2**32 - 1)), max_size=3).map(tuple),
    st.lists(st.builds(Constant, NAMES, SHAPES, st.binary(max_size=9)), max_size=2).map(tuple),
    st.lists(
        st.builds(
            Step,
            NAMES,
            st.lists(ARGUMENTS, max_size=3).map(tuple),
            st.lists(st.tuples(NAMES, ARGUMENTS), max_size=2).map(tuple),
            st.integers(0, MAXIMUM_RESULTS),
        ),
        max_size=4,
    ).map(tuple),
    NAMES,
)


def test_a_traced_plan_comes_back_as_it_was():
    back = decode_plan(BYTES)
    assert back == TRACED
    assert back.digest == TRACED.digest
    assert encode_plan(back) == BYTES


@settings(max_examples=150, deadline=None)
@given(PLANS)
def test_any_plan_comes_back_with_its_digest(plan):
    assert decode_plan(encode_plan(plan)).digest == plan.digest


def test_mutated_bytes_are_refused_or_are_another_plan():
    source = random.Random(4)
    for _ in range(400):
        mutated = bytearray(BYTES)
        for _ in range(source.choice((1, 2, 8))):
            match source.randrange(3):
                case 0:
                    mutated[source.randrange(len(mutated))] = source.randrange(256)
                case 1:
                    del mutated[source.randrange(len(mutated)) :][: source.randrange(1, 40)]
                case 2:
                    at = source.randrange(len(mutated))
                    mutated[at:at] = source.randbytes(source.randrange(1, 9))
        try:
            plan = decode_plan(bytes(mutated))
        except WireError:
            continue
        assert plan.digest == decode_plan(encode_plan(plan)).digest
        try:
            validate(plan, Quota(maximum_bytes=1 << 26, maximum_work=1 << 30))
        except PlanRefused:
            continue


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    try:
        plan = decode_plan(data)
    except WireError:
        return
    assert encode_plan(plan) == data


EMPTY_STEP, EMPTY_ARGUMENT = b"\x22\x00", b"\x12\x00"


def framed(tag: bytes, content: bytes) -> bytes:
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return tag + bytes([*length, size]) + content


@pytest.mark.parametrize(
    "data",
    [
        EMPTY_STEP * (MAXIMUM_PLAN_BYTES // 2),
        framed(b"\x22", EMPTY_ARGUMENT * (MAXIMUM_PLAN_BYTES // 2 - 8)),
        framed(b"\x22", EMPTY_ARGUMENT * 8000) * 200,
        b"\x0a\x00" * 100_000,
    ],
)
def test_a_plan_of_very_many_parts_is_refused(data):
    with pytest.raises(WireError):
        decode_plan(data)


def test_a_shape_of_very_many_dimensions_is_refused():
    wide = Plan((Input("x", InputRole.ARGUMENT, "float32", (1,) * 65),), (), (), (), "2.13")
    with pytest.raises(WireError, match="dimensions"):
        decode_plan(encode_plan(wide))


def test_unknown_fields_are_refused_wherever_they_stand():
    for data in (BYTES + b"\xf8\x07\x01", b"\xf8\x07\x01" + BYTES, BYTES + framed(b"\x22", b"\xf8\x07\x01")):
        with pytest.raises(WireError, match="unknown"):
            decode_plan(data)


def test_a_step_of_very_many_results_is_refused():
    most = Plan((), (), (), (Step("aten.split.Tensor", (), results=MAXIMUM_RESULTS),), "2.13")
    assert decode_plan(encode_plan(most)) == most
    more = Plan((), (), (), (Step("aten.split.Tensor", (), results=MAXIMUM_RESULTS + 1),), "2.13")
    with pytest.raises(WireError, match="a step of 4097 results; 4096 at most"):
        decode_plan(encode_plan(more))


def test_nesting_is_bounded():
    argument: tuple = (1,)
    for _ in range(MAXIMUM_DEPTH + 2):
        argument = (argument,)
    deep = Plan((), (), (), (Step("aten.cat.default", (argument,)),), "2.13")
    with pytest.raises(WireError, match="nested too deeply"):
        decode_plan(encode_plan(deep))
