"""The program of 0.2 that trains a line on two workers, with one import changed, over both transports."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fedpriv.syft as sy
from fedpriv.syft import optim


def trained(bob: sy.BaseWorker, alice: sy.BaseWorker, model: nn.Module) -> list[torch.Tensor]:
    """Do what the program does between making its workers and printing its losses, in its own words."""
    data = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], requires_grad=True)
    target = torch.tensor([[0], [0], [1], [1.0]], requires_grad=True)
    data_bob, target_bob = data[0:2], target[0:2]
    data_alice, target_alice = data[2:], target[2:]
    data_bob = data_bob.send(bob)
    data_alice = data_alice.send(alice)
    target_bob = target_bob.send(bob)
    target_alice = target_alice.send(alice)
    datasets = [(data_bob, target_bob), (data_alice, target_alice)]
    losses = []
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    for _ in range(10):
        for data, target in datasets:
            model.send(data.location)
            opt.zero_grad()
            pred = model(data)
            loss = ((pred - target) ** 2).sum()
            loss.backward()
            opt.step(data.shape[0])
            model.get()
            losses.append(loss.get())
    return losses


def trained_here(model: nn.Module) -> list[torch.Tensor]:
    data, target = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]]), torch.tensor([[0], [0], [1], [1.0]])
    losses = []
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for at in range(20):
        rows = slice(0, 2) if at % 2 == 0 else slice(2, 4)
        opt.zero_grad()
        loss = ((model(data[rows]) - target[rows]) ** 2).sum()
        loss.backward()
        opt.step()
        losses.append(loss.detach())
    return losses


def test_the_program_runs_and_learns_what_it_would_have_learned_here(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    torch.manual_seed(0)
    remote, local = nn.Linear(2, 1), nn.Linear(2, 1)
    local.load_state_dict(remote.state_dict())
    losses = trained(bob, alice, remote)
    assert torch.allclose(torch.stack(losses), torch.stack(trained_here(local)), atol=1e-6)
    assert losses[-1] < losses[1] / 10
    assert all(type(each) is torch.Tensor and not each.requires_grad for each in losses)
    for theirs, ours in zip(remote.parameters(), local.parameters(), strict=True):
        assert torch.allclose(theirs, ours, atol=1e-6)


def test_nothing_of_a_model_stays_behind(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    trained(bob, alice, nn.Linear(2, 1))
    assert bob.tensors_count() == alice.tensors_count() == 0


def test_a_number_of_rows_is_taken_for_models_that_are_at_a_worker_alone(bob: sy.BaseWorker) -> None:
    model = nn.Linear(2, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2)).backward()
    with pytest.raises(TypeError, match="not callable"):
        opt.step(2)
    before = model.weight.detach().clone()
    model.send(bob)
    opt.step(2)
    assert torch.allclose(model.get().weight, before - 0.1)
