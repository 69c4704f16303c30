"""From torch's traced graph to a plan: names, slots, sizes; and what stands in the way, with its line.

The graph comes from `tracing`, mutation already removed. Devices, layouts and generators are dropped: the
worker chooses them. An operation outside the allow-list raises `TraceError` here, at the researcher's side,
so that it never becomes a refusal at a worker.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fedpriv.errors import OperationNotAllowed, TraceError
from fedpriv.plans.arguments import MEMORY_FORMATS, WORKERS_CHOICE
from fedpriv.plans.guards import MAXIMUM_INTEGER
from fedpriv.plans.operations import Operation, operation
from fedpriv.plans.plan import Argument, Constant, Dtype, Slot, Step
from fedpriv.updates import DTYPE_NAMES

MAXIMUM_CONSTANT_ELEMENTS = 65_536
_SIZES: Mapping[Any, str] = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.floordiv: "floordiv",
    operator.mod: "mod",
    operator.neg: "neg",
    operator.truediv: "div",
    torch.sym_max: "max",
    torch.sym_min: "min",
    torch.sym_float: "of",
}
_DROPPED = {
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range.default",
}
"""Checks of values; the operations they guard are total at a worker."""
_TAKE_NUMBERS = {f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")}
_ALIASES = {"aten.detach.default", "aten.alias.default", "aten.lift_fresh_copy.default"}
_FORMAT_NAMES = {value: name for name, value in MEMORY_FORMATS.items()}
_IGNORES_VALUES = {"aten.bernoulli.p", "aten.uniform.default", "aten.normal_functional.default"}


class Recorder:
    """Slots filled so far, while a graph is read front to back."""

    def __init__(self, inputs: int, constants: Sequence[torch.Tensor]) -> None:
        self.constants = [constant_of(each) for each in constants]
        self.steps: list[Step] = []
        self.nodes: list[fx.Node] = []
        self._inputs = inputs
        self._next = inputs + len(self.constants)
        self._slots: dict[fx.Node, int | list[int]] = {}
        self._kinds: dict[int, type] = {}

    def place(self, node: fx.Node, slot: int) -> None:
        """Record that an input or constant sits in `slot`."""
        self._slots[node] = slot

    def slot_of(self, node: fx.Node) -> int:
        """Return the slot of a node's single result."""
        slot = self._slots[node]
        assert isinstance(slot, int)
        return slot

    def record(self, node: fx.Node, *, where: Callable[[fx.Node], str]) -> None:
        """Append the step of one call; raise `TraceError` when it is not on the allow-list."""
        if node.target is operator.getitem:
            source = self._slots[node.args[0]]  # type: ignore[index]  # getitem's first argument is a node
            self._slots[node] = source[node.args[1]] if isinstance(source, list) else source  # type: ignore[index]
            return
        if str(node.target) in _DROPPED:
            return
        if self._is_same_value(node):
            self._slots[node] = self._slots[node.args[0]]  # type: ignore[index]  # the first argument is a node
            return
        name = self._name(node, where)
        try:
            known = operation(name)
        except OperationNotAllowed as refused:
            raise TraceError(f"{refused} ({where(node)}); express it with other operations") from None
        arguments = tuple(self._argument(each, node, where) for each in node.args)
        if name in _IGNORES_VALUES:
            arguments = (self._without_filler(node.args[0]), *arguments[1:])
        keywords = self._keywords(node, known, where)
        results = _result_count(node)
        self.steps.append(Step(name, arguments, keywords, results))
        self.nodes.append(node)
        filled = list(range(self._next, self._next + results))
        self._next += results
        self._slots[node] = filled if isinstance(node.meta.get("val"), tuple | list) else filled[0]
        if known.arithmetic is not None:
            self._kinds[filled[0]] = int if name.startswith("int.") else float

    def _is_same_value(self, node: fx.Node) -> bool:
        """Whether a node is its argument again: nothing is mutated, so an alias or a copy of an input is the input."""
        if str(node.target) in _ALIASES:
            return True
        source = self._slots.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        return (
            str(node.target) == "aten.clone.default"
            and not node.kwargs
            and isinstance(source, int)
            and source < self._inputs
        )

    def _name(self, node: fx.Node, where: Callable[[fx.Node], str]) -> str:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001  the type has no public name
            name = str(target)
            if name in _TAKE_NUMBERS and self._is_number(node.args[1]):
                return name.replace(".Tensor", ".Scalar")
            return {"aten.sym_size.int": "int.size", "aten.sym_numel.default": "int.numel"}.get(name, name)
        if target not in _SIZES:
            raise TraceError(f"{target!r} on sizes cannot be expressed in a plan ({where(node)})")
        word = _SIZES[target]
        floating = word in {"of", "div"} or any(self._is_float(each) for each in node.args)
        return f"{'float' if floating else 'int'}.{word}"

    def _is_number(self, value: object) -> bool:
        return not isinstance(value, fx.Node) or self._slots.get(value) in self._kinds

    def _is_float(self, value: object) -> bool:
        if isinstance(value, fx.Node):
            slot = self._slots[value]
            return isinstance(slot, int) and self._kinds.get(slot) is float
        return isinstance(value, float)

    def _without_filler(self, value: Any) -> Argument:  # noqa: ANN401  an fx argument
        """Return the tensor that an `empty_like` was made from: only its shape and dtype matter here."""
        while isinstance(value, fx.Node) and str(value.target) in {"aten.empty_like.default", "aten.clone.default"}:
            value = value.args[0]
        return Slot(self.slot_of(value))

    def _keywords(
        self, node: fx.Node, known: Operation, where: Callable[[fx.Node], str]
    ) -> tuple[tuple[str, Argument], ...]:
        defaults = {each.name: each.default for each in known.parameters}
        kept = {
            name: value
            for name, value in node.kwargs.items()
            if name not in WORKERS_CHOICE and not (value is None or (name in defaults and value is defaults[name]))
        }
        return tuple(sorted((name, self._argument(value, node, where)) for name, value in kept.items()))

    def _argument(self, value: Any, node: fx.Node, where: Callable[[fx.Node], str]) -> Argument:  # noqa: ANN401  an fx argument
        if isinstance(value, fx.Node):
            return Slot(self.slot_of(value))
        if isinstance(value, tuple | list):
            return tuple(self._argument(each, node, where) for each in value)
        if isinstance(value, torch.dtype):
            return Dtype(DTYPE_NAMES[value])
        if isinstance(value, torch.memory_format) and value in _FORMAT_NAMES:
            return _FORMAT_NAMES[value]
        if isinstance(value, int) and value == sys.maxsize:
            return MAXIMUM_INTEGER  # torch's word for "to the end" of a slice
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TraceError(
            f"{node.target} has an argument {type(value).__name__} that a plan cannot hold ({where(node)})"
        )


def constant_of(tensor: torch.Tensor) -> Constant:
    """Return a tensor that the traced code made itself, as bytes; raise `TraceError` when it is large."""
    if tensor.numel() > MAXIMUM_CONSTANT_ELEMENTS:
        raise TraceError(
            f"a constant of shape {tuple(tensor.shape)} is too large for a plan; register it as a buffer of the module"
        )
    plain = tensor.detach().cpu().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return Constant(DTYPE_NAMES[plain.dtype], tuple(plain.shape), content)


def _result_count(node: fx.Node) -> int:
    value = node.meta.get("val")
    return len(value) if isinstance(value, tuple | list) else 1
