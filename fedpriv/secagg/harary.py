"""The degree k and threshold t of a Harary graph, from how many workers are hostile and how many may be lost.

The search is that of Bell et al. (CCS 2020) in the semi-malicious model: no worker's neighbours hold a majority of
hostile shares, the honest ones stay connected, and no secret is lost with those that drop out, but for a probability
of 2**-security and 2**-correctness. A coordinator with colluding workers can try many permutations, so the default is
2**-80: after 2**40 tries 2**-40 is left. Nothing more is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from fedpriv.errors import UsageError

SECURITY_BITS = 80
CORRECTNESS_BITS = 20
LOOK_AHEAD = 256
"""How many workers more are tried, to say from which number on there is a graph."""


@dataclass(frozen=True, slots=True)
class Population:
    """Workers of a round, how many of them at most are hostile, and how many honest ones may be lost."""

    workers: int
    hostile: int
    lost: int

    @classmethod
    def of(cls, workers: int, hostile: Fraction, lost: Fraction) -> Population:
        """Return floor(gamma n) hostile and floor(delta n) lost of n `workers`."""
        return cls(workers, math.floor(hostile * workers), math.floor(lost * workers))


@dataclass(frozen=True, slots=True)
class Choice:
    """An even degree, and how many of a worker's neighbours reconstruct its secrets."""

    degree: int
    threshold: int


def search(
    population: Population,
    *,
    security_bits: int = SECURITY_BITS,
    correctness_bits: int = CORRECTNESS_BITS,
    semi_honest: bool = False,
) -> Choice:
    """Return the least degree that is safe and correct, and its threshold; A.2.

    Raises `UsageError` where no graph thinner than the complete one is. `semi_honest` is for comparison with published
    values only; no worker accepts it.
    """
    for degree in range(2, population.workers - 1, 2):
        if not connected(population, degree, security_bits):
            continue
        below = _least_unsafe(population, degree, security_bits, semi_honest=semi_honest)
        if _largest_correct(population, degree, correctness_bits) > below:
            return Choice(degree, max(below + 1, 2))
    raise UsageError(
        f"no Harary graph is safe for {population.workers} workers of which {population.hostile} may be hostile and "
        f"{population.lost} lost; use the complete graph"
    )


def advised(workers: int, hostile: Fraction, lost: Fraction, enrolled: int) -> tuple[Population, Choice]:
    """Return whom a graph over `workers` of those `enrolled` must stand, and the least one that does.

    `hostile` is a share of the enrolled, all of whom may be among the workers, and `lost` one of the workers.

    Raises `UsageError` where there is none, saying how many may be lost instead, and how many workers it takes.
    """
    most = min(workers, math.floor(hostile * enrolled))
    population = Population(workers, most, math.floor(lost * workers))
    try:
        return population, search(population)
    except UsageError as refusal:
        shares = f"colluding is {float(hostile):.3g} of {enrolled} enrolled, lost is {float(lost):.3g}"
        raise UsageError(f"{shares}: {refusal}; {_possible(population, hostile, lost)}") from None


def _possible(population: Population, hostile: Fraction, lost: Fraction) -> str:
    """Return what else there is a graph for, in words."""
    n = population.workers
    fewer = (each for each in range(population.lost - 1, -1, -1) if _exists(Population(n, population.hostile, each)))
    more = (each for each in range(n + 1, n + LOOK_AHEAD + 1) if _exists(Population.of(each, hostile, lost)))
    may_be_lost, enough = next(fewer, None), next(more, None)
    here = f"lower lost: of {n} workers {may_be_lost} may be lost"
    if may_be_lost is None:
        here = f"lower colluding: there is none for {n} workers even if none may be lost"
    there = f"up to {n + LOOK_AHEAD} workers there is none" if enough is None else f"it takes {enough} workers or more"
    return f"or {here}; with these shares {there}"


def _exists(population: Population) -> bool:
    try:
        search(population)
    except UsageError:
        return False
    return True


def least_safe_threshold(population: Population, degree: int, security_bits: int = SECURITY_BITS) -> int:
    """Return the least threshold at which a semi-malicious coordinator learns both secrets of nobody."""
    return max(_least_unsafe(population, degree, security_bits, semi_honest=False) + 1, 2)


def connected(population: Population, degree: int, security_bits: int = SECURITY_BITS) -> bool:
    """Return whether the honest workers that stay are one component, but for 2**-security; A.2, the union bound."""
    n, removed = population.workers, population.hostile + population.lost
    if degree > removed:
        return True
    if n - degree - 1 < 1 or removed - degree + 1 < 1:
        return False
    logarithm = math.log(n) + math.log(n - degree - 1) - math.log(2)
    logarithm += math.lgamma(removed + 1) + math.lgamma(n - degree + 1)
    logarithm -= math.lgamma(n + 1) + math.lgamma(removed - degree + 1)
    return logarithm < -(security_bits + 1) * math.log(2)


def _least_unsafe(population: Population, degree: int, bits: int, *, semi_honest: bool) -> int:
    """Return t1: the least t that more hostile neighbours reach only with 2**-(bits + 1) / n, made semi-malicious."""
    limit = math.ldexp(1 / population.workers, -(bits + 1))
    tail, least = 0.0, degree
    while (tail := tail + _hypergeometric(population.workers, population.hostile, degree, least)) <= limit:
        least -= 1
    return least if semi_honest else math.ceil((least + degree - 1.25) / 2)


def _largest_correct(population: Population, degree: int, bits: int) -> int:
    """Return t2: the largest t that fewer surviving neighbours miss only with 2**-bits / n."""
    limit = math.ldexp(1 / population.workers, -bits)
    staying = population.workers - population.lost
    tail, largest = 0.0, 0
    while (tail := tail + _hypergeometric(population.workers, staying, degree, largest)) <= limit:
        largest += 1
    return largest


def _hypergeometric(n: int, marked: int, draws: int, count: int) -> float:
    """Return Pr[HG(n, marked, draws) = count]."""
    if not max(0, draws - (n - marked)) <= count <= min(draws, marked):
        return 0.0
    return math.exp(_choose(marked, count) + _choose(n - marked, draws - count) - _choose(n, draws))


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
