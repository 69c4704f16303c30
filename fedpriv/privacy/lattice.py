"""Gaussian noise that has no floating point to attack: sum and noise are whole multiples of a power of two.

Continuous noise made of floats has gaps, and which floats can occur tells of the value below the noise (Mironov 2012).
Here a vector is rounded to a grid whose size depends on public numbers only, and a discrete Gaussian is added in
integers. Rounding can move neighbours apart by sqrt(d) steps of the grid: the noise covers that distance too, so that
the mechanism costs no more than the continuous Gaussian of its noise multiplier (Canonne, Kamath, Steinke 2020,
Theorem 14). The grid is fine enough that this takes at most 2 % more noise.

A discrete Gaussian of large deviation is made of two small ones of one deviation s, as a X + Y. Each probability of
the sum is that of the discrete Gaussian of variance (a^2 + 1) s^2 to within a factor of 1 +- 5 exp(-2 pi^2 t^2), where
t^2 = s^2 / (a^2 + 1) (Poisson summation; Micciancio, Peikert 2013, Theorem 3.3). t is at least 2.2 here: below 2^-130.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.privacy import tables
from fedpriv.privacy.mechanisms import Gaussian, check_count, check_positive
from fedpriv.privacy.samplers import Drawn, draw, stream_of
from fedpriv.privacy.tables import Blocks, Table

Reals = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64] | npt.NDArray[np.float32]

BLOCK = 1 << 15
"""Values that are made noisy at once: their arrays stay in the cache, and are small enough that memory is reused."""
_DRAWN = 1 << 17
"""Values whose noise is drawn at once."""
_STEPS = 50.0
"""Grid steps in the sensitivity for each sqrt(d), at the least: rounding then costs 2 % or less."""
_OVERLAP = 2.2
"""What t is at the least."""
_ALONE = 100.0
"""Deviation up to which one discrete Gaussian is enough."""
_WIDEST = 5e7
"""Deviation up to which every value of the noise fits into 30 bits."""
_WIDE: tuple[Any, Any, Any] = (np.float64, np.int64, np.float64(2.0**50))
_NARROW: tuple[Any, Any, Any] = (np.float32, np.int32, np.float32(2.0**30))
"""Dtype, the integers in which sum and noise are added, and the steps to which a sum is cut so that these hold both."""


@dataclass(frozen=True)
class LatticeGaussian:
    """Noise for sums of `dimension` values in all, in which one contribution has L2 norm `sensitivity` at most.

    It is billed as `mechanism`, whose sensitivity is that of the sum. Raise `UsageError` for numbers that are not above
    0, and for a noise multiplier beyond some 10^4.
    """

    sensitivity: float
    noise_multiplier: float
    dimension: int
    grid: float = field(init=False)
    """Step of the grid, a power of two in the unit of the sum."""
    variance: float = field(init=False)
    """Variance of the executed noise, in grid steps squared."""
    _factor: int = field(init=False, repr=False)
    _table: Table | Blocks = field(init=False, repr=False)
    _gap: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive("sensitivity", self.sensitivity, "the clip, such as 1.0")
        check_positive("noise_multiplier", self.noise_multiplier, "1.0")
        check_count("dimension", self.dimension)
        root = math.sqrt(self.dimension)
        if not 1e-250 < self.sensitivity < 1e250:
            raise UsageError(f"sensitivity {self.sensitivity:g} is beyond what sums of floats hold; scale the values")
        grid = 2.0 ** math.floor(math.log2(self.sensitivity / (_STEPS * max(root, 16.0))))
        needed = self.noise_multiplier * (self.sensitivity / grid + root)
        factor, part, gap = _split(needed)
        held = {
            "grid": grid,
            "variance": needed**2,
            "_factor": factor,
            "_table": tables.discrete_gaussian(part),
            "_gap": gap,
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)

    @property
    def mechanism(self) -> Gaussian:
        """What a release of one noisy sum is billed as."""
        return Gaussian(self.noise_multiplier)

    @property
    def deviation(self) -> float:
        """Standard deviation of the executed noise, in the unit of the sum."""
        return self.grid * math.sqrt(self.variance)

    @property
    def total_variation(self) -> float:
        """How far the noise of one release is from discrete Gaussian noise; an accountant adds it to delta."""
        parts = 2 if self._factor else 1
        return self.dimension * (parts * self._table.total_variation + self._gap)

    def noisy(
        self, total: npt.NDArray[np.floating], entropy: Entropy, out: Floats | None = None, *, times: float = 1.0
    ) -> Floats:
        """Return `times` what `total`, shape (n,), is on the grid with noise added, in its own dtype if that holds it.

        The `dimension` values may come in several calls, whose sensitivity is taken together. Results are whole
        multiples of `grid` times `times`, in float32 rounded once more where they exceed 2^24 of them. A value that is
        no number counts as the least one, a value beyond 2^50 grid steps, in float32 2^30, as the last there is:
        neither moves neighbours further apart than clipped contributions do, which the caller keeps finite. Into `out`,
        if given, which may be `total` itself.
        """
        if total.ndim != 1 or len(total) > self.dimension:
            raise UsageError(f"the sum has shape {total.shape}; this noise is for at most ({self.dimension},)")
        narrow = total.dtype == np.float32 and 2.0**-90 < self.grid < 2.0**90
        kind, whole, largest = _NARROW if narrow else _WIDE
        stream = stream_of(entropy)
        result: npt.NDArray[Any] = np.empty(len(total), kind) if out is None else out
        steps: npt.NDArray[Any] = np.empty(min(BLOCK, len(total)), kind)
        summed: npt.NDArray[Any] = np.empty(len(steps), whole)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(total), _DRAWN):
                last = min(first + _DRAWN, len(total))
                noise = self._drawn(last - first, stream)
                for start in range(first, last, BLOCK):
                    block = result[start : min(start + BLOCK, last)]
                    rounded, noisy = steps[: len(block)], summed[: len(block)]
                    np.multiply(total[start : start + len(block)], kind(1 / self.grid), out=rounded)
                    np.rint(rounded, out=rounded)
                    # not by a scalar product: OpenBLAS wakes threads for one, which costs more than all the rest
                    if not (rounded.max() <= largest and rounded.min() >= -largest):  # also where one is no number
                        np.fmin(np.fmax(rounded, -largest, out=rounded), largest, out=rounded)
                    np.copyto(noisy, rounded, casting="unsafe")
                    for factor, values in noise:
                        part = values[start - first : start - first + len(block)]
                        noisy += part if factor == 1 else np.multiply(part, factor, dtype=np.int32)
                    np.multiply(noisy, kind(self.grid * times), out=block, casting="unsafe", dtype=kind)
        return result

    def _drawn(self, count: int, stream: Entropy) -> tuple[tuple[int, Drawn], ...]:
        """Return fresh noise for `count` values, in grid steps: parts to be added up, each times its factor."""
        if self._factor == 0:
            return ((1, draw(self._table, count, stream)),)
        pair = draw(self._table, 2 * count, stream)
        return ((1, pair[:count]), (self._factor, pair[count:]))


def _split(deviation: float) -> tuple[int, float, float]:
    """Return the factor a, or 0 for one part alone, the variance of each part, and their gap (see the module)."""
    if deviation <= _ALONE:
        return 0, deviation**2, 0.0
    if deviation > _WIDEST:
        raise UsageError(
            f"noise of {deviation:.3g} grid steps is more than {_WIDEST:g}, the most that is drawn; use less noise, or "
            "ask for a larger epsilon"
        )
    factor = math.isqrt(math.floor(deviation / _OVERLAP) - 1)
    terms = factor**2 + 1
    return factor, deviation**2 / terms, 5 * math.exp(-2 * math.pi**2 * (deviation / terms) ** 2)
