"""Mechanisms as values: what they refuse, and how they are written down."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.privacy.events import from_json, to_json
from fedpriv.privacy.mechanisms import (
    DiscreteGaussian,
    Gaussian,
    PoissonSampled,
    Repeated,
    Skellam,
    Together,
    name_of,
    over_rounds,
    parts_of,
)

POSITIVE = st.floats(1e-6, 1e9)
GAUSSIANS = st.builds(Gaussian, POSITIVE)
SINGLES = st.one_of(
    GAUSSIANS,
    st.builds(lambda v, l2: Skellam(v, l2, 2 * l2), POSITIVE, POSITIVE),
    st.builds(lambda v, l2, d, n: DiscreteGaussian(v + 1, l2, l2, d, n), POSITIVE, POSITIVE, *[st.integers(1, 9)] * 2),
    st.builds(PoissonSampled, st.floats(1e-9, 1.0), GAUSSIANS),
)
REPEATED = st.builds(Repeated, SINGLES, st.integers(1, 10**6))
MECHANISMS = st.one_of(
    SINGLES, REPEATED, st.builds(Together, st.lists(st.one_of(SINGLES, REPEATED), min_size=1).map(tuple))
)


@given(MECHANISMS)
def test_a_mechanism_survives_json(mechanism):
    assert from_json(to_json(mechanism)) == mechanism


@given(MECHANISMS)
def test_the_json_of_equal_mechanisms_is_equal_and_one_line(mechanism):
    assert to_json(from_json(to_json(mechanism))) == to_json(mechanism)
    assert "\n" not in to_json(mechanism)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not the JSON"),
        ("[]", "an object with a kind"),
        ("1", "an object with a kind"),
        ('{"kind": 1}', "an object with a kind"),
        ('{"kind": "gausian"}', "did you mean 'gaussian'"),
        ('{"kind": "gaussian"}', "has noise_multiplier"),
        ('{"kind": "gaussian", "noise_multiplier": 1, "more": 1}', "other fields"),
        ('{"kind": "gaussian", "noise_multiplier": "1"}', "noise_multiplier is '1'"),
        ('{"kind": "gaussian", "noise_multiplier": NaN}', "noise_multiplier is nan"),
        ('{"kind": "together", "mechanisms": []}', "no mechanism"),
        ('{"kind": "together", "mechanisms": 3}', "no mechanism"),
        ('{"kind": "repeated", "times": 1, "mechanism": {"kind": "together", "mechanisms": []}}', "no mechanism"),
        ("[" * 100_000, "not the JSON"),
    ],
)
def test_json_of_anything_else_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        from_json(text)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None])
def test_a_noise_that_is_no_number_above_0_is_refused(value):
    with pytest.raises(UsageError, match="use a finite number above 0"):
        Gaussian(value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Skellam(0.0, 1.0, 1.0), "variance is 0.0"),
        (lambda: Skellam(1.0, 2.0, 1.0), "no vector has an L1 norm below"),
        (lambda: DiscreteGaussian(1.0, 1.0, 1.0, 0), "dimension is 0"),
        (lambda: DiscreteGaussian(1.0, 1.0, 1.0, 1, 0), "terms is 0"),
        (lambda: DiscreteGaussian(0.2, 1.0, 1.0, 1, 2), "or Skellam noise"),
        (lambda: PoissonSampled(0.0, Gaussian(1.0)), "above 0 and up to 1"),
        (lambda: PoissonSampled(1.1, Gaussian(1.0)), "above 0 and up to 1"),
        (lambda: PoissonSampled(0.5, Skellam(1.0, 1.0, 1.0)), "sample a Gaussian"),
        (lambda: Repeated(Gaussian(1.0), 0), "times is 0"),
        (lambda: Repeated(Gaussian(1.0), 1.5), "times is 1.5"),
        (lambda: Repeated(Repeated(Gaussian(1.0), 2), 2), "repeat one of its parts"),
        (lambda: Together(()), "no mechanism"),
        (lambda: Together((Together((Gaussian(1.0),)),)), "name its parts"),
    ],
)
def test_a_mechanism_that_makes_no_sense_says_what_to_do(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_a_narrow_discrete_gaussian_alone_is_allowed():
    assert DiscreteGaussian(0.2, 1.0, 1.0, 1).terms == 1


def test_a_mechanism_has_a_name_for_bills_and_parts_for_accountants():
    both = Together((Gaussian(1.0), Repeated(PoissonSampled(0.1, Gaussian(2.0)), 7), Gaussian(3.0)))
    assert name_of(both) == "gaussian+poisson-sampled-gaussian"
    assert [times for _, times in parts_of(both)] == [1, 7, 1]
    assert [name_of(each) for each in (Skellam(1, 1, 1), DiscreteGaussian(1, 1, 1, 1))] == [
        "skellam",
        "discrete-gaussian",
    ]
    assert json.loads(to_json(both))["kind"] == "together"


def test_rounds_of_steps_are_as_many_steps():
    step = PoissonSampled(0.1, Gaussian(2.0))
    assert over_rounds(Repeated(step, 7), 3) == Repeated(step, 21)
    assert over_rounds(step, 3) == Repeated(step, 3)
