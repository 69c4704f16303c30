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
from itertools import accumulate, pairwise

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
_WIDE = 600.0
"""Deviation from which on noise is drawn by blocks."""
_BLOCK_NUMBERS = 40.0
"""Deviation of the number of a block, about: more leaves more slots open, less leaves more to the rest."""
_SLOT_SHIFT = BITS - 16
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


@dataclass(frozen=True, eq=False)
class Blocks:
    """Noise of one wide distribution as a mixture: the number of a block and `shift` even bits, or a value of `rest`.

    A block is 2^shift values in a row. As much of each as the least likely of them has is drawn by number and bits;
    what they have above that, 0.4 block sizes in a deviation, is `rest`. The last value of `numbers` says: the rest.
    """

    numbers: Table
    shift: int
    rest: Table
    left_out: float = field(repr=False)
    """Share of the distribution that is neither in blocks nor in the rest."""

    @property
    def last(self) -> int:
        """The value of `numbers` that says that `rest` gives the value."""
        return self.numbers.least + len(self.numbers.thresholds)

    @property
    def least(self) -> int:
        """The least value."""
        return self.rest.least

    @property
    def total_variation(self) -> float:
        """A bound on the distance of what is sampled from the distribution, for one value."""
        return self.numbers.total_variation + self.rest.total_variation + self.left_out

    @property
    def variance(self) -> float:
        """The variance of what is sampled, from the tables themselves."""
        return sum((self.least + at) ** 2 * share for at, share in enumerate(self.probabilities()))

    def probabilities(self) -> list[float]:
        """Return the probability of each value from `least` on."""
        *blocks, others = self.numbers.probabilities()
        shares = [others * each for each in self.rest.probabilities()]
        for at in range(len(shares)):
            shares[at] += blocks[(self.least + at >> self.shift) - self.numbers.least] / (1 << self.shift)
        return shares


def discrete_gaussian(variance: float) -> Table | Blocks:
    """Return the table of P(k) proportional to exp(-k^2 / (2 variance)) (Canonne, Kamath, Steinke 2020)."""
    return _discrete_gaussian(_checked(variance))


def skellam(variance: float) -> Table | Blocks:
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
def _discrete_gaussian(variance: float) -> Table | Blocks:
    """Weights by w_{k+1} = w_k r^(2k+1), r = exp(-1/(2 variance)), so that no exponential is taken twice."""
    one = 1 << WORK_BITS
    ratio = _exponential(Fraction(-1, 2) / Fraction(variance))
    square = ratio * ratio >> WORK_BITS
    weights, step = [one], ratio
    for _ in range(_support(variance)):
        weights.append(weights[-1] * step >> WORK_BITS)
        step = step * square >> WORK_BITS
    return _noise(weights, variance)


@lru_cache(maxsize=16)
def _skellam(variance: float) -> Table | Blocks:
    """Weights by I_{k-1} = I_{k+1} + (2k/v) I_k downwards from beyond the support (Miller's algorithm, stable)."""
    exact = Fraction(variance)
    top = _support(variance) + _REACH_MORE
    above, here = 0, 1 << WORK_BITS
    weights = [here]
    for order in range(top, 0, -1):
        above, here = here, above + 2 * order * here * exact.denominator // exact.numerator
        weights.append(here)
    weights.reverse()
    return _noise(weights[: _support(variance) + 1], variance)


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


def _noise(weights: Sequence[int], variance: float) -> Table | Blocks:
    """Return the noise of a symmetric distribution with these weights at 0, 1, 2 and so on, which do not grow."""
    total = 2 * sum(weights) - weights[0]
    reach = sum(each << BITS >= total for each in weights) - 1
    kept = weights[: reach + 1]
    # each weight left out is less than 2^-128, and so are both tails together
    left_out = (2 * len(weights) + 1) * 2.0**-BITS
    deviation = math.sqrt(variance)
    if deviation < _WIDE:
        return _table(-reach, [*reversed(kept[1:]), *kept], total, left_out)
    return _blocks(kept, total, left_out, round(math.log2(deviation / _BLOCK_NUMBERS)))


def _blocks(kept: Sequence[int], total: int, left_out: float, shift: int) -> Blocks:
    """Return weights at 0 to `reach` and their mirror image as blocks of 2^shift values, and what is above these."""
    size, reach = 1 << shift, len(kept) - 1
    count = (
        reach + 1
    ) // size + 1  # on each side, so that the outermost ones reach beyond the support and weigh nothing
    padded = [*kept, *[0] * (count * size + 1 - len(kept))]
    above = [padded[number * size - 1] for number in range(1, count + 1)]
    below = [padded[number * size] for number in range(count, 0, -1)]
    least = [*below, *above]
    numbers = _table(-count, [*(each << shift for each in least), 0], total, 0.0)
    rest = [padded[abs(value)] - least[(value >> shift) + count] for value in range(-reach, reach + 1)]
    return Blocks(numbers, shift, _table(-reach, rest, sum(rest), 0.0), left_out)


def _table(least: int, weights: Sequence[int], total: int, left_out: float) -> Table:
    """Return the table of values from `least` on with these weights; the last takes what they lack of `total`."""
    # values at the end that weigh nothing have no threshold
    thresholds = [(each << BITS) // total for each in accumulate(weights[:-1]) if each < total]
    # each threshold is off by less than 2^-128
    return _indexed(least, thresholds, len(thresholds) * 2.0**-BITS + left_out)


def _indexed(least: int, thresholds: Sequence[int], variation: float) -> Table:
    leading = np.array([each >> (BITS - 64) for each in thresholds], dtype=np.uint64)
    slots = np.array([each >> _SLOT_SHIFT for each in thresholds], dtype=np.int64)
    at_start = np.array([each & (1 << _SLOT_SHIFT) - 1 == 0 for each in thresholds], dtype=np.bool_)
    # a threshold at the start of a slot decides nothing inside it
    first = np.cumsum(np.bincount(slots + ~at_start, minlength=SLOTS + 1))[:SLOTS].astype(np.int32)
    inside = np.bincount(slots[~at_start], minlength=SLOTS)[:SLOTS]
    found = np.flatnonzero(inside)
    above = least + len(thresholds) + 1
    direct = (least + first).astype(np.int32)
    direct[found] = above + np.arange(len(found), dtype=np.int32)
    narrow = direct.astype(np.int16) if above + len(found) < _NARROW else direct
    below = first[found]
    bits = leading[np.minimum(below, len(leading) - 1)] & _LOW_48
    only = np.where(inside[found] == 1, bits, np.uint64(0))
    return Table(least, tuple(thresholds), narrow, above, leading, (least + below).astype(np.int32), only, variation)
