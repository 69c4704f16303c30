"""What a strategy adds to local training: a term of the loss, or a correction of the gradient, traced into the plan.

No code travels: a term is more steps of the plan that a worker validates and runs. What it remembers within a round is
state of the optimiser, zero at first. What it remembers between rounds (`kept`) never leaves the worker. What all
workers share (`shared`) travels beside the model and returns as a difference, as buffers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from fedpriv.errors import UsageError

PerParameter: TypeAlias = Mapping[str, Sequence[Tensor]]
Tensors: TypeAlias = Sequence[Tensor]


class Inner(Protocol):
    """The optimiser that takes the corrected gradient."""

    @property
    def hyperparameters(self) -> Mapping[str, float]: ...  # noqa: D102 - as `tracing.OptimizerRule`
    @property
    def state(self) -> tuple[str, ...]: ...  # noqa: D102 - as above
    @property
    def counters(self) -> tuple[str, ...]: ...  # noqa: D102 - as above
    def update(  # noqa: D102 - as above
        self, parameters: Tensors, gradients: Tensors, state: PerParameter, counters: Mapping[str, Tensor],
        hyper: Mapping[str, Tensor],
    ) -> tuple[Tensors, PerParameter, Mapping[str, Tensor]]: ...  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proximal:
    """mu / 2 times the squared distance to the received model. Li et al. 2020, arXiv 1812.06127, section 3.2."""

    mu: float
    state: ClassVar[tuple[str, ...]] = ("moved",)
    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _check("mu", self.mu)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return {"mu": float(self.mu)}

    def corrected(
        self, gradients: Tensors, held: PerParameter, hyper: Mapping[str, Tensor], first: Tensor
    ) -> tuple[Tensors, PerParameter]:
        """Return the gradients with the term's own, and what is remembered of the way so far."""
        del first
        bent = [g + m * hyper["mu"] for g, m in zip(gradients, held["moved"], strict=True)]
        return bent, {"moved": held["moved"]}

    def after(self, held: PerParameter, moved: Tensors, hyper: Mapping[str, Tensor], step: Tensor) -> PerParameter:
        """Return what is remembered once the parameters moved by `moved`."""
        del hyper, step
        return {"moved": [m + by for m, by in zip(held["moved"], moved, strict=True)]}


@dataclass(frozen=True, slots=True)
class Dual:
    """A dynamic regulariser: the gradient less a dual variable, which takes alpha times every step.

    Acar et al. 2021, arXiv 2111.04263, algorithm 1: g - h + alpha (x - x_start), and h becomes h - alpha (x_end -
    x_start) after the round. With h moving step by step the second term is in it, and nothing else is remembered.
    """

    alpha: float
    state: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[tuple[str, ...]] = ("dual",)
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _check("alpha", self.alpha)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return {"alpha": float(self.alpha)}

    def corrected(
        self, gradients: Tensors, held: PerParameter, hyper: Mapping[str, Tensor], first: Tensor
    ) -> tuple[Tensors, PerParameter]:
        """Return the gradients less the dual variable."""
        del hyper, first
        return [g - h for g, h in zip(gradients, held["dual"], strict=True)], {"dual": held["dual"]}

    def after(self, held: PerParameter, moved: Tensors, hyper: Mapping[str, Tensor], step: Tensor) -> PerParameter:
        """Return the dual variable after a step."""
        del step
        return {"dual": [h - by * hyper["alpha"] for h, by in zip(held["dual"], moved, strict=True)]}


@dataclass(frozen=True, slots=True)
class Control:
    """Control variates: the gradient, less this worker's mean gradient of its last round, plus everybody's.

    Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1. Its option II sets the worker's control variate to (x - y) /
    (K lr) - c + c_i, which for plain SGD is the mean gradient of the round's steps; that is what is computed here, for
    whatever optimiser. `shared` is everybody's: received as c, returned as c plus the change of the worker's own.
    """

    state: ClassVar[tuple[str, ...]] = ("correction",)
    kept: ClassVar[tuple[str, ...]] = ("control",)
    shared: ClassVar[tuple[str, ...]] = ("everybody",)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return {}

    def corrected(
        self, gradients: Tensors, held: PerParameter, hyper: Mapping[str, Tensor], first: Tensor
    ) -> tuple[Tensors, PerParameter]:
        """Return the corrected gradients; the correction is that of the first step, for the whole round."""
        del hyper
        received = [e - c for e, c in zip(held["everybody"], held["control"], strict=True)]
        correction = [k + (r - k) * first.to(k.dtype) for k, r in zip(held["correction"], received, strict=True)]
        bent = [g + k for g, k in zip(gradients, correction, strict=True)]
        return bent, {"correction": correction, "control": held["control"], "gradient": gradients}

    def after(self, held: PerParameter, moved: Tensors, hyper: Mapping[str, Tensor], step: Tensor) -> PerParameter:
        """Return the mean gradient so far as the control variate, and everybody's moved by its change."""
        del moved, hyper
        # c in step 1 is the last round's mean, of which 1 - 1/1 = nothing stays
        share = 1 / (step + 1)
        control = [c + (g - c) * share.to(c.dtype) for c, g in zip(held["control"], held["gradient"], strict=True)]
        everybody = [k + c for k, c in zip(held["correction"], control, strict=True)]
        return {"correction": held["correction"], "control": control, "everybody": everybody}


Correction: TypeAlias = Proximal | Dual | Control


@dataclass(frozen=True, slots=True)
class Termed:
    """An optimiser whose gradients a term corrects."""

    inner: Inner
    term: Correction

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The optimiser's numbers and the term's."""
        return {**self.inner.hyperparameters, **self.term.hyperparameters}

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors per parameter that live for one round."""
        return (*self.inner.state, *self.term.state)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the tensors per parameter that a worker keeps between rounds."""
        return self.term.kept

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tensors per parameter that travel beside the model."""
        return self.term.shared

    @property
    def counters(self) -> tuple[str, ...]:
        """The optimiser's counters, and the steps that the term counted."""
        return (*self.inner.counters, "taken")

    def update(
        self,
        parameters: Tensors,
        gradients: Tensors,
        state: PerParameter,
        counters: Mapping[str, Tensor],
        hyper: Mapping[str, Tensor],
    ) -> tuple[Tensors, PerParameter, Mapping[str, Tensor]]:
        """Return parameters, state and counters after one step."""
        taken = counters["taken"]
        bent, held = self.term.corrected(gradients, state, hyper, torch.clamp(1 - taken, min=0))
        after, own, counted = self.inner.update(parameters, bent, state, counters, hyper)
        moved = [new - old for new, old in zip(after, parameters, strict=True)]
        remembered = self.term.after(held, moved, hyper, taken)
        return after, {**own, **remembered}, {**counted, "taken": taken + 1}


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value}; use a number above 0, such as 0.01")
