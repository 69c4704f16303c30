"""Strategies: how one round's updates become the next model.

A strategy is a few pure functions, so that a round can be replayed from its updates: `initialise` makes the memory
that lives across rounds, `fold` adds one update to the round's gathering, `conclude` turns the gathering into the
next model and memory. Memory is named tensors, saved with every round. Updates are folded in order of worker name; the
result does not depend on who was fastest. No strategy sees who sent an update. Here are the types and what every
strategy that takes means is made of; the strategies themselves are beside, by family, and `catalogue` names them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.updates import TensorSet


@dataclass(frozen=True, slots=True)
class Setting:
    """What a strategy is told of a run before it: nothing of any one worker, and nothing that changes by round.

    `workers` is how many a round asks at least. `trained` names the parameters among the model's tensors; the others
    are buffers. `announced` are all workers' row counts, None where an owner hides one.
    """

    local: LocalTraining
    workers: int
    quorum: int
    trained: frozenset[str]
    announced: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update as a strategy sees it; `loss` is the mean over its training steps, where the worker said it.

    `staleness` is how many steps the model had taken since the worker was given it; 0 in rounds.
    """

    delta: TensorSet = field(repr=False)
    weight: float
    loss: float | None = None
    staleness: int = 0


@dataclass(slots=True)
class Gathering:
    """What a round gathered: a weighted sum, one accumulator per tensor, float32 or wider; or the updates one by one.

    A strategy fills `totals` or `kept`, as its `fold` does.
    """

    totals: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    weight: float = 0.0
    updates: int = 0
    kept: list[Contribution] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands between two rounds: the model, and what its strategy remembers."""

    setting: Setting
    model: TensorSet = field(repr=False)
    memory: TensorSet = field(default_factory=TensorSet, repr=False)


def add_weighted(gathering: Gathering, update: Contribution) -> None:
    """Add `weight * delta` to the sum; weight is a non-negative number of rows or 1."""
    for name, tensor in update.delta:
        accumulator = gathering.totals.get(name)
        if accumulator is None:
            wide = tensor.to(_accumulator_dtype(tensor.dtype), copy=True)
            gathering.totals[name] = wide.mul_(update.weight)
        else:
            accumulator.add_(tensor, alpha=update.weight)
    gathering.weight += update.weight
    gathering.updates += 1


def keep(gathering: Gathering, update: Contribution) -> None:
    """Keep the update itself, for strategies that combine updates otherwise than by their mean."""
    gathering.kept.append(update)
    gathering.weight += update.weight
    gathering.updates += 1


def apply_mean(before: Standing, gathering: Gathering) -> Standing:
    """Return the model moved by the weighted mean update; integer tensors move by the rounded mean."""
    return moved(before, {name: total / gathering.weight for name, total in gathering.totals.items()})


def moved(before: Standing, by: dict[str, torch.Tensor]) -> Standing:
    """Return the model moved by named tensors, each tensor in its own dtype: whole numbers by what is rounded."""
    after: dict[str, torch.Tensor] = {}
    for name, tensor in before.model:
        step = by.get(name)
        if step is None:
            after[name] = tensor
        elif tensor.dtype.is_floating_point:
            after[name] = (step + tensor).to(tensor.dtype)
        else:
            after[name] = (step.round() + tensor).to(tensor.dtype)
    return replace(before, model=TensorSet(after))


def _nothing(setting: Setting, model: TensorSet) -> TensorSet:  # noqa: ARG001 - the signature of `initialise`
    """Remember nothing between rounds."""
    return TensorSet()


def _anything(setting: Setting) -> None:
    """Fit every run."""


def _unchanged(local: LocalTraining) -> LocalTraining:
    """Train as the job says."""
    return local


@dataclass(frozen=True, slots=True)
class Buffered:
    """That the model steps once `size` updates are there; `order` says of the first steps whose updates they take."""

    size: int
    order: tuple[frozenset[WorkerName], ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a round's updates become the next model. Pure apart from the gathering that `fold` grows in place.

    `of_sums` says that the weighted mean of the updates is all that it needs, so that folding the mean once comes to
    the same as folding every update: then it works where only sums are seen. One that does not say so is refused
    there. `needs_loss` says that it needs each worker's training loss, `buffered` that workers are not asked by round
    (`buffered.FedBuff`). `check` raises `UsageError` for a run that it does not fit, before anything is sent, and
    `prepare` returns the local training as it is to be traced.
    """

    name: str
    fold: Callable[[Gathering, Contribution], None]
    conclude: Callable[[Standing, Gathering], Standing]
    initialise: Callable[[Setting, TensorSet], TensorSet] = _nothing
    check: Callable[[Setting], None] = _anything
    prepare: Callable[[LocalTraining], LocalTraining] = _unchanged
    of_sums: bool = False
    needs_loss: bool = False
    buffered: Buffered | None = None


def checked_strategy(given: object) -> Strategy:
    """Return `given`, federated averaging for None; raise `UsageError` for what is no strategy, saying what one is."""
    if given is None:
        return FedAvg()
    if isinstance(given, Strategy):
        return given
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        raise UsageError(f"strategy is {name} itself; pass what it returns: strategy={name}(...)")
    raise UsageError(
        f"strategy is a {type(given).__name__}, no Strategy; one of your own is fedpriv.learning.strategies.Strategy("
        '"name", fold, conclude): fold(gathering, contribution) adds one update, conclude(standing, gathering) returns '
        "the next Standing. Under secure aggregation it says of_sums=True, where folding the workers' mean once comes "
        "to the same as folding every update, as with fold=add_weighted"
    )


def FedAvg() -> Strategy:  # noqa: N802 - a public name that the field spells as a class
    """Return federated averaging: the mean update, weighted by rows. McMahan et al. 2017, algorithm 1."""
    return Strategy("fedavg", add_weighted, apply_mean, of_sums=True)


def _accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.float32
    return torch.float64
