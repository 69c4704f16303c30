"""Masked words give nothing away: even bytes, and no better than a coin between two inputs; unmasked ones give all."""

import numpy as np
import pytest

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.attacks.masked import chi_squares, guessed, normal_scores

COUNT, ROUNDS = 4096, 200


def masks(seed, dtype, count=COUNT):
    return np.frombuffer(SeededEntropy(seed).random_bytes(count * dtype().nbytes), dtype)


def inputs(dtype):
    """Return two vectors of rounded updates: small numbers, below and above 0."""
    generator = np.random.default_rng(0)
    return tuple(np.rint(generator.normal(0, 900, COUNT)).astype(np.int64).astype(dtype) for _ in range(2))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_every_byte_of_masked_words_is_even_and_of_unmasked_ones_is_not(dtype):
    one, _ = inputs(dtype)
    assert normal_scores(chi_squares(one)).max() > 50
    scores = normal_scores(chi_squares(one + masks(b"even", dtype)))
    assert len(scores) == dtype().nbytes
    assert np.abs(scores).max() < 4


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_which_of_two_inputs_is_under_a_mask_is_guessed_no_better_than_by_a_coin(dtype):
    both = inputs(dtype)
    coins = np.frombuffer(SeededEntropy(b"coins").random_bytes(ROUNDS), np.uint8) & 1
    right = sum(guessed(both[coin] + masks(b"mask %d" % at, dtype), *both) == coin for at, coin in enumerate(coins))
    assert abs(right - ROUNDS / 2) < 4 * np.sqrt(ROUNDS) / 2
    assert [guessed(each, *both) for each in both] == [0, 1]  # the same guess without a mask


def test_too_few_words_are_refused():
    with pytest.raises(UsageError, match="give at least 1280"):
        chi_squares(np.zeros(1279, np.uint32))
