"""Terms of local training against their papers' formulas, computed step by step by torch alone."""

from __future__ import annotations

import pytest
import torch
from rounds_by_hand import after, row, setting, start
from torch import nn

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.terms import Control, Dual, Proximal
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import InputRole
from fedpriv.plans.tracing import trace_training
from fedpriv.plans.validation import validate

LR = 0.1
ROWS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
TARGET = ROWS @ torch.tensor([1.0, -2.0, 0.5]) + 0.3
MODEL = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))


def program(term):
    local = LocalTraining(optimizer=SGD(LR), term=term)
    plan = trace_training(
        MODEL, nn.functional.mse_loss, local.rule, TensorExample("float32", (3,)), TensorExample("float32")
    )
    return Program(validate(plan)), local.rule.hyperparameters


def trained(made, state, kept=None, epochs=2):
    """Return the state and what is kept after a round of batches of 8 rows."""
    compiled, numbers = made
    bound = compiled.bind(state, numbers, kept=kept)
    for _ in range(epochs):
        bound.epoch(ROWS, TARGET, None, 8)
    return bound.state(), bound.kept()


def gradient(weights, batch):
    held = {name: value.clone().requires_grad_() for name, value in weights.items()}
    error = nn.functional.mse_loss(torch.func.functional_call(MODEL, held, (ROWS[batch],)), TARGET[batch])
    return dict(zip(held, torch.autograd.grad(error, list(held.values())), strict=True))


BATCHES = [slice(0, 8), slice(8, 16), slice(16, 24)] * 2


def begin():
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in MODEL.state_dict().items()}


def close(one, other):
    assert all(torch.allclose(one[name], value, atol=1e-5) for name, value in other.items())


def test_the_proximal_term_pulls_towards_the_received_model():
    first = begin()
    weights = dict(first)
    for batch in BATCHES:
        grads = gradient(weights, batch)
        weights = {name: w - LR * (grads[name] + 0.7 * (w - first[name])) for name, w in weights.items()}
    close(trained(program(Proximal(0.7)), first)[0], weights)


def test_the_dual_term_is_feddyns_local_objective_over_two_rounds():
    made, alpha = program(Dual(0.5)), 0.5
    state, kept = begin(), None
    h = {name: torch.zeros_like(value) for name, value in state.items()}
    for _ in range(2):
        weights = dict(state)
        for batch in BATCHES:
            grads = gradient(weights, batch)
            weights = {n: w - LR * (grads[n] - h[n] + alpha * (w - state[n])) for n, w in weights.items()}
        h = {name: h[name] - alpha * (weights[name] - state[name]) for name in h}
        state, kept = trained(made, state, kept)
        close(state, weights)
        close({name.removesuffix("/dual"): value for name, value in kept.items()}, h)


def test_control_variates_are_scaffolds_over_two_rounds():
    made, kept = program(Control()), None
    weights = begin()
    c, own = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    for _ in range(2):
        first = dict(weights)
        for batch in BATCHES:
            grads = gradient(weights, batch)
            weights = {name: w - LR * (grads[name] - own[name] + c[name]) for name, w in weights.items()}
        new = {n: own[n] - c[n] + (first[n] - weights[n]) / (len(BATCHES) * LR) for n in own}  # option II
        received = first | {f"{name}/everybody": value for name, value in c.items()}
        state, kept = trained(made, received, kept)
        close(state, weights)
        close({name.removesuffix("/control"): value for name, value in kept.items()}, new)
        change = {n: state[f"{n}/everybody"] - c[n] for n in c}
        close(change, {n: new[n] - own[n] for n in own})
        own, c = new, {name: c[name] + 0.5 * change[name] for name in c}  # as if another worker had changed nothing


def test_what_is_kept_is_no_part_of_an_update_and_what_is_shared_is():
    plan = program(Control())[0].plan
    assert [each.name for each in plan.inputs_of(InputRole.KEPT)] == ["0.weight/control", "0.bias/control"]
    assert {each.name for each in plan.inputs_of(InputRole.STATE)} == {"0.weight/everybody", "0.bias/everybody"}
    assert not program(Proximal(0.1))[0].plan.inputs_of(InputRole.KEPT)


def test_the_server_of_scaffold_moves_everybodys_variate_by_the_share_that_took_part():
    how = setting(2, announced=(10, 10, 10, 10), local=LocalTraining())
    standing = start(fp.Scaffold(), {"w": row(0.0), "w/everybody": row(1.0)}, how)
    updates = [({"w": row(2.0), "w/everybody": row(4.0)}, 1.0), ({"w": row(0.0), "w/everybody": row(0.0)}, 1.0)]
    model = after(fp.Scaffold(), standing, updates).model
    assert model["w"].item() == 1.0
    assert model["w/everybody"].item() == 1.0 + 0.5 * 2.0


def test_the_server_of_feddyn_moves_by_the_mean_and_by_what_it_remembers():
    strategy, how = fp.FedDyn(alpha=0.5), setting(2, announced=(10, 10, 10, 10))
    standing = after(strategy, start(strategy, {"w": row(0.0)}, how), [(row(2.0), 1.0), (row(4.0), 1.0)])
    # h = -.5 * (2 / 4) * 3 = -.75; the model is 0 + 3 + .75 / .5
    assert standing.memory["w"].item() == pytest.approx(-0.75)
    assert standing.model["w"].item() == pytest.approx(4.5)


def test_a_term_is_of_one_strategy_and_above_zero():
    with pytest.raises(UsageError, match="mu is 0"):
        fp.FedProx(0.0)
    with pytest.raises(UsageError, match="alpha is nan"):
        fp.FedDyn(float("nan"))
    with pytest.raises(UsageError, match="leave term out"):
        fp.FedProx(0.1).prepare(LocalTraining(term=Dual(0.1)))
    with pytest.raises(UsageError, match="term is"):
        LocalTraining(term="proximal")
