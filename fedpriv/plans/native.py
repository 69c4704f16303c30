"""A block's loop over batches as one call into torch's graph executor: no Python between nodes.

The graph is written from a block, that is from a plan that was already checked: overloads of ours, numbers, and
names that we make. Nothing of a peer's is text here. The interpreter lock is free while it runs, so workers in
one process share the cores. It computes what `engine` computes; a failure says nothing and names no step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.jit._fuser import optimized_execution

from fedpriv.errors import StepFailed
from fedpriv.plans.blocks import GENERATOR, Block, Node
from fedpriv.plans.operations import Parameter, parameters_of
from fedpriv.plans.plan import Slot

if TYPE_CHECKING:
    from fedpriv.plans.interpreter import Layout

_DTYPE_CODES = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.complex64: 9,
    torch.complex128: 10,
    torch.bool: 11,
    torch.bfloat16: 15,
}
_WORD = re.compile(r"[a-z]+(:[0-9]+)?")
_FORMAT_CODES = {torch.contiguous_format: 0, torch.preserve_format: 1}


class Native:
    """One compiled loop. Its inputs are a bound program's values; changed values are written back in place of them."""

    def __init__(
        self, function: Callable[..., Any], layout: Layout, floats: Sequence[int | float], inputs: int
    ) -> None:
        self._function = function
        self._layout = layout
        self._floats = floats
        self._inputs = inputs

    def run(
        self,
        values: list[Any],
        constants: Sequence[torch.Tensor],
        features: torch.Tensor,
        target: torch.Tensor,
        count: int,
        generator: torch.Generator | None,
        scalars: Mapping[int, float],
    ) -> list[float]:
        """Run `count` batches, update `values`, and return the summed loss and metrics."""
        sums = self.sums(values, constants, features, target, count, generator, scalars)
        return [float(each) for each in sums]

    def sums(
        self,
        values: list[Any],
        constants: Sequence[torch.Tensor],
        features: torch.Tensor,
        target: torch.Tensor,
        count: int,
        generator: torch.Generator | None,
        scalars: Mapping[int, float],
    ) -> list[torch.Tensor]:
        """Do as `run` does, and return the sums as the tensors that they are: one number each, or one a worker."""
        layout = self._layout
        given = list(values)
        if layout.features is not None:
            given[layout.features] = features
        if layout.target is not None:
            given[layout.target] = target
        tensors = [each for position, each in enumerate(given) if position not in scalars]
        floats = [float(scalars[each]) if isinstance(each, Named) else each for each in self._floats]
        try:
            with torch.inference_mode(), optimized_execution(should_optimize=False):
                results = self._function(*tensors, *constants, count, generator, *floats)
        except Exception:  # noqa: BLE001  torch raises anything, and its text can quote values
            raise StepFailed(step=-1, operation="") from None
        for position, value in zip(layout.changed, results, strict=False):
            values[position] = value
        return list(results[len(layout.changed) :])


class Named(int):
    """The number of a scalar whose float is filled in for each call."""


def compiled(block: Block, layout: Layout, batch: int, device: torch.device) -> Native | None:
    """Return the loop of `block`, or None when the executor does not resolve every node to the same overload."""
    writer = _Writer(block, layout, device)
    text = writer.graph(batch)
    try:
        graph = torch._C.parse_ir(text)  # noqa: SLF001  torch has no public way to hand a graph to its executor
        if not _same_overloads(graph, [node.overload for node in block.nodes], len(writer.cut)):
            return None
        function = torch._C._create_function_from_graph("batches", graph)  # noqa: SLF001  as above
    except RuntimeError:
        return None
    return Native(function, layout, writer.floats, block.inputs)


def _same_overloads(graph: Any, wanted: Sequence[Any], rows: int) -> bool:  # noqa: ANN401  torch's graph has no public type
    """Whether torch resolved each node, by the types of its arguments, to the overload that the block names."""
    loop = graph.findNode("prim::Loop")
    found = [node.schema() for node in next(loop.blocks()).nodes() if node.kind().startswith("aten::")]
    first = 1 + rows  # where the batch starts, and its rows
    return found[first : first + len(wanted)] == [str(each._schema) for each in wanted]  # noqa: SLF001  torch has no public schema


