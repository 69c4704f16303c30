"""Guessing at membership: how well scores tell members, and when that is more than a claim allows."""

import numpy as np
import pytest

from fedpriv.errors import UsageError
from fedpriv.privacy.attacks.membership import inferred, shadow_scores


def test_scores_that_tell_everyone_apart_have_advantage_one_and_exceed_any_claim_but_a_large_one():
    found = inferred(np.arange(200.0) + 1000, np.arange(200.0))
    assert found.advantage == 1.0
    assert found.excess(1.0, 1e-5) > 0.3
    assert found.excess(8.0, 1e-5) < 0


def test_scores_that_tell_nothing_are_within_every_claim():
    generator = np.random.default_rng(0)
    found = inferred(generator.normal(size=500), generator.normal(size=500))
    assert found.advantage < 0.15
    assert found.excess(0.01, 0.0) < 0


def test_gaussian_noise_keeps_to_its_trade_off_and_a_quarter_of_it_does_not():
    """One value moved by 1 under noise of deviation 4 is (1, 1e-5)-private; under a quarter of it, it is not."""
    generator = np.random.default_rng(1)
    honest, cut = (
        inferred(1 + deviation * generator.normal(size=5000), deviation * generator.normal(size=5000))
        for deviation in (4.0, 0.25)
    )
    assert honest.excess(1.0, 1e-5) < 0 < cut.excess(1.0, 1e-5)


def test_the_other_error_is_held_to_the_claim_too():
    """Members who are missed: 70 % of others have a score that no member has."""
    members, others = np.ones(1000), np.concatenate([np.zeros(700), np.ones(300)])
    assert inferred(members, others).excess(1.0, 0.0) > 0


def test_a_row_whose_loss_is_low_as_in_shadows_with_it_scores_higher():
    included = np.array([[True, True], [False, False], [True, True], [False, False]])
    shadows = np.array([[0.1, 0.1], [1.0, 1.1], [0.12, 0.09], [0.9, 1.0]])
    member, other = shadow_scores(np.array([0.11, 1.0]), shadows, included)
    assert member > 0 > other


@pytest.mark.parametrize(
    "attack",
    [
        lambda: inferred(np.zeros(0), np.zeros(3)),
        lambda: inferred(np.zeros(3), np.zeros((3, 1))),
        lambda: shadow_scores(np.ones(2), np.ones((3, 2)), np.ones((3, 2), bool)),
        lambda: shadow_scores(np.ones(3), np.ones((3, 2)), np.zeros((3, 2), bool)),
    ],
)
def test_scores_that_do_not_fit_are_refused(attack):
    with pytest.raises(UsageError):
        attack()
