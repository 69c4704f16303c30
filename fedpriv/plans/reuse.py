"""Lets a node write into the memory of an operand that nobody reads again.

A storage may be written when the block made it, or the caller handed it over to be replaced; when no other value
that shares it is read later or leaves; and when the result has its shape and dtype. Updates of parameters move up
to right after the last reader of the old value. What leaves a block to be carried into the next batch has memory
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedpriv.plans.blocks import Block
from fedpriv.plans.operations import table
from fedpriv.plans.plan import Slot

_IN_PLACE = {
    name: name.replace(".", "_.").replace("aten_.", "aten.", 1)
    for name in (
        "aten.addmm.default",
        "aten.baddbmm.default",
        "aten.add.Tensor",
        "aten.add.Scalar",
        "aten.sub.Tensor",
        "aten.mul.Tensor",
        "aten.mul.Scalar",
        "aten.div.Tensor",
        "aten.div.Scalar",
        "aten.relu.default",
        "aten.sqrt.default",
        "aten.neg.default",
        "aten.sigmoid.default",
        "aten.tanh.default",
        "aten.exp.default",
        "aten.addcmul.default",
        "aten.addcdiv.default",
    )
}


def reuse(block: Block, changed: Sequence[int], replacing: Sequence[int], rows: Sequence[int]) -> None:
    """Reorder updates and write in place wherever that is safe; see the module."""
    _own_outputs(block, changed, replacing)
    _move_updates_up(block, changed, replacing)
    _write_in_place(block, set(changed))
    assert not set(rows) & set(changed)


def _roots(block: Block) -> dict[int, int]:
    """Return, for each value that shares memory, the value that the memory was made for."""
    roots: dict[int, int] = {}
    for node in block.every_node():
        known = table().get(node.name)
        if known is not None and known.view:
            first = next(node.operands())
            roots.update(dict.fromkeys(node.results, roots.get(first, first)))
    return roots


def _own_outputs(block: Block, changed: Sequence[int], replacing: Sequence[int]) -> None:
    """Copy what is carried where it would share memory with another output, or with what the caller keeps."""
    roots = _roots(block)
    made = {value for node in block.nodes for value in node.results}
    carried = set(replacing)
    taken = {roots.get(value, value) for position, value in enumerate(block.outputs) if position not in carried}
    for position in replacing:
        value = block.outputs[position]
        root = roots.get(value, value)
        if root in taken or not (root in made or root in changed):
            copy = block.make("aten.clone.default", Slot(value), step=-1)
            block.nodes.append(copy)
            block.outputs[position] = copy.results[0]
        taken.add(root)


def _move_updates_up(block: Block, changed: Sequence[int], replacing: Sequence[int]) -> None:
    """Place each final update right after its operands are there and the old value has its last reader."""
    roots = _roots(block)
    final = {block.outputs[output]: value for value, output in zip(changed, replacing, strict=True)}
    for node in [each for each in block.nodes if each.results[0] in final]:
        old = final[node.results[0]]
        here = next(position for position, each in enumerate(block.nodes) if each is node)
        del block.nodes[here]
        needed = set(node.operands())
        earliest = 0
        for position, other in enumerate(block.nodes):
            reads_old = any(roots.get(value, value) == old for value in other.operands())
            if needed & set(other.results) or reads_old:
                earliest = position + 1
        block.nodes.insert(min(earliest, here), node)


def _write_in_place(block: Block, owned: set[int]) -> None:
    roots = _roots(block)
    group = {value: roots.get(value, value) for value in range(len(block.metas))}
    last: dict[int, int] = {}
    for position, node in enumerate(block.nodes):
        last.update({group[value]: position for value in node.operands()})
    last.update({group[value]: len(block.nodes) for value in block.outputs})
    ours = owned | {value for node in block.nodes for value in node.results if value not in roots}
    for position, node in enumerate(block.nodes):
        first = node.arguments[0]
        if node.name not in _IN_PLACE or not isinstance(first, Slot) or len(node.results) != 1:
            continue
        root, result = group[first.index], node.results[0]
        others = {group[value] for value in node.operands() if value != first.index}
        repeated = sum(value == first.index for value in node.operands()) > 1
        if root not in ours or last[root] != position or root in others or repeated:
            continue
        if not _takes(block.metas[first.index], block.metas[result]):
            continue
        node.name = _IN_PLACE[node.name]
        end = last.get(result, position)
        for value, its in group.items():
            if its == result:
                group[value] = root
        last[root] = end


def _takes(target: torch.Tensor, result: torch.Tensor) -> bool:
    """Whether a result fits into the memory of `target`, each element in a place of its own."""
    overlaps = any(step == 0 and size > 1 for size, step in zip(target.shape, target.stride(), strict=True))
    alike = target.shape == result.shape and target.dtype == result.dtype
    return alike and target.stride() == result.stride() and not overlaps
