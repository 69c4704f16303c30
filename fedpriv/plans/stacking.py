"""One block over many workers at once: the same nodes on tensors with one more dimension in front, the worker's.

A value that some worker's own tensor reaches is stacked; everything else stays one for all. Products of matrices
become batched products, element-wise nodes and reductions keep their kernels, and what has no rule here is mapped by
torch's own (`mapping`). Each result is held to the shape and dtype that it has for one worker. What cannot be stacked
raises `NotStackable` with the operation: random draws among them, since each worker draws from a generator of its own.
Nothing here is reached by a peer: workers that hold somebody's rows run one plan each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import Any, TypeAlias

import torch

from fedpriv.errors import PlanRefused
from fedpriv.plans import mapping
from fedpriv.plans.blocks import GENERATOR, Block, Node, overload_named
from fedpriv.plans.operations import parameters_of, table
from fedpriv.plans.plan import Slot


class NotStackable(PlanRefused):
    """A plan that cannot run over several workers at once; says which operation is why."""


_A_NUMBER = 0.5
"""Stands for a hyperparameter where shapes are found: no shape or dtype depends on which number it is."""
Arguments: TypeAlias = dict[str, Any]
Rule: TypeAlias = "Callable[[Stacking, Node, Arguments], Any]"


def stacked(block: Block, width: int, own: Collection[int], carried: Collection[int]) -> Block:
    """Return `block` over `width` workers; `own` are the inputs of which each worker has one, `carried` the outputs.

    Raise `NotStackable`, naming the operation, where that cannot be.
    """
    return Stacking(block, width, frozenset(own), frozenset(carried)).block


class Stacking:
    """A stacked block under construction; `at` says what each value of the old block became."""

    def __init__(self, block: Block, width: int, own: frozenset[int], carried: frozenset[int]) -> None:
        self.width = width
        self._old = block
        self._own: set[int] = set(own)
        self._at = {value: Slot(value) for value in range(block.inputs + block.constants)}
        self._at |= {value: Slot(value) for value in block.scalars}
        self._dense: dict[int, Slot] = {}
        self._step = -1
        metas = [_A_NUMBER if at in block.scalars else meta for at, meta in enumerate(block.metas)]
        for value in own:
            one: torch.Tensor = block.metas[value]
            metas[value] = torch.empty((width, *one.shape), dtype=one.dtype, device="meta")
        self.block = Block(
            metas=metas,
            nodes=[],
            inputs=block.inputs,
            constants=block.constants,
            outputs=[],
            operations=block.operations,
            scalars=dict(block.scalars),
        )
        for node in block.nodes:
            self._step = node.step
            self._stack(node)
        for place, value in enumerate(block.outputs):
            slot = self.whole(self._at[value], block.metas[value])
            self.block.outputs.append((self._laid_out(slot) if place in carried else slot).index)
        for value in block.scalars:
            self.block.metas[value] = block.metas[value]

    def is_own(self, value: Any) -> bool:  # noqa: ANN401 - any argument
        """Whether each worker has a tensor of its own for `value`."""
        return isinstance(value, Slot) and value.index in self._own

    def meta(self, slot: Slot) -> torch.Tensor:
        """Return the meta tensor of a value of the new block."""
        found = self.block.metas[slot.index]
        assert isinstance(found, torch.Tensor)
        return found

    def rank(self, slot: Slot) -> int:
        """Return the number of dimensions that a value has for one worker."""
        return self.meta(slot).dim() - self.is_own(slot)

    def call(self, name: str, *given: Any) -> Slot:  # noqa: ANN401 - arguments of any kind
        """Append a node of one result and return it."""
        return self.calls(name, *given)[0]

    def calls(self, name: str, *given: Any) -> tuple[Slot, ...]:  # noqa: ANN401 - as above
        """Append a node and return its results."""
        if name in table() and table()[name].contiguous:
            given = tuple(self._laid_out(each) if isinstance(each, Slot) else each for each in given)
        node = self.block.make(name, *given, step=self._step)
        self.block.nodes.append(node)
        if any(each in self._own for each in node.operands()):
            self._own.update(node.results)
        return tuple(Slot(each) for each in node.results)

    def whole(self, slot: Slot, meta: Any) -> Slot:  # noqa: ANN401 - a meta tensor
        """Return a value as one of each worker, though it be the same for all."""
        if self.is_own(slot) or slot.index in self.block.scalars:
            return slot
        made = self.call("aten.expand.default", slot, (self.width, *meta.shape))
        self._own.add(made.index)
        return made

    def aligned(self, slot: Any, rank: int) -> Any:  # noqa: ANN401 - any argument
        """Return a worker's own value with its dimensions where broadcasting against `rank` of them finds them."""
        if not self.is_own(slot) or (missing := rank - self.rank(slot)) <= 0:
            return slot
        shape = self.meta(slot).shape
        return self.call("aten.view.default", self._laid_out(slot), (shape[0], *(1,) * missing, *shape[1:]))

    def as_dtype(self, slot: Any, dtype: torch.dtype, rank: int) -> Any:  # noqa: ANN401 - any argument
        """Return what was a number of each worker in `dtype`: with dimensions it would decide a result's dtype."""
        if not self.is_own(slot) or self.meta(slot).numel() > self.width or not rank:
            return slot
        found = self.meta(slot).dtype
        alike = found.is_floating_point == dtype.is_floating_point and found is not torch.bool
        return self.call("aten._to_copy.default", slot, dtype) if alike and found != dtype else slot

    def _stack(self, node: Node) -> None:
        moved = [self._new(each) for each in node.arguments]
        if not any(map(self._reaches, moved)):
            results = tuple(self.block.new(self._old.metas[each]) for each in node.results)
            copy = Node(node.name, moved, results, node.step)
            self.block.nodes.append(copy)
            self._at.update(zip(node.results, map(Slot, copy.results), strict=True))
            return
        if GENERATOR in node.arguments:
            raise NotStackable(f"{node.name} draws random numbers", step=node.step, operation=node.name)
        names = [each.name for each in parameters_of(overload_named(node.name))]
        rule = RULES.get(node.name) or (elementwise if node.name in ELEMENTWISE else mapped)
        made = rule(self, node, dict(zip(names, moved, strict=True)))
        several = made if isinstance(made, tuple) else (made,)
        for value, slot in zip(node.results, several, strict=True):
            if slot is not None:
                self._check(node, value, slot)
                self._at[value] = slot

    def _check(self, node: Node, value: int, slot: Slot) -> None:
        """Raise `NotStackable` unless a result is for each worker what it is for one."""
        wanted, found = self._old.metas[value], self.block.metas[slot.index]
        if not isinstance(wanted, torch.Tensor):
            return
        expected = (self.width, *wanted.shape) if self.is_own(slot) else tuple(wanted.shape)
        if tuple(found.shape) != expected or found.dtype != wanted.dtype:
            raise NotStackable(f"{node.name} gives another shape", step=node.step, operation=node.name)

    def _reaches(self, value: Any) -> bool:  # noqa: ANN401 - any argument
        return any(map(self._reaches, value)) if isinstance(value, tuple | list) else self.is_own(value)

    def _new(self, value: Any) -> Any:  # noqa: ANN401 - any argument
        if isinstance(value, Slot):
            return self._at[value.index]
        return tuple(map(self._new, value)) if isinstance(value, tuple | list) else value

    def _laid_out(self, slot: Slot) -> Slot:
        """Return `slot` with a copy in its place if its elements do not lie one after the other."""
        if slot.index in self.block.scalars or self.meta(slot).is_contiguous():
            return slot
        if slot.index not in self._dense:
            self._dense[slot.index] = self.call("aten.clone.default", slot, torch.contiguous_format)
        return self._dense[slot.index]


