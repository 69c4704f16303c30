"""Whether what a worker sent can be used: the right tensors, finite values, a weight that can be believed.

A worker may send anything. What does not pass is left out, with a reason, and the round goes on. Whether values that
pass are honest is not known here: a worker can still move the mean by as much as its weight allows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch

from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import Evaluation, Update

ROUNDING = 10
"""Announced rows are rounded down to tens, so an exact weight may exceed them by up to 9."""
HEADROOM = 1e4
"""How many updates as large as one may be summed in float32 before the sum overflows."""


def why_unusable(
    update: Update, expected: Sequence[TensorSpec], metrics: Collection[str], announced_rows: int | None
) -> str | None:
    """Return why `update` cannot be folded, or None when it can."""
    specs = update.delta.specs
    if len(specs) != len(expected):
        return f"it has {len(specs)} tensors, the plan returns {len(expected)}"
    for found, wanted in zip(specs, expected, strict=True):
        if found != wanted:
            return (
                f"tensor {wanted.name!r} should be {wanted.dtype} {list(wanted.shape)}, "
                f"it is {found.name!r:.80}, {found.dtype} {list(found.shape)}"
            )
    reason = _why_unbelievable(update.weight, announced_rows) or _why_not_metrics(update.metrics, metrics)
    if reason is not None:
        return reason
    for name, tensor in update.delta:
        if tensor.dtype.is_floating_point and tensor.numel() and not _is_summable(tensor, update.weight):
            return f"tensor {name!r} has values that are not finite or too large to sum; lower the learning rate"
    return None


def why_unusable_evaluation(evaluation: Evaluation, metrics: Collection[str], announced_rows: int | None) -> str | None:
    """Return why `evaluation` cannot be averaged, or None when it can."""
    return _why_unbelievable(evaluation.weight, announced_rows) or _why_not_metrics(evaluation.metrics, metrics)


def why_unusable_statistics(values: TensorSet, kinds: Sequence[str], columns: int) -> str | None:
    """Return why statistics cannot be added, or None when they can."""
    if tuple(name for name, _ in values) != tuple(kinds):
        return f"it holds other statistics than {', '.join(kinds)}"
    for name, tensor in values:
        shape = () if name == "count" else (columns,)
        if tensor.dtype is not torch.float64 or tuple(tensor.shape) != shape:
            return f"its {name} should be float64 {list(shape)}, it is {tensor.dtype} {list(tensor.shape)}"
        if not bool(torch.isfinite(tensor).all()):
            return f"its {name} is not finite"
    return None if float(values["count"]) > 0 else "it counts no rows"


def _why_unbelievable(weight: float, announced_rows: int | None) -> str | None:
    if announced_rows is None:
        return None if weight == 1.0 else f"its weight is {weight:g}, but it hides its rows and so may only weigh 1"
    if not (math.isfinite(weight) and 0 < weight < announced_rows + ROUNDING):
        return f"its weight {weight:g} is not between 0 and the {announced_rows} rows it announced"
    return None


def _why_not_metrics(found: Mapping[str, float], asked: Collection[str]) -> str | None:
    if found.keys() != set(asked):
        return f"it has other metrics than the {len(asked)} that were asked for"
    return None if all(math.isfinite(value) for value in found.values()) else "its metrics are not finite"


def _is_summable(tensor: torch.Tensor, weight: float) -> bool:
    largest = float(tensor.abs().amax())  # NaN and infinity come out as themselves
    return largest * max(weight, 1.0) * HEADROOM < torch.finfo(torch.float32).max or (
        tensor.dtype is torch.float64 and math.isfinite(largest * weight)
    )
