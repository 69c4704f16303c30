"""Runs a checked plan: bound to a model's tensors, over steps and epochs, or once for a plain function.

A `Bound` owns private copies of what the plan changes; features and target are only read. Nothing here reports
a label, a value or the text of an exception: a failing step raises `StepFailed` with its number and name.
What may be released is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedpriv.errors import InputMismatch, PlanRefused, QuotaExceeded, StepFailed, UsageError
from fedpriv.plans import native
from fedpriv.plans.blocks import Block
from fedpriv.plans.engine import Engine
from fedpriv.plans.footprint import peak_bytes
from fedpriv.plans.fusion import fused
from fedpriv.plans.lowering import lowered
from fedpriv.plans.plan import BATCH, Constant, Input, InputRole, OutputRole, Plan
from fedpriv.plans.scalars import evaluate, specialise
from fedpriv.plans.validation import CheckedPlan
from fedpriv.updates import DTYPES, dtype_name

_CHANGED = {OutputRole.PARAMETER, OutputRole.STATE, OutputRole.OPTIMIZER, OutputRole.KEPT}
_FROM_CALLER = {InputRole.PARAMETER, InputRole.STATE, InputRole.FROZEN}
MAXIMUM_KEPT = 16
"""Batch sizes for which a program keeps its compiled form."""
K = TypeVar("K")
V = TypeVar("V")
CHUNK_BYTES = 64 << 20
"""Rows of an epoch are gathered in pieces of at most this size."""


@dataclass(frozen=True)
class Layout:
    """Which input and output of a plan is what; positions in the plan's own order."""

    features: int | None
    target: int | None
    changed: tuple[int, ...]
    """Inputs that an output replaces."""
    replacing: tuple[int, ...]
    """The outputs that replace them, in the same order."""
    reported: tuple[int, ...]
    """Outputs with the role LOSS or METRIC."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Inputs that are cut into batches."""
        return tuple(each for each in (self.features, self.target) if each is not None)

    @classmethod
    def of(cls, plan: Plan) -> Layout:
        """Return the layout of `plan`."""
        names = {each.name: position for position, each in enumerate(plan.inputs)}
        roles = {each.role: position for position, each in enumerate(plan.inputs)}
        changing = [position for position, each in enumerate(plan.outputs) if each.role in _CHANGED]
        return cls(
            features=roles.get(InputRole.FEATURES),
            target=roles.get(InputRole.TARGET),
            changed=tuple(names[plan.outputs[position].name] for position in changing),
            replacing=tuple(changing),
            reported=tuple(
                position
                for position, each in enumerate(plan.outputs)
                if each.role in {OutputRole.LOSS, OutputRole.METRIC}
            ),
        )


