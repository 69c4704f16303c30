"""Personalisation against its papers' algorithms, step by step in torch alone."""

from __future__ import annotations

import pytest
import torch
from rounds_by_hand import once, row
from torch import nn

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.owned import Beside
from fedpriv.plans import own
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import InputRole, OutputRole
from fedpriv.plans.tracing import accuracy, trace_evaluation, trace_training
from fedpriv.plans.validation import validate

LR = 0.1
SEED = torch.Generator().manual_seed(0)
ROWS = torch.randn(24, 3, generator=SEED)
TARGET = (ROWS @ torch.tensor([1.0, -2.0, 0.5]) > 0).float()
FEATURES, LABEL = TensorExample("float32", (3,)), TensorExample("float32")
LOSS = nn.functional.binary_cross_entropy_with_logits


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, rows):
        return self.head(torch.tanh(self.norm(self.body(rows)))).squeeze(-1)


def network():
    torch.manual_seed(1)
    return Network()


def program(local, model):
    personal = local.personal
    plan = trace_training(
        model, LOSS, local.rule, FEATURES, LABEL, stays=personal.stays(model),
        companion=personal if isinstance(personal, Beside) else None,
    )  # fmt: skip
    return Program(validate(plan))


def trained(compiled, local, state, kept=None):
    """Return the state, and what is kept, after a round of three batches of 8 rows."""
    wanted = {each.name for each in compiled.plan.inputs}
    held = {name: value for name, value in state.items() if name in wanted}
    bound = compiled.bind(held, local.hyperparameters, kept=kept)
    bound.epoch(ROWS, TARGET, None, 8)
    return {**state, **bound.state()}, bound.kept()


def by_hand(model, pull=None):
    """Train `model` in place for a round; `pull` returns what is added to a parameter's gradient."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for at in range(0, 24, 8):
        optimizer.zero_grad()
        LOSS(model(ROWS[at : at + 8]), TARGET[at : at + 8]).backward()
        for name, value in model.named_parameters():
            if pull is not None:
                value.grad += pull(name, value.detach())
        optimizer.step()


def close(one, other):
    for name, value in other.items():
        assert torch.allclose(one[name].double(), value.double(), atol=1e-5), name


@pytest.mark.parametrize(
    ("strategy", "prefixes"), [(fp.FedPer(("head",)), ("head.",)), (fp.FedBN(), ("norm.",))], ids=["fedper", "fedbn"]
)
def test_what_stays_learns_from_round_to_round_and_the_rest_travels(strategy, prefixes):
    model, local = network(), strategy.prepare(LocalTraining(batch_size=8, optimizer=SGD(LR)))
    compiled, state, kept = program(local, model), model.state_dict(), None
    given = {name: value.clone() for name, value in state.items()}
    other = network()
    for _ in range(2):
        by_hand(other)
        state, kept = trained(compiled, local, state, kept)
        for name, value in other.state_dict().items():
            if name.startswith(prefixes):
                close(kept, {f"{name}/own": value})
                close(state, {name: given[name]})  # what was received of it stays as it was given
            else:
                close(state, {name: value})
    assert float(kept[own.MARK]) == 1.0
    outputs = {each.name for each in compiled.plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)}
    assert not any(name.startswith(prefixes) for name in outputs)


def test_ditto_trains_its_own_model_beside_the_shared_one_and_pulls_it_there():
    model, strength = network(), 0.7
    local = fp.Ditto(strength, lr=LR).prepare(LocalTraining(batch_size=8, optimizer=SGD(LR)))
    compiled, state, kept = program(local, model), model.state_dict(), None
    shared, mine = network(), network()
    for _ in range(2):
        received = {name: value.detach().clone() for name, value in shared.named_parameters()}
        by_hand(mine, lambda name, value, received=received: strength * (value - received[name]))
        by_hand(shared)
        state, kept = trained(compiled, local, state, kept)
        close(state, shared.state_dict())
        close(kept, {f"{name}/own": value for name, value in mine.state_dict().items()})
    assert not torch.allclose(mine.head.weight, shared.head.weight, atol=1e-3)


def test_what_is_measured_is_the_workers_own_model_and_before_it_has_one_what_it_received():
    model, strategy = network(), fp.FedPer(("head",))
    local = strategy.prepare(LocalTraining(batch_size=8, optimizer=SGD(LR)))
    compiled = program(local, model)
    names = own.names(compiled.plan)
    assert names == {"head.weight", "head.bias"}
    plan = trace_evaluation(model, LOSS, {"accuracy": accuracy}, FEATURES, LABEL, personal=names)
    assert {each.name for each in plan.inputs_of(InputRole.KEPT)} == {"head.weight/own", "head.bias/own", own.MARK}
    measuring, state = Program(validate(plan)), model.state_dict()
    model.eval()
    with torch.no_grad():
        first = float(LOSS(model(ROWS), TARGET))
    assert measuring.bind(state, {}).epoch(ROWS, TARGET, None, 24)["loss"] == pytest.approx(first, abs=1e-5)
    state, kept = trained(compiled, local, state)
    other = network()
    by_hand(other)
    other.eval()
    with torch.no_grad():
        after = float(LOSS(other(ROWS), TARGET))
    assert measuring.bind(state, {}, kept=kept).epoch(ROWS, TARGET, None, 24)["loss"] == pytest.approx(after, abs=1e-5)


def test_the_server_averages_what_it_gets():
    for strategy in (fp.FedPer(("head",)), fp.FedBN(), fp.Ditto()):
        assert torch.equal(once(strategy, {"w": row(1.0)}, [(row(1.0), 3.0), (row(5.0), 1.0)])["w"], row(3.0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fp.FedPer(()), r"layers is \(\); name the layers"),
        (lambda: fp.FedPer("head"), "layers is 'head'"),
        (lambda: fp.Ditto(-1.0), "strength is -1"),
        (lambda: fp.Ditto(lr=0.0), "lr is 0"),
        (lambda: fp.FedPer(("haed",)).prepare(LocalTraining()).personal.stays(network()), "did you mean 'head'"),
        (lambda: fp.FedBN().prepare(LocalTraining()).personal.stays(nn.Linear(2, 1)), "and the model has none"),
        (lambda: fp.FedBN().prepare(fp.Ditto().prepare(LocalTraining())), "leave personal out"),
        (lambda: LocalTraining(personal=3), "personal is of type int"),
    ],
)
def test_what_cannot_be_is_said(make, says):
    with pytest.raises(UsageError, match=says):
        make()