# --- rules -----------------------------------------------------------------------------------------------------------


def elementwise(on: Stacking, node: Node, given: Arguments) -> Slot:
    """Run the same kernel, with dimensions aligned and numbers of each worker in the dtype that one number takes."""
    tensors = [each for each in given.values() if isinstance(each, Slot) and each.index not in on.block.scalars]
    rank = max(map(on.rank, tensors))
    with_dimensions = [on.meta(each).dtype for each in tensors if on.rank(each)]
    aligned = (on.aligned(each, rank) for each in given.values())
    if not with_dimensions:
        return on.call(node.name, *aligned)
    common = torch.empty(1, dtype=reduce(torch.promote_types, with_dimensions), device="meta")
    for each in tensors:  # a number decides only where it is of a higher kind
        if not on.rank(each):
            common = common.to(torch.result_type(common, torch.empty((), dtype=on.meta(each).dtype, device="meta")))
    return on.call(node.name, *(on.as_dtype(each, common.dtype, rank) for each in aligned))


def mapped(on: Stacking, node: Node, given: Arguments) -> tuple[Slot | None, ...]:
    """Map a node by torch's own rules; raise `NotStackable` where there is none, or none of reviewed operations."""
    try:
        return mapping.mapped(on, node, list(given.values()))
    except mapping.NoRule:
        raise NotStackable(f"{node.name} has no rule", step=node.step, operation=node.name) from None


