"""Fixed point in the ring of integers modulo 2**32 or 2**64: rounding, the bits that a sum needs, the centred lift.

Sums wrap and never saturate; that the true sum fits is proved beforehand from its bound (A.5 of the specification:
`needed_bits`), and then the lift is exact. What the numbers mean is `vector`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

RING_BITS = (32, 64)
MAXIMUM_SCALED = 1 << 52
"""Largest |2**f x| that is rounded: up to here float64 tells every integer apart, and most of their fractions."""


@dataclass(frozen=True, slots=True)
class Ring:
    """The integers modulo 2**bits as little-endian words; `bits` is 32 or 64, else `UsageError`."""

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in RING_BITS:
            raise UsageError(f"a ring of 2**{self.bits} is not supported; use 2**32 or 2**64")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The words' type, little-endian on every machine."""
        return np.dtype(f"<u{self.word_bytes}")

    @property
    def word_bytes(self) -> int:
        """Bytes of one word."""
        return self.bits // 8

    def zeros(self, length: int) -> Words:
        """Return `length` words of zero."""
        return np.zeros(length, self.dtype)

    def reduce(self, integers: Integers) -> Words:
        """Return signed integers modulo 2**bits, same shape."""
        return integers.astype(self.dtype)

    def lift(self, words: Words) -> Integers:
        """Return the representative of each word in [-2**(bits-1), 2**(bits-1)), same shape.

        `((y + R/2) mod R) - R/2` of the specification is what two's complement reads; A.5.
        """
        return words.view(np.dtype(f"<i{self.word_bytes}")).astype(np.int64)


def needed_bits(largest: int) -> int:
    """Return the least k for which sums of magnitude up to `largest` lift exactly from modulo 2**k.

    `ceil(log2(largest + 1)) + 1`, in integers so that it is exact; A.5.
    """
    return largest.bit_length() + 1


def ring_for(bits: int) -> Ring:
    """Return the smallest ring of at least `bits` bits; raise `UsageError` beyond 64."""
    for each in RING_BITS:
        if bits <= each:
            return Ring(each)
    raise UsageError(
        f"sums need {bits} bits, but a ring has {RING_BITS[-1]} at most; lower the bound, the fraction bits, "
        "the maximum weight or the number of workers"
    )


def round_stochastically(scaled: Floats, stream: Entropy) -> Floats:
    """Return `scaled` rounded to an integer above or below, so that its expectation is itself; same shape.

    The probability of rounding up is the fraction, to 2**-32 (float32 would leave 8 random bits at f = 16). Integers
    stay. |scaled| must be at most 2**52. `stream` gives 4 bytes for each element.
    """
    whole: Floats = np.floor(scaled)
    draws = np.frombuffer(stream.random_bytes(4 * scaled.size), np.dtype("<u4")).reshape(scaled.shape)
    fraction = scaled - whole
    fraction *= float(1 << 32)
    whole += draws < fraction
    return whole
