"""Optimiser rules and local training: what they refuse, and which numbers become inputs of a plan."""

from __future__ import annotations

import math

import pytest

from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, Adam, AdamW, LocalTraining


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SGD(-0.1), "lr is -0.1"),
        (lambda: SGD(0.0), "above 0"),
        (lambda: SGD(math.nan), "lr is nan"),
        (lambda: SGD(math.inf), "lr is inf"),
        (lambda: SGD(0.1, momentum=-1.0), "momentum is -1.0"),
        (lambda: SGD(0.1, weight_decay=-1.0), "weight_decay"),
        (lambda: SGD(0.1, dampening=math.nan), "dampening"),
        (lambda: SGD(0.1, nesterov=True), "nesterov needs momentum"),
        (lambda: SGD(0.1, momentum=0.9, dampening=0.1, nesterov=True), "drop nesterov"),
        (lambda: Adam(-1.0), "lr"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: Adam(betas=(-0.1, 0.9)), "betas"),
        (lambda: Adam(eps=0.0), "eps"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay"),
        (lambda: LocalTraining(epochs=0), "epochs is 0"),
        (lambda: LocalTraining(batch_size=0), "batch_size is 0"),
        (lambda: LocalTraining(epochs=1.5), "whole number"),
        (lambda: LocalTraining(batch_size=True), "whole number"),
    ],
)
def test_nonsense_is_refused_with_its_value(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_only_options_that_are_used_become_inputs():
    assert SGD(0.1).hyperparameters == {"lr": 0.1}
    assert SGD(0.1).state == SGD(0.1).counters == ()
    assert SGD(0.1, 0.9, 0.01).hyperparameters == {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    assert SGD(0.1, 0.9).state == ("momentum_buffer",)
    assert SGD(0.1, 0.9, dampening=0.1).counters == ("started",)
    assert Adam().hyperparameters == {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert AdamW().hyperparameters["weight_decay"] == 0.01
    assert Adam().state == AdamW().state == ("exp_avg", "exp_avg_sq")
    assert Adam().counters == AdamW().counters == ("step",)


def test_defaults_are_those_of_a_first_try():
    local = LocalTraining()
    assert (local.epochs, local.batch_size, local.optimizer, local.shuffle, local.drop_last) == (
        1,
        32,
        SGD(0.1),
        True,
        False,
    )
