"""The canary audit: published bounds, and that it catches noise that is not there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.audit import Guesses, _binomial, judged
from fedpriv.privacy.calibration import gaussian_noise
from fedpriv.privacy.lattice import LatticeGaussian

CANARIES, GUESSES, DELTA = 2000, 400, 1e-5


@pytest.mark.parametrize(
    ("guesses", "delta", "bound"),
    [((1000, 100, 100), 0.0, 3.492965), ((1000, 100, 95), 1e-5, 2.165176), ((1000, 1000, 700), 1e-5, 0.731740)],
)
def test_bounds_are_those_that_are_published(guesses, delta, bound):
    assert Guesses(*guesses).lower_bound(delta, confidence=0.95) == pytest.approx(bound, abs=1e-6)


@given(st.integers(1, 300), st.floats(0, 6), st.floats(0, 1e-3))
def test_p_values_are_shares_and_grow_with_epsilon_and_delta(guesses, epsilon, delta):
    outcome = Guesses(300, guesses, guesses * 3 // 4)
    value = outcome.p_value(epsilon, delta)
    assert 0 <= value <= 1
    assert value <= outcome.p_value(epsilon + 0.5, delta) + 1e-12
    assert value <= outcome.p_value(epsilon, delta + 1e-4) + 1e-12


@given(st.integers(0, 400), st.floats(0.5, 1 - 1e-9))
def test_binomial_probabilities_are_right(trials, share):
    assert _binomial(trials, share) == pytest.approx(stats.binom.pmf(np.arange(trials + 1), trials, share), abs=1e-9)


def test_guessing_right_always_is_bounded_too():
    assert 0 < Guesses(10, 10, 10).lower_bound(0.0) < Guesses(10, 10, 10).lower_bound(0.0, confidence=0.9)
    assert _binomial(3, 1.0).tolist() == [0, 0, 0, 1]


def test_guessing_no_better_than_a_coin_says_nothing():
    assert Guesses(1000, 100, 50).lower_bound(1e-5) == 0.0
    assert Guesses(1000, 0, 0).lower_bound(1e-5) == 0.0


def audited(multiplier, claimed_multiplier, seed):
    """Return the bound for a sum of orthogonal canaries with noise of `multiplier`, all seen by whoever guesses."""
    entropy = SeededEntropy(f"audit {claimed_multiplier:g} {seed}".encode())
    coins = np.unpackbits(np.frombuffer(entropy.random_bytes(CANARIES // 8), np.uint8)).astype(bool)
    released = LatticeGaussian(1.0, multiplier, CANARIES).noisy(coins.astype(np.float64), entropy)
    return judged(released, coins, GUESSES).lower_bound(DELTA)


def test_noise_that_is_there_is_never_caught_and_noise_cut_to_a_quarter_nearly_always():
    claimed = gaussian_noise(epsilon=1.0, delta=DELTA, times=1)
    honest = [audited(claimed, claimed, seed) for seed in range(20)]
    cut = [audited(claimed / 4, claimed, seed) for seed in range(20)]
    assert max(honest) <= 1.0
    assert sum(bound > 1.0 for bound in cut) >= 18


def test_guesses_are_about_the_most_certain_canaries():
    scores = np.array([5.0, -5.0, 0.1, -0.1, 4.0, -4.0])
    coins = np.array([True, False, False, True, True, True])
    assert judged(scores, coins, 4) == Guesses(6, 4, 3)
    assert judged(scores, coins, 5) == Guesses(6, 4, 3)


@pytest.mark.parametrize("wrong", [(5, 6, 6), (5, 5, 6), (5, 5, -1)])
def test_outcomes_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError, match="at most the next"):
        Guesses(*wrong)


@pytest.mark.parametrize(("delta", "confidence"), [(-1e-5, 0.9), (1.0, 0.9), (0.0, 0.0), (0.0, 1.0), (math.nan, 0.9)])
def test_a_bound_at_no_confidence_is_refused(delta, confidence):
    with pytest.raises(UsageError, match="between 0 and 1"):
        Guesses(10, 5, 3).lower_bound(delta, confidence)


@pytest.mark.parametrize("guesses", [1, 7])
def test_more_guesses_than_canaries_or_fewer_than_two_are_refused(guesses):
    with pytest.raises(UsageError, match="one of each for every canary"):
        judged(np.zeros(6), np.zeros(6, bool), guesses)