def _product(on: Stacking, node: Node, given: Arguments) -> Slot:  # noqa: ARG001 - the signature of a rule
    left, right = (on.whole(each, on.meta(each)) for each in (given["self"], given["mat2"]))
    return on.call("aten.bmm.default", left, right)


def _product_and_sum(on: Stacking, node: Node, given: Arguments) -> Slot:  # noqa: ARG001 - the signature of a rule
    left, right = (on.whole(each, on.meta(each)) for each in (given["mat1"], given["mat2"]))
    return on.call("aten.baddbmm.default", on.aligned(given["self"], 2), left, right, given["beta"], given["alpha"])


def _transposed(on: Stacking, node: Node, given: Arguments) -> Slot:  # noqa: ARG001 - the signature of a rule
    if on.rank(given["self"]) < 2:
        return given["self"]  # type: ignore[no-any-return]  # a slot
    return on.call("aten.transpose.int", given["self"], 1, 2)


def _shifted(on: Stacking, given: Arguments, name: str, key: str) -> Slot:
    """Run the same kernel along the dimension or dimensions `key`, which lie one further back."""
    own = {at: on.whole(each, on.meta(each)) if isinstance(each, Slot) else each for at, each in given.items()}
    rank, dims = on.rank(next(each for each in own.values() if isinstance(each, Slot))), given[key]
    if isinstance(dims, int):
        return on.call(name, *{**own, key: dims % rank + 1}.values())
    return on.call(name, *{**own, key: tuple(each % rank + 1 for each in dims or range(rank))}.values())


def _along(key: str) -> Rule:
    def rule(on: Stacking, node: Node, given: Arguments) -> Slot | None:
        if not on.rank(next(each for each in given.values() if isinstance(each, Slot))):
            return mapped(on, node, given)[0]
        return _shifted(on, given, node.name, key)

    return rule


def _of_all(name: str) -> Rule:
    def rule(on: Stacking, node: Node, given: Arguments) -> Slot:  # noqa: ARG001 - the signature of a rule
        source, rank = given["self"], on.rank(given["self"])
        if not rank:
            return on.call("aten.clone.default", source)
        return on.call(name, source, tuple(range(1, rank + 1)), False, given["dtype"])  # noqa: FBT003 - torch's order

    return rule


def _reshaped(on: Stacking, node: Node, given: Arguments) -> Slot:
    return on.call(node.name, given["self"], (on.width, *given["size"]))


def _expanded(on: Stacking, node: Node, given: Arguments) -> Slot:
    source = on.aligned(given["self"], len(given["size"]))
    sizes = (on.width, *given["size"])
    return on.call(node.name, source, sizes)


def _swapped(on: Stacking, node: Node, given: Arguments) -> Slot:
    rank = on.rank(given["self"])
    if not rank:
        return given["self"]  # type: ignore[no-any-return]  # a slot
    return on.call(node.name, given["self"], *(given[key] % rank + 1 for key in ("dim0", "dim1")))


def _permuted(on: Stacking, node: Node, given: Arguments) -> Slot:
    rank = on.rank(given["self"])
    return on.call(node.name, given["self"], (0, *(each % rank + 1 for each in given["dims"])))


def _inserted(on: Stacking, node: Node, given: Arguments) -> Slot:
    return on.call(node.name, given["self"], given["dim"] % (on.rank(given["self"]) + 1) + 1)


def _loss(on: Stacking, node: Node, given: Arguments) -> tuple[Slot | None, ...]:
    """The mean over the targets that count, of each worker: rows of all workers as rows of one, and means by hand."""
    scores, target, ignored = given["self"], given["target"], given["ignore_index"]
    if given["weight"] is not None or given["reduction"] != 1 or not on.is_own(target) or on.rank(scores) != 2:
        return mapped(on, node, given)
    flat, classes = _as_rows(on, scores, target)
    each = on.calls("aten.nll_loss_forward.default", flat, classes, None, 0, ignored)[0]
    losses = on.call("aten.view.default", each, tuple(on.meta(target).shape))
    counted = on.call("aten.ne.Scalar", target, ignored)
    count = on.call("aten.sum.dim_IntList", counted, (1,), False, on.meta(scores).dtype)  # noqa: FBT003 - torch's order
    total = on.call("aten.sum.dim_IntList", losses, (1,), False, None)  # noqa: FBT003 - as above
    return on.call("aten.div.Tensor", total, count), count


