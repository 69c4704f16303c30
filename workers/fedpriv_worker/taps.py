"""Where the gradient of a parameter is a product of two small tensors, found by the worker in the plan of one example.

A linear or convolution step y = W a + b gives the gradient g a^T for W and g for b, g the gradient of the loss by y. So
a step is cut open: a zero, the tap, is added to y, and its gradient is g. That holds only where W and b are used in
this step and nowhere else, which is read from the plan; a parameter for which it does not is left to be differentiated
for each example. Nothing that a peer says about a plan counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedpriv.plans.blocks import Block, Node
from fedpriv.plans.plan import InputRole, Plan, Slot

_TRANSPOSED = "aten.t.default"
_ADDED = "aten.add.Tensor"


@dataclass(frozen=True, slots=True)
class Tap:
    """One step cut open: registers of its operand and of its tap, and the inputs that are its weight and bias."""

    operand: int
    register: int
    shape: tuple[int, ...]
    weight: int
    bias: int | None
    convolution: tuple[tuple[int, ...], ...] | None
    """Kernel, stride, padding and dilation of a convolution; None for a linear step."""


def cut_open(block: Block, plan: Plan) -> tuple[Tap, ...]:
    """Add a tap to each step of `block` that has one; return the taps. The block's outputs become loss and operands."""
    trained = {at for at, each in enumerate(plan.inputs) if each.role is InputRole.PARAMETER}
    uses = Counter(value for node in block.every_node() for value in node.operands())
    uses.update(block.outputs)
    made = {result: node for node in block.every_node() for result in node.results}
    taps: list[Tap] = []
    nodes: list[Node] = []
    moved: dict[int, int] = {}
    for node in block.every_node():
        node.replace(moved)
        nodes.append(node)
        found = _tapped(node, block, trained, uses, made)
        if found is not None:
            operand, weight, bias, convolution = found
            result = node.results[0]
            register = block.new(block.metas[result])
            added = block.make(_ADDED, Slot(result), Slot(register), step=node.step)
            nodes.append(added)
            moved[result] = added.results[0]
            taps.append(Tap(operand, register, tuple(block.metas[result].shape), weight, bias, convolution))
    block.nodes, block.once, block.rowwise = nodes, [], []
    block.outputs = [moved.get(each, each) for each in block.outputs] + [tap.operand for tap in taps]
    return tuple(taps)


_Found = tuple[int, int, int | None, tuple[tuple[int, ...], ...] | None]


def _tapped(node: Node, block: Block, trained: set[int], uses: Counter[int], made: dict[int, Node]) -> _Found | None:
    """Return operand, weight, bias and geometry of a step that can be cut open, or None."""
    match node.name:
        case "aten.addmm.default":
            bias, operand, turned, *scales = node.arguments
            geometry: tuple[tuple[int, ...], ...] | None = None
            plain = scales == [1, 1] and len(block.metas[bias.index].shape) == 1
        case "aten.mm.default":
            operand, turned = node.arguments
            bias, geometry, plain = None, None, True
        case "aten.convolution.default":
            operand, turned, bias, stride, padding, dilation, transposed, _, groups = node.arguments
            kernel = tuple(block.metas[turned.index].shape[2:])
            geometry = (kernel, tuple(stride), tuple(padding), tuple(dilation))
            plain = len(kernel) == 2 and not transposed and groups == 1 and all(len(each) == 2 for each in geometry)
        case _:
            return None
    weight = turned.index if geometry is not None else _source(turned.index, made)
    alone = [each for each in (weight, None if bias is None else bias.index) if each is not None]
    once = geometry is not None or uses[turned.index] == 1
    if not plain or not once or weight not in trained or operand.index in alone:
        return None
    if any(each not in trained or uses[each] != 1 for each in alone) or not _is_float32(block, node):
        return None
    return operand.index, weight, None if bias is None else bias.index, geometry


def _source(turned: int, made: dict[int, Node]) -> int | None:
    """Return what was transposed to give `turned`, or None where it was made otherwise."""
    node = made.get(turned)
    return node.arguments[0].index if node is not None and node.name == _TRANSPOSED else None


def _is_float32(block: Block, node: Node) -> bool:
    return all(block.metas[each].dtype is torch.float32 for each in _tensors(node, block))


def _tensors(node: Node, block: Block) -> Iterator[int]:
    yield from (each for each in node.operands() if isinstance(block.metas[each], torch.Tensor))
    yield from node.results


def untapped(plan: Plan, taps: tuple[Tap, ...]) -> tuple[int, ...]:
    """Return the trained inputs that no tap covers."""
    covered = {each for tap in taps for each in (tap.weight, tap.bias)}
    trained = (at for at, each in enumerate(plan.inputs) if each.role is InputRole.PARAMETER)
    return tuple(at for at in trained if at not in covered)
