"""Was this row trained on? Guessed from losses, and held to what differential privacy allows.

Under (epsilon, delta) nobody who says "member" of a share f of all others says it of more than e^epsilon f + delta of
the members, whatever they look at (Kairouz, Oh, Viswanath 2015); and the same with both errors exchanged. The simplest
attack looks at the loss alone (Yeom et al. 2018): members have a lower one. One with shadow models asks how low a loss
is for this very row, in models that were trained with it and without (Carlini et al. 2022). Pure statistics: losses are
made elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedpriv.errors import UsageError

Array = npt.NDArray[np.float64]
_SPREAD = 1e-3
"""The least deviation of losses that a row is taken to have."""


@dataclass(frozen=True, slots=True)
class Inference:
    """How an attack did at every threshold: shares of members and of others above it, each shape (thresholds,)."""

    members: int
    others: int
    caught: Array
    accused: Array

    @property
    def advantage(self) -> float:
        """The largest difference of the two shares: 0 for a coin, 1 for certainty."""
        return float((self.caught - self.accused).max())

    def excess(self, epsilon: float, delta: float, confidence: float = 0.999) -> float:
        """Return by how much the shares exceed what (epsilon, delta) allows, with that confidence; at most 0 is within.

        Both shares are moved by the largest error that samples of their size have at any threshold (Dvoretzky, Kiefer,
        Wolfowitz; Massart 1990).
        """
        wrong = (1 - confidence) / 2
        low, high = (math.sqrt(math.log(2 / wrong) / (2 * count)) for count in (self.members, self.others))
        caught, accused = np.maximum(self.caught - low, 0.0), np.minimum(self.accused + high, 1.0)
        allowed = np.minimum(math.exp(epsilon) * accused + delta, 1 - math.exp(-epsilon) * (1 - delta - accused))
        return float((caught - allowed).max())


def inferred(members: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> Inference:
    """Return how well scores, shape (m,) and (n,), tell members from others; a member's is expected to be higher."""
    if members.ndim != 1 or others.ndim != 1 or not len(members) or not len(others):
        raise UsageError(
            f"scores of shapes {members.shape} and {others.shape}; give one for each row, and some of each"
        )
    thresholds = np.unique(np.concatenate([members, others]))
    caught, accused = (
        1 - np.searchsorted(np.sort(each), thresholds, side="left") / len(each) for each in (members, others)
    )
    return Inference(len(members), len(others), caught, accused)


def shadow_scores(losses: npt.NDArray[np.floating], shadows: Array, included: npt.NDArray[np.bool_]) -> Array:
    """Return for each row how much likelier its loss is for a member, shape (n,), from losses in shadow models.

    `losses`, shape (n,), are those of the model that is attacked; `shadows` and `included`, shape (k, n), those of k
    shadow models, and whether each was trained on the row. Needs both kinds for every row. Losses are taken to be
    log-normal, one spread for all rows: few shadows say little about the spread of one.
    """
    counts = included.sum(0)
    alike = shadows.shape == included.shape and shadows.shape[1:] == losses.shape
    if not alike or (counts * (len(included) - counts) == 0).any():
        raise UsageError(
            f"{shadows.shape} shadow losses, {included.shape} coins and {losses.shape} losses; give equally many rows, "
            "each in some shadow models and not in others"
        )
    seen, logs = np.log(losses + 1e-9), np.log(shadows + 1e-9)
    scores = np.zeros(len(losses))
    for sign, chosen in ((1.0, included), (-1.0, ~included)):
        mean = (logs * chosen).sum(0) / chosen.sum(0)
        spread = max(float(np.sqrt((((logs - mean) ** 2) * chosen).sum() / chosen.sum())), _SPREAD)
        scores += sign * (-((seen - mean) ** 2) / (2 * spread**2) - math.log(spread))
    return scores
