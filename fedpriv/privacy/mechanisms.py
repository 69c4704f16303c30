"""What noise was added to what, as values: enough to bill it, and nothing about the data.

A mechanism releases a vector sum of contributions, each of bounded norm, plus noise. Its numbers are those of the noise
that was executed, so that a bill made from the value is a bill for what happened. Sensitivities are those of one
contribution that is there or is zero; `relations.Relation` doubles them where one may be replaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from fedpriv.errors import UsageError

MINIMUM_LOCAL_DEVIATION = 0.5
"""Integer units; below, the bound for a sum of discrete Gaussians does not hold (Kairouz et al. 2021, Theorem 1)."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian noise of standard deviation `noise_multiplier` times the L2 sensitivity."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier, "1.0")


@dataclass(frozen=True, slots=True)
class Skellam:
    """Skellam noise of variance `variance` in the sum of integer vectors, one contribution within `l2` and `l1`.

    All three in integer units: variance as units squared. A sum of Skellam variables is one, so this is the noise in
    the sum, whoever added it. Agarwal, Kairouz, Liu 2021.
    """

    variance: float
    l2: float
    l1: float

    def __post_init__(self) -> None:
        check_positive("variance", self.variance, "a variance in integer units, such as 1e4")
        _check_sensitivities(self.l2, self.l1)


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """Discrete Gaussian noise of variance `variance` in each of `terms` integer vectors of `dimension` values.

    The variance is that of one term, in integer units squared. With one term it is the mechanism of Canonne, Kamath,
    Steinke 2020, with several that of Kairouz, Liu, Steinke 2021: their sum is no discrete Gaussian, but close to one.
    """

    variance: float
    l2: float
    l1: float
    dimension: int
    terms: int = 1

    def __post_init__(self) -> None:
        check_positive("variance", self.variance, "a variance in integer units, such as 1e4")
        _check_sensitivities(self.l2, self.l1)
        check_count("dimension", self.dimension)
        check_count("terms", self.terms)
        if self.terms > 1 and self.variance < MINIMUM_LOCAL_DEVIATION**2:
            raise UsageError(
                f"each of {self.terms} terms has variance {self.variance:g}, below {MINIMUM_LOCAL_DEVIATION**2:g}: no "
                "bound is known for their sum; use a larger scale, or Skellam noise"
            )


@dataclass(frozen=True, slots=True)
class PoissonSampled:
    """A Gaussian on a sample that each record enters independently with probability `rate`.

    Claim it only where that is how the sample was drawn: for a batch of fixed size the true cost can be ten times as
    much.
    """

    rate: float
    mechanism: Gaussian

    def __post_init__(self) -> None:
        if not (is_number(self.rate) and 0 < self.rate <= 1):
            raise UsageError(f"a sampling rate is {self.rate!r}; use a number above 0 and up to 1")
        if not isinstance(self.mechanism, Gaussian):
            raise UsageError(
                f"{type(self.mechanism).__name__} under Poisson sampling has no bound here; sample a Gaussian, or "
                "charge it without sampling"
            )


@dataclass(frozen=True, slots=True)
class Repeated:
    """One mechanism `times` times over, each on whatever was learned before."""

    mechanism: Single
    times: int

    def __post_init__(self) -> None:
        check_count("times", self.times)
        if not isinstance(self.mechanism, Single):
            raise UsageError(f"{type(self.mechanism).__name__} cannot be repeated; repeat one of its parts")


@dataclass(frozen=True, slots=True)
class Together:
    """Several mechanisms on the same data."""

    mechanisms: tuple[Single | Repeated, ...]

    def __post_init__(self) -> None:
        if not self.mechanisms:
            raise UsageError("no mechanism is given; name what was released, or charge nothing")
        for each in self.mechanisms:
            if not isinstance(each, Single | Repeated):
                raise UsageError(f"{type(each).__name__} cannot be a part of several; name its parts themselves")


Single: TypeAlias = Gaussian | Skellam | DiscreteGaussian | PoissonSampled
Mechanism: TypeAlias = Single | Repeated | Together


def over_rounds(mechanism: Single | Repeated, rounds: int) -> Repeated:
    """Return what `rounds` rounds cost together where each costs `mechanism`."""
    ((inner, times),) = parts_of(mechanism)
    return Repeated(inner, times * rounds)


def name_of(mechanism: Mechanism) -> str:
    """Return what the noise is called in a ledger entry and in a bill: "gaussian", "skellam" and so on."""
    match mechanism:
        case Gaussian():
            return "gaussian"
        case Skellam():
            return "skellam"
        case DiscreteGaussian():
            return "discrete-gaussian"
        case PoissonSampled():
            return "poisson-sampled-gaussian"
        case Repeated(inner):
            return name_of(inner)
        case Together(parts):
            return "+".join(dict.fromkeys(map(name_of, parts)))


def parts_of(mechanism: Mechanism) -> tuple[tuple[Single, int], ...]:
    """Return each single mechanism with how often it ran."""
    match mechanism:
        case Repeated(inner, times):
            return ((inner, times),)
        case Together(parts):
            return tuple(pair for each in parts for pair in parts_of(each))
        case _:
            return ((mechanism, 1),)


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_positive(name: str, value: object, example: str) -> None:
    """Raise `UsageError` unless `value` is a finite number above 0; `example` says what to use."""
    if not (isinstance(value, int | float) and is_number(value) and value > 0):
        raise UsageError(f"{name} is {value!r}; use a finite number above 0: {example}")


def check_count(name: str, value: object) -> None:
    """Raise `UsageError` unless `value` is a whole number of at least 1."""
    if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise UsageError(f"{name} is {value!r}; use a whole number of at least 1")


def _check_sensitivities(l2: float, l1: float) -> None:
    check_positive("l2", l2, "the largest L2 norm of one contribution in integer units")
    check_positive("l1", l1, "the largest L1 norm of one contribution in integer units")
    if l1 < l2 * (1 - 1e-12):
        raise UsageError(f"l1 is {l1:g} and l2 {l2:g}; no vector has an L1 norm below its L2 norm")
