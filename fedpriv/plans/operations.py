"""The allow-list: which operations a plan may name, and what each does to labels, values and memory.

`operations.csv` is reviewed by hand, one row per overload. It is read once into a table; a peer's string is
only ever a key into that table. An operation without a row, or with the verdict "denied", does not run.
torch's own tags decide nothing here: they miss `is_nonzero` and nearly all data-dependent shapes.
"""

from __future__ import annotations

import csv
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import torch

from fedpriv.errors import OperationNotAllowed, nearest

Overload: TypeAlias = torch._ops.OpOverload  # noqa: SLF001  the type has no public name
Number: TypeAlias = "int | float"


class LabelRule(Enum):
    """How the labels of the results derive: from every operand, or from none because only shapes matter."""

    JOIN = "join"
    SHAPE = "shape"


class Dtypes(Enum):
    """Which dtypes the tensors of an operation may have; FLOAT and ALIKE also ask that all have the same."""

    ANY = "any"
    NUMBER = "number"
    ALIKE = "alike"
    INTEGER = "integer"
    FLOAT = "float"


class Values(Enum):
    """Why no value can make the operation fail: it is total by itself, or `guards` and `lowering` make it so."""

    TOTAL = "total"
    GUARDED = "guarded"


class Work(Enum):
    """Which formula bounds the arithmetic of the operation."""

    NONE = "none"
    LINEAR = "linear"
    MATMUL = "matmul"
    CONVOLUTION = "convolution"
    WINDOW = "window"
    SORT = "sort"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation; `kind` is torch's schema type without Optional and List."""

    name: str
    kind: str
    optional: bool
    listed: bool
    length: int | None
    keyword: bool
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One reviewed overload, or one operation on sizes (then `arithmetic` is set and `overload` is not)."""

    name: str
    label: LabelRule
    view: bool
    dtypes: Dtypes
    values: Values
    random: bool
    zeroed: bool
    contiguous: bool
    """Whether the kernel may read memory as if strides did not exist; then `lowering` lays operands out."""
    work: Work
    same: tuple[tuple[str, str], ...]
    parameters: tuple[Parameter, ...]
    overload: Overload | None = None
    arithmetic: Callable[..., Number] | None = None

    @property
    def makes_from_nothing(self) -> bool:
        """Whether the operation has a device parameter and no tensor to take the device from."""
        kinds = {each.kind for each in self.parameters}
        return "Device" in kinds and "Tensor" not in kinds


ARITHMETIC: Mapping[str, Callable[..., Number]] = {
    "int.size": lambda tensor, dimension: int(tensor.shape[dimension]),
    "int.numel": lambda tensor: int(tensor.numel()),
    "int.add": operator.add,
    "int.sub": operator.sub,
    "int.mul": operator.mul,
    "int.floordiv": operator.floordiv,
    "int.mod": operator.mod,
    "int.neg": operator.neg,
    "int.max": max,
    "int.min": min,
    "float.of": float,
    "float.add": operator.add,
    "float.sub": operator.sub,
    "float.mul": operator.mul,
    "float.div": operator.truediv,
}
_UNARY = {"int.numel", "int.neg", "float.of"}


def operation(name: str, *, step: int = -1) -> Operation:
    """Return the reviewed operation `name`; raise `OperationNotAllowed` for any other."""
    found = table().get(name)
    if found is None:
        reason = denied().get(name)
        why = f": {reason}" if reason else nearest(name[:80], table())
        raise OperationNotAllowed(
            f"operation {name[:80]!r} is not on the allow-list{why}", step=step, operation=name[:80]
        )
    return found


@cache
def table() -> Mapping[str, Operation]:
    """Return every allowed operation by name."""
    return {row["operation"]: _operation(row) for row in _rows() if row["verdict"] == "allowed"}


@cache
def denied() -> Mapping[str, str]:
    """Return the reason for each operation that was reviewed and denied."""
    return {row["operation"]: row["reason"] for row in _rows() if row["verdict"] == "denied"}


@cache
def parameters_of(overload: Overload) -> tuple[Parameter, ...]:
    """Return the parameters of a torch overload, in the order of its schema."""
    return tuple(_parameter(argument) for argument in overload._schema.arguments)  # noqa: SLF001  torch has no public schema


def torch_overload(name: str) -> Overload:
    """Return torch's overload for a name from our own files, such as "aten.addmm.default"."""
    namespace, packet, overload = name.split(".")
    if namespace != "aten":
        raise OperationNotAllowed(f"{name!r} is not an ATen overload", operation=name)
    found: Overload = getattr(getattr(torch.ops.aten, packet), overload)
    return found


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = resources.files("fedpriv.plans").joinpath("operations.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _operation(row: dict[str, str]) -> Operation:
    name = row["operation"]
    arithmetic = ARITHMETIC.get(name)
    overload = None if arithmetic else torch_overload(name)
    return Operation(
        name=name,
        label=LabelRule(row["label"]),
        view=row["alias"] == "view",
        dtypes=Dtypes(row["dtypes"]),
        values=Values(row["values"]),
        random=row["random"] == "yes",
        zeroed=row["memory"] == "zeroed",
        contiguous=row["strides"] != "any",
        work=Work(row["work"]),
        same=tuple((pair.split("=")[0], pair.split("=")[1]) for pair in row["same"].split()),
        parameters=parameters_of(overload) if overload else _arithmetic_parameters(name),
        overload=overload,
        arithmetic=arithmetic,
    )


def _parameter(argument: Any) -> Parameter:  # noqa: ANN401  torch's schema objects are untyped
    kind = str(argument.real_type)
    optional = kind.startswith("Optional[")
    kind = kind.removeprefix("Optional[").removesuffix("]") if optional else kind
    listed = kind.startswith("List[")
    kind = kind.removeprefix("List[").removesuffix("]") if listed else kind
    return Parameter(
        name=argument.name,
        kind=kind,
        optional=optional,
        listed=listed,
        length=argument.N,
        keyword=argument.kwarg_only,
        required=not argument.has_default_value(),
        default=argument.default_value,
    )


def _arithmetic_parameters(name: str) -> tuple[Parameter, ...]:
    first = "Tensor" if name in {"int.size", "int.numel"} else name.split(".", maxsplit=1)[0].replace("float", "number")
    kinds = (first,) if name in _UNARY else (first, "int" if name.startswith("int.") else "number")
    return tuple(
        Parameter(f"operand{position}", kind, False, False, None, False, True, None)  # noqa: FBT003  positional record
        for position, kind in enumerate(kinds)
    )
