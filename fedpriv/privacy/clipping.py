"""A clip that follows a quantile of the norms of updates: next clip from this one and a noisy share. Pure.

Andrew, Thakkar, McMahan, Ramaswamy 2021. Each worker adds one bit to the sum, whether its norm was within the clip; the
noise on the bits and the noise on the updates together cost what the noise multiplier alone would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedpriv.errors import UsageError
from fedpriv.privacy.mechanisms import check_count, check_positive, is_number

LEAST, MOST = 2.0**-40, 2.0**40
"""Bounds of a clip: noisy shares may lie far outside 0 to 1, and a clip must stay a number."""
BIT = 0.5
"""A bit counts as +1/2 or -1/2, so that one worker moves the sum of bits by no more than this."""


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """A clip on its way to the norm below which the share `quantile` of updates lies.

    `after` gives C exp(-learning_rate (share - quantile)).
    """

    clip: float = 0.1
    quantile: float = 0.5
    learning_rate: float = 0.2

    def __post_init__(self) -> None:
        check_positive("clip", self.clip, "0.1")
        check_positive("learning_rate", self.learning_rate, "0.2")
        if not (is_number(self.quantile) and 0 <= self.quantile <= 1):
            raise UsageError(f"quantile is {self.quantile!r}; use a number from 0 to 1, such as 0.5")

    def after(self, share: float) -> AdaptiveClip:
        """Return the clip for the next round, `share` being the (noisy) share of updates within this one.

        A share that is no number leaves the clip as it is.
        """
        if not math.isfinite(share):
            return self
        exponent = min(max(-self.learning_rate * (share - self.quantile), -100.0), 100.0)
        return replace(self, clip=min(max(self.clip * math.exp(exponent), LEAST), MOST))


def bit_of(norm: float, clip: float) -> float:
    """Return what a worker adds to the sum of bits: +1/2 for an update within the clip, -1/2 for another."""
    return BIT if norm <= clip else -BIT


def share_of(total: float, workers: int) -> float:
    """Return the share of updates within the clip from the noisy sum of bits of `workers`, a fixed public number."""
    check_count("workers", workers)
    return total / workers + BIT


@dataclass(frozen=True, slots=True)
class SplitNoise:
    """Noise multiplier of the updates, and standard deviation of the sum of bits, that cost one noise together."""

    multiplier: float
    bits_deviation: float


def split(multiplier: float, workers: int, bits_share: float = 0.05) -> SplitNoise:
    """Return the noise for updates and bits that together cost noise multiplier z = `multiplier`.

    The bits get deviation s = bits_share workers, the updates z' = (z^-2 - (2s)^-2)^(-1/2). Raise `UsageError` where
    z >= 2s: the bits alone would cost more than is allowed.
    """
    check_positive("multiplier", multiplier, "1.0")
    check_positive("bits_share", bits_share, "0.05")
    check_count("workers", workers)
    deviation = bits_share * workers
    if multiplier >= deviation / BIT:
        least = math.floor(multiplier * BIT / bits_share) + 1
        raise UsageError(
            f"a clip cannot adapt at noise multiplier {multiplier:g} with {workers} workers: their bits alone would "
            f"cost more; use a fixed clip, at least {least} workers, or less noise than {deviation / BIT:g}"
        )
    return SplitNoise((multiplier**-2 - (BIT / deviation) ** 2) ** -0.5, deviation)
