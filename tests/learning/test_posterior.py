"""The update of posterior averaging: the same as with the whole covariance, and right where posteriors are Gaussian."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.learning.posterior import shrinkage_delta


@given(st.integers(2, 12), st.integers(1, 8), st.floats(0.01, 100.0), st.integers(0, 1000))
def test_it_is_what_the_whole_covariance_gives(count, size, shrinkage, seed):
    generator = np.random.default_rng(seed)
    samples, start = generator.normal(size=(count, size)), generator.normal(size=size)
    ridge = 1 / (1 + (count - 1) * shrinkage)
    covariance = ridge * np.eye(size) + (1 - ridge) * np.cov(samples.T).reshape(size, size)
    expected = np.linalg.solve(covariance, samples.mean(axis=0) - start)
    assert np.allclose(shrinkage_delta(samples, start, shrinkage=shrinkage), expected, rtol=1e-6, atol=1e-9)


def test_one_sample_or_no_shrinkage_gives_the_update_of_averaging():
    assert shrinkage_delta(np.array([[3.0, 4.0]]), np.ones(2)).tolist() == [2.0, 3.0]
    assert shrinkage_delta(np.array([[3.0], [5.0]]), np.ones(1), shrinkage=0.0).tolist() == [3.0]


def test_updates_of_unlike_gaussian_workers_lead_to_the_peak_of_their_product():
    generator = np.random.default_rng(0)
    means, covariances = ([0.0, 1.0], [2.0, -1.0]), ([[1.0, 0.8], [0.8, 1.5]], [[1.5, -0.9], [-0.9, 1.0]])
    drawn = [generator.multivariate_normal(*each, size=3000) for each in zip(means, covariances, strict=True)]
    place = np.array([-2.0, 0.1])
    for _ in range(200):
        place = place + 0.1 * np.mean([shrinkage_delta(samples, place) for samples in drawn], axis=0)
    precisions = [np.linalg.inv(each) for each in covariances]
    peak = np.linalg.solve(sum(precisions), sum(p @ m for p, m in zip(precisions, means, strict=True)))
    assert np.allclose(place, peak, atol=0.05)
    assert not np.allclose(np.mean(means, axis=0), peak, atol=0.2)  # the mean of the modes is elsewhere


@pytest.mark.parametrize(
    ("samples", "start", "shrinkage"),
    [
        (np.ones(3), np.ones(3), 1.0),
        (np.ones((0, 3)), np.ones(3), 1.0),
        (np.ones((2, 3)), np.ones(2), 1.0),
        (np.ones((2, 3)), np.ones(3), -1.0),
    ],
)
def test_what_does_not_fit_is_refused(samples, start, shrinkage):
    with pytest.raises(UsageError, match=r"give \(n, d\)|use 0"):
        shrinkage_delta(samples, start, shrinkage=shrinkage)
