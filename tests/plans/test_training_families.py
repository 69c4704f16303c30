"""A traced step agrees with eager torch, family by family, at batch sizes that it was not traced at."""

from __future__ import annotations

import copy

import pytest
import torch
from plan_families import BY_NAME, FAMILIES, ROWS, Family, example, program_of

from fedpriv.learning.local import SGD, Adam, AdamW
from fedpriv.plans.interpreter import Program
from fedpriv.plans.tracing import accuracy, trace_evaluation
from fedpriv.plans.validation import validate

STEPS = 20
TOLERANCE = 1e-5


def eager_step(model, family, optimizer, rows):
    optimizer.zero_grad()
    loss = family.loss(model(family.features[rows]), family.target[rows])
    loss.backward()
    optimizer.step()
    return loss.item()


def worst_difference(family: Family, rule, optimizer, *, by_epoch: bool) -> float:
    """Train twenty steps both ways over batches of 7, the smallest and 4; return the largest difference."""
    torch.manual_seed(0)
    model = family.build()
    bound = program_of(family, rule).bind(model.state_dict(), rule.hyperparameters)
    eager = copy.deepcopy(model).train()
    theirs = optimizer(eager.parameters())
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for step in range(STEPS):
        rows = torch.randperm(ROWS, generator=generator)[: (7, family.smallest, 4)[step % 3]]
        features, target = family.features[rows], family.target[rows]
        if by_epoch:
            ours = bound.epoch(family.features, family.target, rows, len(rows))["loss"]
        else:
            ours = float(bound.step(features, target)["loss"])
        worst = max(worst, abs(ours - eager_step(eager, family, theirs, rows)))
    state = eager.state_dict()
    return max(
        worst, *(float((value.double() - state[name].double()).abs().max()) for name, value in bound.state().items())
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("by_epoch", [True, False], ids=["compiled", "stepwise"])
def test_a_family_trains_as_eager_torch_does(family, by_epoch):
    rule = SGD(0.05, momentum=0.9)
    assert (
        worst_difference(family, rule, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), by_epoch=by_epoch) < TOLERANCE
    )


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (SGD(0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
        (SGD(0.1, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
        (
            SGD(0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        ),
        (SGD(0.1, momentum=0.9, dampening=0.3), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.3)),
        (Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
        (Adam(0.01, (0.8, 0.95), 1e-6, 0.1), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1)),
        (AdamW(0.01), lambda p: torch.optim.AdamW(p, 0.01)),
        (AdamW(0.01, weight_decay=0.0), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0)),
    ],
    ids=lambda value: "torch" if callable(value) else str(value),
)
@pytest.mark.parametrize("by_epoch", [True, False], ids=["compiled", "stepwise"])
def test_an_optimiser_steps_as_torch_optim_does(rule, optimizer, by_epoch):
    assert worst_difference(BY_NAME["linear"], rule, optimizer, by_epoch=by_epoch) < TOLERANCE


def test_an_optimiser_with_state_trains_a_convolution_as_torch_optim_does():
    family = BY_NAME["conv2d, max pooling"]
    assert worst_difference(family, AdamW(0.01), lambda p: torch.optim.AdamW(p, 0.01), by_epoch=True) < TOLERANCE


def test_an_epoch_with_a_remainder_weights_its_loss_by_rows():
    family = BY_NAME["linear"]
    model = family.build()
    program = Program(
        validate(
            trace_evaluation(
                model, family.loss, {"accuracy": accuracy}, example(family.features), example(family.target)
            )
        )
    )
    means = program.bind(model.state_dict(), {}).epoch(family.features, family.target, None, 5)
    prediction = model(family.features)
    assert means["loss"] == pytest.approx(family.loss(prediction, family.target).item(), abs=1e-6)
    assert means["accuracy"] == pytest.approx((prediction.argmax(1) == family.target).float().mean().item(), abs=1e-6)


def test_evaluation_uses_running_statistics_and_changes_nothing():
    family = BY_NAME["batch norm 1d"]
    model = family.build()
    for _ in range(3):
        model.train()(family.features)
    plan = trace_evaluation(model, family.loss, {}, example(family.features), example(family.target))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    means = Program(validate(plan)).bind(state, {}).epoch(family.features, family.target, None, 5)
    expected = family.loss(model.eval()(family.features), family.target).item()
    assert means["loss"] == pytest.approx(expected, abs=1e-6)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [output.name for output in plan.outputs] == ["loss"]


def test_tied_parameters_train_as_one():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head = torch.nn.Linear(4, 3)

        def forward(self, rows):
            return self.head(self.second(torch.tanh(self.first(rows))))

    family = Family("tied", Tied, BY_NAME["linear"].features, BY_NAME["linear"].target)
    names = [each.name for each in program_of(family, SGD(0.1)).plan.inputs]
    assert "first.weight" in names
    assert "second.weight" not in names
    assert worst_difference(family, SGD(0.1), lambda p: torch.optim.SGD(p, 0.1), by_epoch=True) < TOLERANCE


def test_frozen_parameters_are_read_and_never_written():
    def build():
        model = BY_NAME["linear"].build()
        model[0].weight.requires_grad_(False)
        return model

    family = Family("frozen", build, BY_NAME["linear"].features, BY_NAME["linear"].target)
    assert worst_difference(family, SGD(0.1), lambda p: torch.optim.SGD(p, 0.1), by_epoch=True) < TOLERANCE
    model = build()
    kept = model.state_dict()["0.weight"].clone()
    program_of(family, SGD(0.1)).bind(model.state_dict(), {"lr": 0.1}).epoch(family.features, family.target, None, 4)
    assert torch.equal(model.state_dict()["0.weight"], kept)


def test_one_value_per_channel_leaves_batch_norm_statistics_as_they_are():
    family = BY_NAME["batch norm 1d"]
    model = family.build()
    bound = program_of(family, SGD(0.1)).bind(model.state_dict(), {"lr": 0.1})
    bound.epoch(family.features[:1], family.target[:1], None, 1)
    state = bound.state()
    assert torch.equal(state["1.running_mean"], torch.zeros(5))
    assert torch.equal(state["1.running_var"], torch.ones(5))
    assert all(torch.isfinite(value).all() for value in state.values())
