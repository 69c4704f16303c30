"""Gaussian noise that has no floating point to attack: sum and noise are whole multiples of a power of two.

Continuous noise made of floats has gaps, and which floats can occur tells of the value below the noise (Mironov 2012).
Here a vector is rounded to a grid whose size depends on public numbers only, and a discrete Gaussian is added in
integers. Rounding can move neighbours apart by sqrt(d) steps of the grid: the noise covers that distance too, so that
the mechanism costs no more than the continuous Gaussian of its noise multiplier (Canonne, Kamath, Steinke 2020,
Theorem 14). The grid is fine enough that this takes at most 2 % more noise.

A discrete Gaussian of large deviation is made of two small ones, a X + Y of deviations s and u. Each probability of
the sum is that of the discrete Gaussian of variance a^2 s^2 + u^2 to within a factor of 1 +- 5 exp(-2 pi^2 t^2), where
1/t^2 = 1/s^2 + a^2/u^2 (Poisson summation; Micciancio, Peikert 2013, Theorem 3.3). t is at least 2 here: below 2^-111.
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
from fedpriv.privacy.samplers import Integers, fill, stream_of
from fedpriv.privacy.tables import Table

Reals = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64] | npt.NDArray[np.float32]

BLOCK = 1 << 15
"""Values that are made noisy at once, inside the cache."""
_STEPS = 50.0
"""Grid steps in the sensitivity for each sqrt(d), at the least: rounding then costs 2 % or less."""
_OVERLAP = 2.2
"""Deviation of the second discrete Gaussian in steps of the first."""
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
    _coarse: Table | None = field(init=False, repr=False)
    _fine: Table = field(init=False, repr=False)
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
        factor, coarse, fine, gap = _split(needed)
        variance = needed**2 if coarse is None else factor**2 * coarse + fine
        held = {
            "grid": grid,
            "variance": variance,
            "_factor": factor,
            "_coarse": None if coarse is None else tables.discrete_gaussian(coarse),
            "_fine": tables.discrete_gaussian(fine),
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
        one = self._fine.total_variation + (0.0 if self._coarse is None else self._coarse.total_variation)
        return self.dimension * (one + self._gap)

    def noisy(self, total: npt.NDArray[np.floating], entropy: Entropy, out: Floats | None = None) -> Floats:
        """Return `total`, shape (n,), on the grid with noise added, in its own dtype if that can hold the grid.

        The `dimension` values may come in several calls, whose sensitivity is taken together. Results are whole
        multiples of `grid`, in float32 rounded once more where they exceed 2^24 of them. A value that is no number
        counts as the least one, a value beyond 2^50 grid steps, in float32 2^30, as the last there is: neither moves
        neighbours further apart than clipped contributions do, which the caller keeps finite. Into `out`, if given.
        """
        if total.ndim != 1 or len(total) > self.dimension:
            raise UsageError(f"the sum has shape {total.shape}; this noise is for at most ({self.dimension},)")
        narrow = total.dtype == np.float32 and 2.0**-90 < self.grid < 2.0**90
        kind, whole, largest = _NARROW if narrow else _WIDE
        stream = stream_of(entropy)
        result: npt.NDArray[Any] = np.empty(len(total), kind) if out is None else out
        steps: npt.NDArray[Any] = np.empty(min(BLOCK, len(total)), kind)
        drawn = np.empty((2, len(steps)), np.int32)
        for start in range(0, len(total), BLOCK):
            block = result[start : start + BLOCK]
            size = len(block)
            rounded = steps[:size]
            with np.errstate(over="ignore", invalid="ignore"):
                np.multiply(total[start : start + BLOCK], kind(1 / self.grid), out=rounded)
            np.rint(rounded, out=rounded)
            # not by a scalar product: OpenBLAS wakes threads for one, which costs more than all the rest
            np.fmin(np.fmax(rounded, -largest, out=rounded), largest, out=rounded)
            noise = self._drawn(drawn[:, :size], stream)
            block[:] = rounded.astype(whole) + noise
            block *= kind(self.grid)
        return result

    def _drawn(self, drawn: npt.NDArray[np.int32], stream: Entropy) -> Integers:
        noise: Integers = drawn[0]
        coarse: Integers = drawn[1]
        fill(self._fine, noise, stream)
        if self._coarse is not None:
            fill(self._coarse, coarse, stream)
            coarse *= self._factor
            noise += coarse
        return noise


def _split(deviation: float) -> tuple[int, float | None, float, float]:
    """Return factor, variance of the coarse part or None, variance of the fine part, and their gap (see the module)."""
    if deviation <= _ALONE:
        return 1, None, deviation**2, 0.0
    if deviation > _WIDEST:
        raise UsageError(
            f"noise of {deviation:.3g} grid steps is more than {_WIDEST:g}, the most that is drawn; use less noise, or "
            "ask for a larger epsilon"
        )
    factor = 1 << round(math.log2(math.sqrt(deviation / _OVERLAP)))
    fine = (_OVERLAP * factor) ** 2
    coarse = (deviation**2 - fine) / factor**2
    narrow = 1 / (1 / coarse + factor**2 / fine)
    return factor, coarse, fine, 5 * math.exp(-2 * math.pi**2 * narrow)