class Program:
    """A checked plan compiled for one device; blocks for each batch size are kept."""

    def __init__(self, checked: CheckedPlan, device: str = "cpu") -> None:
        self.checked = checked
        self.plan = checked.plan
        self.layout = Layout.of(checked.plan)
        self.device = torch.device(device)
        self.constants = [_tensor(each, self.device) for each in self.plan.constants]
        self._blocks: dict[tuple[int, bool], Block] = {}
        self._natives: dict[int, native.Native | None] = {}

    def block(self, batch: int, *, plain: bool = False) -> Block:
        """Return the plan at `batch` rows; `plain` without any fusion. Raise `PlanRefused` when it does not fit."""
        found = self._blocks.get((batch, plain))
        if found is None:
            found = self._prepared(batch, plain=plain)
            _keep(self._blocks, (batch, plain), found)
        return found

    def _prepared(self, batch: int, *, plain: bool) -> Block:
        inference = self.checked.at(batch)
        try:
            block = lowered(self.plan, inference)
            specialise(block)
            if plain:
                return block
            block = fused(block, self.layout.changed, self.layout.replacing, self.layout.rows)
            needed = peak_bytes(block)
        except Exception:  # noqa: BLE001  torch raises anything for dtypes and shapes that its own checks let through
            raise PlanRefused(f"the plan cannot be prepared for {batch} rows") from None
        granted = self.checked.quota.maximum_bytes
        if needed > granted:
            raise QuotaExceeded(
                f"the plan as it runs needs {needed} bytes at once for {batch} rows, the owner grants {granted}; "
                "use a smaller batch or model"
            )
        return block

    def native(self, batch: int) -> native.Native | None:
        """Return the loop over batches of this size as one call, or None where torch cannot express it."""
        if batch not in self._natives:
            _keep(self._natives, batch, native.compiled(self.block(batch), self.layout, batch, self.device))
        return self._natives[batch]

    def bind(
        self,
        state: Mapping[str, Tensor],
        hyperparameters: Mapping[str, float],
        generator: torch.Generator | None = None,
        kept: Mapping[str, Tensor] | None = None,
    ) -> Bound:
        """Return the program with its own copy of `state`; raise `InputMismatch` for a tensor that does not fit.

        `kept` is what `Bound.kept` gave after an earlier round; without it that begins at zero.
        """
        return Bound(self, state, hyperparameters, generator, kept or {})

    def run(self, *arguments: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return the outputs of a plan of ARGUMENT inputs."""
        inputs = self.plan.inputs_of(InputRole.ARGUMENT)
        if not len(inputs) == len(self.plan.inputs) == len(arguments):
            raise UsageError(
                f"the plan takes {len(inputs)} arguments and {len(self.plan.inputs)} inputs in all; `bind` the rest"
            )
        batch = self.fitting([(dtype_name(each.dtype), tuple(each.shape)) for each in arguments])
        engine = Engine(self.block(batch), {}, generator, self.device)
        with torch.inference_mode():
            given = [each.to(self.device).contiguous() for each in arguments]
            return [each.clone() for each in engine.run([*given, *self.constants])]

    def fitting(self, arguments: Sequence[tuple[str, tuple[int, ...]]]) -> int:
        """Return the number of rows at which a plan of ARGUMENT inputs takes `arguments`, dtype and shape of each.

        Raise `InputMismatch` where it does not.
        """
        inputs = self.plan.inputs_of(InputRole.ARGUMENT)
        if not len(inputs) == len(self.plan.inputs) == len(arguments):
            raise InputMismatch(f"the plan takes {len(self.plan.inputs)} inputs, and {len(arguments)} arguments came")
        rows = [
            shape[0] for each, (_, shape) in zip(inputs, arguments, strict=True) if BATCH in each.shape[:1] and shape
        ]
        batch = rows[0] if rows else 1
        if batch < 1:
            raise InputMismatch("a batch has no rows; give one at least")
        for each, (dtype, shape) in zip(inputs, arguments, strict=True):
            _check_fit(each, dtype, shape, batch)
        return batch


class Bound:
    """A program and the tensors it trains; `step` and `epoch` change them, `state` copies them out."""

    def __init__(
        self,
        program: Program,
        state: Mapping[str, Tensor],
        hyperparameters: Mapping[str, float],
        generator: torch.Generator | None,
        kept: Mapping[str, Tensor],
    ) -> None:
        self.program = program
        self._plan, self._layout = program.plan, program.layout
        self._generator = generator if generator is not None else torch.Generator(program.device)
        self._given: dict[int, float] = {}
        self._values: list[Any] = [None] * len(self._plan.inputs)
        changed = set(self._layout.changed)
        with torch.inference_mode():
            for position, each in enumerate(self._plan.inputs):
                if each.role is InputRole.HYPERPARAMETER:
                    self._given[position] = _number(each, hyperparameters)
                elif each.role is InputRole.OPTIMIZER or (each.role is InputRole.KEPT and each.name not in kept):
                    self._values[position] = torch.zeros(each.shape, dtype=DTYPES[each.dtype], device=program.device)
                elif each.role is InputRole.KEPT:
                    self._values[position] = _held(each, kept, program.device, own=True)
                elif each.role in _FROM_CALLER:
                    self._values[position] = _held(each, state, program.device, own=position in changed)
                elif each.role is InputRole.ARGUMENT:
                    raise UsageError(f"input {each.name!r} is an argument of a function; call `run`")
        self._engines: dict[tuple[int, bool], Engine] = {}

    def state(self) -> dict[str, Tensor]:
        """Return copies of the parameters and buffers, trained or not, by name."""
        return self._copies(InputRole.PARAMETER, InputRole.STATE)

    def kept(self) -> dict[str, Tensor]:
        """Return copies of what is to be there at the start of the next round, by name."""
        return self._copies(InputRole.KEPT)

    def _copies(self, *roles: InputRole) -> dict[str, Tensor]:
        return {
            each.name: self._values[position].detach().clone()
            for position, each in enumerate(self._plan.inputs)
            if each.role in roles
        }

    def step(self, features: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Run one batch and return its loss and metrics by name, one number each."""
        batch = self._fit(features, target)
        outputs = self._run(batch, *self._gathered(features, target, slice(None)))
        return {self._plan.outputs[position].name: outputs[position] for position in self._layout.reported}

    def epoch(
        self, features: Tensor, target: Tensor, order: Tensor | None, batch_size: int, *, drop_last: bool = False
    ) -> dict[str, float]:
        """Run every batch of one pass and return loss and metrics, the mean over the rows seen.

        `order` holds the row numbers to visit; None visits each row once, in order. With no row seen, returns {}.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        count = len(features) if order is None else len(order)
        whole = count // batch_size * batch_size
        self._fit(features, target)
        totals: dict[str, float] = {}
        seen = 0
        for start, stop, size in _pieces(count if not drop_last else whole, batch_size, _row_bytes(features, target)):
            rows = slice(start, stop) if order is None else order[start:stop]
            for name, value in self._pass(*self._gathered(features, target, rows), size).items():
                totals[name] = totals.get(name, 0.0) + value * size
            seen = stop
        return {name: value / seen for name, value in totals.items()}

    def _pass(self, features: Tensor, target: Tensor, size: int) -> dict[str, float]:
        """Run consecutive batches of `size` rows; return the sums over batches of loss and metrics."""
        loop = self.program.native(size)
        if loop is None:
            return self._stepwise(features, target, size)
        scalars = evaluate(self.program.block(size), self._given)
        count = len(features) // size
        try:
            sums = loop.run(self._values, self.program.constants, features, target, count, self._generator, scalars)
        except StepFailed:
            self._run(size, features[:size], target[:size], plain=True)  # raises again, with the step, where it can
            raise
        return dict(zip(self._reported(), sums, strict=True))

    def _stepwise(self, features: Tensor, target: Tensor, size: int) -> dict[str, float]:
        totals = dict.fromkeys(self._reported(), 0.0)
        for start in range(0, len(features), size):
            outputs = self._run(size, features[start : start + size], target[start : start + size])
            for name, position in zip(totals, self._layout.reported, strict=True):
                totals[name] += float(outputs[position])
        return totals

    def _reported(self) -> list[str]:
        return [self._plan.outputs[position].name for position in self._layout.reported]

    def _run(self, batch: int, features: Tensor, target: Tensor, *, plain: bool = False) -> list[Tensor]:
        engine = self._engines.get((batch, plain))
        if engine is None:
            block = self.program.block(batch, plain=plain)
            engine = Engine(block, evaluate(block, self._given), self._generator, self.program.device)
            self._engines[batch, plain] = engine
        values = list(self._values)
        for position, rows in ((self._layout.features, features), (self._layout.target, target)):
            if position is not None:
                values[position] = rows
        with torch.inference_mode():
            outputs = engine.run([*values, *self.program.constants])
        for position, output in zip(self._layout.changed, self._layout.replacing, strict=True):
            self._values[position] = outputs[output]
        return outputs

    def _gathered(self, features: Tensor, target: Tensor, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return the chosen rows on the program's device, contiguous as kernels take them to be."""
        device = self.program.device
        if isinstance(rows, slice):
            return features[rows].to(device).contiguous(), target[rows].to(device).contiguous()
        return (
            features.index_select(0, rows).to(device).contiguous(),
            target.index_select(0, rows).to(device).contiguous(),
        )

    def _fit(self, features: Tensor, target: Tensor) -> int:
        batch = len(features)
        for position, rows in ((self._layout.features, features), (self._layout.target, target)):
            if position is not None:
                _check(self._plan.inputs[position], rows, batch)
        return batch


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """Store under `key` and drop the oldest: a peer chooses batch sizes, not how much memory they take."""
    kept[key] = value
    while len(kept) > MAXIMUM_KEPT:
        del kept[next(iter(kept))]


def _check(declared: Input, value: Tensor, batch: int) -> None:
    _check_fit(declared, dtype_name(value.dtype), tuple(value.shape), batch)


def _check_fit(declared: Input, dtype: str, shape: tuple[int, ...], batch: int) -> None:
    expected = tuple(batch if size == BATCH else size for size in declared.shape)
    if shape != expected or dtype != declared.dtype:
        raise InputMismatch(
            f"input {declared.name!r} needs {declared.dtype} of shape {expected}, not {dtype} of shape {shape}"
        )


def _held(declared: Input, state: Mapping[str, Tensor], device: torch.device, *, own: bool) -> Tensor:
    if declared.name not in state:
        raise InputMismatch(f"the model has no tensor {declared.name!r}, which the plan takes as an input")
    value = state[declared.name].detach()
    _check(declared, value, 1)
    moved = value.to(device)
    return moved.clone(memory_format=torch.contiguous_format) if own or not moved.is_contiguous() else moved


def _number(declared: Input, hyperparameters: Mapping[str, float]) -> float:
    if declared.name not in hyperparameters:
        raise InputMismatch(f"the plan takes the hyperparameter {declared.name!r}, which was not given")
    return float(hyperparameters[declared.name])


def _tensor(constant: Constant, device: torch.device) -> Tensor:
    dtype = DTYPES[constant.dtype]
    if not constant.content:
        return torch.zeros(constant.shape, dtype=dtype, device=device)
    return torch.frombuffer(bytearray(constant.content), dtype=dtype).reshape(constant.shape).to(device)


def _pieces(count: int, batch: int, row_bytes: int) -> Sequence[tuple[int, int, int]]:
    """Return (start, stop, batch size) of pieces: whole batches within `CHUNK_BYTES`, then the remainder."""
    whole = count // batch * batch
    length = max(CHUNK_BYTES // max(row_bytes * batch, 1), 1) * batch
    pieces = [(start, min(start + length, whole), batch) for start in range(0, whole, length)]
    return [*pieces, (whole, count, count - whole)] if count > whole else pieces


def _row_bytes(*tensors: Tensor) -> int:
    return sum(each.itemsize * (each.numel() // max(len(each), 1)) for each in tensors)
