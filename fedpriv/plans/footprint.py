"""An upper bound of the bytes that a block holds at once, as it will really run.

Lowering adds copies, and fusion moves nodes out of the loop and shares what two steps compute: values then live
longer than in the plan. This counts what is left of that. What a kernel takes for itself is bounded by `cost`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fedpriv.plans import cost
from fedpriv.plans.blocks import Block, Node
from fedpriv.plans.operations import parameters_of, table


def peak_bytes(block: Block) -> int:
    """Return an upper bound of the bytes that one batch through `block` takes, inputs and constants included."""
    order = block.every_node()
    roots = _roots(order)
    held = {value: cost.nbytes(each) for value, each in enumerate(block.metas) if isinstance(each, torch.Tensor)}
    last = {roots.get(value, value): position for position, node in enumerate(order) for value in _touched(node)}
    body = len(block.once) + len(block.rowwise)
    # what is made before the loop lives through it
    outside = {value for node in order[:body] for value in node.results}
    forever = {roots.get(value, value) for value in (*block.outputs, *outside)}
    live = sum(held.get(value, 0) for value in range(block.inputs + block.constants))
    peak = live
    for position, node in enumerate(order):
        fresh = [value for value in node.results if roots.get(value, value) == value]
        live += sum(held.get(value, 0) for value in fresh)
        peak = max(peak, live + _scratch(block, node))
        for root in {roots.get(value, value) for value in _touched(node)}:
            if last[root] == position and root not in forever and root >= block.inputs + block.constants:
                live -= held.get(root, 0)
    return peak


def _touched(node: Node) -> Iterator[int]:
    yield from node.operands()
    yield from node.results


def _roots(order: list[Node]) -> dict[int, int]:
    """Return, for each value that takes no memory of its own, the value whose memory it shows."""
    roots: dict[int, int] = {}
    for node in order:
        known = table().get(node.name)
        if known is None or known.view:  # in place, or a view
            first = next(node.operands())
            roots.update(dict.fromkeys(node.results, roots.get(first, first)))
    return roots


def _scratch(block: Block, node: Node) -> int:
    known = table().get(node.name)
    if known is None:
        return 0
    names = [each.name for each in parameters_of(node.overload)]
    bound = dict(zip(names, block.shown(node), strict=True))
    results = [each for each in (block.metas[value] for value in node.results) if isinstance(each, torch.Tensor)]
    return cost.workspace_of(known, bound, results)
