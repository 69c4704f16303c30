"""A function of tensors as a flat list of torch operations: what vmap and autograd made of it, without their price.

The list is recorded once from a run on zeros of the same shapes; running it again calls the recorded overloads one
after the other. What does nothing is left out: detaching, views and permutations that change nothing, factors of 1, and
the addition of zeros that the function itself made; what depends on shapes alone is made once. Only functions whose
operations do not depend on values may be given.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fedpriv.plans.graphs import TRACING

_ATEN = torch.ops.aten
_VIEWS = (_ATEN.view.default, _ATEN._unsafe_view.default)  # noqa: SLF001  torch's own name


_ZEROS = (_ATEN.zeros.default, _ATEN.zeros_like.default, _ATEN.new_zeros.default)
_RESHAPES = (*_VIEWS, _ATEN.unsqueeze.default)
_FOLDED_ELEMENTS = 1 << 14
"""Values of a constant that is kept between runs at most; larger ones are made again."""


class Flat:
    """One recorded function; `run` takes tensors of the shapes and dtypes that it was recorded with."""

    def __init__(self, function: Callable[..., list[Tensor]], examples: Sequence[Tensor]) -> None:
        with TRACING:
            graph = make_fx(function)(*examples).graph
        for node in list(graph.nodes):
            _simplify(node)
        graph.eliminate_dead_code()
        constants = _constants(graph)
        for node in constants:
            node.args = ()  # so that what only its shape was taken from is dead
        graph.eliminate_dead_code()
        places = {node: at for at, node in enumerate(graph.nodes)}
        self._held: list[Any] = [constants.get(node) for node in graph.nodes]
        self._inputs = [places[node] for node in graph.nodes if node.op == "placeholder"]
        made = [node for node in graph.nodes if node.op == "call_function" and node not in constants]
        self._calls = [_call(node, places, constants) for node in made]
        (last,) = (node for node in graph.nodes if node.op == "output")
        self._outputs = [places[node] for node in last.args[0]]

    def run(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Return the function's results for `given`."""
        held = self._held.copy()
        for at, value in zip(self._inputs, given, strict=True):
            held[at] = value
        with torch.inference_mode():
            for at, function, arguments, keywords, dead in self._calls:
                filled = [each(held) for each in arguments]
                held[at] = function(*filled, **keywords)
                for each in dead:
                    held[each] = None
        return [held[at] for at in self._outputs]

    def __len__(self) -> int:
        return len(self._calls)


def _simplify(node: fx.Node) -> None:
    """Let others use what `node` has the same value as, and a reshaped reshape begin where the first one did."""
    if node.target in _RESHAPES and isinstance(source := node.args[0], fx.Node) and source.target in _RESHAPES:
        node.target, node.args = _ATEN.view.default, (source.args[0], list(_value(node).shape))
    same = _same_as(node)
    if same is not None:
        node.replace_all_uses_with(same)


def _constants(graph: fx.Graph) -> dict[fx.Node, Tensor]:
    """Return the values of nodes that depend on shapes alone, and that nothing writes to."""
    found: dict[fx.Node, Tensor] = {}
    for node in graph.nodes:
        if node.op != "call_function" or any(map(_writes, [node, *node.users])):
            continue
        like = _value(node)
        if not isinstance(like, Tensor) or like.numel() > _FOLDED_ELEMENTS:
            continue
        if node.target in _ZEROS:
            found[node] = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        elif node.target is _ATEN.ones_like.default:
            found[node] = torch.ones(like.shape, dtype=like.dtype, device=like.device)
        elif node.all_input_nodes and all(each in found for each in node.all_input_nodes):
            found[node] = node.target(*fx.map_arg(node.args, found.__getitem__), **node.kwargs)
    return found


def _writes(node: fx.Node) -> bool:
    """Return whether a node may write to what it is given."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _value(node: fx.Node) -> Any:  # noqa: ANN401  whatever a node gave
    """Return what a node gave when it was recorded, or a description of it."""
    return node.meta.get("val", node.meta.get("tensor_meta"))


def _same_as(node: fx.Node) -> fx.Node | None:
    """Return the node whose value `node` has too, or None."""
    first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    if node.op != "call_function" or first is None:
        return None
    if _layout(node) != _layout(first):
        return None
    idle = (
        node.target is _ATEN.detach.default
        or node.target in _VIEWS
        or (node.target is _ATEN.permute.default and node.args[1] == sorted(node.args[1]))  # type: ignore[arg-type]
        or (node.target is _ATEN.mul.Scalar and node.args[1] == 1)
        or (node.target is _ATEN.add.Tensor and _is_zeros(node.args[1]))
    )
    return first if idle else None


def _is_zeros(value: object) -> bool:
    return isinstance(value, fx.Node) and value.target is _ATEN.zeros.default


def _layout(node: fx.Node) -> tuple[object, object]:
    """Return shape and dtype of what a node gave when it was recorded."""
    found = _value(node)
    return getattr(found, "shape", node), getattr(found, "dtype", node)


def _call(
    node: fx.Node, places: dict[fx.Node, int], constants: dict[fx.Node, Tensor]
) -> tuple[int, Any, list[Any], dict[str, Any], list[int]]:
    """Return where the result goes, what to call with which arguments, and which values nobody reads afterwards."""
    if any(isinstance(each, fx.Node) for each in node.kwargs.values()):
        raise ValueError("an operation takes a tensor by keyword")
    made = (each for each in node.all_input_nodes if each not in constants)
    dead = [places[each] for each in made if max(places[user] for user in each.users) == places[node]]
    return places[node], node.target, [_argument(each, places) for each in node.args], dict(node.kwargs), dead


def _argument(value: Any, places: dict[fx.Node, int]) -> Callable[[list[Any]], Any]:  # noqa: ANN401  any argument of any node
    if isinstance(value, fx.Node):
        return operator.itemgetter(places[value])
    if isinstance(value, list | tuple) and any(isinstance(each, fx.Node) for each in value):
        inner = [_argument(each, places) for each in value]
        return lambda held: [each(held) for each in inner]
    return lambda _: value
