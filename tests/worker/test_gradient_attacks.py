"""Attacks that read rows off gradients: they work on what is not protected, and not on what is, at the defaults."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import validate
from fedpriv.privacy.attacks.analytic import recovered, rows_in_linear
from fedpriv.privacy.attacks.imprint import Imprint, imprint
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.private_step import PrivateStep

WIDE, BINS, WORKERS, ROWS = 64, 800, 8, 8


def pictures(count, seed=0):
    """Return rows like small pictures: smooth, between 0 and 1, each its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size=(8, 8), mode="bilinear").flatten(1)
    return smooth * (0.2 + 0.8 * torch.rand(count, 1, generator=generator))


def labels(count):
    return torch.arange(count) % 3


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDE, 16), nn.ReLU(), nn.Linear(16, 3))


def trapped(trap):
    """Return a model whose first layer is an imprint, all of whose lines the next layer weighs alike."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDE, len(trap.thresholds)), nn.ReLU(), nn.Linear(len(trap.thresholds), 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(trap.weight))
        model[0].bias.copy_(torch.from_numpy(trap.bias))
        model[2].weight.copy_(torch.tensor([[0.1], [-0.2], [0.3]]).expand(3, len(trap.thresholds)) / BINS)
    return model


def raw(model, features, target):
    """Return the summed gradients of the first layer, as a worker without protection releases them."""
    loss = F.cross_entropy(model(features), target, reduction="sum")
    weight, bias = torch.autograd.grad(loss, [model[0].weight, model[0].bias])
    return weight.numpy(), bias.numpy()


def flat(model, features, target):
    loss = F.cross_entropy(model(features), target, reduction="sum")
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))]).numpy()


def first_layer(model, values):
    """Return the first layer's part of a flat vector of all parameters."""
    shape = tuple(model[0].weight.shape)
    size = shape[0] * shape[1]
    return np.asarray(values[:size]).reshape(shape), np.asarray(values[size : size + shape[0]])


@pytest.fixture(scope="module")
def default_noise():
    """DP-SGD at its defaults, for 1,000 announced rows."""
    return ExampleDP().noise(rows=1000, batch_size=8, rounds=10, steps=10)


def under_example_dp(model, noise, entropy):
    """Return what gives the first layer's gradients as DP-SGD releases them."""
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (WIDE,)), TensorExample("int64"))
    step = PrivateStep(ExampleGradients(validate(plan)), noise)
    given = {name: value.detach() for name, value in model.named_parameters()}

    def released(features, target):
        found = step.of(given, features, target, entropy).gradient
        return found["0.weight"].numpy(), found["0.bias"].numpy()

    return released


def test_rows_are_read_off_raw_gradients_of_one_row_and_none_off_private_ones(default_noise):
    rows, target, model = pictures(40), labels(40), classifier()
    private = under_example_dp(model, default_noise, SeededEntropy(b"analytic"))
    seen = {"raw": 0, "private": 0}
    for at in range(40):
        one, label = rows[at : at + 1], target[at : at + 1]
        seen["raw"] += int(recovered(rows_in_linear(*raw(model, one, label)), one.numpy()).sum())
        seen["private"] += int(recovered(rows_in_linear(*private(one, label)), one.numpy()).sum())
    assert seen == {"raw": 40, "private": 0}


def brightness():
    return np.full(WIDE, 1.0 / WIDE)


def imprinted():
    trap = imprint(brightness(), pictures(4000, seed=7).numpy(), BINS)
    batches = [pictures(ROWS, seed=100 + worker) for worker in range(WORKERS)]
    return trap, trapped(trap), batches


def share(candidates, batches):
    return float(recovered(candidates, torch.cat(batches).numpy()).mean())


def test_an_imprint_reads_rows_off_raw_updates_and_off_a_secure_sum_of_eight():
    trap, model, batches = imprinted()
    alone = [trap.rows(*raw(model, batch, labels(ROWS))) for batch in batches]
    shares = [share(found, [batch]) for found, batch in zip(alone, batches, strict=True)]
    assert np.mean(shares) >= 0.8
    summed = [sum(parts) for parts in zip(*(raw(model, batch, labels(ROWS)) for batch in batches), strict=True)]
    assert share(trap.rows(*summed), batches) >= 0.8


