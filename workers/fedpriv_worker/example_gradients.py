"""Clipped gradients of single examples, summed: the loss of one example from a plan, mapped over a batch by the worker.

The plan is lowered for one row, so examples cannot mix whatever it says; `torch.vmap` maps that over rows. Where a step
has a tap (`taps`), the norm of an example's gradient is a product of norms and the sum of clipped ones is one matrix
product; other parameters are differentiated for each example. An example whose gradient is no finite number counts as
zero. No noise is added here, and nothing that is returned may leave a worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedpriv.errors import InputMismatch, PlanRefused, QuotaExceeded, StepFailed
from fedpriv.plans.blocks import Block
from fedpriv.plans.engine import Engine
from fedpriv.plans.interpreter import Program
from fedpriv.plans.operations import operation
from fedpriv.plans.plan import InputRole, OutputRole, Plan, Step
from fedpriv.plans.validation import CheckedPlan, Quota
from fedpriv_worker.flattening import Flat
from fedpriv_worker.picking import picked
from fedpriv_worker.pieces import Piece, Squares, Whole, piece_of
from fedpriv_worker.taps import Tap, cut_open, untapped

CHUNK_ROWS = 128
"""Rows that are differentiated at once at most; also what bounds the rounding error of a sum in float32."""
_PADDING = 16
"""Rows are filled up to a multiple of this with zeros, which count for nothing: few lists serve all sample sizes."""
_FLOAT_BYTES, _DOUBLE_BYTES = 4, 8
_GIVEN = (InputRole.PARAMETER, InputRole.FROZEN)
_BATCH_NORMS = ("batch_norm", "instance_norm")
_TABLES = {"aten.embedding.default": (2, 3), "aten.embedding_dense_backward.default": (3, 4)}
"""Where look-ups have their padding entry and whether they count; `torch.vmap` heeds either for its first row alone."""


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """The sum of clipped gradients, flat float32 in the order of the plan's parameters, and how many counted as zero.

    Both are private: noise is still to be added to the one, and the other stays in the owner's own log.
    """

    total: Tensor
    ignored: int


class ExampleGradients:
    """The loss plan of one example, made ready to be differentiated for many.

    Raise `PlanRefused` for a plan that trains a statistic of the batch (BatchNorm), draws random numbers, has no loss
    or no parameter, or takes more memory for one row than the owner grants.
    """

    def __init__(self, checked: CheckedPlan, *, tapped: bool = True) -> None:
        _check(checked.plan)
        program = Program(checked)
        block = program.block(1, plain=True)
        picked(block)
        self._plan = checked.plan
        self._constants = program.constants
        self.taps = cut_open(block, checked.plan) if tapped else ()
        self._rest = untapped(checked.plan, self.taps)
        self._size = len(block.metas)
        self._engine = Engine(block, {}, None, program.device)
        self._flat: dict[int, Flat] = {}
        self._mapped = torch.vmap(self._one, in_dims=(0, 0, 0, 0, None))
        self.parameters = tuple(each for each in checked.plan.inputs if each.role is InputRole.PARAMETER)
        self._offsets: dict[int, tuple[int, int]] = {}
        end = 0
        for at, each in enumerate(checked.plan.inputs):
            if each.role is InputRole.PARAMETER:
                start, end = end, end + torch.Size(each.shape).numel()
                self._offsets[at] = (start, end)
        self.dimension = end
        self._rows = _rows_at_once(_row_bytes(block, checked.plan, self.taps, self._rest), checked.quota)
        self._padding = min(_PADDING, self._rows)

    def clipped_sum(self, given: Mapping[str, Tensor], features: Tensor, target: Tensor, clip: float) -> ClippedSum:
        """Return the sum over rows of gradients, each scaled down to L2 norm `clip` where it is longer.

        `given` holds every parameter and frozen tensor by name. No rows give zeros.
        """
        held = self._held(given)
        if len(features) <= self._rows:
            return ClippedSum(*self._chunk(held, features, target, clip))
        total, ignored = torch.zeros(self.dimension, dtype=torch.float64), 0
        for start in range(0, len(features), self._rows):
            rows = slice(start, start + self._rows)
            part, bad = self._chunk(held, features[rows], target[rows], clip)
            total += part
            ignored += bad
        return ClippedSum(total, ignored)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of `flat`, shape (dimension,), by parameter name."""
        parts = torch.split(flat, [end - start for start, end in self._offsets.values()])
        return {each.name: part.view(each.shape) for each, part in zip(self.parameters, parts, strict=True)}

    def _held(self, given: Mapping[str, Tensor]) -> list[Any]:
        held: list[Any] = []
        for each in self._plan.inputs:
            value = given.get(each.name) if each.role in _GIVEN else None
            if each.role in _GIVEN and (value is None or tuple(value.shape) != each.shape):
                raise InputMismatch(f"input {each.name!r} needs a tensor of shape {each.shape}; give the whole model")
            held.append(None if value is None else value.detach())
        return held

    def _one(
        self, features: Tensor, target: Tensor, taps: Sequence[Tensor], rest: Sequence[Tensor], held: Sequence[Any]
    ) -> tuple[Tensor, ...]:
        """Run the plan on one example; return its loss and the operands of the taps."""
        registers: list[Any] = [*held, *self._constants]
        registers += [None] * (self._size - len(registers))
        for at, each in enumerate(self._plan.inputs):
            if each.role is InputRole.FEATURES:
                registers[at] = features
            elif each.role is InputRole.TARGET:
                registers[at] = target
        for at, value in zip(self._rest, rest, strict=True):
            registers[at] = value
        for tap, value in zip(self.taps, taps, strict=True):
            registers[tap.register] = value
        return tuple(self._engine.run(registers))

    def each_row(self, given: Mapping[str, Tensor], features: Tensor, target: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Yield, for each row, the squared norm that its clip goes by, and its gradient as it is added to others'.

        Shape (dimension,), float32, zeros where it is no finite number. For `rehearsal`, on no private rows.
        """
        held = self._held(given)
        for start in range(0, len(features), self._rows):
            rows = slice(start, start + self._rows)
            count = len(features[rows])
            pieces = self._pieces(held, features[rows], target[rows])
            squares = _squares(pieces)
            _zeroed(pieces, torch.from_numpy(~np.isfinite(squares)))
            for row in range(count):
                factors = torch.zeros(len(squares))
                factors[row] = 1.0
                yield float(squares[row]), self._added(pieces, factors)

    def _chunk(self, held: list[Any], features: Tensor, target: Tensor, clip: float) -> tuple[Tensor, int]:
        rows = len(features)
        if not rows:
            return torch.zeros(self.dimension), 0
        pieces = self._pieces(held, features, target)
        with torch.inference_mode():
            return self._summed(pieces, clip, rows)

    def _pieces(self, held: list[Any], features: Tensor, target: Tensor) -> list[Piece]:
        """Return the gradients of all rows, which are filled up with rows of zeros to a size that is kept ready."""
        rows = len(features)
        size = -(-rows // self._padding) * self._padding
        if size != rows:
            features, target = (_padded(each, size) for each in (features, target))
        given = [features, target, *(each for each in held if each is not None)]
        try:
            if size not in self._flat:
                self._flat[size] = Flat(self._slopes, [torch.zeros_like(each) for each in given])
            found = self._flat[size].run(given)
        except StepFailed:
            raise
        except Exception:  # noqa: BLE001  torch raises anything, and its text can quote values
            raise StepFailed(step=-1, operation="") from None
        count = len(self.taps)
        with torch.inference_mode():
            pieces: list[Piece] = [
                piece_of(tap, operand, slope)
                for tap, operand, slope in zip(self.taps, found[:count], found[count:], strict=False)
            ]
            return pieces + [Whole(at, slope) for at, slope in zip(self._rest, found[2 * count :], strict=True)]

    def _slopes(self, features: Tensor, target: Tensor, *given: Tensor) -> list[Tensor]:
        """Return the operands of all taps, their slopes, and the slopes of other parameters, each for each row."""
        rows = len(features)
        values = iter(given)
        held: list[Any] = [next(values) if each.role in _GIVEN else None for each in self._plan.inputs]
        taps = [torch.zeros(rows, *tap.shape, requires_grad=True) for tap in self.taps]
        rest = [held[at].expand(rows, *held[at].shape).detach().requires_grad_() for at in self._rest]
        with torch.enable_grad():
            losses, *operands = self._mapped(features.unsqueeze(1), target.unsqueeze(1), taps, rest, held)
            slopes = torch.autograd.grad(losses.sum(), [*taps, *rest], allow_unused=True, materialize_grads=True)
        return [*operands, *slopes]

    def _summed(self, pieces: list[Piece], clip: float, rows: int) -> tuple[Tensor, int]:
        squares = _squares(pieces)
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.minimum(clip / np.sqrt(squares), 1.0)  # a norm of 0 is that of zeros, exactly
        factors[rows:] = 0.0
        finite = np.isfinite(squares)
        ignored = 0
        if not finite.all():
            ignored = int((~finite[:rows]).sum())
            factors[~finite] = 0.0
            _zeroed(pieces, torch.from_numpy(~finite))
        return self._added(pieces, torch.from_numpy(factors.astype(np.float32))), ignored

    def _added(self, pieces: list[Piece], factors: Tensor) -> Tensor:
        """Return the sum over rows of factor times gradient, shape (dimension,)."""
        flat = torch.empty(self.dimension)
        for each in pieces:
            each.add_into(flat, self._offsets, factors)
        return flat


def _squares(pieces: Sequence[Piece]) -> Squares:
    """Return the squared norm of each row's whole gradient, float64."""
    squares = pieces[0].squares()
    for each in pieces[1:]:
        squares = squares + each.squares()
    return squares


def _zeroed(pieces: Sequence[Piece], rows: Tensor) -> None:
    for each in pieces:
        each.zero(rows)


def _row_bytes(block: Block, plan: Plan, taps: Sequence[Tap], rest: Sequence[int]) -> int:
    """Return a bound on the bytes that one row takes: what every node gives, twice over, and gradients of its own.

    Norms are taken in float64, one copy at a time: that of the largest operand, slope or gradient.
    """
    first = len(plan.inputs) + len(plan.constants)
    held = sum(each.nbytes for each in block.metas[first:] if isinstance(each, Tensor))
    whole = list(rest) + [tap.weight for tap in taps if tap.convolution is not None or tap.shape[0] != 1]
    sizes = [math.prod(plan.inputs[at].shape) for at in whole]
    own = sum(sizes)
    normed = [*sizes, *(block.metas[each].numel() for tap in taps for each in (tap.operand, tap.register))]
    patches = 0
    for tap in taps:
        if tap.convolution is not None:
            patches += math.prod(tap.shape[2:]) * math.prod(plan.inputs[tap.weight].shape[1:])
    return 3 * held + 2 * _FLOAT_BYTES * (own + patches) + _DOUBLE_BYTES * max(normed, default=0)


def _rows_at_once(row_bytes: int, quota: Quota) -> int:
    """Return how many rows fit into what the owner grants; raise `QuotaExceeded` where not one does."""
    fitting = min(CHUNK_ROWS, quota.maximum_bytes // max(row_bytes, 1))
    if fitting < 1:
        raise QuotaExceeded(
            f"the model takes {row_bytes} bytes for one row, over the {quota.maximum_bytes} granted; use a smaller one"
        )
    return fitting if fitting < _PADDING else fitting // _PADDING * _PADDING


def _padded(values: Tensor, size: int) -> Tensor:
    full = values.new_zeros(size, *values.shape[1:])
    full[: len(values)] = values
    return full


def _skips(step: Step) -> bool:
    """Return whether a look-up has a padding entry, or a gradient by frequency."""
    named = dict(step.keywords)
    padding, by_frequency = _TABLES[step.operation]
    given = (*step.arguments, *([None] * 8))
    entry, frequent = named.get("padding_idx", given[padding]), named.get("scale_grad_by_freq", given[by_frequency])
    return (entry is not None and entry != -1) or bool(frequent)


def _check(plan: Plan) -> None:
    """Raise `PlanRefused` unless `plan` is the loss of one example and nothing else."""
    if not plan.outputs_of(OutputRole.LOSS) or len(plan.outputs) != 1:
        raise PlanRefused(
            "a plan for private training has one output, the loss of one example; trace it with trace_loss"
        )
    if not plan.inputs_of(InputRole.PARAMETER):
        raise PlanRefused("a plan for private training has no parameter; there is nothing to train")
    strange = [each.name for each in plan.inputs if each.role not in {*_GIVEN, InputRole.FEATURES, InputRole.TARGET}]
    if strange:
        raise PlanRefused(
            f"input {strange[0][:40]!r} is neither rows nor a parameter; a module that keeps statistics, such as "
            "BatchNorm, cannot be trained privately: use GroupNorm or LayerNorm"
        )
    for index, step, _ in plan.walk():
        if any(each in step.operation for each in _BATCH_NORMS):
            raise PlanRefused(
                f"step {index} ({step.operation}) normalises over the batch, so that examples mix; use GroupNorm or "
                "LayerNorm",
                step=index,
                operation=step.operation,
            )
        if step.operation in _TABLES and _skips(step):
            raise PlanRefused(
                f"step {index} ({step.operation}) leaves one entry of a table out, or weighs entries by how often they "
                "come, which mapped over rows mixes them; use an Embedding without padding_idx and scale_grad_by_freq",
                step=index,
                operation=step.operation,
            )
        if operation(step.operation, step=index).random:
            raise PlanRefused(
                f"step {index} ({step.operation}) draws random numbers; leave dropout out of private training",
                step=index,
                operation=step.operation,
            )
