"""Modules that move in place, and the optimisers that go on working."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sites import MakeSite, Site
from torch import Tensor, nn

import fedpriv as fp
from fedpriv.errors import ReleaseDenied, UsageError
from fedpriv.remote.holder import Holder
from fedpriv.remote.pointer import RemoteTensor


class Tied(nn.Module):
    """One weight in two places, a frozen one, and one that no forward uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("shift", torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.output(self.embedding(x) * self.frozen + self.shift).mean(1)
        return found


class Recurrent(nn.Module):
    """A recurrent layer and what reads its last state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(3, 5, num_layers=2, batch_first=True)
        self.output = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.output(self.layer(x)[0][:, -1])
        return found


TOKENS, SEQUENCES, ROWS = torch.randint(0, 7, (6, 5)), torch.randn(6, 4, 3), torch.randn(6, 4)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "tied": (Tied, TOKENS),
    "lstm": (lambda: Recurrent(nn.LSTM), SEQUENCES),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCES),
    "batch-norm": (
        lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 7)),
        ROWS,
    ),
    "layer-norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 7)), ROWS),
    "convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4, 7)),
        ROWS,
    ),
}
TARGET = torch.randint(0, 7, (6,))
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, amsgrad=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.05),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
}


def made(family: str) -> nn.Module:
    torch.manual_seed(3)
    return FAMILIES[family][0]()


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def same(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, left), right in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(left, right, atol=1e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_layers_trains_as_it_does_here(bob: Holder, family: str) -> None:
    local, remote, rows = made(family), made(family), FAMILIES[family][1]
    optimizers = [torch.optim.Adam([p for p in m.parameters() if p.requires_grad], lr=0.01) for m in (local, remote)]
    fp.send_module(remote, bob)
    trained(local, optimizers[0], rows, TARGET)
    trained(remote, optimizers[1], bob.send(rows), bob.send(TARGET))
    same(local, fp.get_module(remote))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stock_optimisers_follow_a_module_from_worker_to_worker(make_site: MakeSite, name: str) -> None:
    workers = [make_site(name=each).pointed for each in ("alice", "bob", "carol")]
    local, remote = made("layer-norm"), made("layer-norm")
    ours, theirs = OPTIMIZERS[name](local.parameters()), OPTIMIZERS[name](remote.parameters())
    for worker in [*workers, workers[0]]:
        trained(local, ours, ROWS, TARGET)
        fp.send_module(remote, worker)
        trained(remote, theirs, worker.send(ROWS), worker.send(TARGET))
    fp.get_module(remote)
    trained(local, ours, ROWS, TARGET)
    trained(remote, theirs, ROWS, TARGET)
    same(local, remote)


def test_parameters_keep_their_identity_and_gradients_go_along(bob: Holder) -> None:
    model = made("tied")
    before = {name: id(each) for name, each in model.named_parameters()}
    F.cross_entropy(model(TOKENS), TARGET).backward()
    gradient = model.embedding.weight.grad.clone()
    fp.send_module(model, bob)
    assert all(isinstance(each, RemoteTensor) for each in (*model.parameters(), *model.buffers()))
    assert torch.equal(model.embedding.weight.grad.get(), gradient)
    assert model.output.weight is model.embedding.weight
    assert not model.frozen.requires_grad
    fp.get_module(model)
    assert {name: id(each) for name, each in model.named_parameters()} == before
    assert not any(isinstance(each, RemoteTensor) for each in (*model.parameters(), *model.buffers()))
    assert torch.equal(model.embedding.weight.grad, gradient)


def test_an_optimiser_that_is_made_later_works_too(bob: Holder) -> None:
    local, remote = made("layer-norm"), fp.send_module(made("layer-norm"), bob)
    trained(local, torch.optim.Adam(local.parameters()), ROWS, TARGET)
    trained(remote, torch.optim.Adam(remote.parameters()), bob.send(ROWS), bob.send(TARGET))
    same(local, fp.get_module(remote))


def test_a_module_whose_result_is_still_needed_says_what_to_do(bob: Holder) -> None:
    model = fp.send_module(made("layer-norm"), bob)
    result = model(bob.send(ROWS))
    with pytest.raises(UsageError, match=r"backward\(\)"):
        fp.get_module(model)
    del result
    fp.get_module(model)
    assert model(ROWS).shape == (6, 7)


def test_a_model_trained_on_somebodys_rows_does_not_come_back_unasked(site: Site) -> None:
    data = site.pointed.dataset("toy")
    model = fp.send_module(nn.Linear(4, 1), site.pointed)
    trained_on = F.binary_cross_entropy_with_logits(model(data.features).squeeze(1), data.target)
    trained_on.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.raises(fp.ReleaseDenied):
        fp.get_module(model)
    assert all(isinstance(each, RemoteTensor) for each in model.parameters()), "nothing moved half-way"
    ticket = model.weight.request("weights after one step")
    site.desk.approve(ticket.id, 1, 60.0)
    assert ticket.get().shape == (1, 4)


def test_a_model_that_was_trained_on_rows_comes_home_with_one_yes(site: Site) -> None:
    data = site.pointed.dataset("toy")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))
    weight, twin = model[0].weight, copy.deepcopy(model)
    fp.send_module(model, site.pointed)
    held = site.datasets[0]
    for module, features, target in (model, data.features, data.target), (twin, held.features, held.target):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(module(features), target.float()).backward()
            optimizer.step()
    with pytest.raises(ReleaseDenied):
        fp.get_module(model)
    asked = fp.request_module(model, "the model")
    with pytest.raises(ReleaseDenied, match="has not answered"):
        asked.get()
    assert isinstance(model[0].weight, fp.RemoteTensor)
    site.desk.approve(asked.id, 1, 60.0)
    back = asked.wait(timeout=20).get()
    assert back is model
    assert back[0].weight is weight
    for (name, ours), (_, theirs) in zip(back.state_dict().items(), twin.state_dict().items(), strict=True):
        assert not isinstance(ours, fp.RemoteTensor)
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours, theirs, atol=1e-5), name
    assert [each["kinds"] for each in site.desk.requests()] == [["float64 32"]]


def test_a_module_that_is_here_is_not_asked_for(site: Site) -> None:
    with pytest.raises(UsageError, match="get_module brings your own back"):
        fp.request_module(nn.Linear(2, 2), "mine")
    with pytest.raises(ReleaseDenied, match="is your own"):
        fp.request_module(fp.send_module(nn.Linear(2, 2), site.pointed), "mine")