class _Writer:
    """The text of one graph: constants first, then the loop over batches."""

    def __init__(self, block: Block, layout: Layout, device: torch.device) -> None:
        self._block, self._layout, self._device = block, layout, device
        self._constants: dict[tuple[str, Any], str] = {}
        self._top: list[str] = []
        self._body: list[str] = []
        self._names: dict[int, str] = {}
        self.cut: list[int] = []
        self.floats: list[int | float] = []
        self._float_names: dict[tuple[bool, str], str] = {}

    def graph(self, batch: int) -> str:
        """Return the whole graph."""
        block, layout = self._block, self._layout
        tensors = [value for value in range(block.inputs + block.constants) if value not in block.scalars]
        for value in tensors:
            self._names[value] = f"%v{value}"
        carried = {value: f"%c{value}" for value in layout.changed}
        self._names.update(carried)
        for node in block.once:
            self._node(node, self._top)
        self._rows(batch)
        for node in block.nodes:
            self._node(node, self._body)
        sums, totals = self._sums()
        state = [self._names[block.outputs[output]] for output in layout.replacing]
        first = [f"%v{value}" for value in layout.changed]
        heads = [*carried.values(), *(f"%s{each}" for each in layout.reported)]
        zeros = [self._zero()] * len(layout.reported)
        ends = [f"%e{position}" for position in range(len(heads))]
        true = self._literal("bool", value=True)
        typed = "".join(f", {each} : Tensor" for each in heads)
        ended = ", ".join(f"{each} : Tensor" for each in ends)
        head = ", ".join(
            [
                *(f"%v{value} : Tensor" for value in tensors),
                "%n : int",
                "%g : Generator?",
                *(f"{name} : float" for name in self._float_names.values()),
            ]
        )
        lines = [
            f"graph({head}):",
            *(f"  {line}" for line in self._top),
            f"  {ended} = prim::Loop({', '.join(['%n', true, *first, *zeros])})",
            f"    block0(%k : int{typed}):",
            *(f"      {line}" for line in (*self._body, *totals)),
            f"      -> ({', '.join([true, *state, *sums])})",
            f"  %out : Tensor[] = prim::ListConstruct({', '.join(ends)})",
            "  return (%out)",
        ]
        return "\n".join(lines) + "\n"

    def _rows(self, batch: int) -> None:
        """Write what treats rows alike over all of them, then cut those that the loop reads into batches."""
        cut = list(self._layout.rows)
        for node in self._block.rowwise:
            self._node(node, self._top)
            cut += node.results
        read = {value for node in self._block.nodes for value in node.operands()} | set(self._block.outputs)
        self.cut = [value for value in cut if value in read]
        zero, size = self._literal("int", value=0), self._literal("int", value=batch)
        self._body.append(f"%start : int = aten::mul(%k, {size})")
        for value in self.cut:
            self._body.append(f"%b{value} : Tensor = aten::narrow({self._names[value]}, {zero}, %start, {size})")
            self._names[value] = f"%b{value}"

    def _sums(self) -> tuple[list[str], list[str]]:
        one = self._literal("int", value=1)
        sums, lines = [], []
        for output in self._layout.reported:
            value = self._names[self._block.outputs[output]]
            lines.append(f"%t{output} : Tensor = aten::add(%s{output}, {value}, {one})")
            sums.append(f"%t{output}")
        return sums, lines

    def _zero(self) -> str:
        if "%zero" not in {line.split(" ")[0] for line in self._top}:
            none, dtype = self._literal("None", value=None), self._literal("int", value=_DTYPE_CODES[torch.float64])
            device = self._literal("Device", value=str(self._device))
            number = self._literal("int", value=0)
            self._top.append(f"%zero : Tensor = aten::scalar_tensor({number}, {dtype}, {none}, {device}, {none})")
        return "%zero"

    def _node(self, node: Node, lines: list[str]) -> None:
        parameters = parameters_of(node.overload)
        from_nothing = not any(each.kind == "Tensor" for each in parameters)
        written = [
            self._literal("Device", value=str(self._device))
            if each.kind == "Device" and from_nothing
            else self._argument(value, each, lines)
            for each, value in zip(parameters, node.arguments, strict=True)
        ]
        call = f"aten::{node.name.split('.')[1]}({', '.join(written)})"
        names = [f"%v{each}" for each in node.results]
        self._names.update(zip(node.results, names, strict=True))
        if str(node.overload._schema.returns[0].type) == "List[Tensor]":  # noqa: SLF001  torch has no public schema
            lines.append(f"%l{node.results[0]} : Tensor[] = {call}")
            call = f"prim::ListUnpack(%l{node.results[0]})"
        lines.append(f"{', '.join(f'{name} : Tensor' for name in names)} = {call}")

    def _argument(self, value: Any, parameter: Parameter, lines: list[str]) -> str:  # noqa: ANN401  any argument of any node
        if isinstance(value, tuple | list):
            items = [self._argument(each, parameter, lines) for each in value]
            kind = {"Optional[Tensor]": "Tensor?", "number": "Scalar"}.get(parameter.kind, parameter.kind)
            inside = any(map(_is_slot, value))
            return self._list(items, kind, lines if inside else self._top)
        if isinstance(value, Slot):
            return self._float(Named(value.index)) if value.index in self._block.scalars else self._names[value.index]
        if value is GENERATOR:
            return "%g"
        if isinstance(value, float) or (parameter.kind == "float" and isinstance(value, int)):
            return self._float(float(value))
        return self._plain(value)

    def _plain(self, value: Any) -> str:  # noqa: ANN401  any argument without values in it
        match value:
            case None:
                return self._literal("None", value=None)
            case torch.dtype():
                return self._literal("int", value=_DTYPE_CODES[value])
            case torch.memory_format():
                return self._literal("int", value=_FORMAT_CODES[value])
            case bool():
                return self._literal("bool", value=value)
            case str():
                return self._literal("str", value=value)
            case _:
                return self._literal("int", value=value)

    def _list(self, items: Sequence[str], kind: str, lines: list[str]) -> str:
        name = f"%list{len(self._top) + len(self._body)}"
        lines.append(f"{name} : {kind}[] = prim::ListConstruct({', '.join(items)})")
        return name

    def _float(self, value: Named | float) -> str:
        key = (isinstance(value, Named), repr(value))
        if key not in self._float_names:
            self._float_names[key] = f"%f{len(self.floats)}"
            self.floats.append(value)
        return self._float_names[key]

    def _literal(self, kind: str, *, value: Any) -> str:  # noqa: ANN401  a number, a flag, a word of ours
        key = (kind, value)
        if key not in self._constants:
            name = self._constants[key] = f"%k{len(self._constants)}"
            if kind == "None":
                self._top.append(f"{name} : NoneType = prim::Constant()")
            else:
                if kind in {"str", "Device"} and not _WORD.fullmatch(value):
                    raise ValueError("a word of ours may not end the text it stands in")
                shown = f'"{value}"' if kind in {"str", "Device"} else str(int(value))
                self._top.append(f"{name} : {kind} = prim::Constant[value={shown}]()")
        return self._constants[key]


def _is_slot(value: object) -> bool:
    return isinstance(value, Slot)
