"""Tensors that a worker has of its own: kept there between rounds, beside or in place of those that travel.

Until a worker has its own it takes what it received: the plan says so, by a mark that its first step sets, so that a
worker which comes late or has lost what it kept begins where the model begins. What is its own never leaves; the plan
has no output for it but KEPT ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from fedpriv.plans.plan import Input, InputRole, OutputRole, Plan
from fedpriv.updates import dtype_name

_OWN = "/own"
MARK = "own/there"
"""A KEPT number: 0 until this worker has tensors of its own."""
Result: TypeAlias = tuple[str, OutputRole, Tensor]


class Companion(Protocol):
    """How a model of the worker's own learns beside the one that travels."""

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """Numbers that become inputs of the plan."""
        ...

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        received: Sequence[Tensor],
        hyper: Mapping[str, Tensor],
    ) -> Sequence[Tensor]:
        """Return its new parameters, given the model that was received."""
        ...


@runtime_checkable
class Wandering(Protocol):
    """An optimiser whose parameters are what it reports, and which takes the loss somewhere else."""

    def places(
        self, parameters: Sequence[Tensor], state: Mapping[str, Sequence[Tensor]], counters: Mapping[str, Tensor]
    ) -> Sequence[Tensor]:
        """Return where the loss of this step is taken."""
        ...


def inputs(tensors: Mapping[str, Tensor]) -> list[Input]:
    """Return the inputs that hold a worker's own version of `tensors`, nothing where there are none."""
    if not tensors:
        return []
    held = [Input(_own(name), InputRole.KEPT, dtype_name(t.dtype), tuple(t.shape)) for name, t in tensors.items()]
    return [*held, Input(MARK, InputRole.KEPT, "float64", ())]


def values(named: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return the worker's own tensors by the names that they stand for: what was received, where it has none yet."""
    if not names:
        return {}
    there = named[MARK] > 0
    return {name: torch.where(there, named[_own(name)], named[name]) for name in names}


def outputs(after: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> list[Result]:
    """Return what is to be kept of a step."""
    if not after:
        return []
    kept: list[Result] = [(_own(name), OutputRole.KEPT, value) for name, value in after.items()]
    return [*kept, (MARK, OutputRole.KEPT, torch.ones_like(named[MARK]))]


def names(plan: Plan) -> frozenset[str]:
    """Return the names of the tensors that a worker has its own versions of under `plan`."""
    kept = (each.name for each in plan.inputs_of(InputRole.KEPT))
    return frozenset(name.removesuffix(_OWN) for name in kept if name.endswith(_OWN))


def _own(name: str) -> str:
    return name + _OWN
