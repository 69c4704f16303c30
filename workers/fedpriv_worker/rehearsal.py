"""A loss plan tried on rows of our own making before it sees private ones: does each row count for itself alone?

The gradient of each row, as it would be clipped and added among others, is held against the gradient of the same row
run alone by the plan as it is, without taps, mapping or rewriting. Where they differ beyond rounding, where the norm
that a clip goes by is below that of what is added, or where no row has a gradient at all, the plan is refused, whatever
operation that comes from. So rows that repeat, values that the plan itself names, and rows of different magnitudes are
among those that are tried. It is evidence and no proof: operations that are known to mix rows under conditions which a
plan can choose are refused by name as well (`example_gradients`).

The rows and the model are made from a fixed seed, so that a plan is refused everywhere or nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fedpriv.errors import PlanRefused, StepFailed
from fedpriv.plans.blocks import Block
from fedpriv.plans.engine import Engine
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import BATCH, Input, InputRole, Plan
from fedpriv.plans.validation import CheckedPlan
from fedpriv.updates import DTYPES
from fedpriv_worker.example_gradients import ExampleGradients

ROWS = 8
"""Rows that are compared."""
TOLERANCE = 2.0**-8
"""How far a gradient may be from the one alone, as a share of that one's norm."""
ROUNDING = 2.0**-14
"""How far besides, as a share of the longest: a loss that is nearly flat at a row has rounding for a gradient."""
_NORM = 2.0**-9
"""The share by which a norm may be below what is added: `private_step.slack_of` counts with it."""
_SCALES = (1.0, 1.0, 0.125, 8.0, 1.0, 1.0, 0.5)
_TRIED = 4 * ROWS
_NAMED = 64
_SMALL = 3
"""Whole numbers up to this are drawn often enough as it is."""
_LARGEST = 1 << 20
_SEED = 20_240_601


def rehearsed(checked: CheckedPlan) -> ExampleGradients:
    """Return what differentiates single rows of a loss plan, once it was tried; raise `PlanRefused` as it does."""
    made = ExampleGradients(checked)
    rehearse(made, checked)
    return made


def rehearse(gradients: ExampleGradients, checked: CheckedPlan) -> None:
    """Raise `PlanRefused` unless each row of a batch has the gradient that it has alone, and the norm of that."""
    program = Program(checked)
    block = program.block(1, plain=True)
    draws = _Draws(checked.plan, block)
    alone = _Alone(program, block, draws.model())
    rows = list(islice(_telling(alone, draws.rows()), ROWS))
    if not rows:
        raise PlanRefused(
            "on none of the rows that were tried has the loss a gradient other than zero, or one at all; check that it "
            "takes rows such as the data set's"
        )
    rows.append(rows[0])
    features, target = (torch.cat([getattr(row, name) for row in rows]) for name in ("features", "target"))
    longest = max(float(row.gradient.norm()) for row in rows)
    try:
        found = gradients.each_row(alone.model, features, target)
        for row, (square, added) in zip(rows, found, strict=True):
            _compare(row.gradient, square, added.double(), longest)
    except StepFailed:
        raise PlanRefused(
            "the loss of one row has a gradient, but not as it is taken for many rows at once; some options of losses "
            "are not supported in private training, such as class weights: leave them out"
        ) from None


@dataclass(frozen=True, slots=True)
class _Row:
    """One synthetic row, features (1, ...) and target (1, ...), and the gradient of its loss alone, flat float64."""

    features: Tensor
    target: Tensor
    gradient: Tensor


def _compare(alone: Tensor, square: float, added: Tensor, longest: float) -> None:
    """Raise `PlanRefused` where what is `added` for a row is not its gradient `alone`, or its norm is not enough."""
    norm = float(added.norm())
    if not norm <= math.sqrt(square) * (1 + _NORM):
        raise PlanRefused(
            f"the gradient of a row has norm {norm:.4g}, and its clip would go by {math.sqrt(square):.4g}; write the "
            "model with other operations"
        )
    apart, own = float((added - alone).norm()), float(alone.norm())
    if not apart <= TOLERANCE * own + ROUNDING * longest:
        raise PlanRefused(
            f"the gradient of a row among others is {apart:.3g} from the one that it has alone, of norm {own:.3g}: an "
            "operation mixes rows, or has another gradient for many of them; write the model with other operations"
        )