def test_an_imprint_reads_nothing_off_private_steps(default_noise):
    trap, model, batches = imprinted()
    private = under_example_dp(model, default_noise, SeededEntropy(b"imprint"))
    summed = [sum(parts) for parts in zip(*(private(batch, labels(ROWS)) for batch in batches), strict=True)]
    assert share(trap.rows(*summed), batches) == 0.0


def test_an_imprint_reads_nothing_off_updates_with_noise_of_workers_or_of_the_coordinator():
    trap, model, batches = imprinted()
    updates = [flat(model, batch, labels(ROWS)) for batch in batches]
    dimension, entropy = len(updates[0]), SeededEntropy(b"modes")
    clipped = [each / max(1.0, float(np.linalg.norm(each))) for each in updates]
    local = LocalDP().noise(rounds=10).lattice(dimension)
    central = CentralDP().noise(rounds=10, workers=WORKERS).lattice(dimension)
    shared = DistributedDP().noise(rounds=10, workers=WORKERS, threshold=6, colluding=2, dimension=dimension)
    released = {
        "local": local.noisy(clipped[0], entropy),
        "central": central.noisy(sum(clipped), entropy),
        "distributed": sum(shared.contribution(each, entropy) for each in updates) / shared.rounding.scale,
    }
    for mode, values in released.items():
        assert share(trap.rows(*first_layer(model, values)), batches) == 0.0, mode
    assert share(trap.rows(*first_layer(model, sum(clipped))), batches) >= 0.8  # clipping alone protects nobody


@pytest.mark.parametrize("multiplier", [1e-3, 1e-2])
def test_little_noise_already_stops_an_imprint(multiplier):
    trap, model, batches = imprinted()
    updates = [flat(model, batch, labels(ROWS)) for batch in batches]
    clipped = sum(each / max(1.0, float(np.linalg.norm(each))) for each in updates)
    noise = CentralDP(noise_multiplier=multiplier).noise(rounds=1, workers=WORKERS).lattice(len(clipped))
    found = trap.rows(*first_layer(model, noise.noisy(clipped, SeededEntropy(b"little"))))
    assert share(found, batches) == 0.0


def test_a_line_that_did_not_move_has_no_candidate():
    candidates = rows_in_linear(np.array([[1.0, 2.0], [6.0, 9.0], [5.0, 5.0]]), np.array([1.0, -3.0, 0.0]))
    assert candidates.tolist() == [[-2.0, -3.0], [1.0, 2.0]]
    assert rows_in_linear(np.zeros((2, 3)), np.zeros(2)).shape == (0, 3)
    assert recovered(np.zeros((0, 3)), np.ones((2, 3))).tolist() == [False, False]


def test_two_rows_in_one_bin_are_a_mixture_and_not_recovered():
    trap = Imprint(np.ones(2), np.array([0.0, 10.0]))
    lines, steps = np.array([[4.0, 6.0], [0.0, 0.0]]), np.array([2.0, 0.0])
    assert trap.rows(lines, steps).tolist() == [[2.0, 3.0]]
    assert not recovered(trap.rows(lines, steps), np.array([[1.0, 5.0], [3.0, 1.0]])).any()


@pytest.mark.parametrize(
    "attack",
    [
        lambda: rows_in_linear(np.zeros((2, 3)), np.zeros(3)),
        lambda: rows_in_linear(np.zeros(3), np.zeros(3)),
        lambda: Imprint(np.ones(2), np.array([1.0])),
        lambda: Imprint(np.ones(2), np.array([1.0, 1.0])),
        lambda: Imprint(np.ones(2), np.array([0.0, 1.0])).rows(np.zeros((3, 2)), np.zeros(3)),
    ],
)
def test_gradients_of_another_layer_are_refused(attack):
    with pytest.raises(UsageError):
        attack()
