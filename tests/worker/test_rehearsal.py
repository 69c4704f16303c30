"""Before private rows, rows of our own: whatever mixes rows, hides a norm or has no gradient is found on them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpriv.errors import PlanRefused
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import Quota, validate
from fedpriv.wire.messages import ErrorCode
from fedpriv_worker import example_gradients, pieces, private_training, rehearsal
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.executor import Programs
from fedpriv_worker.rehearsal import rehearse, rehearsed
from fedpriv_worker.training import Unfit

FLOATS, WHOLE, LABEL = TensorExample("float32", (6,)), TensorExample("int64", (4,)), TensorExample("int64")


class Words(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.out = nn.Embedding(300, 5, **options), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.table(x).mean(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.layer(self.table(x)).mean(1))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.Flatten(), nn.LazyLinear(3)
    )


def checked(model, loss=F.cross_entropy, features=FLOATS, target=LABEL, quota=None):
    torch.manual_seed(0)
    return validate(trace_loss(model, loss, features, target), quota or Quota())


def lazily(make, shape):
    model = make()
    model(torch.zeros(2, *shape))
    return model


@pytest.mark.parametrize(
    ("make", "features", "loss", "target"),
    [
        (mlp, FLOATS, F.cross_entropy, LABEL),
        (lambda: lazily(cnn, (2, 9, 8)), TensorExample("float32", (2, 9, 8)), F.cross_entropy, LABEL),
        (Words, WHOLE, F.cross_entropy, LABEL),
        (Attending, WHOLE, F.cross_entropy, LABEL),
        (mlp, FLOATS, lambda out, label: F.cross_entropy(out, label, ignore_index=1), LABEL),
        (mlp, FLOATS, lambda out, y: F.mse_loss(out[:, 0], y), TensorExample("float32")),
        (mlp, FLOATS, lambda out, y: F.binary_cross_entropy(out[:, 0].sigmoid(), y), TensorExample("float32")),
        (mlp, FLOATS, lambda out, y: (out[:, 0].log() - y).square().mean(), TensorExample("float32")),
    ],
    ids=["mlp", "cnn", "words", "transformer", "ignored class", "mse", "bce", "a logarithm"],
)
def test_ordinary_plans_pass(make, features, loss, target):
    torch.manual_seed(0)
    assert isinstance(rehearsed(checked(make(), loss, features, target)), ExampleGradients)


@pytest.mark.parametrize("options", [{"padding_idx": 217}, {"padding_idx": 0}], ids=str)
def test_tables_whose_gradients_mix_rows_are_found_by_what_they_do(monkeypatch, options):
    """They are refused by name as well; here that list is empty."""
    monkeypatch.setattr(example_gradients, "_skips", lambda step: False)
    plan = checked(Words(**options), features=WHOLE)
    with pytest.raises(PlanRefused, match="mixes rows"):
        rehearsed(plan)


def test_a_derivation_that_hides_part_of_a_norm_is_found(monkeypatch):
    found = pieces.Outer.squares
    monkeypatch.setattr(pieces.Outer, "squares", lambda self: found(self) * 0.9)
    with pytest.raises(PlanRefused, match="its clip would go by"):
        rehearsed(checked(mlp()))


def test_a_derivation_that_lets_a_little_of_another_row_in_is_found(monkeypatch):
    """One hundredth of the next row, in one layer."""
    added = pieces.Outer.add_into

    def leaking(self, flat, offsets, factors):
        self.slope = self.slope + 0.01 * self.slope.roll(1, 0)
        added(self, flat, offsets, factors)

    monkeypatch.setattr(pieces.Outer, "add_into", leaking)
    with pytest.raises(PlanRefused, match=r"mixes rows|its clip would go by"):
        rehearsed(checked(mlp()))


def test_a_loss_that_cannot_be_taken_for_many_rows_is_refused():
    weight = torch.tensor([1.0, 2.0, 3.0])
    plan = checked(mlp(), lambda out, label: F.cross_entropy(out, label, weight=weight))
    with pytest.raises(PlanRefused, match="class weights: leave them out"):
        rehearsed(plan)


def test_a_loss_that_is_never_a_number_is_refused():
    plan = checked(mlp(), lambda out, y: (out[:, 0] * 0).log().sum() + y.sum() * 0, target=TensorExample("float32"))
    with pytest.raises(PlanRefused, match="on none of the rows that were tried"):
        rehearsed(plan)


def test_whole_numbers_are_drawn_of_those_that_the_plan_names_and_below_its_sizes(monkeypatch):
    seen = []
    each_row = ExampleGradients.each_row

    def kept(self, given, features, target):
        seen.append((features, target))
        return each_row(self, given, features, target)

    monkeypatch.setattr(ExampleGradients, "each_row", kept)
    monkeypatch.setattr(example_gradients, "_skips", lambda step: False)
    with pytest.raises(PlanRefused):
        rehearsed(checked(Words(padding_idx=217), features=WHOLE))
    ((features, target),) = seen
    assert (features == 217).any(1).sum() > 1  # in several rows, and beside others
    assert (features != 217).any(1).all()
    assert features.max() <= 300
    assert len(features.unique()) > 6
    assert len(target.clamp(0, 2).unique()) > 1
    assert (features[0] == features[-1]).all()


def test_rows_have_different_magnitudes(monkeypatch):
    seen = []
    monkeypatch.setattr(ExampleGradients, "each_row", lambda self, given, features, target: seen.append(features) or [])
    with pytest.raises(ValueError, match="zip"):
        rehearsed(checked(mlp()))
    norms = seen[0].norm(dim=1)
    assert norms.max() > 20 * norms.min() > 0


def test_a_small_grant_of_memory_is_no_obstacle():
    rehearsed(checked(mlp(), quota=Quota(maximum_bytes=2500)))


def test_a_plan_is_tried_once_and_kept(monkeypatch):
    tried = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda made, plan: tried.append(made) or rehearse(made, plan))
    programs, plan = Programs(), checked(mlp()).plan
    assert programs.by_rows(plan) is programs.by_rows(plan)
    assert len(tried) == 1


def test_private_rows_have_no_part_in_it_and_the_verdict_is_the_same_each_time():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    rehearsed(checked(mlp()))
    rehearsed(checked(mlp()))
    torch.manual_seed(7)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_order_with_such_a_plan_is_unfit_before_a_private_row_counts():
    """The peer hears why; the data set is neither charged nor barred."""
    weight = torch.tensor([1.0, 2.0, 3.0])
    plan = checked(mlp(), lambda out, label: F.cross_entropy(out, label, weight=weight)).plan
    with pytest.raises(Unfit) as refused:
        private_training.ready(lambda: Programs().by_rows(plan))
    assert refused.value.code is ErrorCode.PLAN_REFUSED
