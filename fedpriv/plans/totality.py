"""How kernels over grids and integers are made total: no value that they meet makes them raise or reach beyond.

The rules of `lowering` for what it does not say itself. An integer is divided by one where it would be divided by
zero; a place far outside a plane counts as one just outside; an index is brought into range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

if TYPE_CHECKING:
    from fedpriv.plans.lowering import Lowering

Rule: TypeAlias = "Callable[[Lowering, dict[str, Any]], tuple[Any, ...]]"
_FARTHEST = 1024.0
"""How many planes away a place may be: more do not fit the 32 bits in which a kernel counts."""


def _sampled(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        known = low.call("aten.nan_to_num.default", given["grid"], 0.0)
        made = low.call(name, *{**given, "grid": low.call("aten.clamp.default", known, -_FARTHEST, _FARTHEST)}.values())
        return made if isinstance(made, tuple) else (made,)

    return rule


def _volume_backward(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        last = math.prod(low.meta(given["self"]).shape[-3:]) - 1
        index = low.call("aten.clamp.default", given["indices"], 0, last)
        return (low.call(name, *{**given, "indices": index}.values()),)

    return rule


def _indexed(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        shape = low.meta(given["self"]).shape
        last = (shape[given["dim"]] if shape else 1) - 1
        index = low.call("aten.clamp.default", given["index"], 0, last)
        return (low.call(name, *{**given, "index": index}.values()),)

    return rule


def _divided(name: str) -> Rule:
    def rule(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
        source, other = given["self"], given["other"]
        by_tensor = name.endswith((".Tensor", ".Tensor_mode"))
        left = low.meta(source)
        dtype = torch.result_type(left, low.meta(other) if by_tensor else other)
        if dtype.is_floating_point or ("rounding_mode" in given and given["rounding_mode"] is None):
            return (low.call(name, *given.values()),)
        if by_tensor:
            return (_by_tensor(low, name, {**given, "self": _as(low, source, dtype), "other": _as(low, other, dtype)}),)
        if other == -1 and dtype.is_signed:  # the lowest number has no opposite, and the processor traps
            return (_by_minus_one(low, name, _as(low, source, dtype)),)
        return (low.call(name, *given.values()),)

    return rule


def _by_tensor(low: Lowering, name: str, given: dict[str, Any]) -> Any:  # noqa: ANN401  a slot
    other = given["other"]
    refused = low.call("aten.eq.Scalar", other, 0)
    if not low.meta(other).dtype.is_signed:
        return low.call(name, *{**given, "other": low.call("aten.masked_fill.Scalar", other, refused, 1)}.values())
    minus = low.call("aten.eq.Scalar", other, -1)
    refused = low.call("aten.logical_or.default", refused, minus)
    safe = low.call("aten.masked_fill.Scalar", other, refused, 1)
    made = low.call(name, *{**given, "other": safe}.values())
    return low.call("aten.where.self", minus, _by_minus_one(low, name, given["self"]), made)


def _by_minus_one(low: Lowering, name: str, source: Any) -> Any:  # noqa: ANN401  a slot
    if name.startswith("aten.div."):
        return low.call("aten.neg.default", source)
    return low.call("aten.zeros_like.default", source)


def _filled(low: Lowering, given: dict[str, Any]) -> tuple[Any, ...]:
    """Fill with a number of the dtype that is filled: the kernel raises for one that does not fit."""
    value = _as(low, given["value"], low.meta(given["self"]).dtype)
    return (low.call("aten.masked_fill.Tensor", *{**given, "value": value}.values()),)


def _as(low: Lowering, value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401  a slot
    return value if low.meta(value).dtype == dtype else low.call("aten._to_copy.default", value, dtype)


RULES: Mapping[str, Rule] = {
    **{
        name: _sampled(name)
        for name in (
            "aten.grid_sampler_2d.default",
            "aten.grid_sampler_2d_backward.default",
            "aten.grid_sampler_3d.default",
            "aten.grid_sampler_3d_backward.default",
        )
    },
    **{
        name: _volume_backward(name)
        for name in ("aten.max_pool3d_with_indices_backward.default", "aten.adaptive_max_pool3d_backward.default")
    },
    "aten.masked_fill.Tensor": _filled,
    **{name: _indexed(name) for name in ("aten.scatter_reduce.two", "aten.index_reduce.default")},
    **{
        name: _divided(name)
        for name in (
            "aten.div.Tensor_mode",
            "aten.div.Scalar_mode",
            "aten.fmod.Tensor",
            "aten.fmod.Scalar",
            "aten.remainder.Tensor",
            "aten.remainder.Scalar",
        )
    },
}
