"""A plan's digest covers every field, and pruning changes nothing that matters."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.plans.plan import (
    Constant,
    Dtype,
    Input,
    InputRole,
    Output,
    OutputRole,
    Plan,
    Slot,
    Step,
    pruned,
    slots_in,
    step_slots,
)

PLAN = Plan(
    inputs=(Input("rows", InputRole.FEATURES, "float32", (-1, 4)), Input("w", InputRole.PARAMETER, "float32", (4,))),
    outputs=(Output("w", OutputRole.PARAMETER, 3), Output("loss", OutputRole.LOSS, 4)),
    constants=(Constant("float32", (1,), bytes(4)),),
    steps=(
        Step("aten.mul.Tensor", (Slot(0), Slot(1))),
        Step("aten.sum.default", (Slot(3),), (("dtype", Dtype("float32")),)),
    ),
    torch_version="2.13",
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=4),
    st.builds(Slot, st.integers(0, 9)),
    st.builds(Dtype, st.text(max_size=4)),
)
ARGUMENTS = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def changed(field: str, value) -> bytes:
    return replace(PLAN, **{field: value}).digest


def test_any_changed_field_changes_the_digest():
    first, weight = PLAN.inputs
    mul, total = PLAN.steps
    others = [
        changed("torch_version", "2.14"),
        changed("inputs", (weight, first)),
        changed("inputs", (replace(first, name="row"), weight)),
        changed("inputs", (replace(first, role=InputRole.TARGET), weight)),
        changed("inputs", (replace(first, dtype="float64"), weight)),
        changed("inputs", (replace(first, shape=(-1, 5)), weight)),
        changed("outputs", PLAN.outputs[:1]),
        changed("outputs", (replace(PLAN.outputs[0], slot=4), PLAN.outputs[1])),
        changed("outputs", (replace(PLAN.outputs[0], role=OutputRole.STATE), PLAN.outputs[1])),
        changed("constants", ()),
        changed("constants", (Constant("float32", (1,), b"\0\0\0\1"),)),
        changed("constants", (Constant("int32", (1,), bytes(4)),)),
        changed("constants", (Constant("float32", (1, 1), bytes(4)),)),
        changed("steps", (total, mul)),
        changed("steps", (replace(mul, operation="aten.add.Tensor"), total)),
        changed("steps", (replace(mul, arguments=(Slot(1), Slot(0))), total)),
        changed("steps", (replace(mul, results=2), total)),
        changed("steps", (mul, replace(total, keywords=()))),
        changed("steps", (mul, replace(total, keywords=(("dtype", Dtype("float64")),)))),
        changed("steps", (mul, replace(total, keywords=(("dtype", "float32"),)))),
    ]
    assert len({PLAN.digest, *others}) == len(others) + 1
    assert replace(PLAN).digest == PLAN.digest


@settings(max_examples=200)
@given(ARGUMENTS, ARGUMENTS)
def test_two_arguments_share_a_digest_only_if_they_are_one(left, right):
    digests = [replace(PLAN, steps=(Step("aten.relu.default", (each,)),)).digest for each in (left, right)]
    assert (digests[0] == digests[1]) == (repr(left) == repr(right))


def test_pruning_drops_what_no_output_needs_and_renumbers():
    plan = Plan(
        inputs=PLAN.inputs,
        outputs=(Output("loss", OutputRole.LOSS, 6),),
        constants=(Constant("float32", (1,), bytes(4)), Constant("float32", (1,), b"1234")),
        steps=(
            Step("aten.relu.default", (Slot(0),)),
            Step("aten.relu.default", (Slot(3),)),
            Step("aten.mul.Tensor", (Slot(5), (Slot(1), None)), (("k", Slot(5)),)),
        ),
        torch_version="2.13",
    )
    small = pruned(plan)
    assert small.constants == plan.constants[1:]
    assert small.steps == (
        Step("aten.relu.default", (Slot(2),)),
        Step("aten.mul.Tensor", (Slot(3), (Slot(1), None)), (("k", Slot(3)),)),
    )
    assert small.outputs[0].slot == 4
    assert pruned(small) == small


def test_slots_are_found_at_any_depth_and_in_order():
    step = Step("x", (Slot(3), (1, (Slot(1),)), None), (("k", (Slot(2),)),))
    assert list(step_slots(step)) == [3, 1, 2]
    assert list(slots_in(1, None, "Slot(4)")) == []
    assert [list(filled) for _, _, filled in PLAN.walk()] == [[3], [4]]
