"""What a run gives away of its canaries, as a lower bound on epsilon: to catch noise that is billed and not there.

Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run": each of m canaries is in the data or not,
by fair coins; whoever sees what was released guesses r of them, of which v are right. An (epsilon, delta)-private
release lets nobody be right too often, so v gives a lower bound that holds with the confidence that is asked for. A
bound above the claim refutes the claim; one below proves nothing. Pure statistics: canaries are made, and scored,
elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

CONFIDENCE = 0.999
"""How sure a bound is that refutes a claim."""
MOST = 64.0
"""The largest bound that is looked for: nothing is right so often that more would be said."""
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Guesses:
    """`correct` of `guesses` about `canaries` were right; the canaries without a guess count as abstained from."""

    canaries: int
    guesses: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.guesses <= self.canaries:
            raise UsageError(
                f"{self.correct} of {self.guesses} guesses about {self.canaries} canaries are right; each must be at "
                "least 0 and at most the next"
            )

    def p_value(self, epsilon: float, delta: float) -> float:
        """Return how likely that many right guesses are, at the most, for an (epsilon, delta)-private release.

        min(1, b + 2 m delta a) with W ~ Bin(r, e^epsilon / (1 + e^epsilon)), b = P[W >= v] and
        a = max over 1 <= i <= v of P[v - i <= W < v] / i (Theorem 5.2).
        """
        shares = _binomial(self.guesses, 1 / (1 + math.exp(-epsilon)))
        beyond = float(shares[self.correct :].sum())
        if not self.correct or not delta:
            return min(1.0, beyond)
        below = np.cumsum(shares[: self.correct][::-1]) / np.arange(1, self.correct + 1)
        return min(1.0, beyond + 2 * self.canaries * delta * float(below.max()))

    def lower_bound(self, delta: float, confidence: float = CONFIDENCE) -> float:
        """Return the largest epsilon that is refuted at `delta`, or 0: sup of those whose p-value is 1 - confidence."""
        if not (0 <= delta < 1 and 0 < confidence < 1):
            raise UsageError(f"delta is {delta!r} and confidence {confidence!r}; use numbers between 0 and 1")
        allowed = 1 - confidence
        if self.p_value(0.0, delta) > allowed:
            return 0.0
        low, high = 0.0, MOST
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_value(middle, delta) <= allowed else (low, middle)
        return low


def judged(scores: npt.NDArray[np.floating], included: npt.NDArray[np.bool_], guesses: int) -> Guesses:
    """Return the outcome of guessing "in" for the highest half of `guesses` scores, and "out" for the lowest half.

    `scores`, shape (m,), grow with the trace that a canary left; `included`, shape (m,), is what the coins said.
    """
    if scores.shape != included.shape or scores.ndim != 1 or not 2 <= guesses <= len(scores):
        raise UsageError(
            f"{guesses} guesses from scores of shape {scores.shape} and coins of shape {included.shape}; give one of "
            "each for every canary, and from 2 guesses to as many"
        )
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    right = int(included[order[-half:]].sum()) + int((~included[order[:half]]).sum())
    return Guesses(len(scores), 2 * half, right)


def _binomial(trials: int, share: float) -> npt.NDArray[np.float64]:
    """Return the probabilities of 0 to `trials` successes."""
    if share >= 1:
        certain = np.zeros(trials + 1)
        certain[-1] = 1.0
        return certain
    ways = [math.lgamma(trials + 1) - math.lgamma(at + 1) - math.lgamma(trials - at + 1) for at in range(trials + 1)]
    counts = np.arange(trials + 1)
    found: npt.NDArray[np.float64] = np.exp(
        np.array(ways) + counts * math.log(share) + (trials - counts) * math.log1p(-share)
    )
    return found
