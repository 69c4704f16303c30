"""Noise for a target: the least that meets it, and what is said where none does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.privacy import calibration
from fedpriv.privacy.accountants import PLD, RDP, epsilon_by_rdp
from fedpriv.privacy.calibration import LEAST, calibrate, gaussian_noise, sampled
from fedpriv.privacy.mechanisms import Gaussian, Repeated, Skellam
from fedpriv.privacy.relations import Relation


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "multiplier"), [(1.0, 3.730632), (8.0, 0.600229)])
def test_noise_by_loss_distributions_is_what_is_published(epsilon, multiplier):
    found = gaussian_noise(epsilon=epsilon, delta=1e-5, times=1, accountant=PLD)
    assert found == pytest.approx(multiplier, rel=1e-5)


def test_noise_by_loss_distributions_is_a_little_less_than_by_rdp(monkeypatch):
    monkeypatch.setattr(calibration, "TOLERANCE", 1e-2)
    by_pld, by_rdp = (gaussian_noise(epsilon=1.0, delta=1e-5, times=1, accountant=each) for each in (PLD, RDP))
    assert 0.9 * by_rdp < by_pld < by_rdp
    assert calibrate(Gaussian, epsilon=3.0, delta=1e-5, accountant=PLD, least=1.2) < 1.5


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 30), st.integers(1, 500))
def test_the_noise_meets_its_target_and_hardly_less_does_not(epsilon, times):
    found = gaussian_noise(epsilon=epsilon, delta=1e-5, times=times)
    assert epsilon_by_rdp(Repeated(Gaussian(found), times), 1e-5) <= epsilon
    assert epsilon_by_rdp(Repeated(Gaussian(found * (1 - 1e-5)), times), 1e-5) > epsilon


def test_sampling_lets_less_noise_do():
    found = gaussian_noise(epsilon=3.0, delta=1e-5, times=1000, rate=0.01)
    assert epsilon_by_rdp(Repeated(sampled(found, 0.01), 1000), 1e-5) == pytest.approx(3.0, rel=1e-5)
    assert found < gaussian_noise(epsilon=3.0, delta=1e-5, times=1000) / 10


def test_a_unit_that_may_be_replaced_takes_twice_the_noise():
    one = gaussian_noise(epsilon=2.0, delta=1e-5, times=10, relation=Relation.REPLACE_ONE)
    assert one == pytest.approx(2 * gaussian_noise(epsilon=2.0, delta=1e-5, times=10), rel=1e-5)


def test_a_target_that_hardly_asks_for_noise_gets_the_least_there_is():
    assert gaussian_noise(epsilon=1e6, delta=1e-5, times=1) == LEAST


def test_a_target_out_of_reach_says_what_is_reachable():
    with pytest.raises(
        UsageError, match=r"epsilon 0\.1 .* out of reach: noise multiplier 10 still costs epsilon 1\.[0-9]+"
    ):
        gaussian_noise(epsilon=0.1, delta=1e-5, times=10, most=10.0)


def test_discrete_noise_is_calibrated_by_its_own_bound():
    def noise(multiplier):
        return Skellam((multiplier * 64.0) ** 2, 64.0, 640.0)

    found = calibrate(noise, epsilon=1.0, delta=1e-5)
    assert epsilon_by_rdp(noise(found), 1e-5) == pytest.approx(1.0, rel=1e-5)
    assert found > gaussian_noise(epsilon=1.0, delta=1e-5, times=1)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (float("nan"), 1e-5)])
def test_a_target_that_is_none_is_refused(epsilon, delta):
    with pytest.raises(UsageError):
        gaussian_noise(epsilon=epsilon, delta=delta, times=1)
