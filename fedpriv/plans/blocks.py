"""What a worker makes of a checked plan at one batch size: nodes over values, every size a number.

A value is numbered; a node names one torch overload and holds its arguments in the order of the schema,
defaults filled in. Values from hyperparameters are `scalars`: plain floats, known when the program is bound.
Nodes are functional until `fusion` lets some of them reuse a dead operand's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fedpriv.plans.operations import Overload, parameters_of, table, torch_overload
from fedpriv.plans.plan import Slot

GENERATOR = object()
"""Stands for the worker's random generator among a node's arguments."""


@dataclass(slots=True)
class Node:
    """One call: `name` is an overload of ours or of the allow-list, `step` the plan step it came from."""

    name: str
    arguments: list[Any]
    results: tuple[int, ...]
    step: int

    @property
    def overload(self) -> Overload:
        """The torch overload to run."""
        return overload_named(self.name)

    def operands(self) -> Iterator[int]:
        """Yield the values that the node reads."""
        yield from _slots(self.arguments)

    def replace(self, new: Mapping[int, int]) -> None:
        """Read `new[value]` wherever the node reads value."""
        self.arguments = [_moved(each, new) for each in self.arguments]


@dataclass(slots=True)
class Scalar:
    """One float computed from hyperparameters when a program is bound."""

    operation: str
    operands: tuple[int | float, ...]
    values: tuple[bool, ...]
    """Which of the operands are values rather than numbers."""


@dataclass(slots=True)
class Block:
    """A plan at one batch size, ready for an engine."""

    metas: list[Any] = field(repr=False)
    nodes: list[Node] = field(repr=False)
    inputs: int
    constants: int
    outputs: list[int]
    operations: tuple[str, ...] = ()
    """The name of each step of the plan, for reports of failure."""
    scalars: dict[int, Scalar | None] = field(default_factory=dict, repr=False)
    """Values that are floats; None for a hyperparameter itself."""
    once: list[Node] = field(default_factory=list, repr=False)
    """Nodes that no batch and no step changes: they run before the first batch, and nothing mutates their results."""
    rowwise: list[Node] = field(default_factory=list, repr=False)
    """Nodes that treat each row alike: they may run on all rows at once, before these are cut into batches."""

    def every_node(self) -> list[Node]:
        """Return all nodes in an order that computes one batch."""
        return [*self.once, *self.rowwise, *self.nodes]

    def new(self, meta: Any) -> int:  # noqa: ANN401  a meta tensor or a float
        """Return the number of a fresh value."""
        self.metas.append(meta)
        return len(self.metas) - 1

    def make(self, name: str, *given: Any, step: int, results: tuple[int, ...] | None = None) -> Node:  # noqa: ANN401
        """Return a node, defaults filled in; fresh values for its results unless they are named."""
        arguments = self.filled(name, given)
        if results is None:
            produced = _called(overload_named(name), self._meta_arguments(name, arguments))
            several = produced if isinstance(produced, tuple | list) else (produced,)
            results = tuple(self.new(each) for each in several)
        return Node(name, arguments, results, step)

    def filled(self, name: str, given: Sequence[Any]) -> list[Any]:
        """Return arguments in schema order, defaults after those given."""
        rest = parameters_of(overload_named(name))[len(given) :]
        return [*given, *(each.default for each in rest)]

    def _meta_arguments(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        parameters = parameters_of(overload_named(name))
        shown: list[Any] = []
        for parameter, value in zip(parameters, arguments, strict=True):
            if value is GENERATOR:
                shown.append(None)
            elif parameter.kind == "Device" and value is None and not any(each.kind == "Tensor" for each in parameters):
                shown.append(torch.device("meta"))
            else:
                shown.append(self._meta(value))
        return shown

    def shown(self, node: Node) -> list[Any]:
        """Return the arguments of `node` with a meta tensor in place of each value."""
        return self._meta_arguments(node.name, node.arguments)

    def _meta(self, value: Any) -> Any:  # noqa: ANN401  any argument of any node
        if isinstance(value, Slot):
            return self.metas[value.index]
        if isinstance(value, tuple | list):
            return [self._meta(each) for each in value]
        return value


def _called(overload: Overload, arguments: Sequence[Any]) -> Any:  # noqa: ANN401  what torch returns
    """Call an overload with every argument in the order of its schema, the keyword-only ones too."""
    parameters = parameters_of(overload)
    split = sum(not each.keyword for each in parameters)
    keywords = {each.name: value for each, value in zip(parameters[split:], arguments[split:], strict=True)}
    return overload(*arguments[:split], **keywords)


_OWN = frozenset({
    "aten.addmm_.default", "aten.baddbmm_.default",
    "aten.add_.Tensor", "aten.add_.Scalar", "aten.sub_.Tensor", "aten.mul_.Tensor",
    "aten.mul_.Scalar", "aten.div_.Tensor", "aten.div_.Scalar", "aten.relu_.default", "aten.sqrt_.default",
    "aten.neg_.default", "aten.sigmoid_.default", "aten.tanh_.default", "aten.exp_.default",
    "aten.addcmul_.default", "aten.addcdiv_.default",
})  # fmt: skip
"""Overloads that only our own lowering and fusion put into a block; a plan cannot name them."""
_overloads: dict[str, Overload] = {}


def overload_named(name: str) -> Overload:
    """Return the overload of an allowed operation, or of one of our own."""
    found = _overloads.get(name)
    if found is None:
        known = table().get(name)
        if known is not None and known.overload is not None:
            found = known.overload
        elif name in _OWN:
            found = torch_overload(name)
        else:
            raise KeyError(name)
        _overloads[name] = found
    return found


def _slots(arguments: Sequence[Any]) -> Iterator[int]:
    for each in arguments:
        if isinstance(each, Slot):
            yield each.index
        elif isinstance(each, tuple | list):
            yield from _slots(each)


def _moved(value: Any, new: Mapping[int, int]) -> Any:  # noqa: ANN401  any argument of any node
    if isinstance(value, Slot):
        return Slot(new.get(value.index, value.index))
    if isinstance(value, tuple | list):
        return tuple(_moved(each, new) for each in value)
    return value
