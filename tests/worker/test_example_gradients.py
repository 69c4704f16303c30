"""Gradients of single examples: right, clipped, and never mixed."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpriv.errors import InputMismatch, PlanRefused, QuotaExceeded, StepFailed, TraceError, UsageError
from fedpriv.learning.local import SGD
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_evaluation, trace_loss, trace_training
from fedpriv.plans.validation import CheckedPlan, Quota, validate
from fedpriv_worker import example_gradients
from fedpriv_worker.example_gradients import CHUNK_ROWS, ExampleGradients
from fedpriv_worker.flattening import Flat


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.outer(self.inner(torch.tanh(self.inner(x))))


class Penalised(nn.Module):
    """A weight that the loss sees as well, beside its linear step."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x) + self.linear.weight.square().sum()


class Tempered(nn.Module):
    """A parameter that is one number."""

    def __init__(self):
        super().__init__()
        self.linear, self.heat = nn.Linear(6, 3), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.linear(x) / self.heat


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(11, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.table(x).mean(1))


def conv(**options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


MODELS = {
    "linear": (lambda: nn.Linear(6, 3), (6,), 1),
    "without a bias": (lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)), (6,), 2),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)), (6,), 3),
    "sequence": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)), (5, 6), 2),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (6,), 2),
    "convolution": (conv, (2, 9, 8), 2),
    "convolution with all options": (lambda: conv(stride=2, padding=(2, 1), dilation=2, bias=False), (2, 9, 8), 2),
    "grouped convolution": (lambda: conv(groups=2), (2, 9, 8), 1),
    "tied": (Tied, (6,), 1),
    "penalised": (Penalised, (6,), 0),
    "words": (Words, (4,), 1),
    "tempered": (Tempered, (6,), 1),
}


def made(name):
    torch.manual_seed(0)
    make, shape, taps = MODELS[name]
    model = make()
    kind = "int64" if name == "words" else "float32"
    plan = trace_loss(model, F.cross_entropy, TensorExample(kind, shape), TensorExample("int64"))
    return model, validate(plan), shape, taps


def rows(name, shape, count):
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (count,), generator=generator)
    if name == "words":
        return torch.randint(0, 11, (count, *shape), generator=generator), target
    return torch.randn(count, *shape, generator=generator), target


def tensors(model):
    return {name: value.detach() for name, value in model.named_parameters()}


def by_autograd(model, features, target, clip):
    """Return the sum of clipped gradients, each differentiated alone by torch."""
    total = 0
    for row, label in zip(features, target, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(model(row[None]), label[None]), list(model.parameters()))
        flat = torch.cat([each.flatten() for each in gradients]).double()
        total = total + flat * min(1.0, clip / float(flat.norm()))
    return total


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tapped", [True, False])
def test_the_sum_is_that_of_gradients_taken_one_by_one(name, tapped):
    model, checked, shape, _ = made(name)
    gradients = ExampleGradients(checked, tapped=tapped)
    for count in (1, 5, 16, 21):
        features, target = rows(name, shape, count)
        for clip in (0.3, 1e6):
            found = gradients.clipped_sum(tensors(model), features, target, clip)
            true = by_autograd(model, features, target, clip)
            assert found.ignored == 0
            assert (found.total - true).norm() <= 1e-5 * max(1.0, float(true.norm()))


@pytest.mark.parametrize("name", MODELS)
def test_taps_are_where_a_parameter_has_one_linear_use(name):
    _, checked, _, taps = made(name)
    assert len(ExampleGradients(checked).taps) == taps
    assert ExampleGradients(checked, tapped=False).taps == ()


@pytest.mark.parametrize("name", MODELS)
def test_no_contribution_is_longer_than_the_clip(name):
    model, checked, shape, _ = made(name)
    features, target = rows(name, shape, 1)
    huge = {key: value * 1e3 for key, value in tensors(model).items()}
    for given in (tensors(model), huge):
        total = ExampleGradients(checked).clipped_sum(given, features, target, 0.01).total
        assert float(total.double().norm()) <= 0.01 * (1 + 1e-5)


def test_a_sum_over_many_chunks_is_that_of_its_chunks():
    model, checked, shape, _ = made("mlp")
    features, target = rows("mlp", shape, 2 * CHUNK_ROWS + 9)
    gradients = ExampleGradients(checked)
    whole = gradients.clipped_sum(tensors(model), features, target, 0.5).total
    assert (whole - by_autograd(model, features, target, 0.5)).norm() < 1e-4
    assert whole.dtype == torch.float64


