"""Bounds on what one step may cost, from shapes alone: arithmetic and scratch memory.

An upper bound in elementary operations and bytes, generous by a small factor; not a prediction of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch

from fedpriv.plans.operations import Operation, Work

_SORT_FACTOR = 64
WRITES_REGION = frozenset({"aten.index_put.default", "aten._unsafe_index_put.default"})
COMPOSED = frozenset(
    f"aten.{name}"
    for name in (
        "logsumexp.default", "std.correction", "var.correction", "var_mean.correction", "constant_pad_nd.default",
        "xlogy.Tensor", "nan_to_num.default", "celu.default", "logaddexp.default", "lerp.Tensor", "prod.default",
        "prod.dim_int",
    )
)  # fmt: skip
"""Operations that torch may make of several, with an intermediate."""
_DIVIDES = frozenset(
    f"aten.{name}"
    for name in (
        "div.Tensor_mode", "div.Scalar_mode", "fmod.Tensor", "fmod.Scalar", "remainder.Tensor", "remainder.Scalar",
    )
)  # fmt: skip
"""Operations that are made total by several others, each over the whole shape."""


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among `values`, those in lists included."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(tensors_in(value))
    return found


def nbytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a contiguous tensor of this shape, in Python integers."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def work_of(operation: Operation, arguments: Mapping[str, Any], results: Sequence[torch.Tensor]) -> int:
    """Return an upper bound of the elementary operations of one step."""
    operands = tensors_in(arguments.values())
    elements = sum(math.prod(each.shape) for each in (*operands, *results))
    match operation.work:
        case Work.NONE:
            return 0
        case Work.LINEAR:
            return elements + (_region(arguments) if operation.name in WRITES_REGION else 0)
        case Work.MATMUL:
            return elements + math.prod(results[0].shape) * operands[-2].shape[-1]
        case Work.CONVOLUTION:
            return elements + _convolution_work(arguments, results)
        case Work.WINDOW:
            window: Sequence[int] = arguments.get("kernel_size", ())
            return elements * math.prod(window) * 4
        case Work.SORT:
            return elements * _SORT_FACTOR


def workspace_of(operation: Operation, arguments: Mapping[str, Any], results: Sequence[torch.Tensor]) -> int:
    """Return an upper bound of the scratch bytes of one step, beyond its results."""
    operands = tensors_in(arguments.values())
    if operation.work is Work.CONVOLUTION:
        # Kernels may reorder every operand and unfold one image into columns.
        weight: torch.Tensor = arguments["weight"]
        taps: int = math.prod(weight.shape[1:]) * arguments["groups"]
        spatial = max(math.prod(each.shape[2:]) for each in (*operands, *results) if each.dim() > 2)
        return 2 * sum(map(nbytes, (*operands, *results))) + taps * spatial * weight.dtype.itemsize
    if operation.view or operation.work is Work.NONE:
        return 0
    if operation.contiguous or operation.work in {Work.MATMUL, Work.SORT} or operation.name in COMPOSED | _DIVIDES:
        # operands laid out one after the other, indices brought into range, one intermediate of the whole shape
        whole = _broadcast(operands) if operation.name in COMPOSED else 0
        whole += 3 * _broadcast((*operands, *results)) if operation.name in _DIVIDES else 0
        region = _region(arguments) * 8 if operation.name in WRITES_REGION else 0
        return 2 * sum(map(nbytes, operands)) + whole + region
    if operation.name.endswith("_backward.default"):
        return max(map(nbytes, operands), default=0)
    if len({each.dtype for each in (*operands, *results)}) > 1:  # operands become the dtype of the rest
        widest = max(each.dtype.itemsize for each in (*operands, *results))
        return sum(math.prod(each.shape) * widest for each in operands if each.dim())
    return 0


def _broadcast(operands: Sequence[torch.Tensor]) -> int:
    """Return the bytes of one tensor over which every operand spreads."""
    sizes = zip_longest(*(each.shape[::-1] for each in operands), fillvalue=1)
    widest: int = max((each.dtype.itemsize for each in operands), default=0)
    return math.prod(map(max, sizes)) * widest


def _region(arguments: Mapping[str, Any]) -> int:
    """Return how many elements advanced indices address."""
    source: torch.Tensor = arguments["self"]
    return math.prod(torch.ops.aten.index.Tensor(source, list(arguments["indices"])).shape)


def _convolution_work(arguments: Mapping[str, Any], results: Sequence[torch.Tensor]) -> int:
    weight: torch.Tensor = arguments["weight"]
    produced: torch.Tensor = arguments.get("grad_output", results[0] if results else weight)
    forward = math.prod(produced.shape) * math.prod(weight.shape[1:])
    if arguments["transposed"]:
        source: torch.Tensor = arguments["input"]
        forward = math.prod(source.shape) * math.prod(weight.shape[1:])
    return forward * (2 if "grad_output" in arguments else 1)
