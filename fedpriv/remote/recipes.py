"""From what torch dispatches to what a worker is asked: one recipe for each operation on operands of given layouts.

A recipe is found once and used again wherever operation, layouts and plain arguments are the same; it holds what the
worker will be told, what the results look like, and what they derive from. An operation that changes its operand
becomes one that does not, and a write. One that is not on the allow-list is taken apart as torch itself takes it
apart; what is left is refused here, by name, as the worker would refuse it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
import torch._decomp
from torch import Tensor

from fedpriv.errors import OperationNotAllowed, PlanRefused, ReleaseDenied, UsageError
from fedpriv.plans.arguments import MEMORY_FORMATS, WORKERS_CHOICE
from fedpriv.plans.calls import TAKE_NUMBERS, Call, CheckedCall, Layout, check
from fedpriv.plans.cost import tensors_in
from fedpriv.plans.guards import MAXIMUM_INTEGER
from fedpriv.plans.inference import Quota
from fedpriv.plans.operations import LabelRule, Overload, denied, operation, parameters_of, table, torch_overload
from fedpriv.plans.plan import Argument, Dtype, Slot, Step
from fedpriv.remote.compositions import COMPOSITIONS, NUMBERED, flagged, plainly, special
from fedpriv.remote.mends import mend, not_allowed, short
from fedpriv.updates import DTYPE_NAMES

ANY = Quota(1 << 60, 1 << 31, 1 << 62, 1 << 31, 1 << 31)
"""What an operation needs is the worker's to judge; here it is asked only whether it could run at all."""
_FEW = 1 << 16
"""Elements of operands that are small enough to see what torch itself says of them."""
_FORMAT_NAMES = {value: name for name, value in MEMORY_FORMATS.items()}
_CONTROL = "turns a value into control flow"
_WHOLE = frozenset({"aten.constant_pad_nd.default", "aten._to_copy.default"})
"""Operations that torch takes apart into writes to a tensor of this process."""
_SAME = {
    "aten.zero.default": "aten.zeros_like.default",
    "aten.normal.float": "aten.normal_functional.default",
    "aten.normal.default": "aten.normal_functional.default",
    "aten.bernoulli.float": "aten.bernoulli.p",
    "aten.rsub.Tensor": "aten.rsub.Scalar",
}
"""Names under which the allow-list has what torch dispatches under another."""


class Shape:
    """A layout as recipes know it: one object for equal layouts, so that a dictionary finds it at once."""

    __slots__ = ("dtype", "layout", "shape", "strides")
    _known: dict[Layout, Shape] = {}  # noqa: RUF012  one table for the process

    def __init__(self, layout: Layout, dtype: torch.dtype) -> None:
        self.layout = layout
        self.shape = layout.shape
        self.strides = layout.strides
        self.dtype = dtype

    @classmethod
    def of(cls, layout: Layout) -> Shape:
        """Return the one shape for `layout`."""
        found = cls._known.get(layout)
        if found is None:
            found = cls._known[layout] = cls(layout, layout.meta().dtype)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What to ask for, and what comes of it."""

    definition: Call
    results: tuple[Shape | None, ...]
    is_view: bool
    writes: bool
    from_shapes: bool
    single: bool
    """Whether torch expects one tensor rather than a list or tuple of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """An operation that is carried out as several others."""

    run: Callable[..., Any]
    refusal: str = ""
    """Why it is not carried out as one, where a worker knows it."""


Found: TypeAlias = Recipe | Composition