def _loss_backward(on: Stacking, node: Node, given: Arguments) -> tuple[Slot | None, ...] | Slot:
    scores, target, total = given["self"], given["target"], given["total_weight"]
    if given["weight"] is not None or given["reduction"] != 1 or not on.is_own(total) or on.rank(scores) != 2:
        return mapped(on, node, given)
    flat, classes = _as_rows(on, scores, target)
    share = on.call("aten.div.Tensor", on.whole(given["grad_output"], on.meta(given["grad_output"])), total)
    shape = tuple(on.meta(target).shape)
    rows = on.call("aten.expand.default", on.call("aten.unsqueeze.default", share, 1), shape)
    rows = on.call("aten.view.default", on.call("aten.clone.default", rows, torch.contiguous_format), (-1,))
    one = on.call("aten.full.default", (), 1.0, on.meta(scores).dtype)
    ignored = given["ignore_index"]
    made = on.call("aten.nll_loss_backward.default", rows, flat, classes, None, 0, ignored, one)
    return on.call("aten.view.default", made, tuple(on.meta(scores).shape))


def _as_rows(on: Stacking, scores: Slot, target: Slot) -> tuple[Slot, Slot]:
    own = on.whole(scores, on.meta(scores))
    dense = own if on.meta(own).is_contiguous() else on.call("aten.clone.default", own, torch.contiguous_format)
    flat = on.call("aten.view.default", dense, (-1, on.meta(dense).shape[-1]))
    return flat, on.call("aten.view.default", target, (-1,))


RULES: Mapping[str, Rule] = {
    "aten.mm.default": _product,
    "aten.addmm.default": _product_and_sum,
    "aten.t.default": _transposed,
    "aten.transpose.int": _swapped,
    "aten.permute.default": _permuted,
    "aten.view.default": _reshaped,
    "aten._unsafe_view.default": _reshaped,
    "aten.expand.default": _expanded,
    "aten.unsqueeze.default": _inserted,
    "aten.sum.default": _of_all("aten.sum.dim_IntList"),
    "aten.mean.default": _of_all("aten.mean.dim"),
    **dict.fromkeys(
        ("aten.sum.dim_IntList", "aten.mean.dim", "aten.squeeze.dim", "aten.slice.Tensor", "aten.select.int"),
        _along("dim"),
    ),
    **dict.fromkeys(
        (f"aten.{name}.default" for name in (
            "_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data"
        )),
        _along("dim"),
    ),
    "aten.nll_loss_forward.default": _loss,
    "aten.nll_loss_backward.default": _loss_backward,
}  # fmt: skip  # one family a line
_UNARY = (
    "abs acos acosh alias asin asinh atan atanh bitwise_not ceil celu clone cos cosh detach elu erf erfc erfinv exp "
    "exp2 expm1 floor frac gelu hardsigmoid hardswish hardtanh isinf isnan leaky_relu lgamma log log10 log1p log2 "
    "logical_not mish neg nan_to_num ones_like reciprocal relu round rsqrt sgn sigmoid sign silu sin sinh softplus "
    "sqrt tan tanh threshold trunc zeros_like _to_copy full_like clamp clamp_min clamp_max atan2 copysign fmax fmin "
    "hypot logaddexp logical_and logical_or logical_xor maximum minimum addcdiv addcmul elu_backward gelu_backward "
    "hardshrink_backward hardsigmoid_backward hardswish_backward hardtanh_backward leaky_relu_backward mish_backward "
    "sigmoid_backward silu_backward softplus_backward softshrink_backward tanh_backward threshold_backward"
)
_OVERLOADED = (
    "add.Scalar add.Tensor clamp.Tensor div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode eq.Scalar eq.Tensor "
    "fill.Scalar fmod.Scalar fmod.Tensor ge.Scalar ge.Tensor gt.Scalar gt.Tensor le.Scalar le.Tensor lerp.Scalar "
    "lerp.Tensor lt.Scalar lt.Tensor masked_fill.Scalar mul.Scalar mul.Tensor ne.Scalar ne.Tensor pow.Scalar "
    "pow.Tensor_Scalar pow.Tensor_Tensor remainder.Scalar remainder.Tensor rsub.Scalar sub.Scalar sub.Tensor "
    "where.Scalar where.ScalarOther where.ScalarSelf where.self xlogy.Tensor"
)
ELEMENTWISE = frozenset(f"aten.{each}.default" for each in _UNARY.split()) | frozenset(
    f"aten.{each}" for each in _OVERLOADED.split()
)
"""Operations whose result at one place depends on their operands at that place alone."""
