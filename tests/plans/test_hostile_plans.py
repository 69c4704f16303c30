"""Plans made to read, write or take what is not theirs: each is refused, or does what its shapes say and no more."""

from __future__ import annotations

import time

import pytest
import torch

from fedpriv.errors import InputMismatch, PlanRefused, QuotaExceeded
from fedpriv.plans.interpreter import Program
from fedpriv.plans.lowering import lowered
from fedpriv.plans.operations import table
from fedpriv.plans.plan import BATCH, Dtype, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import CheckedPlan, Quota, torch_minor, validate

VERSION = torch_minor(torch.__version__)
FLOAT, WHOLE = (("dtype", Dtype("float32")),), (("dtype", Dtype("int64")),)


class Draft:
    """A plan under construction over given argument shapes."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.inputs = [Input(f"x{each}", InputRole.ARGUMENT, "float32", shape) for each, shape in enumerate(shapes)]
        self.steps: list[Step] = []

    def step(self, name: str, *arguments, keywords=(), results: int = 1) -> Slot:
        """Append a step and return its first result."""
        first = len(self.inputs) + sum(each.results for each in self.steps)
        self.steps.append(Step(name, arguments, keywords, results))
        return Slot(first)

    def full(self, shape: tuple[int, ...], value: float = 0.0, keywords=FLOAT) -> Slot:
        """Append a tensor of one value."""
        return self.step("aten.full.default", shape, value, keywords=keywords)

    def plan(self, *results: Slot) -> Plan:
        """Return the plan that gives `results`."""
        outputs = tuple(Output(f"o{each.index}", OutputRole.RESULT, each.index) for each in results)
        return Plan(tuple(self.inputs), outputs, (), tuple(self.steps), VERSION)


def test_an_expanded_bias_is_read_as_the_one_number_that_it_is():
    draft = Draft((8,))
    bias = draft.step("aten.expand.default", draft.step("aten.slice.Tensor", Slot(0), 0, 0, 1), (4,))
    source = draft.full((1, 4, 1))
    plan = draft.plan(draft.step("aten.native_group_norm.default", source, None, bias, 1, 4, 1, 4, 1e-5, results=3))
    (found,) = Program(validate(plan)).run(torch.arange(8.0) + 5)
    assert found.flatten().tolist() == [5.0] * 4


def test_every_kernel_that_may_ignore_strides_gets_operands_without_gaps():
    draft = Draft((4, 6))
    holed = draft.step("aten.t.default", Slot(0))
    for name in ("_softmax", "cumsum", "sort", "roll"):
        arguments = {"_softmax": (0, False), "cumsum": (0,), "sort": (0,), "roll": ((1,), (0,))}[name]
        draft.step(f"aten.{name}.default", holed, *arguments, results=2 if name == "sort" else 1)
    plan = draft.plan(Slot(2), Slot(3), Slot(4), Slot(6))
    block = lowered(plan, validate(plan).at(1))
    for node in block.nodes:
        known = table()[node.name]
        assert not known.contiguous or all(block.metas[each].is_contiguous() for each in node.operands())
    assert [node.name for node in block.nodes].count("aten.clone.default") == 1


def test_an_operation_without_a_word_on_strides_gets_contiguous_operands():
    assert table()["aten.native_group_norm_backward.default"].contiguous
    assert not table()["aten.mm.default"].contiguous
    assert not table()["aten.add.Tensor"].contiguous


def test_a_parameter_that_is_replaced_by_a_view_comes_back_contiguous():
    inputs = (
        Input("features", InputRole.FEATURES, "float32", (BATCH, 1)),
        Input("target", InputRole.TARGET, "float32", (BATCH,)),
        Input("w", InputRole.PARAMETER, "float32", (6,)),
    )
    steps = (
        Step("aten.slice.Tensor", (Slot(2), 0, 0, 1)),
        Step("aten.expand.default", (Slot(3), (6,))),
        Step("aten.sum.default", (Slot(1),)),
    )
    outputs = (Output("w", OutputRole.PARAMETER, 4), Output("loss", OutputRole.LOSS, 5))
    bound = Program(validate(Plan(inputs, outputs, (), steps, VERSION))).bind({"w": torch.arange(6.0) + 1}, {})
    bound.epoch(torch.ones(4, 1), torch.ones(4), None, 2)
    bound.step(torch.ones(2, 1), torch.ones(2))
    held = bound._values[2]  # what the next batch reads
    assert held.is_contiguous()
    assert held.tolist() == [1.0] * 6


@pytest.mark.parametrize("shape", [(BATCH, BATCH), (BATCH, 3, BATCH), (2, BATCH)])
def test_the_batch_stands_in_the_first_dimension_only(shape):
    draft = Draft(shape)
    with pytest.raises(PlanRefused, match="batch"):
        validate(draft.plan(draft.step("aten.relu.default", Slot(0))))


def test_a_later_batch_of_another_width_is_refused_as_the_first_is():
    draft = Draft((BATCH, 3), (BATCH, 2))
    program = Program(validate(draft.plan(draft.step("aten.relu.default", Slot(0)))))
    program.run(torch.ones(5, 3), torch.ones(5, 2))
    for wrong in ((torch.ones(5, 5), torch.ones(5, 2)), (torch.ones(5, 3), torch.ones(4, 2))):
        with pytest.raises(InputMismatch):
            program.run(*wrong)
    with pytest.raises(InputMismatch, match="no rows"):
        program.run(torch.ones(0, 3), torch.ones(0, 2))


@pytest.mark.parametrize("size", [(0, 0), (0, 2), (2, 0)])
def test_a_pool_over_an_empty_plane_is_refused(size):
    for name in ("adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward"):
        draft = Draft((1, 1, 2, 2))
        empty, index = draft.full((1, 1, *size)), draft.full((1, 1, 2, 2), 0, WHOLE)
        last = (index,) if "max" in name else ()
        plan = draft.plan(draft.step(f"aten.{name}.default", Slot(0), empty, *last))
        with pytest.raises(PlanRefused, match="empty"):
            validate(plan)
    for name in ("adaptive_max_pool2d", "_adaptive_avg_pool2d"):
        draft = Draft((1, 1, 2, 2))
        results = 2 if "max" in name else 1
        with pytest.raises(PlanRefused, match="empty"):
            validate(draft.plan(draft.step(f"aten.{name}.default", draft.full((1, 1, *size)), (2, 2), results=results)))


@pytest.mark.parametrize("name", ["gather", "index_select", "scatter_add"])
def test_an_index_into_nothing_is_refused(name):
    draft = Draft((2, 0))
    index = draft.full((2,) if name == "index_select" else (2, 2), 0, WHOLE)
    order = (1, index, draft.full((2, 2))) if name == "scatter_add" else (1, index)
    with pytest.raises(PlanRefused, match="empty"):
        validate(draft.plan(draft.step(f"aten.{name}.default", Slot(0), *order)))


def test_statistics_that_evaluation_does_not_keep_cannot_be_read_as_if_it_did():
    draft = Draft((2, 4))
    ones = draft.full((4,), 1.0)
    made = draft.step(
        "aten._native_batch_norm_legit_no_training.default",
        Slot(0), None, None, ones, ones, 0.1, 1e-5, results=3,
    )  # fmt: skip
    saved = (Slot(made.index + 1), Slot(made.index + 2))
    (kept,) = Program(validate(draft.plan(saved[0]))).run(torch.ones(2, 4))
    assert kept.shape == (0,)
    grad = draft.step(
        "aten.native_batch_norm_backward.default",
        Slot(0), Slot(0), None, None, None, *saved, True, 1e-5, (True, False, False), results=3,
    )  # fmt: skip
    with pytest.raises(PlanRefused, match="save_mean needs 4"):
        validate(draft.plan(grad))


def test_a_buffer_of_another_shape_does_not_shape_a_gradient():
    draft = Draft((4, 1), (4, 1))
    with pytest.raises(PlanRefused, match="differ in shape"):
        validate(draft.plan(draft.step("aten.log_sigmoid_backward.default", Slot(0), Slot(1), draft.full((0,)))))
    draft = Draft((4, 1), (4, 1))
    plan = draft.plan(draft.step("aten.log_sigmoid_backward.default", Slot(0), Slot(1), draft.full((4, 1))))
    source = torch.linspace(-2, 2, 4).reshape(4, 1).requires_grad_()
    torch.nn.functional.logsigmoid(source).sum().backward()
    (found,) = Program(validate(plan)).run(torch.ones(4, 1), source.detach())
    torch.testing.assert_close(found, source.grad)


def test_results_are_counted_as_steps_are():
    draft = Draft((4096,))
    for _ in range(60):
        draft.step("aten.unbind.int", Slot(0), 0, results=4096)
    started = time.perf_counter()
    with pytest.raises(QuotaExceeded, match="results"):
        validate(draft.plan(Slot(0)), Quota(maximum_steps=1000))
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -1.0, 7.0])
def test_a_cross_entropy_of_what_is_no_probability_does_not_fail(wild):
    draft = Draft((BATCH, 2), (BATCH, 2))
    loss = draft.step("aten.binary_cross_entropy.default", Slot(0), Slot(1))
    grad = draft.step("aten.binary_cross_entropy_backward.default", draft.full((), 1.0), Slot(0), Slot(1))
    program = Program(validate(draft.plan(loss, grad)))
    for pair in ((torch.full((3, 2), wild), torch.ones(3, 2)), (torch.ones(3, 2), torch.full((3, 2), wild))):
        found = program.run(*pair)
        assert [tuple(each.shape) for each in found] == [(), (3, 2)]


def test_the_size_of_what_an_expanded_result_becomes_is_counted():
    draft = Draft((1,))
    with pytest.raises(QuotaExceeded, match="bytes at once"):
        validate(draft.plan(draft.step("aten.expand.default", Slot(0), (1 << 20, 1 << 14))))


BIG = 3000


def _expanded(draft: Draft, value: float = 1.0, keywords=FLOAT, shape: tuple[int, ...] = (BIG, BIG)) -> Slot:
    return draft.step("aten.expand.default", draft.full((1,) * len(shape), value, keywords), shape)


def _through_nll(draft: Draft) -> Slot:
    target = draft.full((BIG,), 0, WHOLE)
    return draft.step("aten.nll_loss_forward.default", _expanded(draft), target, None, 1, -100, results=2)


def _through_logsumexp(draft: Draft) -> Slot:
    return draft.step("aten.logsumexp.default", _expanded(draft), (0, 1))


def _through_clamped_index(draft: Draft) -> Slot:
    index = _expanded(draft, 0, WHOLE, (BIG * BIG,))
    grad = _expanded(draft, 1.0, FLOAT, (BIG * BIG, 1))
    return draft.step("aten.embedding_dense_backward.default", grad, index, 3, -1, False)


def _through_promotion(draft: Draft) -> Slot:
    return draft.step("aten.sum.default", _expanded(draft, 1, WHOLE), keywords=(("dtype", Dtype("float64")),))


@pytest.mark.parametrize("make", [_through_nll, _through_logsumexp, _through_clamped_index, _through_promotion])
def test_what_a_kernel_makes_of_one_expanded_number_is_counted(make):
    draft = Draft((1,))
    plan = draft.plan(make(draft))
    assert validate(plan).at(1).peak_bytes >= BIG * BIG * 4
    with pytest.raises(QuotaExceeded, match="bytes at once"):
        validate(plan, Quota(maximum_bytes=BIG * BIG * 4 - 1))


def test_a_loss_of_operands_that_would_spread_is_refused():
    draft = Draft((BIG, 1), (1, BIG))
    for name in ("mse_loss", "smooth_l1_loss", "huber_loss"):
        with pytest.raises(PlanRefused, match="differ in shape"):
            validate(draft.plan(draft.step(f"aten.{name}.default", Slot(0), Slot(1))))
        draft.steps.clear()


def test_the_places_that_an_index_writes_to_are_counted_as_work():
    draft = Draft((4,))
    index = draft.full((BIG, 1), 0, WHOLE), draft.full((1, BIG), 0, WHOLE)
    draft.step("aten.index_put.default", draft.full((1, 1)), index, draft.full(()))
    with pytest.raises(QuotaExceeded, match="elementary operations"):
        validate(draft.plan(Slot(5)), Quota(maximum_work=BIG * BIG))


def _trained(*steps: Step, result: int) -> Plan:
    inputs = (
        Input("features", InputRole.FEATURES, "float32", (BATCH, 1)),
        Input("target", InputRole.TARGET, "float32", (BATCH,)),
    )
    return Plan(inputs, (Output("loss", OutputRole.LOSS, result),), (), steps, VERSION)


def test_constants_are_moved_out_of_the_loop_only_while_they_fit():
    steps, last = [Step("aten.sum.default", (Slot(0),))], 2
    for each in range(12):
        steps.append(Step("aten.full.default", ((2_500_000,), float(each)), FLOAT))
        steps.append(Step("aten.mul.Tensor", (Slot(last + 1), Slot(last))))
        steps.append(Step("aten.sum.default", (Slot(last + 2),)))
        last += 3
    block = Program(validate(_trained(*steps, result=last))).block(2)
    kept = sum(block.metas[value].numel() * 4 for node in block.once for value in node.results)
    assert kept <= 64 << 20


def test_a_plan_that_takes_more_as_it_runs_than_as_it_is_written_is_refused():
    steps, last = [Step("aten.sum.default", (Slot(0),))], 2
    for each in range(40):  # what two steps compute alike is computed once, and kept in between
        steps.append(Step("aten.expand.default", (Slot(2), (250_000,))))
        steps.append(Step("aten.mul.Scalar", (Slot(last + 1), float(each % 20))))
        steps.append(Step("aten.sum.default" if each < 20 else "aten.mean.default", (Slot(last + 2),)))
        last += 3
    checked = validate(_trained(*steps, result=last), Quota(maximum_bytes=8_000_000))
    with pytest.raises(QuotaExceeded, match="as it runs"):
        Program(_kept_alive(checked, steps)).block(2)


def _kept_alive(checked: CheckedPlan, steps: list[Step]) -> CheckedPlan:
    """Return the plan with every sum added up, so that none is dropped as unread."""
    sums = [3 * each + 2 for each in range(1, (len(steps) - 1) // 3 + 1)]
    more, last = list(steps), sums[0]
    for each in sums[1:]:
        more.append(Step("aten.add.Tensor", (Slot(last), Slot(each))))
        last = 2 + len(more) - 1
    return validate(_trained(*more, result=last), checked.quota)
