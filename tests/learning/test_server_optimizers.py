"""Server optimisers against torch.optim step by step, and against their papers' formulas worked out by hand."""

from __future__ import annotations

import pytest
import torch
from rounds_by_hand import after, once, row, setting, start

import fedpriv as fp
from fedpriv.errors import UsageError

STEPS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FIRST = torch.linspace(-1, 1, 5, dtype=torch.float64)
CLASSES = {
    "FedAvgM": (fp.FedAvgM(0.7, 0.9), lambda p: torch.optim.SGD(p, lr=0.7, momentum=0.9)),
    "FedOpt(SGD)": (fp.FedOpt(fp.SGD(0.3)), lambda p: torch.optim.SGD(p, lr=0.3)),
    "FedOpt(Adam)": (fp.FedOpt(fp.Adam(0.1)), lambda p: torch.optim.Adam(p, lr=0.1)),
    "FedOpt(AdamW)": (
        fp.FedOpt(fp.AdamW(0.1, weight_decay=0.05)),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.05),
    ),
    "FedAdagrad": (
        fp.FedAdagrad(0.1, 1e-2),
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-2, initial_accumulator_value=1e-4),
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_server_optimiser_is_torchs_own_with_minus_the_mean_update_as_gradient(name):
    strategy, make = CLASSES[name]
    standing = start(strategy, {"w": FIRST})
    parameter = torch.nn.Parameter(FIRST.clone())
    theirs = make([parameter])
    for step in STEPS:
        standing = after(strategy, standing, [(step + 1.0, 1.0), (step - 0.5, 2.0)])  # the weighted mean is `step`
        parameter.grad = -step
        theirs.step()
        assert torch.allclose(standing.model["w"], parameter.detach(), rtol=0, atol=1e-12)


def test_fedsgd_descends_along_the_workers_mean_gradient_whatever_their_rate():
    gradients = [row(1.0, 2.0), row(3.0, -2.0)]
    updates = [(-0.5 * gradients[0], 30.0), (-0.5 * gradients[1], 10.0)]  # the workers' rate is 0.5
    moved = once(fp.FedSGD(lr=0.1), {"w": row(1.0, 1.0)}, updates)
    assert torch.allclose(moved["w"], row(1 - 0.1 * 1.5, 1 - 0.1 * 1.0))
    summed = once(fp.FedSGD(lr=0.001, total=True), {"w": row(1.0, 1.0)}, updates)
    assert torch.allclose(summed["w"], row(1 - 0.001 * 60, 1 - 0.001 * 40))


def test_fedsgd_with_adam_is_torchs_adam_on_summed_gradients():
    strategy = fp.FedSGD(lr=1.0, server="adam", total=True)
    standing, parameter = start(strategy, {"w": FIRST}), torch.nn.Parameter(FIRST.clone())
    theirs = torch.optim.Adam([parameter], lr=1.0)
    for step in STEPS:
        standing = after(strategy, standing, [(-0.5 * step, 20.0), (-0.5 * (step + 1.0), 10.0)])
        parameter.grad = 20 * step + 10 * (step + 1.0)
        theirs.step()
        assert torch.allclose(standing.model["w"], parameter.detach(), rtol=0, atol=1e-9)


def test_fedadam_is_algorithm_two_without_bias_correction():
    strategy = fp.FedAdam(lr=0.1, betas=(0.9, 0.99), eps=0.1)
    standing = after(strategy, start(strategy, {"w": row(0.0)}), [(row(2.0), 1.0)])
    # m = .1 * 2, v = .99 * .1^2 + .01 * 4 = .0499; x = .1 * .2 / (sqrt(.0499) + .1)
    assert standing.model["w"].item() == pytest.approx(0.1 * 0.2 / (0.0499**0.5 + 0.1))
    standing = after(strategy, standing, [(row(-1.0), 1.0)])
    # m = .9 * .2 - .1 = .08, v = .99 * .0499 + .01 = .059401
    second = 0.1 * 0.08 / (0.059401**0.5 + 0.1)
    assert standing.model["w"].item() == pytest.approx(0.1 * 0.2 / (0.0499**0.5 + 0.1) + second)


def test_fedyogi_moves_its_squares_by_a_bounded_step():
    strategy = fp.FedYogi(lr=0.1, betas=(0.0, 0.9), eps=1.0)
    standing = after(strategy, start(strategy, {"w": row(0.0)}), [(row(2.0), 1.0)])
    # v = 1 - .1 * 4 * sign(1 - 4) = 1.4
    assert standing.memory["w/square"].item() == pytest.approx(1.4)
    assert standing.model["w"].item() == pytest.approx(0.1 * 2 / (1.4**0.5 + 1))
    standing = after(strategy, standing, [(row(0.5), 1.0)])
    assert standing.memory["w/square"].item() == pytest.approx(1.4 - 0.1 * 0.25)  # now the square is the smaller


@pytest.mark.parametrize("optimizer", [fp.SGD(0.1, momentum=0.9), fp.Adam()])
def test_fedsgd_refuses_what_is_more_than_one_gradient(optimizer):
    strategy = fp.FedSGD()
    with pytest.raises(UsageError, match="one gradient from each worker"):
        strategy.check(setting(local=fp.LocalTraining(optimizer=optimizer)))
    with pytest.raises(UsageError, match="one gradient from each worker"):
        strategy.check(setting(local=fp.LocalTraining(epochs=2)))
    with pytest.raises(UsageError, match="batch_size is 32 and a worker announces 40 rows; use a batch_size of 40"):
        strategy.check(setting(announced=(None, 40), local=fp.LocalTraining()))
    strategy.check(setting(announced=(None, 40), local=fp.LocalTraining(batch_size=49)))
