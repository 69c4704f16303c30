"""DP-SGD at a worker: one noisy mean of clipped gradients, over a Poisson sample that the worker drew itself.

What protects the rows is all here and in what it calls, never in a researcher's plan: the sample, the clip, the noise
and the public number by which the sum is divided. An empty sample gives noise alone; an example without a finite
gradient counts as zero. Sample and noise come from the entropy that is given, outside the tests the operating system's,
so that a private round cannot be replayed bit by bit.

The sum is made in float32, which errs. By at most `MAXIMUM_SAMPLE` rows in chunks of `CHUNK_ROWS` it errs by no more
than the share `slack_of` of the clip, between neighbours and with the error of the norms; rows are clipped to that much
less, so that the noise covers what two neighbours can differ by as computed, not only as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.plans.tracing import OptimizerRule
from fedpriv.privacy.noises import ExampleNoise
from fedpriv.updates import TensorSet
from fedpriv_worker.datasets import Rows
from fedpriv_worker.example_gradients import CHUNK_ROWS, ExampleGradients
from fedpriv_worker.training import Stopped


def largest_sample(batch_size: int) -> int:
    """Return how many rows a step takes at most: more are drawn with probability below 2^-100, and left out."""
    return 2 * batch_size + 256


def slack_of(batch_size: int) -> float:
    """Return the share of the clip that float32 can add: 2 n CHUNK_ROWS 2^-24 for n rows, and 2^-9 for norms.

    A sum of k terms in float32 errs by at most k 2^-24 times the sum of their sizes (Higham 2002, section 4.2); chunks
    are added up in float64.
    """
    return 2 * largest_sample(batch_size) * CHUNK_ROWS * 2.0**-24 + 2.0**-9


@dataclass(frozen=True, slots=True)
class PrivateGradient:
    """One noisy mean gradient by parameter name, which may leave; how many rows counted as zero, which may not."""

    gradient: Mapping[str, Tensor]
    ignored: int = field(repr=False)


class PrivateStep:
    """A loss plan and a noise, ready to make private gradients; each billed as one step of `noise`."""

    def __init__(self, gradients: ExampleGradients, noise: ExampleNoise) -> None:
        self._gradients = gradients
        self._noise = noise
        self._lattice = noise.lattice(gradients.dimension)
        self._clip = noise.clip / (1 + slack_of(noise.batch_size))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the tensors that are trained, in the order of the plan."""
        return tuple(each.name for each in self._gradients.parameters)

    @property
    def total_variation(self) -> float:
        """How far the noise of one step is from the ideal one; `accountants.guarantee_of` takes it from delta."""
        return self._lattice.total_variation

    def drawn(self, model: Mapping[str, Tensor], rows: Rows, entropy: Entropy) -> PrivateGradient:
        """Return the private gradient of `model` on a fresh Poisson sample of `rows`."""
        chosen = rows.sample(self._noise.rate, entropy)
        chosen = chosen[: largest_sample(self._noise.batch_size)]
        features, target = rows.features.index_select(0, chosen), rows.target.index_select(0, chosen)
        return self.of(model, features, target, entropy)

    def of(self, model: Mapping[str, Tensor], features: Tensor, target: Tensor, entropy: Entropy) -> PrivateGradient:
        """Return (sum of clipped gradients + noise) / batch_size over these rows, which a Poisson sample must be."""
        summed = self._gradients.clipped_sum(model, features, target, self._clip)
        total = summed.total.numpy()  # made for this step, so the noisy sum can take its place
        mean = torch.from_numpy(self._lattice.noisy(total, entropy, out=total, times=1 / self._noise.batch_size))
        return PrivateGradient(self._gradients.named(mean.to(torch.float32)), summed.ignored)


@dataclass(frozen=True, slots=True)
class PrivatelyTrained:
    """What changed in the model over one round of private steps; and how many rows counted as zero, for the owner."""

    delta: TensorSet
    ignored: int = field(repr=False)


def train_privately(
    step: PrivateStep,
    noise: ExampleNoise,
    rows: Rows,
    model: Mapping[str, Tensor],
    optimizer: OptimizerRule,
    entropy: Entropy,
    stopped: Callable[[], bool],
) -> PrivatelyTrained:
    """Run the `noise.steps` private steps of one round, and return what they changed in the trained tensors.

    It costs exactly `noise.mechanism`, which must be reserved before. The optimiser sees noisy gradients alone, so its
    state costs nothing more. Raise `Stopped` between two steps when `stopped` says so: what was reserved stays charged.
    """
    names = step.parameters
    held = {name: value.detach().clone() for name, value in model.items()}
    if missing := [name for name in names if name not in held]:
        raise UsageError(f"the model has no tensor {missing[0]!r}, which the plan trains")
    kept = {kind: [torch.zeros_like(held[name]) for name in names] for kind in optimizer.state}
    counted = {name: torch.zeros((), dtype=torch.float64) for name in optimizer.counters}
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in optimizer.hyperparameters.items()}
    ignored = 0
    for _ in range(noise.steps):
        if stopped():
            raise Stopped
        found = step.drawn(held, rows, entropy)
        ignored += found.ignored
        with torch.no_grad():
            moved, new, counts = optimizer.update(
                [held[name] for name in names], [found.gradient[name] for name in names], kept, counted, numbers
            )
        held |= dict(zip(names, moved, strict=True))
        kept = {kind: list(values) for kind, values in new.items()}
        counted = dict(counts)
    return PrivatelyTrained(TensorSet({name: held[name] - model[name] for name in names}), ignored)
