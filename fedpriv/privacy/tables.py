"""Distributions of integer noise as tables of 128-bit cumulative probabilities, computed in integers.

A table is public: it depends on the variance alone. Its probabilities differ from the true ones by rounding to
multiples of 2^-128 and by the tails beyond its support, together less than `total_variation`, which an accountant adds
to delta.
Every step here is integer arithmetic with 256 fractional bits; no floating point decides a probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

BITS = 128
WORK_BITS = 256
MAXIMUM_DEVIATION = 20_000.0
"""Standard deviation in integer units up to which a table is made: about half a million entries, 15 MB."""
SLOTS = 1 << 16
_REACH = 14
"""Support in standard deviations, beyond which less than 2^-135 lies (and a constant for small variances)."""
_REACH_MORE = 90
_NARROW = 1 << 15
"""Below this, the entries of a table fit into 16 bits, and the table into the cache beside another one."""
_LOW_48 = np.uint64((1 << 48) - 1)

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Table:
    """Noise of one distribution: `thresholds[i]` / 2^128 is the probability of a value below `least + i + 1`.

    `total_variation` bounds the distance of what is sampled from the distribution, for one value.
    """

    least: int
    thresholds: Sequence[int] = field(repr=False)
    direct: npt.NDArray[np.int16] | npt.NDArray[np.int32] = field(repr=False)
    """The value for each slot of 16 leading bits, or `open` plus the number of an open slot, which they leave open."""
    open: int
    """The least of the numbers in `direct` that are no values."""
    leading: Words = field(repr=False)
    """The first 64 bits of each threshold."""
    first: npt.NDArray[np.int32] = field(repr=False)
    """For each open slot, the value below the first threshold inside it."""
    only: Words = field(repr=False)
    """For each open slot, bits 17 to 64 of the one threshold inside it; 0 where it has several."""
    total_variation: float

    @property
    def variance(self) -> float:
        """The variance of what is sampled, from the table itself."""
        return sum((self.least + at) ** 2 * share for at, share in enumerate(self.probabilities()))

    def probabilities(self) -> list[float]:
        """Return the probability of each value from `least` on."""
        ends = [0, *self.thresholds, 1 << BITS]
        return [(high - low) / (1 << BITS) for low, high in pairwise(ends)]


def discrete_gaussian(variance: float) -> Table:
    """Return the table of P(k) proportional to exp(-k^2 / (2 variance)) (Canonne, Kamath, Steinke 2020)."""
    return _discrete_gaussian(_checked(variance))


def skellam(variance: float) -> Table:
    """Return the table of P(k) = exp(-v) I_k(v), the difference of two Poisson variables of mean v/2 each."""
    return _skellam(_checked(variance))


def _checked(variance: float) -> float:
    if not (math.isfinite(variance) and 0 < variance <= MAXIMUM_DEVIATION**2):
        raise UsageError(
            f"noise of variance {variance!r} cannot be sampled; its standard deviation must be above 0 and at most "
            f"{MAXIMUM_DEVIATION:g} integer units: use a coarser scale"
        )
    return float(variance)


@lru_cache(maxsize=16)
def _discrete_gaussian(variance: float) -> Table:
    """Weights by w_{k+1} = w_k r^(2k+1), r = exp(-1/(2 variance)), so that no exponential is taken twice."""
    one = 1 << WORK_BITS
    ratio = _exponential(Fraction(-1, 2) / Fraction(variance))
    square = ratio * ratio >> WORK_BITS
    weights, step = [one], ratio
    for _ in range(_support(variance)):
        weights.append(weights[-1] * step >> WORK_BITS)
        step = step * square >> WORK_BITS
    return _table(weights)


@lru_cache(maxsize=16)
def _skellam(variance: float) -> Table:
    """Weights by I_{k-1} = I_{k+1} + (2k/v) I_k downwards from beyond the support (Miller's algorithm, stable)."""
    exact = Fraction(variance)
    top = _support(variance) + _REACH_MORE
    above, here = 0, 1 << WORK_BITS
    weights = [here]
    for order in range(top, 0, -1):
        above, here = here, above + 2 * order * here * exact.denominator // exact.numerator
        weights.append(here)
    weights.reverse()
    return _table(weights[: _support(variance) + 1])


def _support(variance: float) -> int:
    return math.ceil(_REACH * math.sqrt(variance)) + _REACH_MORE


def _exponential(value: Fraction) -> int:
    """Return exp(value) 2^256 for a value of at most 0, to within 2^-240."""
    halvings = max(0, math.ceil(-value).bit_length() + 1)
    extra = WORK_BITS + 64 + 2 * halvings
    small = (value.numerator << extra) // (value.denominator << halvings)
    term = total = 1 << extra
    count = 1
    while term not in {0, -1}:
        term = (term * small >> extra) // count
        total += term
        count += 1
    for _ in range(halvings):
        total = total * total >> extra
    return total >> (extra - WORK_BITS)


def _table(weights: Sequence[int]) -> Table:
    """Return the table of a symmetric distribution with these relative weights at 0, 1, 2 and so on."""
    total = 2 * sum(weights) - weights[0]
    reach = sum(each << BITS >= total for each in weights) - 1
    cumulative, thresholds = 0, []
    for value in range(-reach, reach):
        cumulative += weights[abs(value)]
        thresholds.append((cumulative << BITS) // total)
    # each threshold is off by less than 2^-128, each weight left out is less than that, and so are both tails together
    variation = (len(thresholds) + 2 * len(weights) + 1) * 2.0**-BITS
    return _indexed(-reach, thresholds, variation)


def _indexed(least: int, thresholds: Sequence[int], variation: float) -> Table:
    leading = np.array([each >> (BITS - 64) for each in thresholds], dtype=np.uint64)
    starts = [slot << (BITS - 16) for slot in range(SLOTS)]
    first = _counts_at_or_below(thresholds, starts)
    ends = np.append(first[1:], np.int32(_below_end(thresholds)))
    inside = _counts_inside(thresholds, first, ends)
    found = np.flatnonzero(inside)
    above = least + len(thresholds) + 1
    direct = (least + first).astype(np.int32)
    direct[found] = above + np.arange(len(found), dtype=np.int32)
    narrow = direct.astype(np.int16) if above + len(found) < _NARROW else direct
    below = first[found]
    bits = leading[np.minimum(below, len(leading) - 1)] & _LOW_48
    only = np.where(inside[found] == 1, bits, np.uint64(0))
    return Table(least, tuple(thresholds), narrow, above, leading, (least + below).astype(np.int32), only, variation)


def _counts_at_or_below(thresholds: Sequence[int], starts: Sequence[int]) -> npt.NDArray[np.int32]:
    counts = np.empty(len(starts), np.int32)
    at = 0
    for slot, start in enumerate(starts):
        while at < len(thresholds) and thresholds[at] <= start:
            at += 1
        counts[slot] = at
    return counts


def _below_end(thresholds: Sequence[int]) -> int:
    return sum(each < (1 << BITS) for each in thresholds)


def _counts_inside(
    thresholds: Sequence[int], first: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return how many thresholds lie within each slot; one at the beginning of the next slot decides nothing in it."""
    at_end = np.zeros(SLOTS, np.int32)
    for slot in range(SLOTS - 1):
        end, count = (slot + 1) << (BITS - 16), int(ends[slot])
        while count > first[slot] and thresholds[count - 1] == end:
            at_end[slot] += 1
            count -= 1
    return (ends - first - at_end).astype(np.int32)
