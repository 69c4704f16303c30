"""Every trap a hostile plan can set is refused, before anything is allocated, with the step and its name."""

from __future__ import annotations

import math
import time
import tracemalloc
from dataclasses import replace

import pytest
import torch

from fedpriv.errors import OperationNotAllowed, PlanRefused, QuotaExceeded, TorchVersionMismatch
from fedpriv.plans.operations import denied, table
from fedpriv.plans.plan import BATCH, Constant, Dtype, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import Quota, torch_minor, validate

ROWS = Input("rows", InputRole.ARGUMENT, "float32", (BATCH, 4))
NUMBERS = Input("numbers", InputRole.ARGUMENT, "int64", (BATCH,))
VERSION = torch_minor(torch.__version__)


def plan_of(*steps: Step, inputs=(ROWS, NUMBERS), constants=(), outputs=None) -> Plan:
    last = len(inputs) + len(constants) + sum(step.results for step in steps) - 1
    outputs = (Output("result", OutputRole.RESULT, last),) if outputs is None else outputs
    return Plan(tuple(inputs), tuple(outputs), tuple(constants), steps, VERSION)


def step(name: str, *arguments, results: int = 1, **keywords) -> Step:
    return Step(f"aten.{name}", arguments, tuple(sorted(keywords.items())), results)


def test_a_plain_plan_passes_and_is_measured():
    checked = validate(plan_of(step("mm.default", Slot(0), Slot(0)), inputs=[replace(ROWS, shape=(4, 4))]))
    found = checked.at(2)
    assert found.peak_bytes >= 3 * 64
    assert found.work >= 4 * 4 * 4


@pytest.mark.parametrize(
    "name", ["aten.nonexistent.default", "os.system", "", "aten", "aten.relu", "aten.relu.default.x", "__import__"]
)
def test_an_unknown_operation_is_denied(name):
    with pytest.raises(OperationNotAllowed) as caught:
        validate(plan_of(Step(name, (Slot(0),))))
    assert (caught.value.step, caught.value.operation) == (0, name)


@pytest.mark.parametrize("name", sorted(denied()))
def test_an_operation_that_was_reviewed_and_denied_says_why(name):
    with pytest.raises(OperationNotAllowed, match=denied()[name].split(";")[0]):
        validate(plan_of(Step(name, (Slot(0),))))


@pytest.mark.parametrize(
    "bad",
    [
        step("relu.default"),
        step("relu.default", Slot(0), Slot(0)),
        step("relu.default", 3),
        step("relu.default", None),
        step("relu.default", "rows"),
        step("relu.default", (Slot(0),)),
        step("relu.default", Slot(0), inplace=True),
        step("sum.dim_IntList", Slot(0), (1.5,)),
        step("sum.dim_IntList", Slot(0), (True,)),
        step("sum.dim_IntList", Slot(0), ((0,),)),
        step("sum.dim_IntList", Slot(0), (0,), 1),
        step("cat.default", (Slot(0), 3)),
        step("cat.default", Slot(0)),
        step("gelu.default", Slot(0), approximate="rm -rf"),
        step("_to_copy.default", Slot(0), dtype="float32"),
        step("_to_copy.default", Slot(0), dtype=Dtype("quantum")),
        step("_to_copy.default", Slot(0), device="cuda:0"),
        step("zeros.default", (2,), pin_memory=True),
        step("clone.default", Slot(0), memory_format="channels_last"),
        step("bernoulli.p", Slot(0), 0.5, generator=Slot(0)),
        Step("aten.relu.default", (Slot(0),), (("self", Slot(0)),)),
        Step("aten._to_copy.default", (Slot(0),), (("dtype", Dtype("int64")), ("dtype", Dtype("bool")))),
        Step("int.add", (Slot(0), 1)),
        Step("int.size", (3, 0)),
        Step("int.size", (Slot(0), 7)),
        Step("int.floordiv", (4, 0)),
        Step("int.mul", (2**40, 2**40)),
        Step("int.add", (1.5, 1)),
    ],
    ids=str,
)
def test_an_argument_of_the_wrong_kind_is_refused(bad):
    with pytest.raises(PlanRefused) as caught:
        validate(plan_of(bad, outputs=()))
    assert caught.value.step == 0
    assert caught.value.operation == bad.operation


@pytest.mark.parametrize("slot", [2, 3, 99, -1, 2**31])
def test_a_slot_that_nothing_filled_yet_is_refused(slot):
    with pytest.raises(PlanRefused, match="not filled yet"):
        validate(plan_of(step("relu.default", Slot(slot))))