class _Alone:
    """The plan as it is, one row at a time."""

    def __init__(self, program: Program, block: Block, model: dict[str, Tensor]) -> None:
        self.model = model
        self._engine = Engine(block, {}, None, program.device)
        self._plan = program.plan
        self._constants = program.constants

    def _loss(self, features: Tensor, target: Tensor, model: Mapping[str, Tensor]) -> Tensor:
        held: list[Any] = []
        for each in self._plan.inputs:
            match each.role:
                case InputRole.FEATURES:
                    held.append(features)
                case InputRole.TARGET:
                    held.append(target)
                case _:
                    held.append(model[each.name])
        return self._engine.run([*held, *self._constants])[0]

    def gradient(self, features: Tensor, target: Tensor) -> Tensor | None:
        """Return the gradient of one row, flat float64; None where it has none, or zeros or no numbers."""
        names = [each.name for each in self._plan.inputs_of(InputRole.PARAMETER)]
        leaves = {name: self.model[name].clone().requires_grad_() for name in names}
        try:
            with torch.enable_grad():
                loss = self._loss(features, target, self.model | leaves)
                found = torch.autograd.grad(
                    loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
                )
        except Exception:  # noqa: BLE001  torch raises anything where there is no derivative
            return None
        flat = torch.cat([each.double().flatten() for each in found])
        return flat if 0 < float(flat.norm()) < math.inf else None


class _Draws:
    """Models and rows such as a plan takes, from a fixed seed."""

    def __init__(self, plan: Plan, block: Block) -> None:
        self._plan = plan
        self._generator = torch.Generator().manual_seed(_SEED)
        self._sizes = _sizes_of(block.metas)
        written = {value for _, step, _ in plan.walk() for value in _whole((step.arguments, step.keywords))}
        telling = sorted((value for value in written if _SMALL < abs(value) < _LARGEST), key=abs)
        self._named = torch.tensor(telling[:_NAMED] or [0])

    def model(self) -> dict[str, Tensor]:
        """Return a tensor for each parameter and each frozen input, of a size such that activations keep theirs."""
        roles = (InputRole.PARAMETER, InputRole.FROZEN)
        return {each.name: self._tensor(each) for each in self._plan.inputs_of(*roles)}

    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows of different magnitudes; whole numbers in them are often those that the plan itself names.

        Whatever is not among those that an operation takes is moved there (`plans.lowering`), or its row fails.
        """
        (features,), (target,) = self._plan.inputs_of(InputRole.FEATURES), self._plan.inputs_of(InputRole.TARGET)
        for number in range(_TRIED):
            yield self._row(features, number, _SCALES[number % len(_SCALES)]), self._row(target, number, 1.0)

    def _tensor(self, each: Input) -> Tensor:
        dtype = DTYPES[each.dtype]
        if not dtype.is_floating_point:
            return torch.zeros(each.shape, dtype=dtype)
        if each.role is InputRole.FROZEN:
            return torch.rand(each.shape, generator=self._generator).to(dtype)  # it may be a variance
        fan = max(1, math.prod(each.shape[1:]))
        return (torch.randn(each.shape, generator=self._generator) / math.sqrt(fan)).to(dtype)

    def _row(self, each: Input, number: int, scale: float) -> Tensor:
        """Return one row; every other one is of values from 0 to 1."""
        shape, dtype = tuple(1 if size == BATCH else int(size) for size in each.shape), DTYPES[each.dtype]
        drawn = torch.rand(shape, generator=self._generator)
        if dtype is torch.bool:
            return drawn < 0.5
        if dtype.is_floating_point:
            if each.role is InputRole.TARGET:
                return (drawn if number % 2 else drawn.round()).to(dtype)
            normal = torch.randn(shape, generator=self._generator)
            return ((drawn if number % 2 else normal) * scale).to(dtype)
        below = self._sizes[number % len(self._sizes)]
        named = self._named[torch.randint(len(self._named), shape, generator=self._generator)]
        return torch.where(drawn < 0.3, named, torch.randint(below, shape, generator=self._generator)).to(dtype)


def _telling(alone: _Alone, rows: Iterator[tuple[Tensor, Tensor]]) -> Iterator[_Row]:
    for features, target in rows:
        gradient = alone.gradient(features, target)
        if gradient is not None:
            yield _Row(features, target, gradient)


def _sizes_of(metas: Iterable[Any]) -> list[int]:
    """Return the sizes of what a plan computes: a table's entries and a loss's classes are among them."""
    sizes = {size for meta in metas if isinstance(meta, Tensor) for size in meta.shape if size > 1}
    return sorted(sizes or {2})


def _whole(value: object) -> Iterator[int]:
    """Yield the whole numbers among the arguments of a step."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _whole(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
