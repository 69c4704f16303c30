"""Renyi divergence of each mechanism at the orders of `budget.ORDERS`, as bounds from papers.

Poisson-sampled Gaussians are dp-accounting's; Gaussian, discrete Gaussian and Skellam are written here, since
dp-accounting 0.6.0 has no event for the two discrete ones. Every value is rounded up. The relation's distance scales
the sensitivity here: the RDP accountant of dp-accounting takes REPLACE_ONE for a Gaussian without doubling anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from fedpriv.errors import UsageError
from fedpriv.privacy.budget import ORDERS, total_of
from fedpriv.privacy.events import accounting, dp_event
from fedpriv.privacy.mechanisms import (
    DiscreteGaussian,
    Gaussian,
    Mechanism,
    PoissonSampled,
    Single,
    Skellam,
    parts_of,
)
from fedpriv.privacy.relations import Relation


def rdp_of(mechanism: Mechanism, relation: Relation) -> tuple[float, ...]:
    """Return the RDP of `mechanism` for neighbours under `relation`, one value for each of `ORDERS`.

    Raise `UsageError` for a Poisson-sampled mechanism under REPLACE_ONE, which has no bound here.
    """
    return total_of(tuple(_up(times * loss) for loss in _single(each, relation)) for each, times in parts_of(mechanism))


@lru_cache(maxsize=256)
def _single(mechanism: Single, relation: Relation) -> tuple[float, ...]:
    far = relation.distance
    match mechanism:
        case Gaussian(multiplier):
            return _at_orders(lambda order: gaussian(order, far / multiplier))
        case Skellam(variance, l2, l1):
            return _at_orders(lambda order: skellam(order, variance, far * l2, far * l1))
        case DiscreteGaussian(variance, l2, l1, dimension, terms):
            gap = _gap(variance, terms)
            scale = far / math.sqrt(terms * variance)
            return _at_orders(lambda order: discrete_gaussian(order, scale * l2, scale * l1, gap, dimension))
        case PoissonSampled(rate, inner):
            return _sampled(rate, inner.noise_multiplier, relation)


def gaussian(order: float, sensitivity: float) -> float:
    """Return a s^2 / 2, s the sensitivity in standard deviations of the noise (Mironov 2017, Corollary 3)."""
    return order * sensitivity**2 / 2


def skellam(order: float, variance: float, l2: float, l1: float) -> float:
    """Return a l2^2/(2v) + min(((2a-1) l2^2 + 6 l1)/(4 v^2), 3 l1/(2v)), all in integer units.

    Agarwal, Kairouz, Liu 2021, Theorem 3.5, which holds for whole orders; for any other the next whole order is
    taken, since a Renyi divergence grows with its order.
    """
    whole = math.ceil(order)
    excess = min(((2 * whole - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return whole * l2**2 / (2 * variance) + excess


def discrete_gaussian(order: float, l2: float, l1: float, gap: float, dimension: int) -> float:
    """Return a/2 min(l2^2 + 2 g l1 + g^2 d, (l2 + g sqrt(d))^2): l2 and l1 in deviations of the noise in the sum.

    Kairouz, Liu, Steinke 2021, Proposition 14; with gap g = 0 it is Canonne, Kamath, Steinke 2020, Theorem 14.
    """
    return order / 2 * min(l2**2 + 2 * gap * l1 + gap**2 * dimension, (l2 + gap * math.sqrt(dimension)) ** 2)


def _gap(variance: float, terms: int) -> float:
    """Return g = 10 sum_{k<n} exp(-2 pi^2 v k/(k+1)): how far a sum of n terms is from one discrete Gaussian.

    No term exceeds the first, so a sum over many is bounded by the first times their number.
    """
    if terms == 1:
        return 0.0
    near = min(terms - 1, 1000)
    summed = math.fsum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, near + 1))
    return 10 * (summed + (terms - 1 - near) * math.exp(-(math.pi**2) * variance))


def _sampled(rate: float, multiplier: float, relation: Relation) -> tuple[float, ...]:
    """Return dp-accounting's RDP of a Poisson-sampled Gaussian (Mironov, Talwar, Zhang 2019)."""
    if relation is Relation.REPLACE_ONE:
        raise UsageError(
            "no RDP bound is known here for Poisson sampling where a record may be replaced; bill it as "
            "ADD_OR_REMOVE_ONE, or as a mechanism without sampling"
        )
    if rate == 1:
        return _at_orders(lambda order: gaussian(order, 1 / multiplier))
    accountant = accounting().rdp.RdpAccountant(ORDERS)
    accountant.compose(dp_event(PoissonSampled(rate, Gaussian(multiplier))))
    plain = _at_orders(lambda order: gaussian(order, 1 / multiplier))  # what sampling never exceeds, and never infinite
    losses = accountant._rdp  # noqa: SLF001  it has no public name
    return tuple(min(_up(max(0.0, float(loss))), most) for loss, most in zip(losses, plain, strict=True))


def _at_orders(loss: Callable[[float], float]) -> tuple[float, ...]:
    return tuple(_up(loss(order)) for order in ORDERS)


def _up(value: float) -> float:
    return math.nextafter(value, math.inf) if value > 0 else 0.0
