"""What single kernels ask of shapes and do not check themselves, one rule each.

A rule raises `ShapeRefused` for operands that the kernel would read or write beyond. What holds for every
operation is in `guards`; values are for `lowering`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

Bound: TypeAlias = Mapping[str, Any]
"""Arguments by parameter name; tensors are meta tensors."""


class ShapeRefused(Exception):
    """An argument does not fit its operation; says which."""


def need(fits: bool, what: str) -> None:  # noqa: FBT001  reads as an assertion
    """Raise `ShapeRefused` saying `what` unless it fits."""
    if not fits:
        raise ShapeRefused(what)


def same(bound: Bound, *names: str) -> None:
    """Raise `ShapeRefused` unless the tensors among `names` have one shape."""
    shapes = {tuple(bound[name].shape) for name in names if bound.get(name) is not None}
    need(len(shapes) <= 1, f"{' and '.join(names)} differ in shape")


def _spreads(bound: Bound, name: str, shape: tuple[int, ...]) -> None:
    own = tuple(bound[name].shape)
    fits = len(own) <= len(shape) and all(
        size in (1, whole) for size, whole in zip(own[::-1], shape[::-1], strict=False)
    )
    need(fits, f"{name} does not spread over {shape}")


def _length(bound: Bound, length: int, *names: str) -> None:
    for name in names:
        if bound.get(name) is not None:
            need(bound[name].numel() == length, f"{name} needs {length} elements")


def _integer(bound: Bound, *names: str) -> None:
    for name in names:
        need(bound[name].dtype in {torch.int64, torch.int32}, f"{name} must hold int32 or int64 indices")


def filled(bound: Bound) -> None:
    """Refuse operands without elements."""
    for name, value in bound.items():
        need(not isinstance(value, torch.Tensor) or value.numel() > 0, f"{name} is empty")


def _single_or_double(source: torch.Tensor) -> None:
    # with less, the dtype of the statistics depends on the device
    need(source.dtype in {torch.float32, torch.float64}, "statistics need float32 or float64")


def _layer_norm(bound: Bound) -> None:
    filled(bound)
    _single_or_double(bound["input"])
    source, normalized = bound["input"], tuple(bound["normalized_shape"])
    inner = math.prod(normalized)
    need(
        0 < len(normalized) <= source.dim() and tuple(source.shape[-len(normalized) :]) == normalized,
        "normalized_shape",
    )
    _length(bound, inner, "weight", "bias")
    _length(bound, source.numel() // max(inner, 1), "mean", "rstd")
    same(bound, "input", "grad_out")


def _group_norm(bound: Bound) -> None:
    filled(bound)
    source = bound["input"] if "input" in bound else bound["X"]
    rows, channels, inner, groups = bound["N"], bound["C"], bound["HxW"], bound["group"]
    need(
        source.numel() == rows * channels * inner and channels % groups == 0, "N, C, HxW and group do not fit the input"
    )
    need(source.dim() >= 2 and source.shape[0] == rows and source.shape[1] == channels, "N and C are not the input's")
    _length(bound, channels, "weight", "bias", "gamma")
    _length(bound, rows * groups, "mean", "rstd")
    same(bound, "X", "dY")


def _batch_norm(bound: Bound) -> None:
    source = bound["input"]
    _single_or_double(source)
    need(source.numel() > 0, "input is empty")
    need(source.dim() >= 2, "input needs a channel dimension")
    channels = source.shape[1]
    _length(bound, channels, "weight", "bias", "running_mean", "running_var")
    if "grad_out" in bound:
        same(bound, "input", "grad_out")
        training = bool(bound["train"])
        need(not training or (bound["save_mean"] is not None and bound["save_invstd"] is not None), "saved statistics")
        need(training or (bound["running_mean"] is not None and bound["running_var"] is not None), "running statistics")
        if training:
            _length(bound, channels, "save_mean", "save_invstd")


def _pool_backward(bound: Bound) -> None:
    filled(bound)
    _integer(bound, "indices")
    same(bound, "grad_output", "indices")
    need(bound["self"].dim() == bound["grad_output"].dim(), "grad_output and self differ in dimensions")
    need(bound["self"].shape[:-2] == bound["grad_output"].shape[:-2], "grad_output and self differ in channels")


def _average_pool_backward(bound: Bound) -> None:
    filled(bound)
    need(bound["self"].dim() == bound["grad_output"].dim(), "grad_output and self differ in dimensions")
    need(bound["self"].shape[:-2] == bound["grad_output"].shape[:-2], "grad_output and self differ in channels")


def _embedding(bound: Bound) -> None:
    _integer(bound, "indices")
    need(bound["weight"].dim() == 2 and bound["weight"].numel() > 0, "weight must have rows and columns")


def _embedding_backward(bound: Bound) -> None:
    _integer(bound, "indices")
    grad, indices = bound["grad_output"], bound["indices"]
    need(grad.dim() == indices.dim() + 1 and grad.shape[:-1] == indices.shape, "grad_output and indices do not fit")


def indexed(bound: Bound) -> None:
    """Refuse an index that is none, or that points into nothing."""
    source, index, dimension = bound["self"], bound["index"], bound["dim"]
    need(-max(source.dim(), 1) <= dimension < max(source.dim(), 1), "dim is out of range")
    if index.numel() > 0:
        _integer(bound, "index")
        need(source.dim() == 0 or source.shape[dimension] > 0, "dim is empty")
    if "src" in bound:
        need(bound["src"].dim() == index.dim() and bound["src"].dtype == source.dtype, "src does not fit")
        need(all(i <= s for i, s in zip(index.shape, bound["src"].shape, strict=True)), "index is larger than src")


def _advanced(bound: Bound) -> None:
    need(any(each is not None for each in bound["indices"]), "no index")
    for position, index in enumerate(bound["indices"]):
        if index is not None:
            need(index.dtype in {torch.int64, torch.int32}, "a boolean index has a shape that depends on values")
            need(position < bound["self"].dim() and bound["self"].shape[position] > 0, "index of an empty dimension")


def _loss(bound: Bound) -> None:
    same(bound, "self", "target")
    shape = tuple(bound["self"].shape)
    if "grad_output" in bound:
        need(tuple(bound["grad_output"].shape) in {(), shape}, "grad_output does not fit self")
    for name in ("weight", "pos_weight"):
        if bound.get(name) is not None:
            _spreads(bound, name, shape)


def _product(bound: Bound) -> None:
    names = ("mat1", "mat2") if "mat1" in bound else ("batch1", "batch2")
    left, right = (tuple(bound[name].shape) for name in names)
    need(len(left) == len(right) >= 2 and left[-1] == right[-2], "the matrices do not fit")
    _spreads(bound, "self", (*left[:-1], right[-1]))


def _written(bound: Bound) -> None:
    _advanced(bound)
    need(bound["values"].dtype == bound["self"].dtype, "values and self differ in dtype")
    region = torch.ops.aten.index.Tensor(bound["self"], list(bound["indices"])).shape
    _spreads(bound, "values", tuple(region))


def _one_dimension(bound: Bound) -> None:
    indexed(bound)
    need(bound["index"].dim() <= 1, "index must have one dimension")


def _not_empty(bound: Bound) -> None:
    need(bound["self"].numel() > 0, "self is empty")


def _axis(bound: Bound) -> None:
    source = next(value for value in bound.values() if isinstance(value, torch.Tensor))
    need(-max(source.dim(), 1) <= bound["dim"] < max(source.dim(), 1), "dim is out of range")
    wanted = bound.get("input_dtype")
    need(wanted is None or wanted == source.dtype, "input_dtype is not that of the operands")


def _part_backward(bound: Bound) -> None:
    whole = torch.empty(bound["input_sizes"], device="meta")
    if "index" in bound:
        part = whole.select(bound["dim"], bound["index"])
    else:
        part = torch.ops.aten.slice.Tensor(whole, bound["dim"], bound["start"], bound["end"], bound["step"])
    need(part.shape == bound["grad_output"].shape, "grad_output does not fit the part")


def _roll(bound: Bound) -> None:
    shifts, dims = bound["shifts"], bound["dims"]
    need(len(shifts) == len(dims) or (not dims and len(shifts) == 1), "shifts and dims differ in length")


def _not_bool(bound: Bound) -> None:
    need(bound["dtype"] != torch.bool, "a range cannot be bool")


def _nll(bound: Bound) -> None:
    scores, target = bound["self"], bound["target"]
    need(target.dtype == torch.int64, "target must be int64")
    need(scores.dim() in {1, 2, 4}, "scores must have 1, 2 or 4 dimensions")
    classes = scores.shape[0] if scores.dim() == 1 else scores.shape[1]
    need(classes > 0, "no classes")
    _length(bound, classes, "weight")
    expected = scores.shape[:0] if scores.dim() == 1 else scores.shape[:1] + scores.shape[2:]
    need(tuple(target.shape) == tuple(expected), "target does not have one entry per row of scores")
    _length(bound, 1, "total_weight")
    if "grad_output" in bound:
        each = bound["reduction"] == 0
        need(tuple(bound["grad_output"].shape) == (tuple(target.shape) if each else ()), "grad_output does not fit")


def _probability(name: str) -> Callable[[Bound], None]:
    def rule(bound: Bound) -> None:
        need(0.0 <= float(bound[name]) <= 1.0, f"{name} must be a probability")

    return rule


def _range(bound: Bound) -> None:
    lowest, highest = float(bound["from"]), float(bound["to"])
    need(-1e30 <= lowest <= highest <= 1e30, "from and to must be in order, and finite")


def _deviation(bound: Bound) -> None:
    need(float(bound["std"]) >= 0.0, "std must not be negative")


def _leaky_noise(bound: Bound) -> None:
    need(-1e30 <= float(bound["lower"]) <= float(bound["upper"]) <= 1e30, "lower and upper must be in order")
    same(bound, "self", "noise")


def _convolution_backward(bound: Bound) -> None:
    # the kernel believes that the gradient is that of a convolution with these very arguments
    filled(bound)
    names = ("input", "weight", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
    source, weight, *rest = (bound[name] for name in names)
    forward = torch.ops.aten.convolution.default(source, weight, None, *map(_listed, rest))
    need(forward.shape == bound["grad_output"].shape, "grad_output is not that of such a convolution")


def _listed(value: Any) -> Any:  # noqa: ANN401  any argument
    return list(value) if isinstance(value, tuple) else value


def _prelu(bound: Bound) -> None:
    same(bound, "self", "grad_output")
    _spreads(bound, "weight", tuple(bound["self"].shape))


def same_backward(bound: Bound) -> None:
    """Refuse operands of a gradient that differ in shape, weights aside."""
    first, *others = [
        name for name, value in bound.items() if isinstance(value, torch.Tensor) and name not in {"weight", "buffer"}
    ]
    same(bound, first, *others, *(["buffer"] if "buffer" in bound else []))


RULES: Mapping[str, Callable[[Bound], None]] = {
    **{
        f"aten.{name}.default": filled
        for name in (
            "convolution", "max_pool2d_with_indices", "adaptive_max_pool2d", "avg_pool2d",
            "_adaptive_avg_pool2d", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
            "dot", "mv",
        )
    },
    "aten.convolution_backward.default": _convolution_backward,
    "aten._prelu_kernel.default": _prelu,
    "aten._prelu_kernel_backward.default": _prelu,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.native_layer_norm_backward.default": _layer_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_group_norm_backward.default": _group_norm,
    "aten._native_batch_norm_legit_functional.default": _batch_norm,
    "aten._native_batch_norm_legit.no_stats": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.native_batch_norm_backward.default": _batch_norm,
    "aten.max_pool2d_with_indices_backward.default": _pool_backward,
    "aten.adaptive_max_pool2d_backward.default": _pool_backward,
    "aten.avg_pool2d_backward.default": _average_pool_backward,
    "aten._adaptive_avg_pool2d_backward.default": _average_pool_backward,
    "aten.embedding.default": _embedding,
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.gather.default": indexed,
    "aten.index_select.default": _one_dimension,
    "aten.scatter.src": indexed,
    "aten.scatter.value": indexed,
    "aten.scatter_add.default": indexed,
    "aten.index.Tensor": _advanced,
    "aten._unsafe_index.Tensor": _advanced,
    "aten.index_put.default": _written,
    "aten._unsafe_index_put.default": _written,
    **dict.fromkeys(
        (f"aten.{name}.default" for name in (
            "mse_loss", "mse_loss_backward", "smooth_l1_loss", "smooth_l1_loss_backward", "huber_loss",
            "huber_loss_backward", "binary_cross_entropy", "binary_cross_entropy_backward",
            "binary_cross_entropy_with_logits",
        )),
        _loss,
    ),
    "aten.addmm.default": _product,
    "aten.baddbmm.default": _product,
    "aten.select_backward.default": _part_backward,
    "aten.slice_backward.default": _part_backward,
    "aten.roll.default": _roll,
    **dict.fromkeys(("aten.arange.default", "aten.arange.start", "aten.arange.start_step"), _not_bool),
    **dict.fromkeys(
        (f"aten.{name}" for name in (
            "amax.default", "amin.default", "max.default", "min.default", "max.dim", "min.dim", "argmax.default",
            "argmin.default",
        )),
        _not_empty,
    ),
    **dict.fromkeys(
        (f"aten.{name}.default" for name in (
            "_softmax", "_log_softmax", "_safe_softmax", "_softmax_backward_data", "_log_softmax_backward_data", "sort",
            "topk", "cumsum", "glu",
        )),
        _axis,
    ),
    "aten.nll_loss_forward.default": _nll,
    "aten.nll_loss_backward.default": _nll,
    "aten.nll_loss2d_forward.default": _nll,
    "aten.nll_loss2d_backward.default": _nll,
    "aten.native_dropout.default": _probability("p"),
    "aten.bernoulli.p": _probability("p"),
    "aten.uniform.default": _range,
    "aten.normal_functional.default": _deviation,
    "aten.rrelu_with_noise_functional.default": _leaky_noise,
    **{
        f"aten.{name}.default": same_backward
        for name in (
            "sigmoid_backward", "tanh_backward", "threshold_backward", "gelu_backward", "silu_backward",
            "mish_backward",
            "elu_backward", "hardtanh_backward", "hardswish_backward", "hardsigmoid_backward", "leaky_relu_backward",
            "softplus_backward", "log_sigmoid_backward", "rrelu_with_noise_backward",
        )
    },
}  # fmt: skip
