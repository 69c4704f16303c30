"""The loss of one example by its class, in fewer operations than torch takes when it maps over examples.

For one row, the negative log likelihood is minus the log probability of its class, or 0 where the class is the
ignored one (torch's mean over no rows is no number, and counts as zero as well). Only single rows without weights are
rewritten.
"""

from __future__ import annotations

from fedpriv.plans.blocks import Block, Node
from fedpriv.plans.plan import Slot

_LOSS = "aten.nll_loss_forward.default"
_NO_REDUCTION = 0


def picked(block: Block) -> None:
    """Rewrite each such loss of `block`, which is lowered for one row."""
    read = {value for node in block.every_node() for value in node.operands()} | set(block.outputs)
    nodes: list[Node] = []
    for node in block.every_node():
        if _fits(node, block, read):
            nodes += _rewritten(node, block)
        else:
            nodes.append(node)
    block.nodes, block.once, block.rowwise = nodes, [], []


def _fits(node: Node, block: Block, read: set[int]) -> bool:
    if node.name != _LOSS:
        return False
    scores, _, weight, reduction, _ = node.arguments
    alone = tuple(block.metas[scores.index].shape[:-1]) == (1,)
    return alone and weight is None and reduction != _NO_REDUCTION and node.results[1] not in read


def _rewritten(node: Node, block: Block) -> list[Node]:
    scores, target, _, _, ignored = node.arguments
    counts = block.make("aten.ne.Scalar", target, ignored, step=node.step)
    inside = block.make("aten.clamp.default", target, 0, step=node.step)
    index = block.make("aten.unsqueeze.default", Slot(inside.results[0]), 1, step=node.step)
    found = block.make("aten.gather.default", scores, 1, Slot(index.results[0]), step=node.step)
    kept = block.make("aten.mul.Tensor", Slot(found.results[0]), Slot(counts.results[0]), step=node.step)
    total = block.make("aten.sum.default", Slot(kept.results[0]), step=node.step)
    loss = block.make("aten.neg.default", Slot(total.results[0]), step=node.step, results=node.results[:1])
    return [counts, inside, index, found, kept, total, loss]
