"""Five ways to train privately, as values: who adds noise, whom it protects, whom that asks to trust.

A mode holds what a researcher chooses. Its `noise` turns that and the public numbers of a job into the noise that is
executed, calibrated to (epsilon, delta) over all rounds or given as a multiplier; what that costs is in the same value.
Nothing here touches data, and where a mode rests on the coordinator's promise, `trusted` says so: such a mode never
satisfies an owner's rule that asks for differential privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fedpriv.errors import UsageError, nearest
from fedpriv.privacy import clipping
from fedpriv.privacy.accountants import check_delta
from fedpriv.privacy.calibration import LEAST, calibrate, gaussian_noise
from fedpriv.privacy.clipping import AdaptiveClip
from fedpriv.privacy.designs import Banded, Design, Tree, sensitivity
from fedpriv.privacy.mechanisms import Repeated, check_count, check_positive
from fedpriv.privacy.noises import CentralNoise, DistributedNoise, ExampleNoise, LocalNoise, TreeNoise
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.rounding import Rounding

DEFAULT_EPSILON = 3.0
"""What a mode aims at where neither epsilon nor a noise multiplier is given."""
LEAST_MULTIPLIER, LARGEST_MULTIPLIER = 1e-3, 1e4
"""Between these, noise can be drawn and its bill is a number; less than the least protects nobody."""
LEAST_CLIP, LARGEST_CLIP = 1e-6, 1e6
"""Between these, float32 holds a clipped update and its noise with all their digits."""
LEAST_UNITS = 1024.0
"""Integer units in a clip at least, so that rounding hardly shows beside the noise."""
LEAST_DEVIATION = 3.0
"""Integer units of discrete Gaussian noise at each worker: below, a sum of them costs more than its variance says."""


@dataclass(frozen=True, slots=True)
class _Aimed:
    """What every mode is given: the clip, and either what to aim at, epsilon and delta, or how much noise that is."""

    relation: ClassVar[Relation]

    clip: float = 1.0
    epsilon: float | None = None
    delta: float = 1e-5
    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        check_positive("clip", self.clip, "1.0; it is the largest L2 norm of what one unit contributes")
        check_delta(self.delta)
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise UsageError(
                f"epsilon {self.epsilon!r} and noise_multiplier {self.noise_multiplier!r} are both given; give one: "
                "the other follows"
            )
        if self.epsilon is not None:
            check_positive("epsilon", self.epsilon, "3.0")
        if self.noise_multiplier is not None:
            check_positive("noise_multiplier", self.noise_multiplier, "1.0")

    @property
    def target(self) -> float:
        """The epsilon that is aimed at where no noise multiplier is given."""
        return DEFAULT_EPSILON if self.epsilon is None else self.epsilon

    def multiplier(self, times: int) -> float:
        """Return the noise multiplier that was given, or that of Gaussian noise drawn `times` times in all."""
        found = self.noise_multiplier
        if found is None:
            found = gaussian_noise(epsilon=self.target, delta=self.delta, times=times, relation=self.relation)
        return checked_multiplier(found)


@dataclass(frozen=True, slots=True)
class CentralDP(_Aimed):
    """The coordinator adds Gaussian noise to the sum of clipped updates: protects each worker from whoever sees models.

    Workers clip; the noise is the coordinator's promise. `adaptive` lets the clip follow the updates' norms.
    """

    unit: ClassVar[str] = "worker"
    relation: ClassVar[Relation] = Relation.REPLACE_SPECIAL
    trusted: ClassVar[bool] = True

    adaptive: AdaptiveClip | None = None

    def noise(self, *, rounds: int, workers: int) -> CentralNoise:
        """Return the noise of a job of `rounds` rounds with `workers` expected in each, by which sums are divided.

        Raise `UsageError` where the clip is to adapt and that is infeasible with so few workers.
        """
        check_count("rounds", rounds)
        check_count("workers", workers)
        check_delta(self.delta, units=workers)
        multiplier = self.multiplier(rounds)
        parts = None if self.adaptive is None else clipping.split(multiplier, workers)
        clip = self.clip if self.adaptive is None else self.adaptive.clip
        return CentralNoise(clip, multiplier, workers, parts)


@dataclass(frozen=True, slots=True)
class DistributedDP(_Aimed):
    """Each worker adds its share of integer noise under secure aggregation: nobody has to be trusted with the sum.

    `mechanism` is "skellam" or "discrete-gaussian"; a clip has 2^scale_bits integer units for each 1.0, chosen from the
    dimension where it is None.
    """

    unit: ClassVar[str] = "worker"
    relation: ClassVar[Relation] = Relation.REPLACE_SPECIAL
    trusted: ClassVar[bool] = False
    MECHANISMS: ClassVar[tuple[str, ...]] = ("skellam", "discrete-gaussian")

    mechanism: str = "skellam"
    scale_bits: int | None = None

    def __post_init__(self) -> None:
        _Aimed.__post_init__(self)  # `super` knows no class that got its slots
        if self.mechanism not in self.MECHANISMS:
            known = " or ".join(map(repr, self.MECHANISMS))
            raise UsageError(
                f"mechanism is {self.mechanism!r}{nearest(str(self.mechanism), self.MECHANISMS)}; use {known}"
            )
        if self.scale_bits is not None and not (type(self.scale_bits) is int and -60 <= self.scale_bits <= 60):
            raise UsageError(f"scale_bits is {self.scale_bits!r}; use a whole number such as 10, or leave it out")

    def noise(
        self, *, rounds: int, workers: int, threshold: int, dimension: int, minimum: int = 3, colluding: int = 0
    ) -> DistributedNoise:
        """Return the noise of a job in which at least max(threshold, minimum) of `workers` are in each sum.

        Each worker's variance is the central one / (max(threshold, minimum) - colluding), so that neither dropouts
        nor `colluding` workers, who know and can leave out their own noise, thin it. Raise `UsageError` where that
        leaves nobody, where the target is out of reach at this scale, or the noise is too narrow or wide to be drawn.
        """
        for name, value in (("rounds", rounds), ("workers", workers), ("threshold", threshold), ("minimum", minimum)):
            check_count(name, value)
        check_delta(self.delta, units=workers)
        honest = max(threshold, minimum) - colluding
        if colluding < 0 or honest < 1 or max(threshold, minimum) > workers:
            raise UsageError(
                f"of {workers} workers at least {max(threshold, minimum)} are in a sum and {colluding} may collude: "
                "that leaves no honest one, or asks for more than there are; change the threshold or the colluders"
            )
        rounding = Rounding(self.clip, self._scale(dimension), dimension)
        multiplier = self.noise_multiplier
        if multiplier is None:
            multiplier = calibrate(
                lambda tried: Repeated(self._noise(rounding, tried, honest, workers).mechanism, rounds),
                epsilon=self.target,
                delta=self.delta,
                relation=self.relation,
                least=max(LEAST, math.sqrt(honest) / (rounding.clip * rounding.scale)),
            )
        noise = self._noise(rounding, checked_multiplier(multiplier), honest, workers)
        if self.mechanism == "discrete-gaussian" and noise.local_variance < LEAST_DEVIATION**2:
            raise UsageError(
                f"discrete Gaussian noise of deviation {math.sqrt(noise.local_variance):.3g} in integer units at each "
                f"worker is below {LEAST_DEVIATION:g}; use more scale_bits than {round(math.log2(rounding.scale))}, "
                "or 'skellam'"
            )
        return noise

    def _noise(self, rounding: Rounding, multiplier: float, honest: int, workers: int) -> DistributedNoise:
        central = (multiplier * rounding.clip * rounding.scale) ** 2
        return DistributedNoise(rounding, self.mechanism, multiplier, central / honest, honest, workers)

    def _scale(self, dimension: int) -> float:
        if self.scale_bits is not None:
            return 2.0**self.scale_bits
        check_count("dimension", dimension)
        return 2.0 ** math.ceil(math.log2(max(LEAST_UNITS, 8 * math.sqrt(dimension)) / self.clip))


@dataclass(frozen=True, slots=True)
class LocalDP(_Aimed):
    """Each worker adds all the noise to its own update before anybody sees it: protects it from everyone, at a price.

    With n workers the mean is as noisy as with a central noise of sqrt(n) times the deviation.
    """

    unit: ClassVar[str] = "worker"
    relation: ClassVar[Relation] = Relation.REPLACE_ONE
    trusted: ClassVar[bool] = False

    def noise(self, *, rounds: int) -> LocalNoise:
        """Return the noise of a job of `rounds` rounds."""
        check_count("rounds", rounds)
        return LocalNoise(self.clip, self.multiplier(rounds))


@dataclass(frozen=True, slots=True)
class ExampleDP(_Aimed):
    """Each worker trains by DP-SGD: protects every row from everyone, whatever else happens to the update.

    Abadi et al. 2016: gradients of single rows, clipped, summed, with noise, on Poisson samples.
    """

    unit: ClassVar[str] = "row"
    relation: ClassVar[Relation] = Relation.ADD_OR_REMOVE_ONE
    trusted: ClassVar[bool] = False

    def noise(self, *, rows: int, batch_size: int, rounds: int, steps: int) -> ExampleNoise:
        """Return the noise of a job of `rounds` rounds of `steps` steps each at one worker with `rows` announced rows.

        Each row enters each step with probability batch_size / rows, both public. Raise `UsageError` where that exceeds
        1, and where delta is not below 1 / rows.
        """
        for name, value in (("rows", rows), ("batch_size", batch_size), ("rounds", rounds), ("steps", steps)):
            check_count(name, value)
        check_delta(self.delta, units=rows)
        if batch_size > rows:
            raise UsageError(
                f"batch_size is {batch_size} and the data set announces {rows} rows; use at most that many"
            )
        rate = batch_size / rows
        multiplier = self.noise_multiplier
        if multiplier is None:
            multiplier = gaussian_noise(epsilon=self.target, delta=self.delta, times=rounds * steps, rate=rate)
        return ExampleNoise(self.clip, checked_multiplier(multiplier), rate, batch_size, steps)


@dataclass(frozen=True, slots=True)
class TreeDP(_Aimed):
    """The coordinator adds correlated noise to running sums: for workers that come and go as they like.

    DP-FTRL: no assumption on who takes part when, so nothing is gained by sampling. `bands` is None for a binary tree,
    else the bands of a matrix. A worker takes part in `participations` rounds at most (None: all of them), any two
    `separation` apart. The noise is the coordinator's promise.
    """

    unit: ClassVar[str] = "worker"
    relation: ClassVar[Relation] = Relation.REPLACE_SPECIAL
    trusted: ClassVar[bool] = True

    bands: int | None = None
    participations: int | None = None
    separation: int = 1

    def __post_init__(self) -> None:
        _Aimed.__post_init__(self)  # `super` knows no class that got its slots
        for name in ("bands", "participations"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("separation", self.separation)

    def noise(self, *, rounds: int, workers: int) -> TreeNoise:
        """Return the noise of a job of `rounds` rounds with `workers` expected in each, by which sums are divided."""
        check_count("workers", workers)
        check_delta(self.delta, units=workers)
        design: Design = Tree(rounds) if self.bands is None else Banded(rounds, self.bands)
        moved = sensitivity(design, rounds if self.participations is None else self.participations, self.separation)
        return TreeNoise(self.clip, self.multiplier(1), design, moved, workers)


def checked_multiplier(multiplier: float) -> float:
    """Return a noise multiplier that can be executed; raise `UsageError` for another."""
    if not LEAST_MULTIPLIER <= multiplier <= LARGEST_MULTIPLIER:
        raise UsageError(
            f"noise multiplier {multiplier:g} cannot be drawn or billed; use one from {LEAST_MULTIPLIER:g} to "
            f"{LARGEST_MULTIPLIER:g}, or ask for {'less' if multiplier < LEAST_MULTIPLIER else 'a larger'} epsilon"
        )
    return multiplier


def check_clip(clip: float) -> None:
    """Raise `UsageError` for a clip with which no job runs."""
    if not LEAST_CLIP <= clip <= LARGEST_CLIP:
        raise UsageError(f"a clip of {clip:g}; use one from {LEAST_CLIP:g} to {LARGEST_CLIP:g}")


Mode = CentralDP | DistributedDP | LocalDP | ExampleDP | TreeDP
