"""What kernels over grids ask of shapes and do not check themselves: pools, padding, resampling, spectra, searches.

The rules of `kernels` for volumes and for everything that maps one grid of places onto another. A rule raises
`ShapeRefused` for operands that the kernel would read or write beyond; values are for `totality`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from fedpriv.plans.kernels import Bound, filled, indexed, need, same, same_backward

_REAL = {torch.float32, torch.float64}
_COMPLEX = {torch.complex64, torch.complex128}
_SCALE = 2.0**20
"""By how much a plane may be resampled at most: beyond, a place no longer fits the number that counts it."""


def _resampled(bound: Bound) -> None:
    filled(bound)
    source, size = bound["self"], tuple(bound["output_size"])
    need(len(size) > 0 and source.dim() == len(size) + 2, "self and output_size differ in dimensions")
    _scales(bound)


def _resampled_backward(bound: Bound) -> None:
    filled(bound)
    before, after = tuple(bound["input_size"]), tuple(bound["output_size"])
    need(len(before) == len(after) + 2 and min(before) > 0, "input_size and output_size differ in dimensions")
    need(tuple(bound["grad_output"].shape) == (*before[:2], *after), "grad_output does not have output_size")
    _scales(bound)


def _scales(bound: Bound) -> None:
    for name, value in bound.items():
        if name.startswith("scales") and value is not None:
            need(1 / _SCALE <= float(value) <= _SCALE, f"{name} is out of range")


def _padding_backward(name: str) -> Callable[[Bound], None]:
    forward = getattr(torch.ops.aten, name).default

    def rule(bound: Bound) -> None:
        filled(bound)
        need(forward(bound["self"], bound["padding"]).shape == bound["grad_output"].shape, "grad_output does not fit")

    return rule


def _volume_backward(bound: Bound) -> None:
    filled(bound)
    if "indices" in bound:
        need(bound["indices"].dtype == torch.int64, "indices must be int64")
        same(bound, "grad_output", "indices")
    source, grad = bound["self"], bound["grad_output"]
    need(source.dim() == grad.dim() and source.dim() in {4, 5}, "grad_output and self differ in dimensions")
    need(source.shape[:-3] == grad.shape[:-3], "grad_output and self differ in channels")


def _sampled(bound: Bound) -> None:
    filled(bound)
    source, grid = bound["input"], bound["grid"]
    planes = source.dim() - 2
    need(planes in {2, 3} and grid.dim() == source.dim(), "input and grid differ in dimensions")
    need(grid.shape[0] == source.shape[0] and grid.shape[-1] == planes, "grid does not have one place per output")
    need(bound["interpolation_mode"] in ({0, 1, 2} if planes == 2 else {0, 1}), "interpolation_mode")
    need(bound["padding_mode"] in {0, 1, 2}, "padding_mode")
    if "grad_output" in bound:
        need(tuple(bound["grad_output"].shape) == (*source.shape[:2], *grid.shape[1:-1]), "grad_output does not fit")


def _distances(bound: Bound) -> None:
    left, right = bound["x1"], bound["x2"]
    need(left.dim() >= 2 and right.dim() >= 2 and left.shape[-1] == right.shape[-1], "x1 and x2 differ in columns")
    need(float(bound["p"]) >= 0.0, "p must not be negative")
    need(left.dtype in _REAL, "distances need float32 or float64")
    need(bound.get("compute_mode") in {None, 0, 1, 2}, "compute_mode must be 0, 1 or 2")


def _distances_backward(bound: Bound) -> None:
    _distances(bound)
    left, right = bound["x1"], bound["x2"]
    need(left.shape[:-2] == right.shape[:-2], "x1 and x2 differ in their first dimensions")
    need(bound["cdist"].shape == (*left.shape[:-1], right.shape[-2]), "cdist does not fit x1 and x2")
    same(bound, "grad", "cdist")


def _spectrum(bound: Bound) -> None:
    source, axes = bound["self"], tuple(bound["dim"])
    real = "onesided" in bound
    need(source.dtype in (_REAL if real else _COMPLEX), "a transform needs float32, float64 or their complex kind")
    need(source.numel() > 0 and len(axes) > 0, "nothing to transform")
    need(
        all(0 <= each < source.dim() for each in axes), "dim is out of range"
    )  # the kernel does not count from the end
    need(len(set(axes)) == len(axes), "dim names a dimension twice")
    need(bound["normalization"] in {0, 1, 2}, "normalization must be 0, 1 or 2")
    if "last_dim_size" in bound:  # the kernel reads half of it and one more, whatever is there
        size = bound["last_dim_size"]
        need(size > 0 and source.shape[axes[-1]] == size // 2 + 1, "last_dim_size does not fit self")


def _dimension(bound: Bound) -> None:
    source = bound["self"]
    need(-max(source.dim(), 1) <= bound["dim"] < max(source.dim(), 1), "dim is out of range")
    need(source.numel() > 0, "self is empty")


def _searched(bound: Bound) -> None:
    held = bound["boundaries"] if "boundaries" in bound else bound["sorted_sequence"]
    need(bound.get("sorter") is None, "sorter must be left out")
    need(held.dim() > 0, "what is searched needs a dimension")
    need(bound.get("side") in ({None, "right"} if bound["right"] else {None, "left", "right"}), "side and right differ")
    sought = bound["self"]
    if isinstance(sought, torch.Tensor):
        need(sought.dtype == held.dtype, "what is sought has another dtype")
        fits = held.dim() == 1 or (held.dim() == sought.dim() and held.shape[:-1] == sought.shape[:-1])
        need(fits, "what is sought does not fit what is searched")
    else:
        need(held.dim() == 1, "a number is sought in one dimension")


def _reduced(words: set[str]) -> Callable[[Bound], None]:
    def rule(bound: Bound) -> None:
        need(bound["reduce"] in words, "reduce")
        if "src" in bound:
            indexed(bound)
            return
        source, index, added = bound["self"], bound["index"], bound["source"]
        need(index.dim() <= 1 and index.dtype in {torch.int64, torch.int32}, "index must be one dimension of integers")
        need(-max(source.dim(), 1) <= bound["dim"] < max(source.dim(), 1), "dim is out of range")
        need(added.dtype == source.dtype, "self and source differ in dtype")
        if source.dim() == 0:
            need(index.numel() == added.numel() == 1, "source does not fit self and index")
            return
        shape = list(source.shape)
        need(shape[bound["dim"]] > 0, "dim is empty")
        shape[bound["dim"]] = index.numel()
        need(list(added.shape) == shape, "source does not fit self and index")

    return rule


def _not_flags(bound: Bound) -> None:
    need(all(bound[each].dtype != torch.bool for each in ("self", "other")), "operands must hold integers, not bool")


def _divisor(bound: Bound) -> None:
    source, other = bound["self"], bound["other"]
    whole = not source.dtype.is_floating_point and not isinstance(other, float)
    need(not whole or other != 0, "the divisor is zero")
    need(not source.dtype.is_complex, "remainders need real numbers")


def _power(bound: Bound) -> None:
    power = bound["exponent"]
    whole = not bound["self"].dtype.is_floating_point and isinstance(power, int)
    need(not whole or power >= 0, "an integer has no negative power")


RESAMPLED = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_bicubic2d", "upsample_trilinear3d",
)  # fmt: skip
VOLUMES = ("avg_pool3d", "max_pool3d_with_indices", "_adaptive_avg_pool3d", "adaptive_max_pool3d")
RULES: Mapping[str, Callable[[Bound], None]] = {
    **{f"aten.{name}.default": _resampled for name in RESAMPLED},
    **{f"aten.{name}_backward.default": _resampled_backward for name in RESAMPLED},
    **{
        f"aten.{name}_backward.default": _padding_backward(name)
        for name in ("replication_pad1d", "replication_pad2d", "replication_pad3d")
    },
    "aten.replication_pad3d.default": filled,
    **{f"aten.{name}.default": filled for name in VOLUMES},
    **{f"aten.{name}_backward.default": _volume_backward for name in VOLUMES},
    **{
        f"aten.{name}.default": _sampled
        for name in ("grid_sampler_2d", "grid_sampler_2d_backward", "grid_sampler_3d", "grid_sampler_3d_backward")
    },
    "aten._cdist_forward.default": _distances,
    "aten._cdist_backward.default": _distances_backward,
    **{f"aten.{name}.default": _spectrum for name in ("_fft_r2c", "_fft_c2c", "_fft_c2r")},
    "aten.pow.Tensor_Scalar": _power,
    **{
        f"aten.{name}": _dimension
        for name in ("cummax.default", "cummin.default", "logcumsumexp.default")
    },
    **{f"aten.{name}": _searched for name in ("searchsorted.Tensor", "searchsorted.Scalar", "bucketize.Tensor")},
    "aten.scatter_reduce.two": _reduced({"sum", "prod", "mean", "amax", "amin"}),
    "aten.index_reduce.default": _reduced({"prod", "mean", "amax", "amin"}),
    **{
        f"aten.{name}": _not_flags
        for name in ("bitwise_left_shift.Tensor", "bitwise_right_shift.Tensor")
    },
    **{f"aten.{name}": _divisor for name in ("div.Scalar_mode", "fmod.Scalar", "remainder.Scalar")},
    "aten.softshrink_backward.default": same_backward,
    "aten.hardshrink_backward.default": same_backward,
}  # fmt: skip
