"""Samples that are Poisson samples."""

import math

import numpy as np
import pytest
from scipy import stats

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.poisson import poisson_sample


def test_the_sizes_of_samples_are_binomial_and_not_fixed():
    entropy = SeededEntropy(b"sizes")
    sizes = [len(poisson_sample(200, 0.1, entropy)) for _ in range(4000)]
    expected = stats.binom.pmf(np.arange(8, 33), 200, 0.1) * 4000
    found = np.array([sizes.count(size) for size in range(8, 33)])
    assert stats.chi2.sf(((found - expected) ** 2 / expected).sum(), len(found)) > 1e-4


def test_every_row_enters_as_often_as_any_other_and_alone():
    entropy = SeededEntropy(b"rows")
    entered = np.zeros((3000, 50))
    for at in range(3000):
        entered[at, poisson_sample(50, 0.2, entropy)] = 1
    assert np.abs(entered.mean(0) - 0.2).max() < 5 * math.sqrt(0.16 / 3000)
    together = np.corrcoef(entered.T)[~np.eye(50, dtype=bool)]
    assert np.abs(together).max() < 6 / math.sqrt(3000)


def test_a_sample_of_everything_and_one_of_nothing():
    assert poisson_sample(5, 1.0, SystemEntropy()).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(0, 0.5, SystemEntropy()).tolist() == []
    assert poisson_sample(100, 1e-18, SystemEntropy()).tolist() == []


def test_a_row_enters_below_its_rate_and_not_at_it():
    class Scripted:
        def random_bytes(self, count):
            return bytes(32)

    from fedpriv.privacy import poisson as module

    held = module.stream_of
    threshold = 2**62

    class Edge:
        def random_bytes(self, count):
            return (threshold - 1).to_bytes(8, "little") + threshold.to_bytes(8, "little")

    try:
        module.stream_of = lambda entropy: Edge()
        assert poisson_sample(2, 0.25, Scripted()).tolist() == [0]
    finally:
        module.stream_of = held


@pytest.mark.parametrize(("rows", "rate"), [(-1, 0.5), (5, 0.0), (5, 1.1), (5, math.nan), (5, True)])
def test_a_sample_that_makes_no_sense_is_refused(rows, rate):
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        poisson_sample(rows, rate, SystemEntropy())
