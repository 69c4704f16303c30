"""Correlated noise for running sums: which sums are made noisy, and how far one worker can move them all. Pure.

A design is a lower triangular matrix C without negative entries. In round t the sum C[t] of the rounds so far is made
noisy, and the running sum is put together from noisy sums: a worker that takes part in many rounds is covered without
any assumption on sampling. Denisov et al. 2022 for the mechanism under adaptive choices; Kairouz et al. 2021 for trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError
from fedpriv.privacy.mechanisms import check_count

Matrix = npt.NDArray[np.float64]
MAXIMUM_ROUNDS = 4096
"""The sensitivity takes a matrix of rounds by rounds."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Binary tree: round t makes the sum of the last 2^v rounds noisy, 2^v the largest power of two that divides t.

    Every running sum is a sum of at most log2(rounds) + 1 of these (Honaker 2015; Kairouz et al. 2021, Appendix B).
    """

    rounds: int

    def __post_init__(self) -> None:
        _check_rounds(self.rounds)

    def matrix(self) -> Matrix:
        """Return C, shape (rounds, rounds)."""
        design = np.zeros((self.rounds, self.rounds))
        for each in range(1, self.rounds + 1):
            design[each - lowest_bit(each) : each, each - 1] = 1.0
        return np.ascontiguousarray(design.T)


@dataclass(frozen=True, slots=True)
class Banded:
    """Band of the square root of the matrix of running sums: c_0 = 1, c_k = c_{k-1} (2k - 1)/(2k), k below `bands`.

    One band is independent noise in each round. McMahan et al. 2024 (BLT), Kalinin, Lampert 2024 (banded square root).
    """

    rounds: int
    bands: int

    def __post_init__(self) -> None:
        _check_rounds(self.rounds)
        check_count("bands", self.bands)

    def coefficients(self) -> tuple[float, ...]:
        """Return c_0, c_1 and so on, at most one for each round."""
        found = [1.0]
        for at in range(1, min(self.bands, self.rounds)):
            found.append(found[-1] * (2 * at - 1) / (2 * at))
        return tuple(found)

    def matrix(self) -> Matrix:
        """Return C, shape (rounds, rounds)."""
        design = np.zeros((self.rounds, self.rounds))
        for at, each in enumerate(self.coefficients()):
            design += each * np.eye(self.rounds, k=-at)
        return design


Design = Tree | Banded


def lowest_bit(number: int) -> int:
    """Return the largest power of two that divides `number`."""
    return number & -number


def sensitivity(design: Design, participations: int, separation: int = 1) -> float:
    """Return how far one worker moves all noisy sums together, in L2, for contributions of norm 1.

    The worker takes part in at most `participations` rounds, any two at least `separation` apart. With X = C^T C, which
    has no negative entry, the largest distance is sqrt(max over such sets P of sum_{i,j in P} X_ij); each row of X is
    bounded by its own best set, which is never too small, and exact for a worker in every round (Choquette-Choo et al.
    2023, Theorem 2).
    """
    check_count("participations", participations)
    check_count("separation", separation)
    matrix = design.matrix()
    products = matrix.T @ matrix
    times = min(participations, -(-design.rounds // separation))
    rows = _best(products, times, separation)
    return math.sqrt(float(_best(rows[None, :], times, separation)[0])) * (1 + 1e-12)


def _best(values: Matrix, times: int, separation: int) -> Matrix:
    """Return, for each row of `values`, the largest sum of `times` entries at least `separation` apart."""
    if separation == 1 and times >= values.shape[1]:
        every: Matrix = np.add.reduce(values, axis=1)
        return every
    best = np.zeros_like(values)
    for _ in range(times):
        before = np.zeros_like(values)
        before[:, separation:] = best[:, :-separation]
        best = np.maximum.accumulate(before + values, axis=1)
    return best[:, -1]


def _check_rounds(rounds: int) -> None:
    check_count("rounds", rounds)
    if rounds > MAXIMUM_ROUNDS:
        raise UsageError(f"correlated noise over {rounds} rounds; use at most {MAXIMUM_ROUNDS}, or several runs")