@pytest.mark.parametrize(
    "bomb",
    [
        step("zeros.default", (2**30, 2**30)),
        step("full.default", (2**38,), 1.0),
        step("full.default", (2**62, 2**62), 1.0),
        step("full.default", (-1,), 1.0),
        step("repeat.default", Slot(0), (2**20, 2**20)),
        step("constant_pad_nd.default", Slot(0), (0, 2**39)),
        step("arange.default", 2**40),
        step("new_zeros.default", Slot(0), (2**40,)),
        step("unbind.int", Slot(0), 1, results=4096),
        step("split.Tensor", Slot(0), 0, 0, results=4096),
        step("cat.default", (Slot(0),) * 5000),
        step("sum.dim_IntList", Slot(0), (0,) * 5000),
        step("zeros.default", (1,) * 4000),
        step("empty.memory_format", (2**40,)),
        step("randn.default", (2**36,)),
    ],
    ids=lambda bomb: bomb.operation,
)
def test_a_short_plan_cannot_allocate_a_terabyte(bomb):
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(PlanRefused):
        validate(plan_of(bomb, outputs=()), Quota(maximum_bytes=1 << 30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert time.perf_counter() - begun < 5


def test_views_of_a_billion_elements_are_free_until_something_reads_them():
    wide = step("expand.default", Slot(0), (2**20, 2**10, 4))
    plan = plan_of(wide, step("sum.default", Slot(1)), inputs=[replace(ROWS, shape=(1, 1, 4))])
    validate(plan, Quota(maximum_work=2**34))
    with pytest.raises(QuotaExceeded, match="elementary operations") as caught:
        validate(plan, Quota(maximum_work=2**30))
    assert caught.value.step == 1


def test_memory_counts_what_lives_at_once_not_what_was_ever_made():
    chain = [step("exp.default", Slot(0)), *(step("exp.default", Slot(index)) for index in range(1, 20))]
    plan = plan_of(*chain, inputs=[replace(ROWS, shape=(1024,))])
    assert validate(plan).at(1).peak_bytes <= 3 * 4096
    kept = plan_of(
        *[step("exp.default", Slot(0)) for _ in range(20)],
        step("stack.default", tuple(Slot(i) for i in range(1, 21))),
        inputs=[replace(ROWS, shape=(1024,))],
    )
    assert validate(kept).at(1).peak_bytes >= 40 * 4096


def test_quotas_are_counted_before_shapes_are_looked_at():
    many = [step("relu.default", Slot(0))] * 10
    with pytest.raises(QuotaExceeded, match="10 steps"):
        validate(plan_of(*many), Quota(maximum_steps=9))
    with pytest.raises(QuotaExceeded, match="bytes of constants"):
        validate(plan_of(constants=[Constant("uint8", (100,), bytes(100))]), Quota(maximum_constant_bytes=99))
    with pytest.raises(QuotaExceeded, match="inputs"):
        validate(plan_of(), Quota(maximum_inputs=2))


@pytest.mark.parametrize("version", ["2.12", "2.13.0", "3.0", "", "2"])
def test_another_minor_version_of_torch_is_refused(version):
    with pytest.raises(TorchVersionMismatch, match="trace it with"):
        validate(replace(plan_of(), torch_version=version))


@pytest.mark.parametrize(
    "constant",
    [
        Constant("float32", (2,), b"1234"),
        Constant("float32", (-1,), b""),
        Constant("float32", (2**62, 2**62), b""),
        Constant("pickle", (1,), b"1"),
        Constant("bool", (1,), b"\x07"),
    ],
)
def test_a_constant_that_lies_about_itself_is_refused(constant):
    with pytest.raises(PlanRefused):
        validate(plan_of(constants=[constant], outputs=()))


@pytest.mark.parametrize(
    "inputs",
    [
        [ROWS, ROWS],
        [replace(ROWS, name="")],
        [replace(ROWS, name="x" * 513)],
        [replace(ROWS, dtype="object")],
        [replace(ROWS, shape=(-2,))],
        [replace(ROWS, shape=(2**41,))],
        [replace(ROWS, shape=(2**21, 2**21))],
        [replace(ROWS, shape=(1,) * 13)],
        [replace(ROWS, role=InputRole.PARAMETER)],
        [replace(ROWS, role=InputRole.FEATURES, shape=(4, BATCH))],
        [replace(ROWS, role=InputRole.FEATURES), replace(ROWS, role=InputRole.FEATURES, name="more")],
        [replace(ROWS, role=InputRole.HYPERPARAMETER, shape=())],
        [replace(ROWS, role=InputRole.HYPERPARAMETER, dtype="float64", shape=(1,))],
    ],
)
def test_an_input_that_cannot_be_is_refused(inputs):
    with pytest.raises(PlanRefused):
        validate(plan_of(inputs=inputs, outputs=()))


@pytest.mark.parametrize(
    "outputs",
    [
        [Output("rows", OutputRole.RESULT, 7)],
        [Output("rows", OutputRole.RESULT, -1)],
        [Output("rows", OutputRole.PARAMETER, 0)],
        [Output("absent", OutputRole.STATE, 0)],
        [Output("a", OutputRole.RESULT, 0), Output("a", OutputRole.RESULT, 1)],
        [Output("loss", OutputRole.LOSS, 0)],
        [Output("loss", OutputRole.LOSS, 0), Output("more", OutputRole.LOSS, 0)],
        [Output("", OutputRole.RESULT, 0)],
    ],
)
def test_an_output_that_cannot_be_is_refused(outputs):
    with pytest.raises(PlanRefused):
        validate(plan_of(outputs=outputs))


def test_a_parameter_keeps_its_shape_and_dtype():
    weight = Input("weight", InputRole.PARAMETER, "float32", (4,))
    narrowed = plan_of(
        step("sum.default", Slot(0)), inputs=[weight], outputs=[Output("weight", OutputRole.PARAMETER, 1)]
    )
    with pytest.raises(PlanRefused, match="shape and dtype"):
        validate(narrowed)


@pytest.mark.parametrize(
    "bad",
    [
        step("index.Tensor", Slot(0), (Slot(2),)),
        step("div.Scalar_mode", Slot(1), 0, rounding_mode="floor"),
        step("remainder.Scalar", Slot(1), 0),
        step("pow.Tensor_Scalar", Slot(1), -1),
        step("bernoulli.p", Slot(0), 1.5),
        step("bernoulli.p", Slot(0), math.nan),
        step("convolution.default", Slot(3), Slot(3), None, (0,), (0,), (1,), False, (0,), 1),
        step("convolution.default", Slot(3), Slot(3), None, (1,), (0,), (1,), False, (0,), 0),
        step(
            "native_layer_norm_backward.default",
            Slot(0),
            Slot(0),
            (4,),
            Slot(4),
            Slot(4),
            None,
            None,
            (True, True, True),
            results=3,
        ),
        step(
            "max_pool2d_with_indices_backward.default", Slot(0), Slot(0), (2, 2), (2, 2), (0, 0), (1, 1), False, Slot(1)
        ),
        step("embedding_dense_backward.default", Slot(3), Slot(1), 10, -1, False),
        step("nll_loss_forward.default", Slot(0), Slot(4), None, 1, -100, results=2),
        step("view.default", Slot(0), (7,)),
        step("sgn.default", Slot(2)),
    ],
    ids=str,
)
def test_a_step_that_could_fail_on_values_or_reach_beyond_a_tensor_is_refused(bad):
    mask = Input("mask", InputRole.ARGUMENT, "bool", (BATCH, 4))
    image = Input("image", InputRole.ARGUMENT, "float32", (BATCH, 4, 4))
    short = Input("short", InputRole.ARGUMENT, "float32", (1,))
    with pytest.raises(PlanRefused) as caught:
        validate(plan_of(bad, inputs=[ROWS, NUMBERS, mask, image, short], outputs=()))
    assert caught.value.step == 0


def test_a_step_must_fill_as_many_slots_as_it_says():
    for results in (0, 2, 3, 10**6):
        with pytest.raises(PlanRefused):
            validate(plan_of(step("relu.default", Slot(0), results=results), outputs=()))


def test_each_batch_size_is_judged_on_its_own():
    checked = validate(plan_of(step("view.default", Slot(0), (2, 4))), batches=(2,))
    with pytest.raises(PlanRefused):
        checked.at(3)
    with pytest.raises(PlanRefused, match="not possible"):
        checked.at(0)
    large = validate(
        plan_of(step("mm.default", Slot(0), Slot(2)), inputs=[ROWS, NUMBERS, replace(ROWS, name="w", shape=(4, 4))]),
        Quota(maximum_bytes=10_000),
    )
    with pytest.raises(QuotaExceeded, match="smaller batch"):
        large.at(10_000)


def test_no_allowed_operation_mutates_or_needs_values_for_its_shape():
    for operation in table().values():
        if operation.overload is None:
            continue
        schema = operation.overload._schema
        assert not schema.is_mutable, operation.name
        tags = operation.overload.tags
        # an index is refused where it is boolean, and has a fixed shape otherwise
        assert torch.Tag.dynamic_output_shape not in tags or "index" in operation.name, operation.name
        assert torch.Tag.data_dependent_output not in tags, operation.name


def test_every_random_operation_is_known_to_be_random():
    seeded = {
        name
        for name, each in table().items()
        if each.overload is not None and torch.Tag.nondeterministic_seeded in each.overload.tags
    }
    marked = {name for name, each in table().items() if each.random}
    assert seeded <= marked


def test_every_operation_that_leaves_memory_unwritten_is_marked():
    assert {name for name in table() if ".empty" in name or "new_empty" in name} == {
        name for name, each in table().items() if each.zeroed
    }


def test_no_operation_takes_a_text_outside_the_closed_set():
    kinds = {each.kind for operation in table().values() for each in operation.parameters}
    assert kinds <= {
        "Tensor",
        "Optional[Tensor]",
        "int",
        "float",
        "number",
        "bool",
        "str",
        "ScalarType",
        "MemoryFormat",
        "Device",
        "Layout",
        "Generator",
    }
