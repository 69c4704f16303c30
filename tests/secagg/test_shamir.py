"""Sharing: any threshold of shares gives the secret, fewer fit every secret equally well."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.secagg.shamir import SECRETS, PrimeField

SMALL = PrimeField(97)


@settings(max_examples=50, deadline=None)
@given(secret=st.integers(0, 2**256 - 1), data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret, data):
    count = data.draw(st.integers(1, 40))
    threshold = data.draw(st.integers(1, count))
    points = data.draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count, unique=True))
    shares = dict(zip(points, SECRETS.split(secret, threshold, points, SystemEntropy()), strict=True))
    chosen = data.draw(st.permutations(points))[:threshold]
    assert SECRETS.combine(SECRETS.weights(chosen), [shares[point] for point in chosen]) == secret


@given(at=st.integers(0, 30), data=st.data())
def test_weights_evaluate_the_polynomial_anywhere(at, data):
    points = data.draw(st.lists(st.integers(1, 30), min_size=4, max_size=4, unique=True))
    shares = SECRETS.split(5, 4, points, SeededEntropy(b"p"))
    falling = SECRETS.draw(3, SeededEntropy(b"p"))
    falling.append(5)
    assert SECRETS.combine(SECRETS.weights(points, at), shares) == SECRETS._evaluate(falling, at)


@pytest.mark.parametrize("points", list(itertools.combinations(range(1, 6), 2)))
def test_fewer_shares_fit_every_secret_equally_well(points):
    """Over a small field, counted: two shares of a threshold of three occur with each secret equally often."""
    seen = {}
    for secret, first, second in itertools.product(range(7), repeat=3):
        field = PrimeField(7)
        shares = tuple(field._evaluate([first, second, secret], point) for point in points)
        seen.setdefault(shares, []).append(secret)
    assert len(seen) == 49
    assert all(sorted(secrets) == list(range(7)) for secrets in seen.values())


def test_coefficients_are_fresh_each_time():
    one, other = (SECRETS.split(1, 2, [1, 2], SystemEntropy()) for _ in range(2))
    assert one != other


def test_draws_are_uniform_over_the_field():
    drawn = SMALL.draw(20_000, SeededEntropy(b"uniform"))
    counts = [drawn.count(value) for value in range(97)]
    expected = 20_000 / 97
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_square < 96 + 5 * (2 * 96) ** 0.5


@pytest.mark.parametrize("points", [[0, 1], [1, 1], [-1, 2], [1, 97]])
def test_a_point_that_is_zero_or_repeated_or_outside_is_refused(points):
    with pytest.raises(UsageError):
        SMALL.split(1, 2, points, SystemEntropy())
    with pytest.raises(UsageError):
        SMALL.weights(points)


@pytest.mark.parametrize(("secret", "threshold"), [(97, 2), (-1, 2), (1, 0), (1, 3)])
def test_a_secret_outside_the_field_or_an_impossible_threshold_is_refused(secret, threshold):
    with pytest.raises(UsageError):
        SMALL.split(secret, threshold, [1, 2], SystemEntropy())


def test_a_share_has_exactly_one_spelling():
    share = SECRETS.split(7, 1, [1], SystemEntropy())[0]
    assert SECRETS.decode(SECRETS.encode(share)) == share == 7
    for wrong in (b"", bytes(32), bytes(34), SECRETS.prime.to_bytes(33, "big"), b"\xff" * 33):
        with pytest.raises(UsageError):
            SECRETS.decode(wrong)
