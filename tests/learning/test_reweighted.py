"""FedNova and q-FedAvg on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from rounds_by_hand import once, row, setting

import fedpriv as fp
from fedpriv.errors import UsageError


def test_fednova_normalises_by_the_steps_that_a_worker_took():
    how = setting(2, local=fp.LocalTraining(epochs=2, batch_size=10, optimizer=fp.SGD(0.1)))
    moved = once(fp.FedNova(), {"w": row(0.0)}, [(row(8.0), 40.0), (row(2.0), 10.0)], how)["w"]
    # steps 8 and 2, shares .8 and .2: each moved 1 a step; effective steps .8 * 8 + .2 * 2 = 6.8
    assert moved.item() == pytest.approx(6.8)
    assert once(fp.FedAvg(), {"w": row(0.0)}, [(row(8.0), 40.0), (row(2.0), 10.0)], how)["w"].item() == pytest.approx(
        6.8
    )


def test_fednova_is_fedavg_where_all_take_as_many_steps_and_not_where_they_do_not():
    how = setting(2, local=fp.LocalTraining(epochs=1, batch_size=10, optimizer=fp.SGD(0.1)))
    same = [(row(1.0, 2.0), 30.0), (row(-1.0, 0.0), 30.0)]
    assert torch.allclose(once(fp.FedNova(), {"w": row(0.0, 0.0)}, same, how)["w"], row(0.0, 1.0))
    # 3 steps and 1: d = .75 * 3 / 3 + .25 * 0 = .75 a step; effective .75 * 3 + .25 * 1 = 2.5
    moved = once(fp.FedNova(), {"w": row(0.0)}, [(row(3.0), 30.0), (row(0.0), 10.0)], how)["w"]
    assert moved.item() == pytest.approx(0.75 * 2.5)


def test_fednova_measures_a_run_with_momentum_by_what_its_gradients_weigh():
    how = setting(1, local=fp.LocalTraining(batch_size=10, optimizer=fp.SGD(0.1, momentum=0.5)))
    # 3 steps: the gradients weigh 1 + .5 + .25, 1 + .5 and 1 in the sum: 4.25 in all; 1 step weighs 1
    moved = once(fp.FedNova(), {"w": row(0.0)}, [(row(4.25), 30.0), (row(1.0), 10.0)], how)["w"]
    assert moved.item() == pytest.approx(0.75 * 4.25 + 0.25 * 1.0)


def test_fednova_counts_whole_batches_where_the_rest_is_dropped():
    how = setting(2, local=fp.LocalTraining(batch_size=10, optimizer=fp.SGD(0.1), drop_last=True))
    moved = once(fp.FedNova(), {"w": row(0.0)}, [(row(3.0), 39.0), (row(1.0), 9.0)], how)["w"]
    assert moved.item() == pytest.approx((39 * 3 + 9 * 1) / 48)  # 3 steps and 1: one a step for both


@pytest.mark.parametrize("optimizer", [fp.Adam(), fp.SGD(0.1, momentum=0.9, nesterov=True)])
def test_fednova_refuses_optimisers_whose_runs_it_cannot_measure(optimizer):
    with pytest.raises(UsageError, match="fednova normalises runs of SGD"):
        fp.FedNova().check(setting(local=fp.LocalTraining(optimizer=optimizer)))
    with pytest.raises(UsageError, match="needs each worker's rows, and an owner hides them"):
        fp.FedNova().check(setting(announced=(40, None)))


def test_q_fedavg_counts_a_worker_with_a_higher_loss_more():
    # L = 1 / .5 = 2, q = 1. Numerator: 2 * .5 * 1 + 2 * 3 * (-1) = -5.
    # Denominator: 1 * 1 * 4 * 1 + 2 * .5, and 4 * 1 + 2 * 3: together 15
    moved = once(fp.QFedAvg(1.0), {"w": row(0.0)}, [(row(1.0), 9.0, 0.5), (row(-1.0), 9.0, 3.0)], setting(2))["w"]
    assert moved.item() == pytest.approx(-5 / 15)


def test_q_fedavg_with_q_of_zero_is_the_plain_mean():
    moved = once(fp.QFedAvg(0.0), {"w": row(0.0)}, [(row(1.0), 9.0, 0.5), (row(-3.0), 1.0, 3.0)], setting(2))["w"]
    assert moved.item() == pytest.approx(-1.0)
