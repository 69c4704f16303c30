"""The arguments of a step, checked one by one against the schema of its operation.

Devices, layouts, generators and pinned memory are never a plan's to choose: those parameters accept nothing.
A text is accepted only from a closed set, and a float never stands where torch expects an integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fedpriv.errors import PlanRefused
from fedpriv.plans.operations import Operation, Parameter
from fedpriv.plans.plan import Argument, Dtype, Slot, Step
from fedpriv.updates import DTYPES

WORDS = frozenset(
    {"none", "tanh", "floor", "trunc", "left", "right", "sum", "prod", "mean", "amax", "amin"},
)
MEMORY_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}
MAXIMUM_LIST = 4096
WORKERS_CHOICE = frozenset({"device", "layout", "pin_memory", "generator", "non_blocking"})
"""Parameters that a plan leaves out."""


def bind(operation: Operation, step: Step, slots: Sequence[Any], index: int) -> dict[str, Any]:
    """Return the step's arguments by parameter name, slots filled in; raise `PlanRefused` if one is wrong."""
    given = _by_name(operation, step, index)
    bound: dict[str, Any] = {}
    for parameter in operation.parameters:
        if parameter.name not in given:
            if parameter.required:
                raise _refused(step, index, f"{parameter.name} is missing")
            bound[parameter.name] = parameter.default
            continue
        value = _value(given[parameter.name], parameter, slots, step, index)
        if not conforms(value, parameter):
            raise _refused(step, index, f"{parameter.name} must be {_expected(parameter)}")
        bound[parameter.name] = _converted(value, parameter)
    return bound


def call(operation: Operation, bound: dict[str, Any]) -> Any:  # noqa: ANN401  what torch returns
    """Run an operation on bound meta arguments, or on sizes."""
    if operation.arithmetic is not None:
        return operation.arithmetic(*bound.values())
    positional = [bound[each.name] for each in operation.parameters if not each.keyword]
    keywords = {each.name: bound[each.name] for each in operation.parameters if each.keyword}
    if operation.makes_from_nothing:
        keywords["device"] = torch.device("meta")
    if operation.name == "aten._native_batch_norm_legit_functional.default":
        return _batch_norm_shapes(bound)  # torch has no meta kernel for it
    if operation.name == "aten._native_batch_norm_legit_no_training.default":
        return _batch_norm_shapes({**bound, "training": False})[:3]  # torch's names statistics that no kernel gives
    assert operation.overload is not None
    results = operation.overload(*positional, **keywords)
    if operation.name == "aten.native_batch_norm_backward.default":
        asked = zip(results, bound["output_mask"], strict=True)
        return tuple(each if wanted else None for each, wanted in asked)  # torch's shapes have one that no kernel gives
    return results


def conforms(value: Any, parameter: Parameter) -> bool:  # noqa: ANN401  any argument of any operation
    """Whether `value` has the type that the schema asks for."""
    if value is None:
        return parameter.optional
    if parameter.name in WORKERS_CHOICE:
        return False
    if parameter.listed:
        if isinstance(value, tuple):
            return len(value) <= MAXIMUM_LIST and all(_is_kind(each, parameter.kind) for each in value)
        return parameter.length is not None and _is_kind(value, parameter.kind)
    return _is_kind(value, parameter.kind)


def _is_kind(value: Any, kind: str) -> bool:  # noqa: ANN401, PLR0911  one return per schema type
    match kind:
        case "Tensor":
            return isinstance(value, torch.Tensor)
        case "Optional[Tensor]":
            return value is None or isinstance(value, torch.Tensor)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "number":
            return isinstance(value, bool | int | float)
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str) and value in WORDS
        case "ScalarType":
            return isinstance(value, Dtype) and value.name in DTYPES
        case "MemoryFormat":
            return isinstance(value, str) and value in MEMORY_FORMATS
        case _:
            return False  # Device, Layout, Generator and whatever else a schema may hold


def _converted(value: Any, parameter: Parameter) -> Any:  # noqa: ANN401  any argument of any operation
    if isinstance(value, Dtype):
        return DTYPES[value.name]
    if parameter.kind == "MemoryFormat" and value is not None:
        return MEMORY_FORMATS[value]
    if parameter.kind == "float" and isinstance(value, int):
        return float(value)
    if parameter.listed and isinstance(value, int):
        return (value,) * (parameter.length or 1)
    return value


def _by_name(operation: Operation, step: Step, index: int) -> dict[str, Argument]:
    positional = [each.name for each in operation.parameters if not each.keyword]
    if len(step.arguments) > len(positional):
        raise _refused(step, index, f"{len(step.arguments)} arguments, at most {len(positional)}")
    given: dict[str, Argument] = dict(zip(positional, step.arguments, strict=False))
    keywords = {each.name for each in operation.parameters if each.keyword}
    for name, value in step.keywords:
        if name not in keywords or name in given:
            raise _refused(step, index, f"no parameter {name[:40]!r}, or given twice")
        given[name] = value
    return given


def _value(raw: Argument, parameter: Parameter, slots: Sequence[Any], step: Step, index: int) -> Any:  # noqa: ANN401
    if isinstance(raw, tuple):
        if not parameter.listed or len(raw) > MAXIMUM_LIST:
            raise _refused(step, index, f"{parameter.name} must be {_expected(parameter)}")
        if any(isinstance(each, tuple) for each in raw):
            raise _refused(step, index, f"{parameter.name} must be {_expected(parameter)}, not lists in a list")
        return tuple(_value(each, parameter, slots, step, index) for each in raw)
    if isinstance(raw, Slot):
        if not 0 <= raw.index < len(slots):
            raise _refused(step, index, f"slot {raw.index} is not filled yet")
        return slots[raw.index]
    return raw


def _expected(parameter: Parameter) -> str:
    if parameter.name in WORKERS_CHOICE:
        return "left out: it is the worker's to choose"
    words = {"str": f"one of {', '.join(sorted(WORDS))}", "ScalarType": "a dtype", "number": "a number"}
    kind = words.get(parameter.kind, parameter.kind)
    return f"a list of {kind}" if parameter.listed else kind


def _refused(step: Step, index: int, what: str) -> PlanRefused:
    return PlanRefused(f"step {index} ({step.operation}): {what}", step=index, operation=step.operation)


def _batch_norm_shapes(bound: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    source, statistics = bound["input"], bound["running_mean"]
    saved = [
        torch.empty(source.shape[1] if bound["training"] else 0, dtype=statistics.dtype, device="meta")
        for _ in range(2)
    ]
    running = [torch.empty_like(bound[name]) for name in ("running_mean", "running_var")]
    return torch.empty_like(source), *saved, *running
