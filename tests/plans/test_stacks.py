"""One plan over many workers at once is that plan over each of them."""

from __future__ import annotations

import pytest
import torch
from plan_families import BY_NAME, FAMILIES, ROWS, Family, program_of

from fedpriv.learning.drift import Scaffold
from fedpriv.learning.local import SGD, AdamW, LocalTraining
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import InputRole
from fedpriv.plans.stacking import NotStackable
from fedpriv.plans.stacks import Stack, StackedProgram
from fedpriv.plans.tracing import TensorExample, trace_training
from fedpriv.plans.validation import validate

WORKERS, BATCH, STEPS = 3, 4, 2
TRAINED = (InputRole.PARAMETER, InputRole.STATE)
RULES = {
    "plain": SGD(0.1),
    "nesterov": SGD(0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "dampened": SGD(0.1, momentum=0.9, dampening=0.1),
    "adam": AdamW(0.01),
}
WITHOUT_A_RULE = {
    "batch norm 1d": "aten._native_batch_norm_legit_functional.default has no rule",
    "residual with batch norm 2d": "aten._native_batch_norm_legit_functional.default has no rule",
    "embedding with layer norm": "aten.embedding_dense_backward.default has no rule",
}
STACKABLE = [family for family in FAMILIES if family.name not in WITHOUT_A_RULE]


def orders(workers: int = WORKERS) -> list[torch.Tensor]:
    drawn = (torch.randperm(ROWS, generator=torch.Generator().manual_seed(each)) for each in range(workers))
    return [each[: BATCH * STEPS] for each in drawn]


def stacked_rows(rows: torch.Tensor, of: list[torch.Tensor]) -> torch.Tensor:
    """Return the rows of each order, step by step."""
    return torch.stack([rows[each].view(STEPS, BATCH, *rows.shape[1:]) for each in of], 1).flatten(0, 1)


def model_of(family: Family) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return family.build().state_dict()


def assert_alike(family: Family, rule: object, tolerance: float) -> None:
    program, state, of = program_of(family, rule), model_of(family), orders()
    stack = Stack(StackedProgram(program), WORKERS, state, rule.hyperparameters)
    sums = stack.run(slice(None), stacked_rows(family.features, of), stacked_rows(family.target, of), STEPS)
    found = stack.tensors(*TRAINED)
    for worker, order in enumerate(of):
        bound = program.bind(state, rule.hyperparameters)
        means = bound.epoch(family.features, family.target, order, BATCH)
        assert float(sums["loss"][worker]) / STEPS == pytest.approx(means["loss"], abs=1e-6)
        alone = bound.state()
        for name, values in found.items():
            torch.testing.assert_close(values[worker], alone[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", STACKABLE, ids=lambda family: family.name)
def test_a_stack_computes_what_each_worker_computes_alone(family):
    assert_alike(family, SGD(0.1), 1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_stack_keeps_each_workers_optimiser(rule):
    assert_alike(BY_NAME["linear"], RULES[rule], 1e-6)


@pytest.mark.parametrize("name", WITHOUT_A_RULE)
def test_what_cannot_be_stacked_names_the_operation(name):
    with pytest.raises(NotStackable, match=WITHOUT_A_RULE[name]):
        StackedProgram(program_of(BY_NAME[name], SGD(0.1))).loop(WORKERS, BATCH, ("loss",))


def test_dropout_is_not_stacked_since_each_worker_draws_from_its_own_generator():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    plan = trace_training(
        model, torch.nn.functional.cross_entropy, SGD(0.1), TensorExample("float32", (4,)), TensorExample("int64", ())
    )
    with pytest.raises(NotStackable, match=r"aten\.bernoulli\.p draws random numbers"):
        StackedProgram(Program(validate(plan))).loop(WORKERS, BATCH, ("loss",))


def test_some_workers_of_a_stack_go_on_while_the_others_rest():
    family, rule, of = BY_NAME["linear"], SGD(0.1, momentum=0.9), orders(5)
    program, state = program_of(family, rule), model_of(family)
    stack = Stack(StackedProgram(program), 5, state, rule.hyperparameters)
    chosen = [of[at] for at in (0, 2, 4)]
    rows = stacked_rows(family.features, chosen), stacked_rows(family.target, chosen)
    losses = stack.run(torch.tensor([0, 2, 4]), *rows, STEPS)["loss"]
    assert len(losses) == 3
    found = stack.tensors(*TRAINED)
    for worker in range(5):
        bound = program.bind(state, rule.hyperparameters)
        if worker % 2 == 0:
            bound.epoch(family.features, family.target, of[worker], BATCH)
        for name, value in bound.state().items():
            torch.testing.assert_close(found[name][worker], value, rtol=0, atol=1e-6)


def test_what_workers_keep_between_rounds_is_each_ones_own():
    local = Scaffold().prepare(LocalTraining(optimizer=SGD(0.1)))
    family, of = BY_NAME["linear"], orders(2)
    plan = trace_training(
        family.build(), family.loss, local.rule, TensorExample("float32", (4,)), TensorExample("int64", ())
    )
    program, torn = Program(validate(plan)), model_of(family)
    state = torn | {each.name: torch.zeros(each.shape) for each in plan.inputs_of(*TRAINED) if each.name not in torn}
    rows = stacked_rows(family.features, of), stacked_rows(family.target, of)
    first = Stack(StackedProgram(program), 2, state, local.rule.hyperparameters)
    first.run(slice(None), *rows, STEPS)
    kept = [{name: value[at] for name, value in first.tensors(InputRole.KEPT).items()} for at in range(2)]
    second = Stack(StackedProgram(program), 2, state, local.rule.hyperparameters, kept)
    second.run(slice(None), *rows, STEPS)
    for worker, order in enumerate(of):
        bound = program.bind(state, local.rule.hyperparameters)
        bound.epoch(family.features, family.target, order, BATCH)
        again = program.bind(state, local.rule.hyperparameters, None, bound.kept())
        again.epoch(family.features, family.target, order, BATCH)
        for name, value in again.kept().items():
            torch.testing.assert_close(second.tensors(InputRole.KEPT)[name][worker], value, rtol=0, atol=1e-6)


def test_what_nobody_asks_for_is_not_computed():
    program = StackedProgram(program_of(BY_NAME["linear"], SGD(0.1)))
    family, of = BY_NAME["linear"], orders()
    rows = stacked_rows(family.features, of), stacked_rows(family.target, of)
    with_loss, without = (Stack(program, WORKERS, model_of(family), {"lr": 0.1}, (), each) for each in (("loss",), ()))
    with_loss.run(slice(None), *rows, STEPS)
    assert without.run(slice(None), *rows, STEPS) == {}
    for name, value in without.tensors(*TRAINED).items():
        assert torch.equal(value, with_loss.tensors(*TRAINED)[name])
    names = [node.name for node in program.loop(WORKERS, BATCH, ())._block.every_node()]
    assert "aten.nll_loss_forward.default" not in names
