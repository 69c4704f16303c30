"""Shape rules that torch's own kernels assume and do not all check.

A backward kernel trusts that the saved statistics belong to its input. A hostile plan may hand it a shorter
tensor, and an unchecked kernel would then read or write beyond it. Each rule here raises `ShapeRefused`.
Values are not looked at: `lowering` makes indices and targets fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fedpriv.plans import grids, kernels
from fedpriv.plans.kernels import Bound, ShapeRefused, need, same
from fedpriv.plans.operations import Dtypes, Operation

MAXIMUM_INTEGER = 2**40
_POSITIVE = {
    "stride",
    "dilation",
    "groups",
    "group",
    "kernel_size",
    "split_size",
    "step",
    "num_weights",
    "output_size",
    "normalized_shape",
    "k",
}
_NOT_NEGATIVE = {
    "padding",
    "output_padding",
    "size",
    "repeats",
    "split_sizes",
    "input_sizes",
    "bias_sizes",
    "N",
    "C",
    "HxW",
}
_NOT_VALUES = {"indices", "index", "target", "total_weight", "mask", "buffer"}
"""Operands that may have another dtype than the rest."""


def check(operation: Operation, bound: Bound) -> None:
    """Raise `ShapeRefused` unless `bound` keeps every rule of `operation`."""
    for name, value in bound.items():
        _check_integers(name, value)
    for left, right in operation.same:
        same(bound, left, right)
    _check_dtypes(operation, bound)
    _check_numbers(bound)
    rule = kernels.RULES.get(operation.name) or grids.RULES.get(operation.name)
    if rule is not None:
        rule(bound)


def _check_integers(name: str, value: Any) -> None:  # noqa: ANN401  any argument of any operation
    values = value if isinstance(value, tuple | list) else (value,)
    for each in values:
        if isinstance(each, int) and not isinstance(each, bool):
            if abs(each) > MAXIMUM_INTEGER:
                raise ShapeRefused(f"{name} is {each}, beyond 2**40")
            if (name in _POSITIVE and each < 1) or (name in _NOT_NEGATIVE and each < 0):
                raise ShapeRefused(f"{name} is {each}, too small")


def _check_dtypes(operation: Operation, bound: Bound) -> None:
    held = {name: value for name, value in bound.items() if isinstance(value, torch.Tensor)}
    if operation.dtypes is Dtypes.FLOAT:
        floating = [value.dtype for name, value in held.items() if name not in _NOT_VALUES]
        need(all(each.is_floating_point for each in floating), "operands must be floating point")
        need(len(set(floating)) <= 1, "operands differ in dtype")
        wanted = bound.get("dtype", bound.get("input_dtype"))
        need(wanted is None or wanted.is_floating_point, "the result must be floating point")
    if operation.dtypes is Dtypes.ALIKE:
        need(len({value.dtype for value in held.values()}) <= 1, "operands differ in dtype")
    for name, value in held.items():
        if operation.dtypes in {Dtypes.NUMBER, Dtypes.ALIKE}:
            need(value.dtype != torch.bool, f"{name} must hold numbers, not bool")
        elif operation.dtypes is Dtypes.INTEGER:
            need(not value.dtype.is_floating_point and not value.dtype.is_complex, f"{name} must hold integers or bool")


def _check_numbers(bound: Bound) -> None:
    floating = any(isinstance(value, torch.Tensor) and value.dtype.is_floating_point for value in bound.values())
    for name in ("alpha", "beta", "value"):
        number = bound.get(name)
        need(not isinstance(number, bool), f"{name} must be a number")
        need(floating or not isinstance(number, float), f"{name} must be whole where no operand is floating point")
    if "reduction" in bound:
        need(bound["reduction"] in {0, 1, 2}, "reduction must be 0, 1 or 2")


def check_results(bound: Bound, results: Sequence[Any]) -> None:
    """Raise `ShapeRefused` where a number that is not finite would have to become an integer."""
    wild = any(isinstance(value, float) and not math.isfinite(value) for value in bound.values())
    tensors = [each for each in results if isinstance(each, torch.Tensor)]
    comparing = any(each.dtype == torch.bool for each in tensors)
    need(not wild or comparing or all(each.dtype.is_floating_point for each in tensors), "a number is not finite")
