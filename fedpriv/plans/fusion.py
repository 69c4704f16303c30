"""Rewrites of a block that keep what it computes, to the rounding of one operation, and cost less.

Aliases and repeats go; a multiplication by a number joins the addition after it; a matrix product joins the
update that it is for. What no batch changes moves out of the loop. Until `reuse`, every node is functional, so
each rewrite needs only to count readers. Nothing here runs at the researcher's side or enters a digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fedpriv.plans import cost
from fedpriv.plans.blocks import GENERATOR, Block, Node, Scalar
from fedpriv.plans.plan import Slot
from fedpriv.plans.reuse import reuse

_SHAPED = {
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.expand.default",
    "aten.slice.Tensor",
    "aten.permute.default",
    "aten.transpose.int",
}
MAXIMUM_HOISTED = 64 << 20
"""Bytes of what is computed once and kept through the loop."""
MAXIMUM_ROWWISE = 4
"""Nodes that run on a whole piece of the rows at once: each takes as much as the piece."""
_LIKE = {"aten.ones_like.default": 1, "aten.zeros_like.default": 0}
_SUM, _MM, _ADD, _SUB, _MUL, _TIMES, _BMM, _ADDMM, _BADDBMM = (
    "aten.sum.dim_IntList",
    "aten.mm.default",
    "aten.add.Tensor",
    "aten.sub.Tensor",
    "aten.mul.Tensor",
    "aten.mul.Scalar",
    "aten.bmm.default",
    "aten.addmm.default",
    "aten.baddbmm.default",
)
_WITH_SUM = {_MM: _ADDMM, _BMM: _BADDBMM}


def fused(block: Block, changed: Sequence[int], replacing: Sequence[int], rows: Sequence[int]) -> Block:
    """Return `block` rewritten in place; `changed` inputs are owned by the caller and replaced by outputs `replacing`.

    `rows` are the inputs that are cut into batches.
    """
    _fold_aliases(block)
    _share_repeats(block)
    for rewrite in (_sum_without_view, _factor_into_sum, _product_into_sum, _product_into_scaled_sum):
        _rewrite(block, rewrite)
    _drop_unread(block)
    _move_out(block, set(changed), set(rows))
    reuse(block, changed, replacing, rows)
    return block


def _fold_aliases(block: Block) -> None:
    """Read the source of an alias instead of the alias."""
    same: dict[int, int] = {}
    producers: dict[int, Node] = {}
    kept: list[Node] = []
    for node in block.nodes:
        node.replace(same)
        source = _aliased(block, node, producers)
        if source is not None:
            same[node.results[0]] = source
            continue
        kept.append(node)
        producers.update(dict.fromkeys(node.results, node))
    block.nodes = kept
    block.outputs = [same.get(each, each) for each in block.outputs]


def _aliased(block: Block, node: Node, producers: dict[int, Node]) -> int | None:
    first = node.arguments[0] if node.arguments else None
    if not isinstance(first, Slot) or len(node.results) != 1:
        return None
    if node.name in {"aten.detach.default", "aten.alias.default"}:
        return first.index
    before = producers.get(first.index)
    if before is not None and before.name == node.name and node.name in {"aten.t.default", "aten.transpose.int"}:
        undone = node.arguments[1:] in (before.arguments[1:], before.arguments[:0:-1])
        return before.arguments[0].index if undone else None
    source, result = block.metas[first.index], block.metas[node.results[0]]
    if node.name in _SHAPED and source.shape == result.shape and source.stride() == result.stride():
        return first.index if node.name != "aten.slice.Tensor" or node.arguments[4] == 1 else None
    return None


def _share_repeats(block: Block) -> None:
    """Compute once what two nodes compute alike."""
    same: dict[int, int] = {}
    seen: dict[str, Node] = {}
    kept: list[Node] = []
    for node in block.nodes:
        node.replace(same)
        key = f"{node.name}{node.arguments!r}"
        first = None if GENERATOR in node.arguments else seen.get(key)
        if first is None:
            seen[key] = node
            kept.append(node)
        else:
            same.update(zip(node.results, first.results, strict=True))
    block.nodes = kept
    block.outputs = [same.get(each, each) for each in block.outputs]


def _rewrite(block: Block, rule: Callable[[Block, Node, dict[int, Node]], Node | None]) -> None:
    """Apply `rule` to each node; it sees the producers that no other node reads, and may absorb one."""
    readers = Counter(value for node in block.nodes for value in node.operands())
    readers.update(block.outputs)
    sole: dict[int, Node] = {}
    for position, node in enumerate(block.nodes):
        better = rule(block, node, sole) or node
        block.nodes[position] = better
        if len(better.results) == 1 and readers[better.results[0]] == 1:
            sole[better.results[0]] = better
    _drop_unread(block)


def _made(sole: dict[int, Node], operand: Any, name: str) -> Node | None:  # noqa: ANN401  any argument
    node = sole.get(operand.index) if isinstance(operand, Slot) else None
    return node if node is not None and node.name == name else None


def _sum_without_view(block: Block, node: Node, sole: dict[int, Node]) -> Node | None:
    """view(sum(x, dims, keepdim)) is sum(x, dims)."""
    if node.name != "aten.view.default":
        return None
    total = _made(sole, node.arguments[0], _SUM)
    if total is None or total.arguments[2] is not True:
        return None
    source = block.metas[total.arguments[0].index]
    gone = {each % source.dim() for each in total.arguments[1] or range(source.dim())}
    kept = [size for axis, size in enumerate(source.shape) if axis not in gone]
    if kept != list(block.metas[node.results[0]].shape):
        return None
    return Node(_SUM, [total.arguments[0], total.arguments[1], False, total.arguments[3]], node.results, total.step)


def _factor_into_sum(block: Block, node: Node, sole: dict[int, Node]) -> Node | None:
    """X + y * s is add(x, y, alpha=s), x - y * s likewise; x + a * b * s is addcmul."""
    if node.name not in {_ADD, _SUB} or node.arguments[2] != 1:
        return None
    left, right = node.arguments[:2]
    scaled = _made(sole, right, _TIMES)
    if scaled is None and node.name == _ADD and _made(sole, left, _TIMES) is not None and node.name != _MUL:
        other = _made(sole, left, _TIMES)
        if (
            other is not None
            and _fits(block, right, node)
            and _made(sole, right, _MM) is None
            and _made(sole, right, _BMM) is None
        ):
            left, right, scaled = right, left, other
    if scaled is None or not _fits(block, left, node):
        return None
    factor = scaled.arguments[1]
    product = _made(sole, scaled.arguments[0], _MUL)
    if product is not None and node.name == _ADD and block.metas[product.results[0]].dim() > 0:
        return Node("aten.addcmul.default", [left, *product.arguments[:2], factor], node.results, node.step)
    return Node(node.name, [left, scaled.arguments[0], factor], node.results, node.step)


def _fits(block: Block, operand: Slot, node: Node) -> bool:
    """Whether an operand alone has the shape, layout and dtype of the result, in floating point."""
    meta: torch.Tensor = block.metas[operand.index]
    result: torch.Tensor = block.metas[node.results[0]]
    alike = meta.shape == result.shape and meta.stride() == result.stride()
    return alike and meta.dtype == result.dtype and meta.dtype.is_floating_point


def _product_into_sum(block: Block, node: Node, sole: dict[int, Node]) -> Node | None:
    """X - s * mm(a, b) is addmm(x, a, b, alpha=-s); x + s * mm(a, b) and batches of products likewise."""
    if node.name not in {_ADD, _SUB}:
        return None
    left, right, factor = node.arguments
    product = _made(sole, right, _MM) or _made(sole, right, _BMM)
    if product is None or not _fits(block, left, node) or not _fits(block, Slot(product.results[0]), node):
        return None
    alpha = factor if node.name == _ADD else _negated(block, factor)
    return Node(_WITH_SUM[product.name], [left, *product.arguments, 1, alpha], node.results, node.step)


def _product_into_scaled_sum(block: Block, node: Node, sole: dict[int, Node]) -> Node | None:
    """addmm(x * s, a, b) is addmm(x, a, b, beta=s)."""
    if node.name not in {_ADDMM, _BADDBMM} or node.arguments[3] != 1:
        return None
    scaled = _made(sole, node.arguments[0], _TIMES)
    if scaled is None or not _fits(block, scaled.arguments[0], node):
        return None
    return Node(
        node.name,
        [*scaled.arguments[:1], *node.arguments[1:3], scaled.arguments[1], node.arguments[4]],
        node.results,
        node.step,
    )


def _negated(block: Block, factor: Any) -> Any:  # noqa: ANN401  a number or a scalar
    if not isinstance(factor, Slot):
        return -factor
    made = Scalar("neg", (factor.index,), (True,))
    for value, known in block.scalars.items():
        if known == made:
            return Slot(value)
    value = block.new(0.0)
    block.scalars[value] = made
    return Slot(value)


def _drop_unread(block: Block) -> None:
    needed = set(block.outputs)
    kept: list[Node] = []
    for node in reversed(block.nodes):
        if needed.intersection(node.results):
            needed.update(node.operands())
            kept.append(node)
    block.nodes = kept[::-1]


def _move_out(block: Block, changed: set[int], rows: set[int]) -> None:
    """Sort nodes into those that run once, those that treat rows alike, and the rest."""
    inner = changed | rows
    alike = set(rows)
    rest: list[Node] = []
    hoisted = 0
    for node in block.nodes:
        _without_source(block, node)
        operands = set(node.operands())
        if GENERATOR not in node.arguments and not operands & inner:
            size = sum(map(cost.nbytes, cost.tensors_in(block.metas[each] for each in node.results)))
            if hoisted + size <= MAXIMUM_HOISTED:
                hoisted += size
                block.once.append(node)
                continue
        clamps = node.name == "aten.clamp.default" and not any(map(_is_slot, node.arguments[1:]))
        if clamps and operands <= alike and len(block.rowwise) < MAXIMUM_ROWWISE:
            block.rowwise.append(node)
            alike.update(node.results)
        else:
            rest.append(node)
        inner.update(node.results)
    block.nodes = rest
    _drop_unread(block)


def _without_source(block: Block, node: Node) -> None:
    """Make ones_like and zeros_like from their shape, so that they wait for no value."""
    if node.name not in _LIKE:
        return
    result: torch.Tensor = block.metas[node.results[0]]
    if result.is_contiguous():
        node.arguments = block.filled("aten.full.default", (tuple(result.shape), _LIKE[node.name], result.dtype))
        node.name = "aten.full.default"


def _is_slot(value: object) -> bool:
    return isinstance(value, Slot)
