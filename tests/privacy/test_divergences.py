"""The bounds for discrete noise against the divergence itself, added up from exact probabilities."""

import math

import numpy as np
import pytest
from scipy import special

from fedpriv.privacy.budget import ORDERS
from fedpriv.privacy.mechanisms import DiscreteGaussian, Skellam
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.renyi import rdp_of

WHOLE = [order for order in ORDERS if order == int(order) and order <= 32]


def log_skellam(values, variance):
    """Return log P of a Skellam variable: log I_|k|(v) - v."""
    return np.log(special.ive(np.abs(values), variance))


def log_discrete_gaussian(values, variance):
    reach = np.arange(-4000, 4001)
    return -(values**2) / (2 * variance) - np.log(np.exp(-(reach**2) / (2 * variance)).sum())


def divergence(order, log_shifted, log_still):
    """Return D_a(P || Q) = log(sum P^a Q^(1-a)) / (a - 1)."""
    return special.logsumexp(order * log_shifted + (1 - order) * log_still) / (order - 1)


def bound(mechanism, order):
    return rdp_of(mechanism, Relation.ADD_OR_REMOVE_ONE)[ORDERS.index(order)]


@pytest.mark.parametrize("variance", [4.0, 25.0, 100.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_skellam_bound_holds_and_is_near(variance, shift):
    reach = 100 + int(variance)
    values = np.arange(-reach, reach + 1)
    noise = Skellam(variance, float(shift), float(shift))
    for order in WHOLE:
        true = divergence(order, log_skellam(values - shift, variance), log_skellam(values, variance))
        assert true <= bound(noise, order) * (1 + 1e-9)
        if order <= 4 and variance > 3 * shift**2:
            assert bound(noise, order) <= true + 3 * shift / (2 * variance) * (1 + 1e-9)


def test_the_skellam_bound_holds_for_vectors():
    values = np.arange(-120, 121)
    moved = log_skellam(values - 1, 9.0), log_skellam(values, 9.0)
    noise = Skellam(9.0, math.sqrt(3), 3.0)
    for order in WHOLE[:12]:
        assert 3 * divergence(order, *moved) <= bound(noise, order)


def test_the_skellam_bound_of_a_broken_order_is_that_of_the_next():
    noise = Skellam(25.0, 2.0, 3.0)
    assert bound(noise, 1.1) == bound(noise, 2.0)
    assert bound(noise, 4.5) == bound(noise, 5.0)


@pytest.mark.parametrize("variance", [0.3, 1.0, 16.0])
@pytest.mark.parametrize("shift", [1, 2])
def test_the_discrete_gaussian_bound_holds_and_is_tight(variance, shift):
    values = np.arange(-300, 301)
    noise = DiscreteGaussian(variance, float(shift), float(shift), dimension=1)
    for order in WHOLE:
        log_shifted, log_still = (log_discrete_gaussian(values - by, variance) for by in (shift, 0))
        true = divergence(order, log_shifted, log_still)
        assert true <= bound(noise, order) * (1 + 1e-9)
        if order in {2, 3} or variance >= 1:
            assert true == pytest.approx(bound(noise, order), rel=1e-6)  # integer orders shift by whole numbers


@pytest.mark.parametrize("terms", [2, 3, 8])
@pytest.mark.parametrize("variance", [0.25, 0.5, 1.0])
def test_the_bound_for_a_sum_of_discrete_gaussians_holds(terms, variance):
    values = np.arange(-40, 41)
    one = np.exp(log_discrete_gaussian(values, variance))
    several = one
    for _ in range(terms - 1):
        several = np.convolve(several, one)
    middle = len(several) // 2
    kept = np.log(np.maximum(several[middle - 12 : middle + 13], 1e-300))
    noise = DiscreteGaussian(variance, 1.0, 1.0, dimension=1, terms=terms)
    for order in WHOLE[:6]:
        true = divergence(order, kept[:-1], kept[1:])
        assert true <= bound(noise, order) * (1 + 1e-9)


def test_a_sum_of_few_wide_terms_costs_what_one_does():
    one = DiscreteGaussian(400.0, 10.0, 20.0, dimension=4)
    four = DiscreteGaussian(100.0, 10.0, 20.0, dimension=4, terms=4)
    many = DiscreteGaussian(100.0, 10.0, 20.0, dimension=4, terms=5000)
    assert bound(four, 8.0) == pytest.approx(bound(one, 8.0), rel=1e-12)
    assert bound(many, 8.0) == pytest.approx(bound(four, 8.0) * 4 / 5000, rel=1e-12)


def test_a_sum_of_narrow_terms_costs_more_than_its_variance_says():
    plain = DiscreteGaussian(1.0, 1.0, 1.0, dimension=1)
    summed = DiscreteGaussian(0.25, 1.0, 1.0, dimension=1, terms=4)
    assert bound(summed, 2.0) > bound(plain, 2.0) * 1.2
