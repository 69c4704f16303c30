"""Whether an update can be folded: the right tensors, finite values, a weight that can be believed.

A worker may send anything. What does not pass is left out of the round, with a reason, and the round goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fedpriv.updates import TensorSpec
from fedpriv.wire.messages import Update

ROUNDING = 10
"""Announced rows are rounded down to tens, so an exact weight may exceed them by up to 9."""


def why_unusable(update: Update, expected: Sequence[TensorSpec], announced_rows: int | None) -> str | None:
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
    limit = math.inf if announced_rows is None else announced_rows + ROUNDING
    if not (math.isfinite(update.weight) and 0 < update.weight < limit):
        return f"its weight {update.weight:g} is not between 0 and the rows it announced"
    if not all(math.isfinite(value) for value in update.metrics.values()):
        return "its training metrics are not finite"
    for name, tensor in update.delta:
        if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            return f"tensor {name!r} has values that are not finite; lower the learning rate or look at the data there"
    return None
