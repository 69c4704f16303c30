"""What masked words give away: nothing, if each is uniform whatever is under the mask.

Words modulo 2^32 or 2^64 with a uniform mask are uniform, so every byte of them is; and whoever knows that one of two
updates is under the mask, and both of these, guesses which no better than a coin. Functions of the words alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

Words = npt.NDArray[np.unsignedinteger[Any]]
_VALUES = 256
LEAST_WORDS = 5 * _VALUES
"""Words that the test takes at the least, so that each value of a byte is expected five times."""


def chi_squares(words: Words) -> npt.NDArray[np.float64]:
    """Return Pearson's statistic against even bytes, of 255 degrees of freedom, for each byte of a word."""
    size = words.dtype.itemsize
    if words.ndim != 1 or len(words) < LEAST_WORDS:
        raise UsageError(f"words of shape {words.shape}; give at least {LEAST_WORDS} of them, in one row")
    each = np.ascontiguousarray(words, words.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, size)
    expected = len(words) / _VALUES
    found = [np.bincount(each[:, at], minlength=_VALUES) for at in range(size)]
    return np.array([((counts - expected) ** 2 / expected).sum() for counts in found])


def normal_scores(statistics: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return about how many deviations each statistic of `chi_squares` is above what even bytes give.

    Wilson and Hilferty 1931: the cube root of chi-square over its degrees of freedom is nearly normal.
    """
    freedom = _VALUES - 1
    spread = 2 / (9 * freedom)
    scores: npt.NDArray[np.float64] = (np.cbrt(statistics / freedom) - (1 - spread)) / np.sqrt(spread)
    return scores


def guessed(words: Words, first: Words, second: Words) -> int:
    """Return 0 or 1: which of two unmasked vectors is nearer to `words` modulo the ring, in sums of distances."""
    signed = words.dtype.str.replace("u", "i")
    far = [float(np.abs((words - each).view(signed).astype(np.float64)).sum()) for each in (first, second)]
    return int(far[1] < far[0])
