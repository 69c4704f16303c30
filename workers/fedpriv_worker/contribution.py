"""What an outcome becomes before it is masked: the integer words of one worker, as the round's vector wants them.

Nothing here leaves: the door masks these words, and lets go of them in no other form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedpriv.entropy import Entropy
from fedpriv.privacy.noises import DistributedNoise, Noise
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.ring import Words
from fedpriv.updates import TensorSet
from fedpriv.wire.rounds import METRIC, STATISTIC, TENSOR
from fedpriv_worker.actions import Evaluated, Nothing, Summand, Summed, Trained
from fedpriv_worker.private_training import flat


@dataclass(frozen=True, slots=True)
class Contribution:
    """One worker's own words, shape (d,), not masked yet; they never print."""

    words: Words = field(repr=False)


def contribution_of(
    outcome: Summand, weight: int, descriptor: Descriptor, entropy: Entropy, noise: Noise | None = None
) -> Contribution:
    """Return the words of `outcome`; raise `UsageError` for a weight above the round's maximum, quoting neither.

    An update under distributed `noise` is clipped, rounded and noised in integers here: they are what is masked.
    """
    values: dict[str, NDArray[Any]] = {}
    match outcome:
        case Nothing():
            return Contribution(descriptor.ring.zeros(descriptor.vector.length))
        case Trained(delta=delta) if isinstance(noise, DistributedNoise):
            return Contribution(descriptor.ring.reduce(noise.contribution(flat(delta), entropy)))
        case Trained(metrics=metrics, delta=delta):
            values = _arrays(TENSOR, delta) | _numbers(metrics)
        case Evaluated(metrics=metrics):
            values = _numbers(metrics)
        case Summed(values=sums):
            values, weight = _arrays(STATISTIC, sums), 1
    words = descriptor.vector.encode(values, weight=weight, ring=descriptor.ring, entropy=entropy)
    return Contribution(words)


def _numbers(metrics: Mapping[str, float]) -> dict[str, NDArray[Any]]:
    return {f"{METRIC}{name}": np.array(value, np.float64) for name, value in metrics.items()}


def _arrays(prefix: str, tensors: TensorSet) -> dict[str, NDArray[Any]]:
    """Return the tensors as numpy arrays; what numpy has no type for is widened, which is exact."""
    return {
        f"{prefix}{name}": (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().cpu().numpy()
        for name, tensor in tensors
    }
