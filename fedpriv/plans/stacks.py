"""A checked plan run over many workers at once, each with rows of its own; they need not have equally many.

A `Stack` holds one copy of what the plan changes for each worker. Its rows come in the order of the steps: all
workers' first batches, then their second ones. Workers that have no batch left rest while the others go on, and the
shorter last batches of those that have one of the same length run together: no row is added to a batch, so that each
worker's result is what its plan alone gives, to the rounding of a product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedpriv.errors import InputMismatch, PlanRefused
from fedpriv.plans import native
from fedpriv.plans.engine import Engine
from fedpriv.plans.fusion import fused
from fedpriv.plans.interpreter import Program
from fedpriv.plans.lowering import lowered
from fedpriv.plans.plan import InputRole, OutputRole
from fedpriv.plans.scalars import evaluate, specialise
from fedpriv.plans.stacking import NotStackable, stacked
from fedpriv.updates import DTYPES

MAXIMUM_KEPT = 128
"""Shapes for which a stack's program keeps its compiled form."""
_SHARED = frozenset({InputRole.FROZEN, InputRole.HYPERPARAMETER})
_CARRIED = frozenset({OutputRole.PARAMETER, OutputRole.STATE, OutputRole.OPTIMIZER, OutputRole.KEPT})


class StackedProgram:
    """A program over so many workers and rows a batch as it is asked for; what was compiled is kept."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.plan, self.layout = program.plan, program.layout
        self._ready: dict[tuple[int, int, Sequence[str]], Loop] = {}

    def loop(self, width: int, batch: int, reports: Sequence[str]) -> Loop:
        """Return the loop over batches of `batch` rows of `width` workers each; raise `NotStackable`.

        It computes what the plan reports only as far as `reports` name it.
        """
        found = self._ready.get((width, batch, reports))
        if found is None:
            found = self._ready[width, batch, reports] = Loop(self, width, batch, reports)
            while len(self._ready) > MAXIMUM_KEPT:
                del self._ready[next(iter(self._ready))]
        return found


class Loop:
    """The steps of a plan over `width` workers with `batch` rows each, as one call."""

    def __init__(self, of: StackedProgram, width: int, batch: int, reports: Sequence[str]) -> None:
        plan, program = of.plan, of.program
        reported = tuple(place for place in of.layout.reported if plan.outputs[place].name in reports)
        self.names = [plan.outputs[place].name for place in reported]
        self._layout = layout = replace(of.layout, reported=reported)
        carried = [place for place, each in enumerate(plan.outputs) if each.role in _CARRIED]
        own = [place for place, each in enumerate(plan.inputs) if each.role not in _SHARED]
        try:
            block = lowered(plan, program.checked.at(batch))
            specialise(block)
            for place in set(of.layout.reported) - set(reported):
                block.outputs[place] = 0  # an input, which nothing has to be computed for
            block = stacked(block, width, own, [*carried, *layout.reported])
            self._block = fused(block, layout.changed, layout.replacing, layout.rows)
        except PlanRefused:
            raise
        except Exception:  # noqa: BLE001 - torch raises anything for shapes that its own checks let through
            raise NotStackable(f"the plan cannot be prepared for {width} workers at once") from None
        self._native = native.compiled(self._block, layout, width, program.device)
        self._of, self._width = of, width

    def run(
        self, values: list[Any], features: Tensor, target: Tensor, given: Mapping[int, float], steps: int
    ) -> dict[str, Tensor]:
        """Run `steps` batches in turn, changing `values`, and return the sums of what is reported, of each worker."""
        scalars = evaluate(self._block, given)
        constants = self._of.program.constants
        if self._native is not None:
            found = self._native.sums(values, constants, features, target, steps, None, scalars)
            return dict(zip(self.names, found, strict=True))
        layout, width = self._layout, self._width
        engine = Engine(self._block, scalars, None, self._of.program.device)
        sums: list[Tensor] = [torch.zeros(width, dtype=torch.float64) for _ in layout.reported]
        for step in range(steps):
            now = list(values)
            for place, rows in ((layout.features, features), (layout.target, target)):
                if place is not None:
                    now[place] = rows[step * width : (step + 1) * width]
            with torch.inference_mode():
                outputs = engine.run([*now, *constants])
            for place, output in zip(layout.changed, layout.replacing, strict=True):
                values[place] = outputs[output]
            sums = [total + outputs[place] for total, place in zip(sums, layout.reported, strict=True)]
        return dict(zip(self.names, sums, strict=True))


class Stack:
    """The tensors of `width` workers that begin from one model; `run` changes those of some of them."""

    def __init__(
        self,
        program: StackedProgram,
        width: int,
        state: Mapping[str, Tensor],
        hyperparameters: Mapping[str, float],
        kept: Sequence[Mapping[str, Tensor]] = (),
        reports: Sequence[str] = ("loss",),
    ) -> None:
        """Begin from `state`; `kept` is what each worker kept of an earlier round, nothing where it is empty.

        `reports` name what is reported of each batch.
        """
        self.width = width
        self._reports = reports
        self._program = program
        self._given: dict[int, float] = {}
        self._values: list[Any] = [None] * len(program.plan.inputs)
        with torch.inference_mode():
            for place, each in enumerate(program.plan.inputs):
                if each.role is InputRole.HYPERPARAMETER:
                    self._given[place] = float(hyperparameters[each.name])
                elif each.role is InputRole.OPTIMIZER or (each.role is InputRole.KEPT and not any(kept)):
                    self._values[place] = torch.zeros((width, *each.shape), dtype=DTYPES[each.dtype])
                elif each.role is InputRole.KEPT:
                    zeros = torch.zeros(each.shape, dtype=DTYPES[each.dtype])
                    self._values[place] = torch.stack([held.get(each.name, zeros) for held in kept])
                elif each.role is InputRole.FROZEN:
                    self._values[place] = _held(state, each.name).contiguous()
                elif each.role in {InputRole.PARAMETER, InputRole.STATE}:
                    self._values[place] = _held(state, each.name).expand(width, *each.shape).contiguous()

    def run(self, members: slice | Tensor, features: Tensor, target: Tensor, steps: int) -> dict[str, Tensor]:
        """Run `steps` batches of `members` and return the sums of loss and metrics over them, of each.

        Rows have shape (steps * members, batch, ...), step by step. Members are a slice, or their places.
        """
        layout, count = self._program.layout, len(features) // steps
        with torch.inference_mode():
            if isinstance(members, slice) and count == self.width:
                loop = self._program.loop(count, features.shape[1], self._reports)
                return loop.run(self._values, features, target, self._given, steps)
            # some repeat the last one, so that there are few shapes to compile; what comes of them is dropped
            width = 1 << (count - 1).bit_length()
            repeated = torch.arange(width).clamp_(max=count - 1)
            chosen = torch.arange(self.width)[members][repeated]
            rows = [each.view(steps, count, *each.shape[1:])[:, repeated].flatten(0, 1) for each in (features, target)]
            values = list(self._values)
            for place in layout.changed:
                values[place] = values[place][chosen]
            loop = self._program.loop(width, features.shape[1], self._reports)
            sums = loop.run(values, rows[0], rows[1], self._given, steps)
            for place in layout.changed:
                self._values[place][members] = values[place][:count]
        return {name: each[:count] for name, each in sums.items()}

    def tensors(self, *roles: InputRole) -> dict[str, Tensor]:
        """Return the tensors of the inputs of `roles` that the plan changes, of every worker, by name."""
        changed, inputs = self._program.layout.changed, self._program.plan.inputs
        return {inputs[place].name: self._values[place] for place in changed if inputs[place].role in roles}


def _held(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise InputMismatch(f"the model has no tensor {name!r}, which the plan takes as an input")
    return state[name].detach()
