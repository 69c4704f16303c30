"""From a checked plan to a block: sizes become numbers, and no value can make a step fail.

Where a kernel would raise or reach beyond a tensor because of a value, this makes it total: an index is brought
into range, a target outside the classes counts as ignored, a probability outside 0 to 1 is clipped. Memory that
torch would leave unwritten is zeroed; a kernel that may ignore strides gets operands without gaps or repeats, and
so does the next batch. Random operations draw from the worker's generator, never the global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from fedpriv.plans.arguments import MEMORY_FORMATS
from fedpriv.plans.blocks import GENERATOR, Block, Node
from fedpriv.plans.inference import Inference
from fedpriv.plans.operations import Operation, operation
from fedpriv.plans.plan import Argument, Dtype, InputRole, OutputRole, Plan, Slot, Step
from fedpriv.plans.totality import RULES as FURTHER_RULES
from fedpriv.updates import DTYPES

CARRIED = frozenset({OutputRole.PARAMETER, OutputRole.STATE, OutputRole.OPTIMIZER, OutputRole.KEPT})
"""Outputs that are inputs of the next batch."""
Rule: TypeAlias = "Callable[[Lowering, dict[str, Any]], tuple[Any, ...]]"


def lowered(plan: Plan, inference: Inference) -> Block:
    """Return the block of `plan` at the batch size of `inference`."""
    return Lowering(plan, inference).block


class Lowering:
    """A block under construction; plan slots keep their numbers as values."""

    def __init__(self, plan: Plan, inference: Inference) -> None:
        self._known = inference.slots
        self._is = dict[int, Any]()
        self._step = -1
        self._producers: dict[int, Node] = {}
        self._dense: dict[int, Slot] = {}
        self.block = Block(
            metas=list(inference.slots),
            nodes=[],
            inputs=len(plan.inputs),
            constants=len(plan.constants),
            outputs=[],
            operations=tuple(step.operation for step in plan.steps),
            scalars={slot: None for slot, each in enumerate(plan.inputs) if each.role is InputRole.HYPERPARAMETER},
        )
        for index, step, filled in plan.walk():
            self._step = index
            self._lower(operation(step.operation), step, filled)
        self._step = -1
        for each in plan.outputs:
            left: Slot = self._at(Slot(each.slot))
            # what is carried comes back as an input, which every step takes for contiguous
            self.block.outputs.append((self._laid_out(left) if each.role in CARRIED else left).index)

    def call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401  a slot, or several
        """Append a node and return the slot of its result, or a tuple of slots."""
        node = self.block.make(name, *arguments, step=self._step)
        self._append(node)
        slots = tuple(Slot(each) for each in node.results)
        return slots[0] if len(slots) == 1 else slots

    def meta(self, slot: Slot) -> torch.Tensor:
        """Return the meta tensor of a value."""
        found = self.block.metas[slot.index]
        assert isinstance(found, torch.Tensor)
        return found

    def producer(self, slot: Slot) -> Node | None:
        """Return the node that made a value, if one did."""
        return self._producers.get(slot.index)

    def _append(self, node: Node) -> None:
        self.block.nodes.append(node)
        for each in node.results:
            self._producers[each] = node

    def _lower(self, known: Operation, step: Step, filled: range) -> None:
        if known.arithmetic is not None:
            return  # sizes are numbers by now
        given = self._arguments(known, step)
        if known.contiguous:
            given = {name: self._laid_out(value) for name, value in given.items()}
        rule = RULES.get(known.name)
        if rule is None:
            self._append(Node(known.name, list(given.values()), tuple(filled), self._step))
            return
        results = rule(self, given)
        for slot, result in zip(filled, results, strict=True):
            self._is[slot] = result

    def _laid_out(self, value: Any) -> Any:  # noqa: ANN401  any argument of any node
        """Return `value` with a copy in place of each tensor whose elements do not lie one after the other."""
        if isinstance(value, tuple):
            return tuple(self._laid_out(each) for each in value)
        if not isinstance(value, Slot) or self.meta(value).is_contiguous():
            return value
        if value.index not in self._dense:
            self._dense[value.index] = self.call("aten.clone.default", value, torch.contiguous_format)
        return self._dense[value.index]

    def _arguments(self, known: Operation, step: Step) -> dict[str, Any]:
        positional = [each for each in known.parameters if not each.keyword]
        raw: dict[str, Argument] = {
            each.name: value for each, value in zip(positional, step.arguments, strict=False)
        } | dict(step.keywords)
        full: dict[str, Any] = {}
        for each in known.parameters:
            value = self._at(raw[each.name]) if each.name in raw else each.default
            if each.kind == "MemoryFormat" and isinstance(value, str):
                value = MEMORY_FORMATS[value]
            elif each.kind == "float" and isinstance(value, int):
                value = float(value)
            elif each.kind == "Generator":
                value = GENERATOR
            elif each.listed and isinstance(value, int):
                value = (value,) * (each.length or 1)
            full[each.name] = value
        return full

    def _at(self, value: Argument) -> Any:  # noqa: ANN401  any argument of any node
        if isinstance(value, Slot):
            if value.index in self._is:
                return self._is[value.index]
            known = self._known[value.index]
            return value if isinstance(known, torch.Tensor) else known
        if isinstance(value, Dtype):
            return DTYPES[value.name]
        if isinstance(value, tuple):
            return tuple(self._at(each) for each in value)
        return value


def _zeroed_like(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    return (low.call("aten.zeros_like.default", *given.values()),)


def _zeroed(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    return (low.call("aten.zeros.default", given["size"], given["dtype"]),)


def _new_zeroed(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    return (low.call("aten.new_zeros.default", *given.values()),)


def _dropout(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    source, share = given["input"], given["p"]
    if given["train"] is False:
        return source, low.call("aten.ones_like.default", source, torch.bool)
    kept = low.call("aten.bernoulli.p", source, 1.0 - share, GENERATOR)
    scale = 0.0 if share == 1.0 else 1.0 / (1.0 - share)
    scaled = low.call("aten.mul.Scalar", low.call("aten.mul.Tensor", source, kept), scale)
    return scaled, low.call("aten._to_copy.default", kept, torch.bool)


def _dropout_backward(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    masked = low.call("aten.mul.Tensor", given["grad_output"], given["mask"])
    return (low.call("aten.mul.Scalar", masked, given["scale"]),)


def _uniform_like(low: Lowering, source: Slot, lowest: float, highest: float) -> Any:  # noqa: ANN401  a slot
    return low.call("aten.uniform.default", source, lowest, highest, GENERATOR)


def _leaky_noise(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    source = given["self"]
    if not given["training"]:
        middle = (given["lower"] + given["upper"]) / 2
        return low.call("aten.leaky_relu.default", source, middle), given["noise"]
    drawn = _uniform_like(low, source, given["lower"], given["upper"])
    noise = low.call("aten.where.ScalarOther", low.call("aten.le.Scalar", source, 0), drawn, 1)
    noise = low.call("aten._to_copy.default", noise, low.meta(source).dtype)
    return low.call("aten.mul.Tensor", source, noise), noise


def _leaky_noise_backward(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    if not given["training"]:
        middle = (given["lower"] + given["upper"]) / 2
        return (low.call("aten.leaky_relu_backward.default", given["grad_output"], given["self"], middle, False),)  # noqa: FBT003  torch's order
    return (low.call("aten.mul.Tensor", given["grad_output"], given["noise"]),)


def _random_like(low: Lowering, given: dict[str, Any], draw: str) -> tuple[Any, ...]:
    blank = low.call("aten.zeros_like.default", given["self"], given["dtype"])
    return (low.call(draw, blank, 0.0, 1.0, GENERATOR),)


def _random(low: Lowering, given: dict[str, Any], draw: str) -> tuple[Any, ...]:
    blank = low.call("aten.zeros.default", given["size"], given["dtype"])
    return (low.call(draw, blank, 0.0, 1.0, GENERATOR),)


def _in_range(low: Lowering, index: Slot, size: int) -> Any:  # noqa: ANN401  a slot
    return low.call("aten.clamp.default", index, 0, size - 1)


def _embedding(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    rows = low.meta(given["weight"]).shape[0]
    return (low.call("aten.embedding.default", *{**given, "indices": _in_range(low, given["indices"], rows)}.values()),)


def _embedding_backward(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    index = _in_range(low, given["indices"], given["num_weights"])
    return (low.call("aten.embedding_dense_backward.default", *{**given, "indices": index}.values()),)


def _indexed(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        shape = low.meta(given["self"]).shape
        size = shape[given["dim"]] if shape else 1
        return (low.call(name, *{**given, "index": _in_range(low, given["index"], size)}.values()),)

    return rule


def _advanced(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        shape = low.meta(given["self"]).shape
        # a negative index counts from the end, as it does in torch
        indices = tuple(
            None if index is None else low.call("aten.clamp.default", index, -shape[axis], shape[axis] - 1)
            for axis, index in enumerate(given["indices"])
        )
        return (low.call(name, *{**given, "indices": indices}.values()),)

    return rule


def _pool_backward(forward: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        made = low.producer(given["indices"])
        own = made is not None and made.name == forward and made.arguments[0] == given["self"]
        if not own:  # the kernel writes where an index points without looking
            plane = math.prod(low.meta(given["self"]).shape[-2:])
            given = {**given, "indices": _in_range(low, given["indices"], plane)}
        return (
            low.call(
                forward.replace("_with_indices", "").replace(".default", "") + _BACKWARD[forward], *given.values()
            ),
        )

    return rule


_BACKWARD = {
    "aten.max_pool2d_with_indices.default": "_with_indices_backward.default",
    "aten.adaptive_max_pool2d.default": "_backward.default",
}


def _nll(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        scores = low.meta(given["self"])
        classes = scores.shape[0] if scores.dim() == 1 else scores.shape[1]
        ignored = given["ignore_index"]
        # outside the classes counts as ignored; only an ignored class inside them keeps its number
        lowest, highest, ignored = (
            (-1, classes - 1, -1)
            if ignored < 0
            else (0, max(classes - 1, min(ignored, classes)), min(ignored, classes))
        )
        target = low.call("aten.clamp.default", given["target"], lowest, highest)
        made = low.call(name, *{**given, "target": target, "ignore_index": ignored}.values())
        return made if isinstance(made, tuple) else (made,)

    return rule


def _cross_entropy(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        # the kernel raises on NaN as it does on 2
        known = {each: low.call("aten.nan_to_num.default", given[each], 0.0) for each in ("self", "target")}
        clipped = {each: low.call("aten.clamp.default", value, 0, 1) for each, value in known.items()}
        return (low.call(name, *{**given, **clipped}.values()),)

    return rule


def _batch_norm(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    source = low.meta(given["input"])
    if given["training"] and source.numel() <= source.shape[1]:
        # one value per channel has no variance: normalise, and leave the running statistics as they are
        plain = [given[each] for each in ("input", "weight", "bias", "training", "momentum", "eps")]
        return *low.call("aten._native_batch_norm_legit.no_stats", *plain), given["running_mean"], given["running_var"]
    if not given["training"]:
        plain = [given[each] for each in ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")]
        return *_batch_norm_evaluated(low, plain), given["running_mean"], given["running_var"]
    node = low.block.make(
        "aten._native_batch_norm_legit_functional.default",
        *given.values(),
        step=low._step,  # noqa: SLF001  the same object's rule
        results=tuple(low.block.new(each) for each in _batch_norm_metas(low, given)),
    )
    low._append(node)  # noqa: SLF001  the same object's rule
    return tuple(Slot(each) for each in node.results)


def _batch_norm_evaluated(low: Lowering, given: list[Any]) -> tuple[Any, ...]:
    # what the kernel returns as saved statistics has another shape on each device; nothing may rely on it
    node = low.block.make(
        "aten._native_batch_norm_legit_no_training.default",
        *given,
        step=low._step,  # noqa: SLF001  the same object's rule
        results=tuple(low.block.new(each) for each in (torch.empty_like(low.meta(given[0])), None, None)),
    )
    low._append(node)  # noqa: SLF001  the same object's rule
    blank = low.call("aten.zeros.default", (0,), low.meta(given[3]).dtype)
    return Slot(node.results[0]), blank, blank


def _log_sigmoid_backward(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    # the buffer of the forward pass has another shape on each device
    slope = low.call("aten.sigmoid.default", low.call("aten.neg.default", given["self"]))
    return (low.call("aten.mul.Tensor", given["grad_output"], slope),)


def _batch_norm_metas(low: Lowering, given: dict[str, Any]) -> list[torch.Tensor]:
    source, mean, variance = (low.meta(given[each]) for each in ("input", "running_mean", "running_var"))
    saved = torch.empty(source.shape[1], dtype=mean.dtype, device="meta")
    return [torch.empty_like(source), saved, saved.clone(), torch.empty_like(mean), torch.empty_like(variance)]


_UNIFORM, _NORMAL = "aten.uniform.default", "aten.normal_functional.default"
RULES: Mapping[str, Rule] = {
    **FURTHER_RULES,
    "aten.empty_like.default": _zeroed_like,
    "aten.empty.memory_format": _zeroed,
    "aten.new_empty.default": _new_zeroed,
    "aten.native_dropout.default": _dropout,
    "aten.native_dropout_backward.default": _dropout_backward,
    "aten.rrelu_with_noise_functional.default": _leaky_noise,
    "aten.rrelu_with_noise_backward.default": _leaky_noise_backward,
    "aten.rand_like.default": lambda low, given: _random_like(low, given, _UNIFORM),
    "aten.randn_like.default": lambda low, given: _random_like(low, given, _NORMAL),
    "aten.rand.default": lambda low, given: _random(low, given, _UNIFORM),
    "aten.randn.default": lambda low, given: _random(low, given, _NORMAL),
    "aten.embedding.default": _embedding,
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.max_pool2d_with_indices_backward.default": _pool_backward("aten.max_pool2d_with_indices.default"),
    "aten.adaptive_max_pool2d_backward.default": _pool_backward("aten.adaptive_max_pool2d.default"),
    "aten._native_batch_norm_legit_functional.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": lambda low, given: _batch_norm_evaluated(
        low, list(given.values())
    ),
    "aten.log_sigmoid_backward.default": _log_sigmoid_backward,
    **{
        name: _indexed(name)
        for name in (
            "aten.gather.default",
            "aten.index_select.default",
            "aten.scatter.src",
            "aten.scatter.value",
            "aten.scatter_add.default",
        )
    },
    **{
        name: _advanced(name)
        for name in (
            "aten.index.Tensor",
            "aten._unsafe_index.Tensor",
            "aten.index_put.default",
            "aten._unsafe_index_put.default",
        )
    },
    **{
        name: _nll(name)
        for name in (
            "aten.nll_loss_forward.default",
            "aten.nll_loss_backward.default",
            "aten.nll_loss2d_forward.default",
            "aten.nll_loss2d_backward.default",
        )
    },
    **{
        name: _cross_entropy(name)
        for name in ("aten.binary_cross_entropy.default", "aten.binary_cross_entropy_backward.default")
    },
}
