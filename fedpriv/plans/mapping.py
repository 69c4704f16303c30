"""A node over one more dimension by torch's own batching rules, as nodes of a block.

`torch.vmap` of the one operation is traced on shapes alone, and the operations that torch made of it become nodes.
All of them are on the allow-list, or there is no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fedpriv.plans.blocks import Node, overload_named
from fedpriv.plans.operations import parameters_of
from fedpriv.plans.plan import Slot

if TYPE_CHECKING:
    from fedpriv.plans.stacking import Stacking


class NoRule(Exception):
    """Torch cannot map an operation, or only by operations that nobody reviewed."""


def mapped(on: Stacking, node: Node, arguments: Sequence[Any]) -> tuple[Slot | None, ...]:
    """Append what `node` is over all workers and return its results, None for an absent one; raise `NoRule`."""
    given = list(dict.fromkeys(_slots(arguments)))
    metas = [on.meta(Slot(each)) for each in given]
    overload = overload_named(node.name)
    split = sum(not each.keyword for each in parameters_of(overload))

    present: list[bool] = []

    def one(*tensors: torch.Tensor) -> Any:  # noqa: ANN401 - what torch returns
        held = dict(zip(given, tensors, strict=True))
        filled = [_filled(each, held) for each in arguments]
        names = [each.name for each in parameters_of(overload)]
        made = overload(*filled[:split], **dict(zip(names[split:], filled[split:], strict=True)))
        several = made if isinstance(made, tuple | list) else (made,)
        present[:] = [each is not None for each in several]
        return tuple(each for each in several if each is not None)

    axes = tuple(0 if on.is_own(Slot(each)) else None for each in given)
    try:
        with _no_loop():
            graph = make_fx(torch.func.functionalize(torch.vmap(one, in_dims=axes)))(*metas).graph
    except Exception:  # noqa: BLE001 - torch raises anything where it has no rule
        raise NoRule from None
    made = iter(_appended(on, graph, given))
    return tuple(next(made) if is_there else None for is_there in present)


@contextmanager
def _no_loop() -> Iterator[None]:
    """Have torch raise where it would run one worker after another for want of a rule."""
    functorch: Any = torch._C._functorch  # noqa: SLF001 - torch has no public way to ask
    before = functorch._is_vmap_fallback_enabled()  # noqa: SLF001 - as above
    functorch._set_vmap_fallback_enabled(False)  # noqa: FBT003, SLF001 - as above
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)  # noqa: SLF001 - as above


def _appended(on: Stacking, graph: Any, given: Sequence[int]) -> tuple[Slot, ...]:  # noqa: ANN401 - torch's graph
    known: dict[Any, Any] = {}
    inputs = iter(given)
    for each in graph.nodes:
        if each.op == "placeholder":
            known[each] = Slot(next(inputs))
        elif each.op == "call_function" and each.target.__name__ == "getitem":
            known[each] = known[each.args[0]][each.args[1]]
        elif each.op == "call_function":
            made = on.calls(*_call(each, known))
            known[each] = made[0] if len(made) == 1 else made
        elif each.op == "output":
            found = each.args[0]
            several = found if isinstance(found, tuple | list) else (found,)
            return tuple(known[one] for one in several)
        else:
            raise NoRule
    raise NoRule


def _call(node: Any, known: dict[Any, Any]) -> tuple[Any, ...]:  # noqa: ANN401 - torch's node
    """Return the name of an operation and its arguments in the order of its schema."""
    name = str(node.target)
    try:
        parameters = parameters_of(overload_named(name))
    except KeyError:
        raise NoRule from None
    named = dict(zip((each.name for each in parameters), node.args, strict=False)) | dict(node.kwargs)
    for each in ("device", "layout", "pin_memory"):  # where it runs is the engine's to say
        named.pop(each, None)
    return name, *(_read(named.get(each.name, each.default), known) for each in parameters)


def _read(value: Any, known: dict[Any, Any]) -> Any:  # noqa: ANN401 - any argument
    if isinstance(value, torch.fx.Node):
        return known[value]
    return tuple(_read(each, known) for each in value) if isinstance(value, tuple | list) else value


def _slots(arguments: Sequence[Any]) -> list[int]:
    found: list[int] = []
    for each in arguments:
        if isinstance(each, Slot):
            found.append(each.index)
        elif isinstance(each, tuple | list):
            found += _slots(each)
    return found


def _filled(value: Any, held: dict[int, torch.Tensor]) -> Any:  # noqa: ANN401 - any argument
    if isinstance(value, Slot):
        return held[value.index]
    return [_filled(each, held) for each in value] if isinstance(value, tuple | list) else value
