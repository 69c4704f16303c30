"""Hyperparameters as plain floats inside a block.

A learning rate is a float64 tensor of shape () in the plan. Arithmetic on such values alone moves out of the loop, to
the moment a program is bound; arithmetic with a tensor takes the float as a number. Results are the same to
the last bit: torch computes both ways in the tensor's own precision.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

import torch

from fedpriv.plans.blocks import Block, Node, Scalar
from fedpriv.plans.plan import Slot

_FLOATS: Mapping[str, Callable[..., float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "rsub": lambda left, right: right - left,
    "neg": operator.neg,
    "sqrt": math.sqrt,
    "pow": operator.pow,
}
_WITH_NUMBER = {
    "aten.add.Tensor": "aten.add.Scalar",
    "aten.sub.Tensor": "aten.sub.Scalar",
    "aten.mul.Tensor": "aten.mul.Scalar",
    "aten.div.Tensor": "aten.div.Scalar",
}
_NUMBER_FIRST = {
    "aten.add.Tensor": "aten.add.Scalar",
    "aten.sub.Tensor": "aten.rsub.Scalar",
    "aten.mul.Tensor": "aten.mul.Scalar",
}


def specialise(block: Block) -> None:
    """Turn the hyperparameters of `block`, and what derives from them alone, into scalars."""
    nodes: list[Node] = []
    for node in block.nodes:
        scalars = [each for each in node.operands() if each in block.scalars]
        if not scalars:
            nodes.append(node)
        elif _becomes_scalar(block, node):
            block.scalars[node.results[0]] = _scalar(node)
        else:
            nodes.extend(_with_number(block, node))
    block.nodes = nodes
    for position, value in enumerate(block.outputs):
        if value in block.scalars:
            node = _tensor(block, value, -1)
            block.nodes.append(node)
            block.outputs[position] = node.results[0]


def evaluate(block: Block, given: Mapping[int, float]) -> dict[int, float]:
    """Return every scalar of `block` from the hyperparameters."""
    known = dict(given)
    for value, scalar in block.scalars.items():
        if scalar is not None:
            operands = [
                known[int(each)] if named else each for each, named in zip(scalar.operands, scalar.values, strict=True)
            ]
            known[value] = _safely(_FLOATS[scalar.operation], operands)
    return known


def _safely(function: Callable[..., float], operands: Sequence[float]) -> float:
    """Return what torch would: infinities and NaN where Python raises."""
    try:
        result = function(*operands)
    except (ZeroDivisionError, OverflowError, ValueError):
        values = [torch.tensor(float(each), dtype=torch.float64) for each in operands]
        result = float(function(*values)) if function is not math.sqrt else math.nan
    return result if isinstance(result, float | int) else math.nan


def _becomes_scalar(block: Block, node: Node) -> bool:
    parts = node.name.split(".")
    if (
        parts[1] not in _FLOATS
        or len(node.results) != 1
        or (parts[1] in {"add", "sub", "rsub"} and node.arguments[2] != 1)
    ):
        return False
    return all(each in block.scalars for each in node.operands())


def _scalar(node: Node) -> Scalar:
    operation = node.name.split(".")[1]
    given = node.arguments[:1] if operation in {"neg", "sqrt"} else node.arguments[:2]
    operands = tuple(each.index if isinstance(each, Slot) else each for each in given)
    return Scalar(operation, operands, tuple(isinstance(each, Slot) for each in given))


def _with_number(block: Block, node: Node) -> list[Node]:
    """Return `node` with its scalars as numbers where that keeps its result, else with scalars made tensors first."""
    rest = node.arguments[2:]
    if node.name in _WITH_NUMBER and rest in ([], [1]):
        left, right = node.arguments[:2]
        if right.index in block.scalars and _keeps_dtype(block, left):
            return [Node(_WITH_NUMBER[node.name], [left, right, *rest], node.results, node.step)]
        if left.index in block.scalars and node.name in _NUMBER_FIRST and _keeps_dtype(block, right):
            return [Node(_NUMBER_FIRST[node.name], [right, left, *rest], node.results, node.step)]
    if node.name == "aten.pow.Tensor_Tensor":
        left, right = node.arguments
        if left.index in block.scalars and _keeps_dtype(block, right):
            return [Node("aten.pow.Scalar", [left, right], node.results, node.step)]
    made = {value: _tensor(block, value, node.step) for value in node.operands() if value in block.scalars}
    node.replace({value: tensor.results[0] for value, tensor in made.items()})
    return [*made.values(), node]


def _keeps_dtype(block: Block, slot: Slot) -> bool:
    """Whether a float64 tensor of shape () promotes with this operand as a plain number does."""
    meta = block.metas[slot.index]
    return (
        slot.index not in block.scalars
        and meta.dtype.is_floating_point
        and (meta.dim() > 0 or meta.dtype == torch.float64)
    )


def _tensor(block: Block, value: int, step: int) -> Node:
    meta = torch.empty((), dtype=torch.float64, device="meta")
    arguments = block.filled("aten.scalar_tensor.default", (Slot(value), torch.float64))
    return Node("aten.scalar_tensor.default", arguments, (block.new(meta),), step)
