"""From the sum of a private round to the mean that its model moves by: clips again, adds central noise, divides.

Where the noise is the coordinator's promise it is kept here: an update in clear is clipped once more, so that the
promise rests on no worker; the sum is made in float64, noise from the operating system is added, and it is divided by
the expected number of workers, whoever came. Sums under central noise are seen by this process and by nobody else.
Distributed noise is in the sum already. Workers that add all the noise themselves are averaged as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedpriv.entropy import Entropy
from fedpriv.learning.strategies import Contribution, Gathering, add_weighted
from fedpriv.privacy.clipping import AdaptiveClip, bit_of, share_of
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, TreeDP
from fedpriv.privacy.noises import CentralNoise
from fedpriv.privacy.rounding import clipped
from fedpriv.secagg.vector import Sum
from fedpriv.updates import DTYPES, TensorSet, TensorSpec
from fedpriv.wire.private import Private
from fedpriv.wire.rounds import TENSOR
from fedpriv_coordinator.private_job import Settled

Reals = NDArray[np.float64]
_CUT = 1 - 1e-6
"""An update this near to the clip was cut: a float32 norm tells no more."""


class Noising(Protocol):
    """One job's noise at its coordinator: `private` is what the next round's orders say."""

    @property
    def private(self) -> Private:
        """What the orders of the next round say."""
        ...

    def fold(self, total: Gathering, update: Contribution) -> None:
        """Add one worker's update to the sum of a round in clear."""
        ...

    def mean(self, total: Gathering) -> TensorSet:
        """Return the mean to move by from the sum of a round in clear; noise is drawn once for each call."""
        ...

    def mean_of(self, total: Sum) -> TensorSet:
        """Return the mean to move by from the sum of a round that was masked."""
        ...


def noising_of(settled: Settled, changed: tuple[TensorSpec, ...], entropy: Entropy) -> Noising:
    """Return what makes a job's rounds private at its coordinator; `changed` is what an update holds."""
    match settled.mode:
        case CentralDP() | TreeDP():
            return Central(settled, changed, entropy)
        case DistributedDP() | LocalDP() | ExampleDP():
            return AtWorkers(settled.private, changed)


@dataclass(frozen=True, slots=True)
class AtWorkers:
    """Updates that come noised, or words that do: averaged over who came, or divided by who was expected."""

    private: Private
    changed: tuple[TensorSpec, ...]

    def fold(self, total: Gathering, update: Contribution) -> None:
        """Add one noisy update; all weigh the same, but for the factors of a sampling."""
        add_weighted(total, update)

    def mean(self, total: Gathering) -> TensorSet:
        """Return the mean of the noisy updates."""
        return TensorSet({name: value / total.weight for name, value in total.totals.items()})

    def mean_of(self, total: Sum) -> TensorSet:
        """Return the sum over the expected workers where the noise is shared, else the mean over those who came."""
        shared = isinstance(self.private.mode, DistributedDP)
        count = self.private.workers if shared else total.workers
        return _tensors(_flat(total, self.changed) / count, self.changed)


class Central:
    """Noise on sums that this process makes; the running sums of a tree, and the clip where it adapts, live here."""

    def __init__(self, settled: Settled, changed: tuple[TensorSpec, ...], entropy: Entropy) -> None:
        mode = settled.mode
        assert isinstance(mode, CentralDP | TreeDP)  # `noising_of` looked
        self._private = settled.private
        self._changed = changed
        self._entropy = entropy
        self._dimension = sum(each.elements for each in changed)
        self._within = 0.0
        self._adaptive: AdaptiveClip | None = mode.adaptive if isinstance(mode, CentralDP) else None
        noise = mode.noise(rounds=settled.private.rounds, workers=settled.private.workers)
        self._noise = noise
        self._running = None if isinstance(noise, CentralNoise) else noise.running_sums(self._dimension)

    @property
    def private(self) -> Private:
        """What the orders of the next round say: with the clip as it is now."""
        mode = replace(self._private.mode, clip=self._clip)
        return replace(self._private, mode=mode)

    @property
    def _clip(self) -> float:
        return self._noise.clip if self._adaptive is None else self._adaptive.clip

    def fold(self, total: Gathering, update: Contribution) -> None:
        """Add one update, clipped again: what a worker left longer moves the sum no further than was promised."""
        values = np.concatenate([tensor.detach().to(torch.float64).numpy().reshape(-1) for _, tensor in update.delta])
        if self._adaptive is not None:
            self._within += bit_of(float(np.linalg.norm(values)), self._clip * _CUT)
        add_weighted(total, Contribution(_tensors(clipped(values, self._clip), self._changed, torch.float64), 1.0))

    def mean(self, total: Gathering) -> TensorSet:
        """Return the noisy sum over the expected workers."""
        flat = np.concatenate([total.totals[spec.name].numpy().reshape(-1) for spec in self._changed])
        return self._noised(flat)

    def mean_of(self, total: Sum) -> TensorSet:
        """Return the noisy sum over the expected workers."""
        return self._noised(_flat(total, self._changed))

    def _noised(self, total: Reals) -> TensorSet:
        workers = self._private.workers
        if self._running is not None:
            return _tensors(self._running.add(total, self._entropy) / workers, self._changed)
        assert isinstance(self._noise, CentralNoise)  # the other one runs
        noisy = self._noise.lattice(self._dimension, self._clip).noisy(total, self._entropy)
        if self._adaptive is not None:
            bits = self._noise.bits().noisy(np.array([self._within]), self._entropy)
            self._adaptive = self._adaptive.after(share_of(float(bits[0]), workers))
            self._within = 0.0
        return _tensors(noisy.astype(np.float64) / workers, self._changed)


def _flat(total: Sum, changed: tuple[TensorSpec, ...]) -> Reals:
    return np.concatenate([total.total(f"{TENSOR}{spec.name}").reshape(-1) for spec in changed])


def _tensors(values: Reals, changed: tuple[TensorSpec, ...], dtype: torch.dtype | None = None) -> TensorSet:
    """Return `values`, shape (d,), as the tensors of an update, in their own types unless another is said."""
    made: dict[str, torch.Tensor] = {}
    start = 0
    for spec in changed:
        part = torch.from_numpy(values[start : start + spec.elements].copy())
        made[spec.name] = part.reshape(spec.shape).to(dtype or DTYPES[spec.dtype])
        start += spec.elements
    return TensorSet(made)
