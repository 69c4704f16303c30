"""Models that move in place, over both transports."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fedpriv.syft as sy
from fedpriv.errors import UsageError
from fedpriv.syft import utils


class Everything(nn.Module):
    """A tied weight, a frozen one, a buffer and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.layer = nn.LSTM(4, 4, num_layers=2)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.layer(self.embedding(tokens) * self.frozen + self.shift)
        found: Tensor = self.output(states).flatten(0, 1)
        return found


TOKENS, TARGET = torch.randint(0, 5, (6, 3)), torch.randint(0, 5, (18,))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, target: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(tokens), target).backward()
    optimizer.step()


def same(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, left), right in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(left, right, atol=1e-5), name


def test_tied_frozen_and_recurrent_weights_and_an_earlier_optimiser_survive(bob: sy.BaseWorker, alice) -> None:
    torch.manual_seed(0)
    remote = Everything()
    local = copy.deepcopy(remote)
    before = {name: id(each) for name, each in remote.named_parameters()}
    ours, theirs = (torch.optim.Adam((p for p in m.parameters() if p.requires_grad), lr=0.05) for m in (local, remote))
    for worker in (bob, alice, bob):
        step(local, ours, TOKENS, TARGET)
        assert remote.send(worker) is remote
        assert remote.location == worker
        assert remote.output.weight is remote.embedding.weight
        step(remote, theirs, TOKENS.send(worker), TARGET.send(worker))
    assert remote.get() is remote
    assert remote.location is None
    step(local, ours, TOKENS, TARGET)
    step(remote, theirs, TOKENS, TARGET)
    assert {name: id(each) for name, each in remote.named_parameters()} == before
    assert not remote.frozen.requires_grad
    same(local, remote)


def test_gradients_go_along_both_ways(bob: sy.BaseWorker) -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(2)).backward()
    gradient = model.weight.grad.clone()
    model.send(bob)
    assert model.weight.grad.location == bob
    model(torch.ones(2).send(bob)).backward()
    model.get()
    assert torch.equal(model.weight.grad, gradient * 2)


def test_a_model_comes_back_after_a_forward_pass_that_nobody_differentiates(bob: sy.BaseWorker, alice) -> None:
    torch.manual_seed(0)
    model = Everything()
    expected = model(TOKENS).detach()
    model.send(bob)
    prediction = model(TOKENS.send(bob))
    model.get()
    assert torch.allclose(prediction.get(), expected, atol=1e-5)
    assert torch.allclose(model(TOKENS), expected, atol=1e-5)
    model.send(alice)
    assert torch.allclose(model(TOKENS.send(alice)).get(), expected, atol=1e-5)


def test_a_backward_pass_that_comes_too_late_says_so(bob: sy.BaseWorker) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).send(bob)
    result = model(torch.ones(2).send(bob)).sum()
    model.get()
    with pytest.raises(UsageError, match="before it moves"):
        result.backward()
    assert model[0].weight.grad is None
    model(torch.ones(2)).sum().backward()
    assert model[0].weight.grad is not None


def test_a_copy_is_another_model_in_the_same_place(bob: sy.BaseWorker, alice: sy.BaseWorker, me) -> None:
    model = nn.Linear(2, 1).send(bob)
    other = model.copy()
    with torch.no_grad():
        other.weight.zero_()
    assert other.location == bob
    assert other.move(alice).location == alice
    assert torch.equal(other.move(me).weight, torch.zeros(1, 2))
    assert not torch.equal(model.get().weight, other.weight)


def test_a_parameter_keeps_its_id(bob: sy.BaseWorker) -> None:
    model = nn.Linear(2, 1)
    number = model.weight.id
    model.send(bob)
    assert model.weight.id == model.weight.id_at_location == number
    model.get()
    assert model.weight.id == number


def test_a_model_is_at_one_worker(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    with pytest.raises(UsageError, match=r"copy\(\)"):
        nn.Linear(1, 1).send(bob, alice)


def test_models_are_averaged_added_and_scaled(bob: sy.BaseWorker) -> None:
    models = {at: nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)) for at in range(3)}
    mean = utils.federated_avg(models)
    weights = torch.stack([each[0].weight.detach() for each in models.values()])
    assert torch.allclose(mean[0].weight, weights.mean(0))
    assert not torch.equal(models[0][0].weight, mean[0].weight)
    there = utils.federated_avg({at: each.copy().send(bob) for at, each in models.items()})
    assert torch.allclose(there.get()[0].weight, mean[0].weight)
    doubled = utils.scale_model(copy.deepcopy(mean), 2.0)
    same(utils.add_model(copy.deepcopy(mean), mean), doubled)
    with pytest.raises(UsageError, match="no model"):
        utils.federated_avg({})
