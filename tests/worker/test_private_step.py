"""A private step: what it adds, what it divides by, and how far one row can move it."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, Adam
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import validate
from fedpriv.privacy.mechanisms import Gaussian, PoissonSampled, Repeated
from fedpriv.privacy.noises import ExampleNoise
from fedpriv_worker import private_step
from fedpriv_worker.datasets import Rows
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.private_step import PrivateStep, largest_sample, slack_of, train_privately
from fedpriv_worker.training import Stopped

BATCH = 16


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))


def tensors():
    return {name: value.detach() for name, value in model().named_parameters()}


def stepping(multiplier=1.0, rate=0.25, steps=1, clip=0.5):
    plan = trace_loss(model(), F.cross_entropy, TensorExample("float32", (6,)), TensorExample("int64"))
    noise = ExampleNoise(clip, multiplier, rate, BATCH, steps)
    return PrivateStep(ExampleGradients(validate(plan)), noise), noise


def flat(found):
    return torch.cat([each.flatten() for each in found.gradient.values()]).double().numpy()


def data(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator)
    return features, (features[:, :3]).argmax(1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("seed", range(4))
def test_with_the_same_randomness_one_row_moves_a_step_by_no_more_than_is_billed(scale, seed):
    """The exact sensitivity, in steps of the grid, as the noise has it: clip / grid + sqrt(d)."""
    step, noise = stepping()
    features, target = data(24, seed)
    features[0] *= scale
    lattice = step._lattice
    found = [
        flat(step.of(tensors(), features[rows], target[rows], SeededEntropy(b"same"))) * BATCH / lattice.grid
        for rows in (slice(None), slice(1, None))
    ]
    moved = float(np.linalg.norm(found[0] - found[1]))
    assert moved <= noise.clip / lattice.grid + math.sqrt(lattice.dimension)
    assert moved * noise.multiplier <= math.sqrt(lattice.variance)


def test_a_row_that_is_too_long_moves_a_step_by_nearly_all_that_is_billed():
    step, noise = stepping()
    features, target = data(24)
    features[0], target[0] = features[0] * 1e3, (target[0] + 1) % 3
    found = [
        flat(step.of(tensors(), features[rows], target[rows], SeededEntropy(b"same"))) * BATCH
        for rows in (slice(None), slice(1, None))
    ]
    assert np.linalg.norm(found[0] - found[1]) > 0.95 * noise.clip


def test_a_row_without_a_finite_gradient_moves_nothing():
    step, _ = stepping()
    features, target = data(5)
    features[2] = math.nan
    found = step.of(tensors(), features, target, SeededEntropy(b"same"))
    kept = torch.arange(5) != 2
    without = step.of(tensors(), features[kept], target[kept], SeededEntropy(b"same"))
    assert np.abs(flat(found) - flat(without)).max() <= 2 * step._lattice.grid / BATCH
    assert (found.ignored, without.ignored) == (1, 0)
    assert "ignored" not in repr(found)


def test_an_empty_sample_gives_noise_all_the_same():
    step, noise = stepping()
    drawn = np.concatenate([flat(step.of(tensors(), *data(0), SystemEntropy())) for _ in range(300)]) * BATCH
    assert drawn.std() == pytest.approx(noise.clip * noise.multiplier, rel=0.06)


def test_the_executed_noise_is_the_billed_noise_whatever_the_rows():
    step, noise = stepping(multiplier=3.0)
    rows = data(20)
    entropy = SeededEntropy(b"executed")
    drawn = np.array([flat(step.of(tensors(), *rows, entropy)) for _ in range(400)]) * BATCH
    centred = drawn - drawn.mean(0)
    executed = centred.var() * 400 / 399
    assert executed >= (noise.clip * noise.multiplier) ** 2 * (1 - 5 * math.sqrt(2 / centred.size))
    assert executed <= (1.05 * noise.clip * noise.multiplier) ** 2
    assert noise.mechanism == Repeated(PoissonSampled(0.25, Gaussian(3.0)), 1)


def test_the_sum_is_divided_by_a_public_number_and_not_by_the_rows_that_came():
    step, _ = stepping(multiplier=1e-6)
    gradient = step._gradients
    for count in (1, 7, 60):
        rows = data(count)
        found = flat(step.of(tensors(), *rows, SystemEntropy()))
        summed = gradient.clipped_sum(tensors(), *rows, step._clip).total.double().numpy()
        assert found == pytest.approx(summed / BATCH, abs=1e-3)


def test_rows_are_drawn_anew_for_each_step_and_their_number_varies(monkeypatch):
    sizes = []
    step, _ = stepping()
    whole = step._gradients.clipped_sum

    def counted(given, features, target, clip):
        sizes.append(len(features))
        return whole(given, features, target, clip)

    step._gradients.clipped_sum = counted
    for _ in range(200):
        step.drawn(tensors(), Rows(*data(64)), SystemEntropy())
    assert np.mean(sizes) == pytest.approx(16, abs=1.3)
    assert np.var(sizes) == pytest.approx(12, rel=0.5)


def test_torch_and_numpy_generators_have_no_part_in_it():
    step, _ = stepping()
    torch.manual_seed(7)
    np.random.seed(7)
    one = flat(step.drawn(tensors(), Rows(*data(64)), SystemEntropy()))
    torch.manual_seed(7)
    np.random.seed(7)
    assert (flat(step.drawn(tensors(), Rows(*data(64)), SystemEntropy())) != one).all()


def test_more_rows_than_ever_are_drawn_are_left_out(monkeypatch):
    step, _ = stepping(rate=1.0)
    most = largest_sample(BATCH)
    drawn, cut = (step.drawn(tensors(), Rows(*data(count)), SeededEntropy(b"x")) for count in (most + 50, most))
    assert (flat(drawn) == flat(cut)).all() or np.abs(flat(drawn) - flat(cut)).max() < 1


def test_rows_are_clipped_to_less_by_what_float32_may_err():
    for batch_size in (1, 64, 1000):
        assert 0 < slack_of(batch_size) < 0.05
    step, noise = stepping()
    assert step._clip * (1 + slack_of(BATCH)) == pytest.approx(noise.clip)


def train(multiplier, steps, optimizer, entropy=None, stopped=lambda: False):
    step, noise = stepping(multiplier, steps=steps, clip=1.0)
    rows = Rows(*data(64))
    return train_privately(step, noise, rows, tensors(), optimizer, entropy or SystemEntropy(), stopped)


@pytest.mark.parametrize("optimizer", [SGD(lr=1.0), SGD(lr=0.3, momentum=0.9), Adam(lr=0.05)])
def test_private_training_learns_where_the_noise_lets_it(optimizer):
    delta = train(0.2, 60, optimizer).delta.tensors
    trained = model()
    with torch.no_grad():
        for name, value in trained.named_parameters():
            value.add_(delta[name])
    features, target = data(500, seed=9)

    def right(net):
        return float((net(features).argmax(1) == target).float().mean())

    assert right(trained) > max(0.7, right(model()) + 0.2)


def test_it_runs_exactly_the_steps_that_are_billed(monkeypatch):
    calls = []
    monkeypatch.setattr(
        private_step.PrivateStep, "of", lambda self, *given, _of=PrivateStep.of: calls.append(1) or _of(self, *given)
    )
    train(1.0, 7, SGD(lr=0.1))
    assert len(calls) == 7


def test_it_stops_between_two_steps_where_nobody_waits_any_more():
    with pytest.raises(Stopped):
        train(1.0, 3, SGD(lr=0.1), stopped=lambda: True)


def test_the_model_that_was_given_stays_as_it_is():
    given = tensors()
    before = {name: value.clone() for name, value in given.items()}
    step, noise = stepping(steps=2)
    train_privately(step, noise, Rows(*data(64)), given, SGD(lr=0.5), SystemEntropy(), lambda: False)
    assert all(torch.equal(given[name], before[name]) for name in before)


def test_a_model_that_is_not_whole_is_refused():
    step, noise = stepping()
    short = dict(list(tensors().items())[1:])
    with pytest.raises(UsageError, match="which the plan trains"):
        train_privately(step, noise, Rows(*data(64)), short, SGD(lr=0.5), SystemEntropy(), lambda: False)


def test_the_noise_of_a_step_is_far_nearer_the_ideal_than_any_delta():
    assert 0 < stepping()[0].total_variation < 1e-25
