"""From a real vector to an integer one whose norm is certain: what a worker adds discrete noise to.

A vector is clipped, scaled and rounded at random to one of the two whole numbers next to each value. Rounding can make
a vector longer, so the integer norm is taken exactly and the vector is rounded again while it is too long; after
`MAXIMUM_ATTEMPTS` it is rounded towards zero, which never lengthens it. So the bound always holds, whatever the values
were, and the noise is sized for it (Kairouz, Liu, Steinke 2021, Proposition 22). No noise is added here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.privacy.mechanisms import check_count, check_positive, is_number
from fedpriv.privacy.samplers import Values, stream_of

BETA = math.exp(-0.5)
"""Rounding is repeated with at most this probability, once for each time; the value of the papers."""
MAXIMUM_ATTEMPTS = 64
MAXIMUM_UNITS = 2.0**40
"""The largest clip in integer units: norms and sums stay exact in 64 bits."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """Vectors of `dimension` values, of L2 norm `clip` at most, in units of 1/`scale`.

    `scale` is a power of two, so that scaling is exact. Raise `UsageError` where it is not, or a number makes no sense.
    """

    clip: float
    scale: float
    dimension: int
    beta: float = BETA

    def __post_init__(self) -> None:
        check_positive("clip", self.clip, "1.0")
        check_positive("scale", self.scale, "a power of two such as 1024.0")
        check_count("dimension", self.dimension)
        if math.frexp(self.scale)[0] != 0.5:
            raise UsageError(f"scale is {self.scale!r}; use a power of two, such as 1024.0")
        if self.clip * self.scale > MAXIMUM_UNITS:
            raise UsageError(
                f"clip {self.clip:g} at scale {self.scale:g} exceeds 2^40 integer units; use a smaller scale"
            )
        if not (is_number(self.beta) and 0 <= self.beta < 1):
            raise UsageError(f"beta is {self.beta!r}; use a number from 0 to below 1, such as {BETA:.4f}")

    @property
    def l2(self) -> float:
        """The largest L2 norm of a rounded vector, in integer units.

        min(c + sqrt(d), sqrt(c^2 + d/4 + sqrt(2 ln(1/beta)) (c + sqrt(d)/2))), c the clip in integer units.
        """
        units, root = self.clip * self.scale, math.sqrt(self.dimension)
        always = units + root
        if self.beta == 0:
            return always
        usual = units**2 + self.dimension / 4 + math.sqrt(2 * math.log(1 / self.beta)) * (units + root / 2)
        return min(always, math.sqrt(usual))

    @property
    def l1(self) -> float:
        """The largest L1 norm of a rounded vector, in integer units: min(sqrt(d) l2, l2^2), as its values are whole."""
        return max(self.l2, min(math.sqrt(self.dimension) * self.l2, self.l2**2))

    def rounded(self, values: npt.NDArray[np.floating], entropy: Entropy) -> Values:
        """Return `values`, shape (d,), clipped, in integer units and rounded: int64, of L2 norm `l2` at most.

        A vector with a value that is no finite number becomes zero: it contributes nothing.
        """
        if values.shape != (self.dimension,):
            raise UsageError(f"the vector has shape {values.shape}; this rounding is for ({self.dimension},)")
        units = clipped(values, self.clip) * self.scale
        limit = math.floor(self.l2**2)
        stream = stream_of(entropy)
        floor = np.floor(units)
        share = np.ldexp(units - floor, 63).astype(np.uint64)
        for _ in range(MAXIMUM_ATTEMPTS):
            drawn = np.frombuffer(stream.random_bytes(8 * self.dimension), np.uint64) >> np.uint64(1)
            candidate: Values = floor.astype(np.int64) + (drawn < share)
            if squared_norm(candidate) <= limit:
                return candidate
        return np.trunc(units).astype(np.int64)


def clipped(values: npt.NDArray[np.floating], clip: float) -> npt.NDArray[np.float64]:
    """Return `values` shortened to L2 norm `clip`, float64; zero where one of them is no finite number."""
    exact = values.astype(np.float64)
    largest = float(np.abs(exact).max(initial=0.0))
    if not math.isfinite(largest):
        return np.zeros_like(exact)
    if largest == 0.0:
        return exact
    norm = largest * math.sqrt(float(np.square(exact / largest).sum()))
    return exact if norm <= clip else exact * (clip / norm)


def squared_norm(values: Values) -> int:
    """Return the sum of squares of integers below 2^41, exactly."""
    total = 0
    for start in range(0, len(values), _EXACT):
        block = np.abs(values[start : start + _EXACT])
        high, low = block >> 21, block & 0x1FFFFF
        total += (int(high @ high) << 42) + (int(high @ low) << 22) + int(low @ low)
    return total


_EXACT = 1 << 20
"""Values whose products, of 21 bits by 21, can be added in 63 bits."""
