"""From reals to integers of a certain norm."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.rounding import BETA, Rounding, clipped, squared_norm


class Highest:
    """Entropy that rounds every value away from its floor as long as it is asked to."""

    def random_bytes(self, count):
        return bytes(count)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 8.0, 1024.0]), st.floats(1e-3, 1e6))
def test_the_integer_norm_is_within_its_bound_whatever_comes(dimension, seed, scale, size):
    rounding = Rounding(1.0, scale, dimension)
    values = np.random.default_rng(seed).normal(size=dimension) * size
    rounded = rounding.rounded(values, SeededEntropy(seed.to_bytes(4, "big")))
    assert squared_norm(rounded) <= rounding.l2**2
    assert np.abs(rounded).sum() <= rounding.l1 * (1 + 1e-12)


def test_rounding_is_right_on_average():
    rounding = Rounding(4.0, 1.0, 4)
    values = np.array([0.25, -0.75, 1.5, -2.0])
    entropy = SeededEntropy(b"mean")
    mean = np.mean([rounding.rounded(values, entropy) for _ in range(4000)], axis=0)
    assert mean == pytest.approx(values, abs=5 * 0.5 / math.sqrt(4000))


def test_a_vector_that_rounds_too_long_is_rounded_again_and_in_the_end_towards_zero():
    from fedpriv.privacy import rounding as module

    wide = Rounding(1.0, 1.0, 400)
    values = np.full(400, 0.05)
    held = module.stream_of
    try:
        module.stream_of = lambda entropy: entropy
        assert (wide.rounded(values, Highest()) == 0).all()
        short = np.full(400, 0.05)
        short[1:] = 0
        assert wide.rounded(short, Highest()).sum() == 1
    finally:
        module.stream_of = held


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_vector_with_a_value_that_is_none_contributes_nothing(bad):
    assert (Rounding(1.0, 64.0, 3).rounded(np.array([1.0, bad, 1.0]), SystemEntropy()) == 0).all()


def test_vast_and_tiny_vectors_are_clipped_without_overflow():
    for size in (1e308, 1e-308):
        kept = clipped(np.array([size, size]), 1.0)
        assert np.linalg.norm(kept) <= 1.0 + 1e-12
    assert clipped(np.zeros(2), 1.0).tolist() == [0.0, 0.0]
    assert clipped(np.array([0.3, 0.4], np.float32), 1.0) == pytest.approx([0.3, 0.4])


@given(st.lists(st.integers(-(2**40), 2**40), max_size=40))
def test_the_norm_of_integers_is_exact(values):
    assert squared_norm(np.array(values, np.int64)) == sum(each * each for each in values)


def test_the_bound_is_the_papers():
    assert Rounding(1.0, 1024.0, 10_000).l2 / 1024 == pytest.approx(1.001702766, rel=1e-9)
    assert Rounding(1.0, 1.0, 4, beta=0.0).l2 == 3.0
    assert Rounding(1.0, 1.0, 4).beta == BETA
    few = Rounding(2.0, 1.0, 1)
    assert few.l1 == max(few.l2, min(few.l2, few.l2**2))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0.0, 1.0, 1), "clip is 0.0"),
        ((1.0, 3.0, 1), "use a power of two"),
        ((1.0, 1.0, 0), "dimension is 0"),
        ((2.0, 2.0**40, 1), "use a smaller scale"),
        ((1.0, 1.0, 1, 1.0), "beta is 1.0"),
    ],
)
def test_a_rounding_that_makes_no_sense_says_what_to_do(arguments, says):
    with pytest.raises(UsageError, match=says):
        Rounding(*arguments)


def test_a_vector_of_another_size_is_refused():
    with pytest.raises(UsageError, match="this rounding is for"):
        Rounding(1.0, 1.0, 3).rounded(np.zeros(2), SystemEntropy())