def test_no_rows_give_zeros():
    model, checked, shape, _ = made("mlp")
    found = ExampleGradients(checked).clipped_sum(tensors(model), *rows("mlp", shape, 0), 1.0)
    assert (found.total == 0).all()
    assert found.total.shape == (sum(value.numel() for value in model.parameters()),)


@pytest.mark.parametrize("name", ["mlp", "sequence", "layer norm", "convolution", "tied"])
@pytest.mark.parametrize("tapped", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
def test_an_example_without_a_finite_gradient_counts_as_zero(name, tapped, bad):
    model, checked, shape, _ = made(name)
    gradients = ExampleGradients(checked, tapped=tapped)
    features, target = rows(name, shape, 7)
    features[3].view(-1)[0] = bad
    found = gradients.clipped_sum(tensors(model), features, target, 0.5)
    others = torch.arange(7) != 3
    true = gradients.clipped_sum(tensors(model), features[others], target[others], 0.5).total
    assert torch.isfinite(found.total).all()
    if found.ignored:
        assert found.ignored == 1
        assert (found.total - true).norm() < 1e-5
    else:
        assert bad == 1e38  # where its gradient still is one
        assert (found.total - true).norm() <= 0.5 * (1 + 1e-5)


def test_a_target_that_the_loss_ignores_counts_as_zero():
    model, checked, shape, _ = made("mlp")
    features, target = rows("mlp", shape, 4)
    target[0] = -3
    found, others = (
        ExampleGradients(checked).clipped_sum(tensors(model), features[rows], target[rows], 0.5).total
        for rows in (slice(None), slice(1, None))
    )
    assert (found - others).norm() < 1e-6


def test_examples_cannot_mix_whatever_the_plan_says():
    """A loss that averages over the batch within the model: one example is all that it ever sees."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return self.linear(x - x.mean(0, keepdim=True) + x.sum(0, keepdim=True))

    torch.manual_seed(0)
    model = Mixing()
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))
    features, target = rows("mlp", (6,), 9)
    found = ExampleGradients(validate(plan)).clipped_sum(tensors(model), features, target, 0.5).total
    assert (found - by_autograd(model, features, target, 0.5)).norm() < 1e-5


def test_batch_norm_is_refused_where_it_is_traced_and_where_it_would_run():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    example = TensorExample("float32", (6,)), TensorExample("int64")
    with pytest.raises(TraceError, match="GroupNorm or LayerNorm in place of BatchNorm"):
        trace_loss(model, F.cross_entropy, *example)
    evaluated = trace_evaluation(model, F.cross_entropy, {}, *example)
    with pytest.raises(PlanRefused, match="no parameter"):
        ExampleGradients(validate(evaluated))
    trained = trace_training(model, F.cross_entropy, SGD(lr=0.1), *example)
    with pytest.raises(PlanRefused, match="one output"):
        ExampleGradients(validate(trained))


def test_a_batch_norm_without_statistics_of_its_own_is_refused_too():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))
    with pytest.raises(PlanRefused, match="normalises over the batch"):
        ExampleGradients(validate(plan))


def test_dropout_is_refused():
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))
    with pytest.raises(PlanRefused, match="leave dropout out"):
        ExampleGradients(validate(plan))


def test_a_model_without_parameters_is_refused():
    with pytest.raises(UsageError, match="nothing to train"):
        trace_loss(nn.ReLU(), F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))


def test_a_model_that_is_not_whole_is_refused():
    model, checked, shape, _ = made("mlp")
    features, target = rows("mlp", shape, 2)
    short = dict(list(tensors(model).items())[1:])
    with pytest.raises(InputMismatch, match="give the whole model"):
        ExampleGradients(checked).clipped_sum(short, features, target, 1.0)


def test_a_frozen_tensor_is_not_trained_and_not_tapped():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    model[0].weight.requires_grad_(False)
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))
    gradients = ExampleGradients(validate(plan))
    assert [each.name for each in gradients.parameters] == ["0.bias", "2.weight", "2.bias"]
    assert len(gradients.taps) == 1
    features, target = rows("mlp", (6,), 3)
    assert gradients.clipped_sum(tensors(model), features, target, 1.0).total.shape == (5 + 15 + 3,)


def test_a_flat_list_leaves_out_what_does_nothing():
    def idle(x):
        return [(x.detach() + torch.zeros(3, 4)).view(3, 4).permute(0, 1) * 1 + 2]

    flat = Flat(idle, [torch.zeros(3, 4)])
    assert len(flat) < 4
    x = torch.randn(3, 4)
    assert torch.equal(flat.run([x])[0], x + 2)


def test_a_step_that_fails_says_nothing_about_the_rows():
    model, checked, shape, _ = made("mlp")
    gradients = ExampleGradients(checked)
    features, target = rows("mlp", shape, 2)
    with pytest.raises(StepFailed) as failed:
        gradients.clipped_sum(tensors(model), features.double(), target, 1.0)
    assert failed.value.__cause__ is None
    assert "double" not in str(failed.value).lower()


def test_operations_on_lists_of_tensors_are_recorded_too():
    flat = Flat(lambda x: [torch.cat([x, x * 2])], [torch.zeros(2)])
    assert flat.run([torch.tensor([1.0, 2.0])])[0].tolist() == [1.0, 2.0, 2.0, 4.0]


@pytest.mark.parametrize("name", MODELS)
def test_a_small_grant_of_memory_takes_rows_in_smaller_pieces(name):
    model, checked, shape, _ = made(name)
    features, target = rows(name, shape, 40)
    whole = ExampleGradients(checked)
    found = {}
    for granted in (200_000, 50_000):
        gradients = ExampleGradients(validate(checked.plan, Quota(maximum_bytes=granted)))
        found[granted] = gradients._rows
        total = gradients.clipped_sum(tensors(model), features, target, 0.5).total
        assert (total - whole.clipped_sum(tensors(model), features, target, 0.5).total).norm() < 1e-4
    assert found[50_000] <= found[200_000] <= whole._rows == CHUNK_ROWS


def test_a_gradient_that_no_grant_holds_is_refused():
    _, checked, _, _ = made("penalised")
    with pytest.raises(QuotaExceeded, match="use a smaller one"):
        ExampleGradients(CheckedPlan(checked.plan, Quota(maximum_bytes=500)))


@pytest.mark.parametrize("options", [{"padding_idx": 1}, {"padding_idx": -2}, {"scale_grad_by_freq": True}], ids=str)
def test_a_table_with_a_padding_entry_is_refused_because_it_mixes_rows(options):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(11, 5, **options), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.table(x).mean(1))

    plan = trace_loss(Padded(), F.cross_entropy, TensorExample("int64", (4,)), TensorExample("int64"))
    with pytest.raises(PlanRefused, match="mixes them; use an Embedding without"):
        ExampleGradients(validate(plan))


@pytest.mark.parametrize(
    ("slope", "operand"), [(1e-19, 3e18), (1e-30, 1e30), (1e-38, 1e-3), (1e18, 1e-18), (1e-19, 1e18)]
)
def test_no_scale_of_slopes_or_operands_gets_a_row_past_its_clip(slope, operand):
    """In float32 the square of a slope is 0 below 1e-19, whatever it is multiplied with: no row would be clipped."""
    torch.set_flush_denormal(True)
    try:
        plan = trace_loss(
            nn.Linear(3, 1),
            lambda out, target: (out.squeeze(1) * slope * target).sum(),
            TensorExample("float32", (3,)),
            TensorExample("float32"),
        )
        made = ExampleGradients(validate(plan))
        given = {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}
        for clip in (1e-6, 1.0, 1e6):
            found = made.clipped_sum(given, torch.full((1, 3), operand), torch.ones(1), clip)
            assert float(found.total.double().norm()) <= clip * (1 + 1e-5)
    finally:
        torch.set_flush_denormal(False)


def test_the_memory_of_a_row_covers_the_copy_in_which_its_norm_is_taken():
    """Of a layer that hardly has activations the float64 copy of a row's own gradient is what counts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 200, bias=False), nn.Flatten(), nn.Linear(400, 3))
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (2, 6)), TensorExample("int64"))
    checked = validate(plan)
    made = ExampleGradients(checked, tapped=False)
    block = Program(checked).block(1, plain=True)
    own = sum(parameter.numel() for parameter in model.parameters())
    largest = max(parameter.numel() for parameter in model.parameters())
    assert example_gradients._row_bytes(block, plan, made.taps, made._rest) >= 2 * 4 * own + 8 * largest
