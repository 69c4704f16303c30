"""Two tensors that become each other in place, also while a result still needs one of them.

torch refuses that, because a gradient that arrives later would reach the wrong tensor. Here such a gradient raises, and
what the result saved stays what it was: a program may take a model back after a forward pass that it never
differentiates.
"""

from __future__ import annotations

import gc
import weakref
from typing import NoReturn

import torch
from torch import Tensor

from fedpriv.errors import UsageError


def exchange(one: Tensor, other: Tensor) -> None:
    """Make each of two tensors the other; a backward pass through what was computed from them before raises."""
    if _has_weak_references(one, other):
        gc.collect()  # they may be in a cycle that nobody else refers to
        if _has_weak_references(one, other):
            raise UsageError("a tensor cannot move while something refers to it weakly; let that go first")
    for each in (one, other):
        if each.is_leaf and each.requires_grad and _uses(each) > 1:
            torch.autograd.graph.get_gradient_edge(each).node.register_prehook(_too_late)
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__
    torch._C._swap_tensor_impl(one, other)  # noqa: SLF001  what torch.utils.swap_tensors ends with


def _uses(tensor: Tensor) -> int:
    uses: int = tensor._use_count()  # type: ignore[attr-defined]  # noqa: SLF001  as torch.utils.swap_tensors asks
    return uses


def _has_weak_references(*tensors: Tensor) -> bool:
    return any(weakref.getweakrefs(each) for each in tensors)


def _too_late(_: object) -> NoReturn:
    raise UsageError("the model moved between its forward pass and this backward(); call backward() before it moves")
