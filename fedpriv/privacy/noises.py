"""The noise of a job as it is executed: made by a mode from public numbers, the same at whoever adds and whoever bills.

Each value has `mechanism`, which is what a release costs (`accountants.cost_of`), and the part that draws the noise,
made from the same numbers, so that what is billed is what was added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.entropy import Entropy
from fedpriv.privacy.calibration import sampled
from fedpriv.privacy.clipping import BIT, SplitNoise
from fedpriv.privacy.designs import Design
from fedpriv.privacy.lattice import LatticeGaussian
from fedpriv.privacy.mechanisms import DiscreteGaussian, Gaussian, Repeated, Skellam
from fedpriv.privacy.rounding import Rounding
from fedpriv.privacy.running_sums import RunningSums
from fedpriv.privacy.samplers import SAMPLERS, IntegerNoise, Values


@dataclass(frozen=True, slots=True)
class CentralNoise:
    """Gaussian noise on the sum of updates of norm `clip`, divided by `workers`, whoever really came.

    `parts` is how the noise is split between updates and bits where the clip adapts, else None.
    """

    clip: float
    multiplier: float
    workers: int
    parts: SplitNoise | None = None

    @property
    def mechanism(self) -> Gaussian:
        """What one round costs each worker: updates and bits together."""
        return Gaussian(self.multiplier)

    def lattice(self, dimension: int, clip: float | None = None) -> LatticeGaussian:
        """Return the noise for the sum of updates, shape (dimension,); `clip` is this round's, where it adapts."""
        multiplier = self.multiplier if self.parts is None else self.parts.multiplier
        return LatticeGaussian(self.clip if clip is None else clip, multiplier, dimension)

    def bits(self) -> LatticeGaussian:
        """Return the noise for the sum of bits, shape (1,); only where the clip adapts."""
        assert self.parts is not None
        return LatticeGaussian(BIT, self.parts.bits_deviation / BIT, 1)


@dataclass(frozen=True, slots=True)
class DistributedNoise:
    """Integer noise of variance `local_variance` from each worker; that of `honest` of them is what is billed."""

    rounding: Rounding
    kind: str
    multiplier: float
    local_variance: float
    honest: int
    workers: int

    @property
    def mechanism(self) -> Skellam | DiscreteGaussian:
        """What one round costs each worker at worst: with the noise of `honest` workers alone."""
        l2, l1 = self.rounding.l2, self.rounding.l1
        if self.kind == "skellam":
            return Skellam(self.local_variance * self.honest, l2, l1)
        return DiscreteGaussian(self.local_variance, l2, l1, self.rounding.dimension, self.honest)

    @property
    def price(self) -> float:
        """How many times the billed variance is executed when nobody drops out: the price of tolerating it."""
        return self.workers / self.honest

    @property
    def total_variation(self) -> float:
        """How far the noise of one round is from the ideal one; `accountants.guarantee_of` takes it from delta."""
        return self.workers * self.rounding.dimension * self._sampler().total_variation

    @property
    def ring_bits(self) -> int:
        """Bits of a ring in which no sum of all workers' contributions can wrap: ceil(log2(sum + 1)) + 1."""
        return (self.workers * math.floor(self.rounding.l2) + self.largest).bit_length() + 1

    @property
    def scale_bits(self) -> int:
        """The binary logarithm of the scale."""
        return round(math.log2(self.rounding.scale))

    @property
    def largest(self) -> int:
        """The largest value that the noise of all workers together can have, in integer units."""
        return -self.workers * self._sampler().table.least

    def contribution(self, values: npt.NDArray[np.floating], entropy: Entropy) -> Values:
        """Return a worker's clipped, rounded and noisy update, int64 of shape (d,), to be masked.

        Divide a sum of contributions by `rounding.scale` times the expected number of workers.
        """
        rounded = self.rounding.rounded(values, entropy)
        rounded += self._sampler().sample(len(rounded), entropy)
        return rounded

    def _sampler(self) -> IntegerNoise:
        return SAMPLERS[self.kind](self.local_variance)


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """Gaussian noise of `multiplier` times the clip, on one worker's own update."""

    clip: float
    multiplier: float

    @property
    def mechanism(self) -> Gaussian:
        """What one round costs the worker; under REPLACE_ONE, which counts the distance between two updates."""
        return Gaussian(self.multiplier)

    def lattice(self, dimension: int) -> LatticeGaussian:
        """Return the noise for one clipped update, shape (dimension,)."""
        return LatticeGaussian(self.clip, self.multiplier, dimension)


@dataclass(frozen=True, slots=True)
class ExampleNoise:
    """Gaussian noise of `multiplier` times the clip on sums of clipped gradients over Poisson samples at `rate`.

    `steps` is of one round; sums are divided by `batch_size`, a public number, never by how many rows were drawn.
    """

    clip: float
    multiplier: float
    rate: float
    batch_size: int
    steps: int

    @property
    def mechanism(self) -> Repeated:
        """What one round costs each row."""
        return Repeated(sampled(self.multiplier, self.rate), self.steps)

    def lattice(self, dimension: int) -> LatticeGaussian:
        """Return the noise for the sum of one step, shape (dimension,)."""
        return LatticeGaussian(self.clip, self.multiplier, dimension)


@dataclass(frozen=True, slots=True)
class TreeNoise:
    """Correlated Gaussian noise on running sums; one worker moves all noisy sums by `moved` clips together."""

    clip: float
    multiplier: float
    design: Design
    moved: float
    workers: int

    @property
    def mechanism(self) -> Gaussian:
        """What ALL rounds of the job cost each worker, charged once and before the first of them."""
        return Gaussian(self.multiplier)

    def running_sums(self, dimension: int) -> RunningSums:
        """Return the machine that makes the job's sums, shape (dimension,) each, noisy."""
        values = self.design.rounds * dimension
        return RunningSums(self.design, LatticeGaussian(self.clip * self.moved, self.multiplier, values))


Noise = CentralNoise | DistributedNoise | LocalNoise | ExampleNoise | TreeNoise


def check_drawn(noise: Noise, dimension: int) -> None:
    """Raise `UsageError` where noise so small or large cannot be drawn for updates of `dimension` values."""
    match noise:
        case CentralNoise() | LocalNoise() | ExampleNoise():
            noise.lattice(dimension)
        case TreeNoise():
            noise.running_sums(dimension)
        case DistributedNoise():
            noise.largest  # noqa: B018  makes the table
