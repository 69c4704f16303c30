"""Gaussian noise on a grid: its size, what it covers, and that nothing of a float is left in what is released."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.lattice import LatticeGaussian, _split
from fedpriv.privacy.mechanisms import Gaussian


@pytest.mark.parametrize(("clip", "multiplier", "dimension"), [(1.0, 1.0, 100_000), (0.03, 4.0, 3), (7.0, 1e-3, 50)])
def test_the_noise_has_the_size_that_is_billed_and_covers_the_rounding(clip, multiplier, dimension):
    noise = LatticeGaussian(clip, multiplier, dimension)
    moved = clip / noise.grid + math.sqrt(dimension)
    assert math.sqrt(noise.variance) == pytest.approx(multiplier * moved, rel=1e-12)
    assert multiplier * clip < noise.deviation <= 1.021 * multiplier * clip
    assert noise.mechanism == Gaussian(multiplier)


@pytest.mark.parametrize("multiplier", [1e-3, 1.0, 30.0])
def test_the_executed_noise_is_that_noise(multiplier):
    noise = LatticeGaussian(1.0, multiplier, 200_000)
    drawn = noise.noisy(np.zeros(200_000), SeededEntropy(b"lattice")) / noise.deviation
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / len(drawn))
    assert abs(drawn.mean()) < 5 / math.sqrt(len(drawn))


def test_the_executed_noise_passes_a_chi_square_test_as_a_gaussian():
    noise = LatticeGaussian(1.0, 1.0, 400_000)
    drawn = noise.noisy(np.zeros(400_000), SeededEntropy(b"shape")) / noise.deviation
    edges = stats.norm.ppf(np.arange(1, 100) / 100)
    found = np.bincount(np.searchsorted(edges, drawn), minlength=100)
    assert stats.chi2.sf(((found - 4000) ** 2 / 4000).sum(), 99) > 1e-4


def test_two_small_discrete_gaussians_make_one_large():
    """The exact distribution of a X + Y against the discrete Gaussian of its variance."""
    deviation = 120.0
    factor, part_variance, gap = _split(deviation)
    assert factor == 7
    reach = np.arange(-1500, 1501)

    def part(values, variance):
        return np.exp(-(values.astype(float) ** 2) / (2 * variance))

    inner = np.arange(-1500 // factor, 1500 // factor + 1)
    summed = sum(
        weight * part(reach - factor * at, part_variance)
        for at, weight in zip(inner, part(inner, part_variance), strict=True)
    )
    summed /= summed.sum()
    true = part(reach, deviation**2)
    true /= true.sum()
    near = np.abs(reach) < 6 * deviation
    assert np.abs(summed[near] / true[near] - 1).max() < 1e-9
    assert gap < 2.0**-110


@pytest.mark.parametrize("deviation", [100.1, 1e3, 1e4, 1e6, 5e7])
def test_every_large_noise_is_split_so_that_no_gap_is_left(deviation):
    factor, part_variance, gap = _split(deviation)
    assert (factor**2 + 1) * part_variance == pytest.approx(deviation**2)
    assert 0 < gap < 2.0**-130


def test_what_is_released_is_whole_multiples_of_a_power_of_two():
    noise = LatticeGaussian(1.0, 1.0, 1000)
    released = noise.noisy(np.linspace(-1, 1, 1000) / 3, SystemEntropy())
    assert (released / noise.grid == np.rint(released / noise.grid)).all()
    assert math.frexp(noise.grid)[0] == 0.5


def test_values_below_the_grid_leave_no_trace():
    noise = LatticeGaussian(1.0, 1.0, 64)
    faint = np.full(64, noise.grid / 3)
    assert (noise.noisy(faint, SeededEntropy(b"x")) == noise.noisy(np.zeros(64), SeededEntropy(b"x"))).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1.0))
def test_neighbours_differ_by_no_more_than_the_noise_is_sized_for(seed, scale):
    generator = np.random.default_rng(seed)
    noise = LatticeGaussian(1.0, 1.0, 40)
    rest, one = generator.normal(size=40) * 100 * scale, generator.normal(size=40)
    one /= np.linalg.norm(one)
    with_one, without = (noise.noisy(each, SeededEntropy(b"same")) for each in (rest + one, rest))
    assert np.linalg.norm((with_one - without) / noise.grid) <= 1 / noise.grid + math.sqrt(40)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_value_that_is_none_is_cut_and_the_others_stay(bad):
    noise = LatticeGaussian(1.0, 1e-3, 4)
    released = noise.noisy(np.array([bad, 0.25, -0.5, 0.0]), SeededEntropy(b"x"))
    assert np.isfinite(released).all()
    assert released[1:] == pytest.approx([0.25, -0.5, 0.0], abs=0.01)
    assert abs(released[0]) > 1e9 * noise.sensitivity


def test_float32_sums_are_taken_as_they_are():
    noise = LatticeGaussian(1.0, 1.0, 70_000)
    values = np.linspace(-3, 3, 70_000).astype(np.float32)
    one, other = (noise.noisy(each, SeededEntropy(b"x")) for each in (values, values.astype(np.float64)))
    assert one.dtype == np.float32
    assert (one == other).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_a_float32_value_that_is_none_is_cut_too(bad):
    noise = LatticeGaussian(1.0, 1.0, 4)
    released = noise.noisy(np.array([bad, 0.25, -0.5, 0.0], np.float32), SeededEntropy(b"x"))
    assert np.isfinite(released).all()
    assert np.abs(released[1:]).max() < 10
    assert abs(released[0]) == pytest.approx(2.0**30 * noise.grid, rel=1e-3)


def test_the_noise_of_a_release_is_far_nearer_the_ideal_than_any_delta():
    assert LatticeGaussian(1.0, 1.0, 10**6).total_variation < 1e-25


@pytest.mark.parametrize(
    ("clip", "multiplier", "dimension"), [(0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0), (1e300, 1.0, 1), (1.0, 1e9, 10)]
)
def test_noise_that_cannot_be_is_refused(clip, multiplier, dimension):
    with pytest.raises(UsageError):
        LatticeGaussian(clip, multiplier, dimension)


def test_a_sum_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"this noise is for at most \(3,\)"):
        LatticeGaussian(1.0, 1.0, 3).noisy(np.zeros(4), SystemEntropy())
