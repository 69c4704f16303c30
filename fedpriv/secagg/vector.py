"""What one masked vector holds: named parts, how each is rounded, bounded and weighted, and what its sum means.

Updates, example counts, metrics and the number of saturated values travel in one vector, so that nothing about one
worker goes in clear. `VectorSpec` is public and part of the descriptor; `encode` makes one worker's words, `decode`
reads the sum. It masks nothing, and draws no noise but that of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpriv.canonical import Field
from fedpriv.entropy import Entropy, SeededEntropy
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.secagg.ring import MAXIMUM_SCALED, Floats, Integers, Ring, Words, needed_bits, round_stochastically

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
MAXIMUM_FRACTION_BITS = 40
_TILE = 1 << 15


class Treatment(StrEnum):
    """What a worker's weight does to a part."""

    WEIGHTED = "weighted"  # each value is multiplied by the weight
    UNWEIGHTED = "unweighted"
    WEIGHT = "weight"  # one element, the weight itself
    SATURATED = "saturated"  # one element, how many values of this worker were out of bounds


@dataclass(frozen=True, slots=True)
class Part:
    """One named array: values are clipped to [-bound, bound] and rounded to multiples of 2**-fraction_bits.

    `dtype` says what the values were before; the sum is float64. A bound of 1 and of 1.0 are one. Raise `UsageError`
    for what cannot be rounded.
    """

    name: str
    shape: tuple[int, ...]
    bound: float
    fraction_bits: int = 16
    treatment: Treatment = Treatment.WEIGHTED
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", float(self.bound))
        if not (0 < self.bound <= MAXIMUM_SCALED and 0 <= self.fraction_bits <= MAXIMUM_FRACTION_BITS):
            raise UsageError(
                f"part {self.name!r} has bound {self.bound:g} and {self.fraction_bits} fraction bits; "
                f"use a bound above 0, below 2**52, and at most {MAXIMUM_FRACTION_BITS} bits"
            )
        if self.largest > MAXIMUM_SCALED or self.dtype not in DTYPES or any(size < 0 for size in self.shape):
            raise UsageError(f"part {self.name!r} of {self.dtype} {self.shape} cannot be rounded below 2**52")
        if self.treatment in (Treatment.WEIGHT, Treatment.SATURATED) and (self.elements, self.fraction_bits) != (1, 0):
            raise UsageError(f"part {self.name!r} is a count: one element, no fraction bits")

    @property
    def elements(self) -> int:
        """Number of elements, in Python integers."""
        return math.prod(self.shape)

    @property
    def largest(self) -> int:
        """B, the largest integer that a value is rounded to: |q| <= ceil(2**f bound)."""
        return math.ceil(math.ldexp(self.bound, self.fraction_bits))


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """Parts in the order in which they are laid out, the largest weight, and a bound on all workers' noise together.

    Raises `UsageError` for repeated names, and for parts without the counts that their treatment needs.
    """

    parts: tuple[Part, ...]
    maximum_weight: int = 1
    noise_bound: int = 0

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) != len(names):
            raise UsageError(f"a vector of {len(names)} parts, {len(set(names))} names; each part needs its own name")
        if self.maximum_weight < 1 or self.noise_bound < 0:
            raise UsageError(
                f"maximum weight {self.maximum_weight}, noise bound {self.noise_bound}; use 1 and 0 or more"
            )
        for treatment, least in ((Treatment.WEIGHT, self.maximum_weight), (Treatment.SATURATED, self._values)):
            counts = [part for part in self.parts if part.treatment is treatment]
            if len(counts) > 1 or any(part.largest < least for part in counts):
                raise UsageError(f"the part {treatment.value!r} must stand once, with a bound of {least} or more")
        if self.maximum_weight > 1 and not any(part.treatment is Treatment.WEIGHT for part in self.parts):
            raise UsageError("weights above 1 need a part for the weight, or nobody can divide by their sum")

    @property
    def _values(self) -> int:
        return sum(part.elements for part in self.parts if part.treatment in (Treatment.WEIGHTED, Treatment.UNWEIGHTED))

    @property
    def length(self) -> int:
        """d, the number of words."""
        return sum(part.elements for part in self.parts)

    def fields(self) -> tuple[Field, ...]:
        """Return the fields by which the canonical descriptor holds this."""
        parts = tuple(
            (part.name, part.dtype, part.shape, part.bound, part.fraction_bits, part.treatment.value)
            for part in self.parts
        )
        return parts, self.length, self.maximum_weight, self.noise_bound

    def largest_sum(self, part: Part, workers: int) -> int:
        """Return nWB + T, the largest magnitude that a sum over `workers` can have in `part`; A.5."""
        weight = self.maximum_weight if part.treatment is Treatment.WEIGHTED else 1
        return workers * weight * part.largest + self.noise_bound

    def bits_needed(self, workers: int) -> int:
        """Return the modulus bits that sums over `workers` need so that no part wraps."""
        return needed_bits(max(self.largest_sum(part, workers) for part in self.parts))

    def encode(self, values: Mapping[str, NDArray[Any]], *, weight: int, ring: Ring, entropy: Entropy) -> Words:
        """Return the (d,) words of one worker: rounded, weighted, laid out in the order of the parts.

        `values` has every part but the counts, in its shape. Out-of-range values saturate, NaN counts as zero, and
        both are counted. Raises `UsageError` for a weight above the maximum or a value of the wrong shape; no value is
        quoted.
        """
        if not 0 <= weight <= self.maximum_weight:
            raise UsageError(f"the weight is above the declared maximum of {self.maximum_weight}, or negative")
        stream = SeededEntropy(entropy.random_bytes(32))
        words, saturated = ring.zeros(self.length), 0
        for part, place in self._places():
            if part.treatment in (Treatment.WEIGHTED, Treatment.UNWEIGHTED):
                factor = weight if part.treatment is Treatment.WEIGHTED else 1
                saturated += _encode(part, _flat(part, values), factor, words[place], stream)
        for part, place in self._places():
            if part.treatment is Treatment.WEIGHT:
                words[place] = weight
            elif part.treatment is Treatment.SATURATED:
                words[place] = saturated
        return words

    def decode(self, words: Words, *, workers: int, ring: Ring) -> Sum:
        """Return the sum over `workers` from its (d,) words; raise `VerificationFailed` where no honest words reach."""
        integers: dict[str, Integers] = {}
        for part, place in self._places():
            lifted = ring.lift(words[place])
            most = self.largest_sum(part, workers)
            if lifted.size and max(int(lifted.max()), -int(lifted.min())) > most:
                raise VerificationFailed(
                    f"the sum of part {part.name!r} is outside the bound of {workers} workers; one of them sent words "
                    "that no rounding makes, so the round cannot be used"
                )
            integers[part.name] = lifted.reshape(part.shape)
        return Sum(self, workers, integers)

    def _places(self) -> Iterator[tuple[Part, slice]]:
        at = 0
        for part in self.parts:
            yield part, slice(at, at + part.elements)
            at += part.elements