def find(func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Found:
    """Return how `func` is carried out on arguments in which each pointer is a meta tensor.

    Raise `ReleaseDenied` for what would turn a value into control flow, `OperationNotAllowed` for what no worker runs,
    and whatever torch itself raises for arguments that do not fit.
    """
    name = str(func)
    if denied().get(name) == _CONTROL and name not in COMPOSITIONS:
        raise ReleaseDenied(
            f"{short(name)} would make a value that stays at the worker decide what happens here; use torch.where "
            "instead of if, or request() the value or an aggregate of it"
        )
    with torch.no_grad():
        if func._schema.is_mutable:  # noqa: SLF001  torch has no public schema
            return _writing(func, args, kwargs)
        return _reading(name, func, args, kwargs)


def _reading(name: str, func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Found:
    several = special(func, args, kwargs)
    if several is not None:
        return Composition(several)
    args = plainly(func, args, kwargs)
    known = _known_as(name, args)
    if known is None:
        return _apart(name, func)
    try:
        checked = check(_call(known, func, args, kwargs), ANY)
    except PlanRefused as refused:
        given = _as_torch_does(func, args, kwargs)
        if isinstance(given, Tensor) and given.numel() == 0 and not operation(known).view:
            return Composition(_without_elements(given))
        refusal = _told(name, refused)
        try:
            return replace(_apart(name, func), refusal=str(refusal))
        except OperationNotAllowed:
            raise refusal from None
    return _recipe(checked, func)


def _writing(func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Found:
    name = str(func)
    if name in COMPOSITIONS:
        return Composition(COMPOSITIONS[name])
    _, packet, overload = name.split(".")
    if torch.Tag.inplace_view in func.tags and packet.endswith("_"):
        return Composition(_turned(getattr(torch.ops.aten, packet[:-1])))
    outputs = [each.name for each in func._schema.arguments if each.is_out]  # noqa: SLF001  torch has no public schema
    if outputs:
        return Composition(_into_outputs(func, outputs))
    if not packet.endswith("_") or packet.startswith("__"):
        raise not_allowed(name)
    plain = f"aten.{packet[:-1]}.{overload}"
    known = None if packet == "index_put_" and flagged(args) is not None else _known_as(plain, args)
    if known is None:
        base = _functional(name, plain)
        return Composition(lambda target, *rest, **named: target.copy_(base(target, *rest, **named)))
    _as_kernel(func, *args, **kwargs)  # raises as torch does where the result cannot be written
    try:
        return _recipe(check(replace(_call(known, func, args, kwargs), writes=True), ANY), func)
    except PlanRefused as refused:
        if packet == "copy_":
            raise _told(name, refused) from None
        base = _functional(name, plain)
        return Composition(lambda target, *rest, **named: target.copy_(base(target, *rest, **named)))


def _recipe(checked: CheckedCall, func: Overload) -> Recipe:
    returns = func._schema.returns  # noqa: SLF001  torch has no public schema
    return Recipe(
        definition=checked.call,
        results=tuple(None if each is None else Shape.of(each) for each in checked.results if not checked.call.writes),
        is_view=checked.is_view,
        writes=checked.call.writes,
        from_shapes=checked.operation.label is LabelRule.SHAPE,
        single=len(returns) == 1 and str(returns[0].type) == "Tensor",
    )


def _known_as(name: str, args: Sequence[Any]) -> str | None:
    """Return the allow-list's name for what torch calls `name` on these arguments, or None."""
    if name in NUMBERED and len(args) > 1 and not isinstance(args[1], Tensor):
        name = name.replace(".Tensor", ".Scalar")
    name = _SAME.get(name, name)
    return name if name in table() else None


def _call(name: str, func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Return the call of `name` for what was asked of `func`, on meta tensors and plain values.

    Raise `PlanRefused` for what a plan cannot hold.
    """
    known = operation(name)
    own = {each.name: each.default for each in parameters_of(func) if not each.required}
    positional = [each for each in known.parameters if not each.keyword]
    reader = _Reader(name)
    arguments = [reader.read(value) for value in args]
    named = {key: reader.read(kwargs[key]) for key in sorted(kwargs) if key not in WORKERS_CHOICE}
    if len(arguments) > len(positional):
        raise reader.refused()
    for each in positional[len(arguments) :]:
        if each.name in WORKERS_CHOICE or (each.required and not {*named, *own} & {each.name}):
            break
        default = own.get(each.name, each.default)
        arguments.append(named.pop(each.name, tuple(default) if isinstance(default, list) else default))
    while arguments and positional[len(arguments) - 1].name in WORKERS_CHOICE:
        arguments.pop()
    defaults = {each.name: each.default for each in known.parameters}
    keywords = [
        (key, value) for key, value in named.items() if value is not None and value is not defaults.get(key, reader)
    ]
    overload = known.overload
    assert overload is not None
    several = str(overload._schema.returns[0].type) == "List[Tensor]"  # noqa: SLF001  torch has no public schema
    results = len(overload(*args, **kwargs)) if several else len(overload._schema.returns)  # noqa: SLF001  as above
    step = Step(
        name,
        tuple(map(reader.placed, arguments)),
        tuple((key, reader.placed(value)) for key, value in keywords),
        results,
    )
    return Call(step, tuple(reader.layouts), reader.numbers)


class _Given(float):
    """Stands for a float that each use gives; its value is its place among them."""


class _Reader:
    """Reads arguments in the order in which their pointers and floats are told to the worker."""

    def __init__(self, name: str) -> None:
        self.layouts: list[Layout] = []
        self.numbers = 0
        self._name = name
        self._takes_numbers = name in TAKE_NUMBERS

    def read(self, value: Any) -> Any:  # noqa: ANN401, PLR0911  any argument of any operation, one return for each
        """Return a value as a plan holds it, or a `_Given`."""
        match value:
            case Tensor():
                self.layouts.append(Layout.of(value))
                return Slot(len(self.layouts) - 1)
            case float() if self._takes_numbers:
                self.numbers += 1
                return _Given(self.numbers - 1)
            case list() | tuple():
                return tuple(map(self.read, value))
            case torch.dtype() if value in DTYPE_NAMES:
                return Dtype(DTYPE_NAMES[value])
            case torch.memory_format() if value in _FORMAT_NAMES:
                return _FORMAT_NAMES[value]
            case int() if value == sys.maxsize:
                return MAXIMUM_INTEGER  # torch's word for "to the end" of a slice
            case None | bool() | int() | float() | str():
                return value
        raise self.refused()

    def placed(self, value: Any) -> Argument:  # noqa: ANN401  what `read` returned
        """Return what was read with every float that is given anew in a slot after the operands."""
        if isinstance(value, _Given):
            return Slot(len(self.layouts) + int(value))
        if isinstance(value, tuple):
            return tuple(map(self.placed, value))
        argument: Argument = value
        return argument

    def refused(self) -> PlanRefused:
        """Return the error for arguments that no plan holds."""
        return PlanRefused(f"{short(self._name)} has an argument that no worker takes", operation=self._name)


def _apart(name: str, func: Overload) -> Composition:
    """Return how torch itself expresses `func` by other operations; raise `OperationNotAllowed` where it does not."""
    if name.startswith("prims."):
        return Composition(func.impl_aten)  # type: ignore[attr-defined]  # torch sets it on primitives
    if name in denied() and name != "aten.unfold_backward.default":  # whose kernel is not what it is taken apart into
        raise not_allowed(name)
    found = torch._decomp.decomposition_table.get(func)  # noqa: SLF001  the table has no public name
    if found is not None and name not in _WHOLE:
        return Composition(partial(_as_kernel, found))
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):  # noqa: SLF001  as above
        return Composition(func.decompose)
    raise not_allowed(name)


def _as_kernel(decomposed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any operation
    """Run one of torch's own decompositions, which assert where the kernels that they stand for raise."""
    try:
        return decomposed(*args, **kwargs)
    except AssertionError as failed:
        raise RuntimeError(str(failed)) from None


def _as_torch_does(func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  any operation
    """Return what `func` gives on shapes, if torch knows; raise what it raises for these shapes and dtypes."""
    try:
        given = _as_kernel(func, *args, **kwargs)
    except NotImplementedError:  # the shape depends on values
        return None
    few = sum(each.numel() for each in tensors_in((*args, *kwargs.values()))) <= _FEW
    if few and "index" not in str(func):  # with flags for an index, what fits depends on them
        func(*map(_zeros, args), **{key: _zeros(value) for key, value in kwargs.items()})
    return given


def _zeros(value: Any) -> Any:  # noqa: ANN401  any argument
    """Return `value` with a tensor of zeros of this process in place of each tensor."""
    if isinstance(value, list | tuple):
        return [_zeros(each) for each in value]
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


def _told(name: str, refused: PlanRefused) -> PlanRefused:
    """Return `refused` as whoever called the operation needs to hear it."""
    if type(refused) is not PlanRefused:
        return refused
    why = str(refused).removeprefix(f"step -1 ({refused.operation})").lstrip(": ")
    return OperationNotAllowed(
        f"no worker runs {short(name)} ({name}) on these operands: {why}; {mend(name)}", operation=name
    )


def _functional(name: str, plain: str) -> Callable[..., Any]:
    """Return the operation that gives what `name` writes."""
    try:
        return torch_overload(plain)
    except AttributeError:
        raise not_allowed(name) from None


def check_targets(func: Overload, args: Sequence[Any], kwargs: Mapping[str, Any], pointer: type[Tensor]) -> None:
    """Raise `UsageError` where `func` would write a value that is elsewhere into a tensor of this process."""
    named = {each.name: value for each, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)  # noqa: SLF001  torch has no public schema
    for each in func._schema.arguments:  # noqa: SLF001  as above
        target = named.get(each.name)
        if each.is_write and isinstance(target, Tensor) and not isinstance(target, pointer):
            raise UsageError(
                f"{short(str(func))} would write a value that is at a worker into a tensor of this process; send that "
                "tensor first (fp.send_module(module, worker) sends all parameters of one), or get() the value"
            )


def _without_elements(result: Tensor) -> Callable[..., Any]:
    """Return the operation that makes a tensor like `result`, which has no elements that anything could be done to."""

    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any operation
        known = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        return known.new_zeros(result.shape, dtype=result.dtype)

    return run


def _turned(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operation that makes its first operand the view of itself that `view` gives."""

    def run(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401  any operation
        turned = view(target, *args, **kwargs)
        target.data = turned
        target._handle = turned._handle  # type: ignore[attr-defined]  # noqa: SLF001  of this package
        return target

    return run


def _into_outputs(func: Overload, outputs: Sequence[str]) -> Callable[..., Any]:
    """Return `func` as its plain form and a write into each of its outputs."""
    packet = getattr(torch.ops.aten, str(func).split(".")[1])

    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any operation
        targets = [kwargs.pop(each) for each in outputs]
        given = packet(*args, **kwargs)
        several = given if isinstance(given, tuple | list) else (given,)
        for target, each in zip(targets, several, strict=True):
            if target.shape != each.shape:
                raise UsageError(
                    f"out has shape {tuple(target.shape)}, the result {tuple(each.shape)}; give one that fits"
                )
            target.copy_(each)
        return targets[0] if len(targets) == 1 else tuple(targets)

    return run
