"""FedPA's local side: the plan's update against samples taken and inverted outside of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.posterior import shrinkage_delta
from fedpriv.learning.sampled import Posterior
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_training
from fedpriv.plans.validation import validate

LR, BATCH = 0.2, 4
ROWS = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
TARGET = ROWS @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(1))
MODEL = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))


def update(term, epochs=1, start=None):
    """Return what a worker's plan makes of a round, as one vector."""
    local = LocalTraining(optimizer=SGD(LR), term=term)
    plan = trace_training(
        MODEL, nn.functional.mse_loss, local.rule, TensorExample("float32", (3,)), TensorExample("float32")
    )
    bound = Program(validate(plan)).bind(start, local.hyperparameters)
    for _ in range(epochs):
        bound.epoch(ROWS, TARGET, None, BATCH)
    return flat(bound.state()) - flat(start)


def flat(state):
    return np.concatenate([state[name].double().flatten().numpy() for name in ("0.weight", "0.bias")])


def iterates(start, epochs=1):
    """Return the iterates of plain SGD, shape (steps, d), by torch alone."""
    weights, found = {name: value.clone() for name, value in start.items()}, []
    for _ in range(epochs):
        for at in range(0, len(ROWS), BATCH):
            held = {name: value.requires_grad_() for name, value in weights.items()}
            prediction = torch.func.functional_call(MODEL, held, (ROWS[at : at + BATCH],))
            error = nn.functional.mse_loss(prediction, TARGET[at : at + BATCH])
            grads = torch.autograd.grad(error, list(held.values()))
            weights = {name: (w - LR * g).detach() for (name, w), g in zip(held.items(), grads, strict=True)}
            found.append(flat(weights))
    return np.array(found)


@pytest.fixture
def start():
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in MODEL.state_dict().items()}


@pytest.mark.parametrize(("burn_in", "every", "samples", "shrinkage"), [(0, 4, 3, 0.5), (4, 2, 4, 2.0), (3, 3, 2, 0.1)])
def test_the_update_is_the_inverse_covariance_times_the_way_to_the_mean(start, burn_in, every, samples, shrinkage):
    way = iterates(start)[burn_in:]
    taken = np.array([way[at * every : (at + 1) * every].mean(axis=0) for at in range(samples)])
    expected = shrinkage_delta(taken, flat(start), shrinkage=shrinkage)
    found = update(Posterior(burn_in, every, samples, shrinkage), start=start)
    assert np.allclose(found, expected, rtol=2e-3, atol=2e-4)
    assert not np.allclose(found, taken.mean(axis=0) - flat(start), rtol=0.05)


def test_sampling_goes_on_over_epochs_and_stops_at_the_last_sample(start):
    way = iterates(start, 2)
    taken = np.array([way[:8].mean(axis=0), way[8:16].mean(axis=0)])
    found = update(Posterior(0, 8, 2, 0.5), epochs=2, start=start)
    assert np.allclose(found, shrinkage_delta(taken, flat(start), shrinkage=0.5), rtol=2e-3, atol=2e-4)


def test_one_sample_is_the_way_to_the_mean_of_the_iterates_and_none_the_way_to_the_last(start):
    way = iterates(start)
    assert np.allclose(update(Posterior(4, 8, 1, 1.0), start=start), way[4:12].mean(axis=0) - flat(start), atol=1e-5)
    assert np.allclose(update(Posterior(100, 8, 4, 1.0), start=start), way[-1] - flat(start), atol=1e-5)


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ({"burn_in": -1}, "burn_in is -1"),
        ({"steps_per_sample": 0}, "steps_per_sample is 0"),
        ({"samples": 65}, "samples is 65; a worker holds one more model for each"),
        ({"shrinkage": float("nan")}, "shrinkage is nan"),
        ({"lr": 0.0}, "lr is 0"),
    ],
)
def test_what_it_cannot_be_is_said(term, says):
    with pytest.raises(UsageError, match=says):
        fp.FedPA(**term)
