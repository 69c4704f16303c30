"""Strategies: how one round's updates become the next model.

A strategy is three functions and nothing else, so that a round can be replayed from its updates: `initialise`
makes the state that lives across rounds, `fold` adds one weighted update to the round's sum, `conclude` turns the
sum into the next model. Updates are folded in order of worker name; the result does not depend on who was fastest.
No strategy sees who sent an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from fedpriv.updates import TensorSet

S = TypeVar("S")


@dataclass(slots=True)
class RoundSum:
    """The weighted sum of a round's updates; `totals` holds one accumulator per tensor, float32 or wider."""

    totals: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    weight: float = 0.0
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Strategy(Generic[S]):
    """How a round's updates become the next model. Pure apart from the sum that `fold` grows in place.

    `of_sums` says that the weighted mean of the updates is all that it needs, so that folding the mean once comes to
    the same as folding every update: then it works where only sums are seen. One that does not say so is refused there.
    """

    name: str
    initialise: Callable[[TensorSet], S]
    fold: Callable[[RoundSum, TensorSet, float], None]
    conclude: Callable[[TensorSet, RoundSum, S], tuple[TensorSet, S]]
    of_sums: bool = False


def add_weighted(total: RoundSum, delta: TensorSet, weight: float) -> None:
    """Add `weight * delta` to `total`; weight is a non-negative number of rows or 1."""
    for name, tensor in delta:
        accumulator = total.totals.get(name)
        if accumulator is None:
            total.totals[name] = tensor.to(_accumulator_dtype(tensor.dtype), copy=True).mul_(weight)
        else:
            accumulator.add_(tensor, alpha=weight)
    total.weight += weight
    total.updates += 1


def apply_mean(model: TensorSet, total: RoundSum, state: None) -> tuple[TensorSet, None]:
    """Return the model moved by the weighted mean update; integer tensors move by the rounded mean."""
    moved: dict[str, torch.Tensor] = {}
    for name, tensor in model:
        if name not in total.totals:
            moved[name] = tensor
            continue
        mean = total.totals[name].div_(total.weight)
        if not tensor.dtype.is_floating_point:
            mean.round_()
        moved[name] = mean.add_(tensor).to(tensor.dtype)
    return TensorSet(moved), state


def _accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.float32
    return torch.float64


def FedAvg() -> Strategy[None]:  # noqa: N802 - a public name that the field spells as a class
    """Return federated averaging: the mean update, weighted by rows. McMahan et al. 2017, algorithm 1."""
    return Strategy("fedavg", initialise=_no_state, fold=add_weighted, conclude=apply_mean, of_sums=True)


def _no_state(model: TensorSet) -> None:
    """FedAvg remembers nothing between rounds."""


STRATEGIES: Mapping[str, Callable[[], Strategy[None]]] = {"fedavg": FedAvg}