@dataclass(frozen=True, slots=True)
class Sum:
    """The exact sum over `workers`: integers by part, in units of 2**-fraction_bits."""

    spec: VectorSpec
    workers: int
    integers: Mapping[str, Integers] = field(repr=False)

    def total(self, name: str) -> Floats:
        """Return the sum of part `name` as float64, in its shape."""
        part = next(part for part in self.spec.parts if part.name == name)
        return np.ldexp(self.integers[name].astype(np.float64), -part.fraction_bits)

    def mean(self, name: str) -> Floats:
        """Return the mean of part `name`, by weight where it is weighted.

        Raises `VerificationFailed` where the weights add up to nothing.
        """
        part = next(part for part in self.spec.parts if part.name == name)
        count = self.weight if part.treatment is Treatment.WEIGHTED else self.workers
        if count < 1:
            raise VerificationFailed("the weights of the round add up to nothing, so there is no mean")
        return self.total(name) / count

    @property
    def weight(self) -> int:
        """Sum of the weights; the number of workers where all weigh 1."""
        return self._count(Treatment.WEIGHT, self.workers)

    @property
    def saturated(self) -> int:
        """How many values of all workers were out of bounds; 0 where the vector does not count them."""
        return self._count(Treatment.SATURATED, 0)

    def _count(self, treatment: Treatment, without: int) -> int:
        names = [part.name for part in self.spec.parts if part.treatment is treatment]
        return int(self.integers[names[0]].sum()) if names else without


def with_counts(parts: Sequence[Part], *, maximum_weight: int = 1) -> VectorSpec:
    """Return the vector of `parts`, then the weight if it can differ from 1, then the number of saturated values."""
    weight = Part("weight", (1,), float(maximum_weight), 0, Treatment.WEIGHT, "int64")
    values = max(1, sum(part.elements for part in parts))
    saturated = Part("saturated", (1,), float(values), 0, Treatment.SATURATED, "int64")
    return VectorSpec((*parts, *((weight,) if maximum_weight > 1 else ()), saturated), maximum_weight)


def _flat(part: Part, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    value = values.get(part.name)
    if value is None or value.shape != part.shape:
        found = "missing" if value is None else f"of shape {value.shape}"
        raise UsageError(f"part {part.name!r} is {found}; the vector declares shape {part.shape}")
    return value.reshape(-1)


def _encode(part: Part, values: NDArray[Any], factor: int, into: Words, stream: Entropy) -> int:
    """Write the words of `values` into `into`, tile by tile; return how many values were out of bounds."""
    saturated = 0
    for at in range(0, values.size, _TILE):
        tile = values[at : at + _TILE].astype(np.float64)
        inside = int(np.count_nonzero(np.abs(tile) <= part.bound))
        if inside != tile.size:
            saturated += tile.size - inside
            tile = np.clip(np.where(np.isnan(tile), 0.0, tile), -part.bound, part.bound)
        tile *= math.ldexp(1.0, part.fraction_bits)
        rounded = round_stochastically(tile, stream).astype(np.int64)
        if factor != 1:
            rounded *= factor
        into[at : at + _TILE] = rounded  # wraps modulo the ring, as A.5 wants
    return saturated
