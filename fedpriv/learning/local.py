"""What a worker does between receiving a model and returning an update, as values.

An optimiser here is a rule in plain torch operations, traced into the plan: its state starts at zero at the
worker in every round, and its numbers are inputs, so changing a learning rate does not change the plan.
Only which options are zero decides the steps: momentum 0 costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.learning.owned import Beside, Personal
from fedpriv.learning.sampled import Posterior, Sampling
from fedpriv.learning.terms import Correction, Termed

PerParameter: TypeAlias = Mapping[str, Sequence[Tensor]]
Scalars: TypeAlias = Mapping[str, Tensor]
Updated: TypeAlias = tuple[Sequence[Tensor], PerParameter, Scalars]
"""New parameters, new state per parameter, new counters."""


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent as torch.optim.SGD computes it."""

    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        for name in ("momentum", "weight_decay", "dampening"):
            _not_negative(name, getattr(self, name))
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise UsageError(
                f"nesterov needs momentum above 0 and dampening 0, not {self.momentum} and {self.dampening}; "
                "set them or drop nesterov"
            )

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return _chosen(self, "lr") | _chosen(self, *_nonzero(self, "momentum", "weight_decay", "dampening"))

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors kept per parameter."""
        return ("momentum_buffer",) if self.momentum else ()

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of the single float64 numbers kept."""
        return ("started",) if self.momentum and self.dampening else ()

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: PerParameter,
        counters: Scalars,
        hyper: Scalars,
    ) -> Updated:
        """Return parameters, state and counters after one step."""
        if self.weight_decay:
            gradients = [g + p * hyper["weight_decay"] for p, g in zip(parameters, gradients, strict=True)]
        buffers: Sequence[Tensor] = ()
        directions = gradients
        if self.momentum:
            undamped = gradients
            if self.dampening:
                # torch's first step takes the gradient undamped
                factor = 1 - hyper["dampening"] * counters["started"]
                undamped = [g * factor for g in gradients]
            buffers = [b * hyper["momentum"] + g for b, g in zip(state["momentum_buffer"], undamped, strict=True)]
            directions = buffers
            if self.nesterov:
                directions = [g + b * hyper["momentum"] for g, b in zip(gradients, buffers, strict=True)]
        moved = [p - d * hyper["lr"] for p, d in zip(parameters, directions, strict=True)]
        kept = {"momentum_buffer": buffers} if self.momentum else {}
        return moved, kept, {name: torch.ones_like(value) for name, value in counters.items()}


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015) as torch.optim.Adam computes it; weight decay is added to the gradient."""

    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_adam(self.lr, self.betas, self.eps, self.weight_decay)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return _adam_numbers(self)

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors kept per parameter."""
        return ("exp_avg", "exp_avg_sq")

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of the single float64 numbers kept."""
        return ("step",)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: PerParameter,
        counters: Scalars,
        hyper: Scalars,
    ) -> Updated:
        """Return parameters, state and counters after one step."""
        if self.weight_decay:
            gradients = [g + p * hyper["weight_decay"] for p, g in zip(parameters, gradients, strict=True)]
        return _adam_step(parameters, gradients, state, counters, hyper)


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it."""

    kept: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_adam(self.lr, self.betas, self.eps, self.weight_decay)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return _adam_numbers(self)

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors kept per parameter."""
        return ("exp_avg", "exp_avg_sq")

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of the single float64 numbers kept."""
        return ("step",)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: PerParameter,
        counters: Scalars,
        hyper: Scalars,
    ) -> Updated:
        """Return parameters, state and counters after one step."""
        if self.weight_decay:
            kept = 1 - hyper["lr"] * hyper["weight_decay"]
            parameters = [p * kept for p in parameters]
        return _adam_step(parameters, gradients, state, counters, hyper)


Optimizer: TypeAlias = SGD | Adam | AdamW


