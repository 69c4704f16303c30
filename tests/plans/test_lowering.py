"""No value makes a step fail, no memory is read before it was written, and noise comes from the worker's generator."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_families import BY_NAME, Family, program_of
from torch import nn

from fedpriv.learning.local import SGD
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import BATCH, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.tracing import trace_function
from fedpriv.plans.validation import torch_minor, validate

WILD = st.integers(-(2**62), 2**62)


def one_step(step: Step, *inputs: Input) -> Program:
    outputs = tuple(Output(f"result{index}", OutputRole.RESULT, len(inputs) + index) for index in range(step.results))
    return Program(validate(Plan(inputs, outputs, (), (step,), torch_minor(torch.__version__))))


def argument(name: str, dtype: str, *shape: int) -> Input:
    return Input(name, InputRole.ARGUMENT, dtype, shape)


@settings(deadline=None, max_examples=25)
@given(st.lists(WILD, min_size=12, max_size=12), st.booleans())
def test_targets_outside_the_classes_count_as_ignored_or_as_the_last(targets, by_epoch):
    family = BY_NAME["linear"]
    wild = torch.tensor(targets)
    model = family.build()
    bound = program_of(family, SGD(0.1)).bind(model.state_dict(), {"lr": 0.1})
    if by_epoch:
        bound.epoch(family.features, wild, None, 12)
    else:
        bound.step(family.features, wild)
    tame = wild.clamp(-1, 2)
    loss = F.cross_entropy(model(family.features), tame, ignore_index=-1)
    if (tame >= 0).any():
        loss.backward()
        torch.testing.assert_close(
            bound.state()["2.bias"], model[2].bias.detach() - 0.1 * model[2].bias.grad, atol=1e-6, rtol=0
        )


@settings(deadline=None, max_examples=25)
@given(st.lists(WILD, min_size=60, max_size=60))
def test_embedding_rows_outside_the_table_are_brought_into_it(rows):
    family = BY_NAME["embedding with layer norm"]
    bound = program_of(family, SGD(0.1)).bind(family.build().state_dict(), {"lr": 0.1})
    loss = bound.epoch(torch.tensor(rows).reshape(12, 5), family.target, None, 12)["loss"]
    assert math.isfinite(loss)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -3.0, 2.0])
def test_a_probability_outside_its_range_does_not_fail(value):
    family = BY_NAME["bce"]
    bound = program_of(family, SGD(0.1)).bind(family.build().state_dict(), {"lr": 0.1})
    assert "loss" in bound.epoch(
        torch.full_like(family.features, value), torch.full_like(family.target, value), None, 4
    )


@settings(deadline=None, max_examples=25)
@given(st.lists(WILD, min_size=6, max_size=6))
def test_indices_stay_inside_their_tensor(values):
    rows, index = torch.arange(12.0).reshape(3, 4), torch.tensor(values)
    gathered = one_step(
        Step("aten.gather.default", (Slot(0), 1, Slot(1))),
        argument("rows", "float32", 3, 4),
        argument("index", "int64", 3, 2),
    )
    assert torch.equal(gathered.run(rows, index.reshape(3, 2))[0], rows.gather(1, index.reshape(3, 2).clamp(0, 3)))
    picked = one_step(
        Step("aten.index.Tensor", (Slot(0), (Slot(1),))),
        argument("rows", "float32", 3, 4),
        argument("index", "int64", 6),
    )
    assert torch.equal(picked.run(rows, index)[0], rows[index.clamp(-3, 2)])
    added = one_step(
        Step("aten.scatter_add.default", (Slot(0), 0, Slot(1), Slot(0))),
        argument("rows", "float32", 3, 4),
        argument("index", "int64", 3, 2),
    )
    assert torch.equal(
        added.run(rows, index.reshape(3, 2))[0], rows.scatter_add(0, index.reshape(3, 2).clamp(0, 2), rows)
    )
    put = one_step(
        Step("aten.index_put.default", (Slot(0), (Slot(1),), Slot(2), True)),
        argument("rows", "float32", 3, 4),
        argument("index", "int64", 6),
        argument("values", "float32", 6, 4),
    )
    assert put.run(rows, index, torch.ones(6, 4))[0].sum() == rows.sum() + 24


@settings(deadline=None, max_examples=15)
@given(st.lists(WILD, min_size=4, max_size=4))
def test_a_pooling_gradient_never_writes_beyond_its_image(values):
    step = Step(
        "aten.max_pool2d_with_indices_backward.default",
        (Slot(0), Slot(1), (2, 2), (2, 2), (0, 0), (1, 1), False, Slot(2)),
    )
    pooled = one_step(
        step,
        argument("g", "float32", 1, 1, 2, 2),
        argument("x", "float32", 1, 1, 4, 4),
        argument("i", "int64", 1, 1, 2, 2),
    )
    result = pooled.run(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4), torch.tensor(values).reshape(1, 1, 2, 2))[0]
    assert result.sum() == 4


def test_memory_that_torch_leaves_unwritten_is_zero():
    torch.full((1000,), 7.0)  # what a fresh allocation may find
    for step in (
        Step("aten.empty.memory_format", ((1000,),)),
        Step("aten.empty_like.default", (Slot(0),)),
        Step("aten.new_empty.default", (Slot(0), (1000,))),
    ):
        result = one_step(step, argument("x", "float32", 1000)).run(torch.ones(1000))[0]
        assert not result.any()


def dropped(share: float) -> Family:
    return Family(
        "dropped",
        lambda: nn.Sequential(nn.Linear(4, 64), nn.Dropout(share), nn.Linear(64, 3)),
        BY_NAME["linear"].features,
        BY_NAME["linear"].target,
    )


def trained(program: Program, family: Family, state, seed: int, *, compiled: bool = True) -> dict[str, torch.Tensor]:
    bound = program.bind(state, {"lr": 0.1}, torch.Generator().manual_seed(seed))
    for _ in range(3):
        if compiled:
            bound.epoch(family.features, family.target, None, 4)
        else:
            for start in range(0, 12, 4):
                bound.step(family.features[start : start + 4], family.target[start : start + 4])
    return bound.state()


def test_dropout_draws_from_the_seeded_generator_alone():
    family = dropped(0.5)
    state = family.build().state_dict()
    program = program_of(family, SGD(0.1))
    before = torch.random.get_rng_state()
    first, again, other = (trained(program, family, state, seed) for seed in (1, 1, 2))
    stepwise = trained(program, family, state, 1, compiled=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.allclose(first[name], stepwise[name], atol=1e-6) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_dropout_of_nothing_trains_as_no_dropout():
    family = dropped(0.0)
    model = family.build()
    plain = Family(
        "plain",
        lambda: nn.Sequential(nn.Linear(4, 64), nn.Identity(), nn.Linear(64, 3)),
        family.features,
        family.target,
    )
    ours = trained(program_of(family, SGD(0.1)), family, model.state_dict(), 1)
    theirs = trained(program_of(plain, SGD(0.1)), plain, model.state_dict(), 1)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_dropout_keeps_the_share_and_the_mean_that_it_should():
    program = Program(validate(trace_function(lambda rows: F.dropout(rows, 0.3), TensorExample("float32", (1000,)))))
    result = program.run(torch.ones(100, 1000), generator=torch.Generator().manual_seed(5))[0]
    assert (result == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert result.mean().item() == pytest.approx(1.0, abs=0.01)


def test_leaky_noise_and_random_tensors_follow_the_generator():
    def noisy(rows):
        return F.rrelu(rows, 0.1, 0.3, training=True), torch.rand_like(rows), torch.randn(3, 4)

    program = Program(validate(trace_function(noisy, TensorExample("float32", (5,)))))
    draws = [program.run(-torch.ones(6, 5), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0][0], draws[2][0])
    assert ((draws[0][0] <= -0.1) & (draws[0][0] >= -0.3)).all()
    assert ((draws[0][1] >= 0) & (draws[0][1] < 1)).all()


def test_batch_stays_free_in_a_traced_function():
    program = Program(validate(trace_function(lambda rows: rows / rows.shape[0], TensorExample("float32", (2,)))))
    assert program.plan.inputs[0].shape == (BATCH, 2)
    for rows in (1, 2, 7):
        assert torch.equal(program.run(torch.ones(rows, 2))[0], torch.ones(rows, 2) / rows)
