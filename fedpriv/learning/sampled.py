"""FedPA: what a worker's posterior says, from samples that stochastic gradient descent draws in its own plan.

Al-Shedivat et al. 2021, arXiv 2010.05273, section 4 and appendix C. After a burn-in every sample is the mean of so many
iterates; mean and shrunk covariance of the samples are kept in factored form, one direction a sample, so that the
update, the inverse covariance times the way to the mean, is one vector as long as the model.
`posterior.shrinkage_delta` computes the same from samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.learning.terms import Inner, PerParameter, Tensors

Numbers: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Posterior:
    """How a worker samples: `burn_in` steps, then the mean of every `steps_per_sample`, up to `samples` of them."""

    burn_in: int
    steps_per_sample: int
    samples: int
    shrinkage: float
    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, value, least in (
            ("burn_in", self.burn_in, 0),
            ("steps_per_sample", self.steps_per_sample, 1),
            ("samples", self.samples, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name} is {value!r}; use a whole number of {least} or more")
        if self.samples > MOST_SAMPLES:
            raise UsageError(
                f"samples is {self.samples}; a worker holds one more model for each: use {MOST_SAMPLES} or fewer, each "
                "over more steps"
            )
        if not (math.isfinite(self.shrinkage) and self.shrinkage >= 0):
            raise UsageError(f"shrinkage is {self.shrinkage}; use 0 (the identity, as federated averaging) or more")


MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """An optimiser whose iterates are samples; what it reports as parameters is the received model plus the update."""

    inner: Inner
    term: Posterior
    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The optimiser's numbers and the sampler's."""
        own = {
            "burn_in": float(self.term.burn_in),
            "steps_per_sample": float(self.term.steps_per_sample),
            "shrinkage": float(self.term.shrinkage),
        }
        return {**self.inner.hyperparameters, **own}

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors per parameter that live for one round."""
        return (*self.inner.state, "received", "iterate", "window", "mean", *self._directions)

    @property
    def counters(self) -> tuple[str, ...]:
        """The optimiser's counters; steps, steps in the window, samples, and how much each direction counts."""
        return (*self.inner.counters, "taken", "inside", "found", *(f"{each}_counts" for each in self._directions))

    def places(self, parameters: Tensors, state: PerParameter, counters: Numbers) -> Tensors:
        """Return the iterates, at which the loss is taken: the received model in the first step."""
        first = counters["taken"] < 1
        return [torch.where(first, p, at) for p, at in zip(parameters, state["iterate"], strict=True)]

    def update(
        self, parameters: Tensors, gradients: Tensors, state: PerParameter, counters: Numbers, hyper: Numbers
    ) -> tuple[Tensors, PerParameter, Numbers]:
        """Return what is reported, state and counters after one step."""
        first = counters["taken"] < 1
        received = [torch.where(first, p, at) for p, at in zip(parameters, state["received"], strict=True)]
        iterate, own, counted = self.inner.update(
            self.places(parameters, state, counters), gradients, state, counters, hyper
        )
        taken = counters["taken"] + 1
        inside = counters["inside"] + _number(taken > hyper["burn_in"])
        share = _number(inside > 0) / torch.clamp(inside, min=1)
        window = _towards(state["window"], iterate, share)
        found = counters["found"]
        whole = _number(inside >= hyper["steps_per_sample"]) * _number(found < self.term.samples)
        estimate = _Estimate.of(self._directions, state, counters, state["mean"], found)
        estimate = estimate.with_sample(window, whole, hyper["shrinkage"])
        way = [m - x for m, x in zip(estimate.mean, received, strict=True)]
        sampled = estimate.inverse(way, hyper["shrinkage"])
        some = estimate.found > 0
        reported = [torch.where(some, x + delta, at) for x, delta, at in zip(received, sampled, iterate, strict=True)]
        held = {"received": received, "iterate": iterate, "window": window, "mean": estimate.mean}
        numbers = {"taken": taken, "inside": inside * (1 - whole), "found": estimate.found}
        weights = {f"{name}_counts": value for name, value in zip(self._directions, estimate.counts, strict=True)}
        return (
            reported,
            {**own, **held, **dict(zip(self._directions, estimate.directions, strict=True))},
            {**counted, **numbers, **weights},
        )

    @property
    def _directions(self) -> tuple[str, ...]:
        return tuple(f"direction{number}" for number in range(1, self.term.samples))


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Mean of `found` samples, and I + sum rho (t - 1) / t u_t u_t' in its inverse's factors, t = 2 to `found`.

    With v_t the inverse before sample t times u_t = sample t - mean before it, and k_t = rho (t - 1) / t, the inverse
    after it is that before less c_t v_t v_t', c_t = k_t / (1 + k_t u_t' v_t) (Sherman and Morrison); `directions` are
    v_2, v_3, ... and `counts` c_2, c_3, ..., zero where there is no such sample yet. Appendix C of the paper.
    """

    mean: Tensors
    found: Tensor
    directions: Sequence[Tensors]
    counts: Sequence[Tensor]

    @classmethod
    def of(
        cls, names: Sequence[str], state: PerParameter, counters: Numbers, mean: Tensors, found: Tensor
    ) -> _Estimate:
        return cls(mean, found, [state[name] for name in names], [counters[f"{name}_counts"] for name in names])

    def with_sample(self, sample: Tensors, whole: Tensor, shrinkage: Tensor) -> _Estimate:
        """Return the estimate with one more sample where `whole` is 1, the same where it is 0."""
        apart = [s - m for s, m in zip(sample, self.mean, strict=True)]
        direction = self._solved(apart)
        weight = shrinkage * self.found / (self.found + 1)
        counts = weight / (1 + weight * _dot(apart, direction))
        directions, weights = [], []
        for number, (held, counted) in enumerate(zip(self.directions, self.counts, strict=True), start=1):
            here = whole * _number(self.found == number)
            directions.append(_towards(held, direction, here))
            weights.append(counted + (counts - counted) * here)
        mean = _towards(self.mean, sample, whole / (self.found + 1))
        return _Estimate(mean, self.found + whole, directions, weights)

    def inverse(self, way: Tensors, shrinkage: Tensor) -> Tensors:
        """Return the inverse of the shrunk covariance times `way`; it is rho_n times that of the factors, inverted."""
        scale = 1 + torch.clamp(self.found - 1, min=0) * shrinkage
        return [each * scale.to(each.dtype) for each in self._solved(way)]

    def _solved(self, vector: Tensors) -> Tensors:
        found = list(vector)
        for direction, counted in zip(self.directions, self.counts, strict=True):
            along = counted * _dot(direction, vector)
            found = [f - v * along.to(f.dtype) for f, v in zip(found, direction, strict=True)]
        return found


def _towards(held: Tensors, other: Tensors, share: Tensor) -> list[Tensor]:
    """Return `held`, moved by `share` of the way to `other`."""
    return [h + (o - h) * share.to(h.dtype) for h, o in zip(held, other, strict=True)]


def _dot(one: Tensors, other: Tensors) -> Tensor:
    """Return the inner product over all parameters, float64."""
    products = [(a * b).sum().to(torch.float64) for a, b in zip(one, other, strict=True)]
    total = products[0]
    for each in products[1:]:
        total = total + each
    return total


def _number(condition: Tensor) -> Tensor:
    return condition.to(torch.float64)