Term: TypeAlias = Correction | Posterior


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """How a worker trains in one round; `term` is what a strategy adds to it, `personal` what it says stays there."""

    epochs: int = 1
    batch_size: int = 32
    optimizer: Optimizer = field(default_factory=lambda: SGD(0.1))
    shuffle: bool = True
    drop_last: bool = False
    term: Term | None = None
    personal: Personal | None = None

    @property
    def rule(self) -> Optimizer | Termed | Sampling:
        """The update rule that is traced into the plan."""
        match self.term:
            case None:
                return self.optimizer
            case Posterior():
                return Sampling(self.optimizer, self.term)
            case _:
                return Termed(self.optimizer, self.term)

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        companion = self.personal if isinstance(self.personal, Beside) else None
        return {**self.rule.hyperparameters, **(companion.hyperparameters if companion else {})}

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} is {value!r}; it must be a whole number of at least 1")
        if not isinstance(self.optimizer, Optimizer):
            raise UsageError(_not_ours(self.optimizer))
        if self.personal is not None and not isinstance(self.personal, Personal):
            raise UsageError(
                f"personal is of type {type(self.personal).__name__}; a strategy sets it: pass strategy=fp.FedPer(...)"
            )
        if self.term is not None and not isinstance(self.term, Term):
            raise UsageError(
                f"term is of type {type(self.term).__name__}; a strategy sets it: pass strategy=fp.FedProx(...)"
            )

    def steps_over(self, rows: int) -> int:
        """Return the steps of one round over `rows` rows, the last of each pass over fewer where they do not divide."""
        return self.epochs * -(-rows // self.batch_size)


def _adam_step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: PerParameter, counters: Scalars, hyper: Scalars
) -> Updated:
    first_rest, second_rest = 1 - hyper["beta1"], 1 - hyper["beta2"]
    step = counters["step"] + 1
    size = hyper["lr"] / (1 - hyper["beta1"] ** step)
    root = (1 - hyper["beta2"] ** step).sqrt()
    means = [m * hyper["beta1"] + g * first_rest for m, g in zip(state["exp_avg"], gradients, strict=True)]
    squares = [v * hyper["beta2"] + g * g * second_rest for v, g in zip(state["exp_avg_sq"], gradients, strict=True)]
    moved = [
        p - m / (v.sqrt() / root + hyper["eps"]) * size for p, m, v in zip(parameters, means, squares, strict=True)
    ]
    return moved, {"exp_avg": means, "exp_avg_sq": squares}, {"step": step}


def _adam_numbers(rule: Adam | AdamW) -> Mapping[str, float]:
    numbers = {"lr": rule.lr, "beta1": rule.betas[0], "beta2": rule.betas[1], "eps": rule.eps}
    return numbers | _chosen(rule, *_nonzero(rule, "weight_decay"))


def _chosen(rule: object, *names: str) -> dict[str, float]:
    return {name: float(getattr(rule, name)) for name in names}


def _nonzero(rule: object, *names: str) -> list[str]:
    return [name for name in names if getattr(rule, name)]


def _check_adam(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    _positive("lr", lr)
    _positive("eps", eps)
    _not_negative("weight_decay", weight_decay)
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise UsageError(f"betas are {betas!r}; they must be two numbers from 0 up to but not including 1")


def _not_ours(given: object) -> str:
    """Return what to write instead of `given`, which is no optimiser that a plan can hold."""
    named = given if isinstance(given, type) else type(given)
    ours = next((each for each in (AdamW, Adam, SGD) if each.__name__ == named.__name__), Adam)
    full = f"{named.__module__}.{named.__qualname__}".removeprefix("builtins.")
    what = f"the class {full}" if isinstance(given, type) else f"of type {full}"
    numbers = "lr=0.1" if ours is SGD else "lr=0.001"
    return f"optimizer is {what}; the optimiser becomes part of a plan: use fp.{ours.__name__}({numbers})"


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise UsageError(f"{name} is {value!r}; it must be above 0 and finite")


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise UsageError(f"{name} is {value!r}; it must be 0 or above and finite")
