"""The least noise for a target: (epsilon, delta) over a number of rounds, with or without sampling.

Calibrated by RDP, since RDP is what a budget and a rule enforce: noise found by PLD would be refused by them. A target
that no noise reaches raises, and says what is reachable. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

from fedpriv.errors import UsageError
from fedpriv.privacy.accountants import ACCOUNTANTS, RDP, check_delta
from fedpriv.privacy.mechanisms import Gaussian, Mechanism, PoissonSampled, Repeated, check_count, check_positive
from fedpriv.privacy.relations import Relation

LEAST, MOST = 1e-2, 2.0**20
"""Noise multipliers that are tried."""
STEP = 1.5
TOLERANCE = 1e-6
"""Relative: how far above the least noise the found one may be."""


def calibrate(
    mechanism: Callable[[float], Mechanism],
    *,
    epsilon: float,
    delta: float,
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    accountant: str = RDP,
    least: float = LEAST,
    most: float = MOST,
) -> float:
    """Return the least noise multiplier z, `least` to `most`, for which `mechanism(z)` is (epsilon, delta)-private.

    More noise must not cost more. Raise `UsageError` where `most` is not enough, with the epsilon that it reaches.
    """
    check_positive("epsilon", epsilon, "3.0")
    check_delta(delta)
    judge = ACCOUNTANTS[accountant]
    if (reached := judge(mechanism(most), delta, relation)) > epsilon:
        raise UsageError(
            f"epsilon {epsilon:g} at delta {delta:g} is out of reach: noise multiplier {most:g} still costs epsilon "
            f"{reached:.4g}; ask for that much, for fewer rounds, or for a finer scale where the noise is discrete"
        )
    low, high = least, most
    if judge is not ACCOUNTANTS[RDP]:
        # a loss distribution of little noise is vast, so the search keeps near what RDP asks for
        high = calibrate(mechanism, epsilon=epsilon, delta=delta, relation=relation, least=least, most=most)
        low = max(least, high / STEP)
    while judge(mechanism(low), delta, relation) <= epsilon:
        if low <= least:
            return least
        low, high = max(least, low / STEP), low
    while high > low * (1 + TOLERANCE):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if judge(mechanism(middle), delta, relation) <= epsilon else (middle, high)
    return high


def gaussian_noise(
    *,
    epsilon: float,
    delta: float,
    times: int,
    rate: float = 1.0,
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    accountant: str = RDP,
    most: float = MOST,
) -> float:
    """Return the least noise multiplier of a Gaussian, released `times` over samples at `rate`, for the target."""
    check_count("times", times)
    return calibrate(
        lambda multiplier: Repeated(sampled(multiplier, rate), times),
        epsilon=epsilon,
        delta=delta,
        relation=relation,
        accountant=accountant,
        most=most,
    )


def sampled(multiplier: float, rate: float) -> Gaussian | PoissonSampled:
    """Return a Gaussian on a Poisson sample at `rate`, or on everything where the rate is 1."""
    return Gaussian(multiplier) if rate == 1 else PoissonSampled(rate, Gaussian(multiplier))
