"""Runs a block one node at a time in Python: the reference, and the one that knows which step failed.

Each node became a torch overload, the registers it reads and those it fills; a register is emptied after its
last use, and a result of another shape than inferred ends the run. `native` runs the same block as one call and
must agree with this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fedpriv.errors import StepFailed
from fedpriv.plans.blocks import GENERATOR, Block, Node
from fedpriv.plans.operations import parameters_of
from fedpriv.plans.plan import Slot


class Engine:
    """A block with its scalars, generator and device filled in."""

    def __init__(
        self, block: Block, scalars: Mapping[int, float], generator: torch.Generator | None, device: torch.device
    ) -> None:
        self._size = len(block.metas)
        self._outputs = block.outputs
        self._operations = block.operations
        last = _last_uses(block)
        self._calls = [
            (
                _call(node, scalars, generator, device),
                node.results,
                tuple(_shape(block.metas[each]) for each in node.results),
                last.get(position, ()),
                node,
            )
            for position, node in enumerate(block.every_node())
        ]

    @property
    def only(self) -> Callable[[Sequence[Any]], Any] | None:
        """The one call of a block of one node, on the inputs, where its results are the outputs; None for others."""
        if len(self._calls) != 1 or list(self._calls[0][1]) != list(self._outputs):
            return None
        return self._calls[0][0]

    def run(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """Return the outputs for values of the block's inputs and constants; raise `StepFailed` without saying why."""
        registers: list[Any] = [*inputs, *([None] * (self._size - len(inputs)))]
        node: Node | None = None
        try:
            for function, results, shapes, dead, node in self._calls:  # noqa: B007  named for the handler below
                produced = function(registers)
                several = produced if isinstance(produced, tuple | list) else (produced,)
                for register, value, shape in zip(results, several, shapes, strict=True):
                    if shape is not None and (value is None or value.shape != shape):
                        raise ValueError("a kernel gave another shape than its checks foresaw")  # noqa: TRY301  one handler
                    registers[register] = value
                for register in dead:
                    registers[register] = None
        except Exception:  # noqa: BLE001  torch raises anything, and its text can quote values
            step = node.step if node is not None else -1
            raise StepFailed(step=step, operation=self._operations[step] if step >= 0 else "") from None
        return [registers[each] for each in self._outputs]


def _call(
    node: Node, scalars: Mapping[int, float], generator: torch.Generator | None, device: torch.device
) -> Callable[[Sequence[Any]], Any]:
    parameters = parameters_of(node.overload)
    split = sum(not each.keyword for each in parameters)
    from_nothing = not any(each.kind == "Tensor" for each in parameters)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter, value in zip(parameters, node.arguments, strict=True):
        filled: Any = _resolved(value, scalars, generator)
        if parameter.kind == "Device" and from_nothing:
            filled = device
        if not parameter.keyword:
            positional.append(filled)
        elif parameter.required or isinstance(filled, _Register) or filled != parameter.default:
            keywords[parameter.name] = filled
    while len(positional) > 1 and not _reads(positional[-1]) and not parameters[len(positional) - 1].required:
        if positional[-1] is not parameters[len(positional) - 1].default:
            break
        positional.pop()
    assert len(positional) <= split
    return _closure(node.overload, positional, keywords)


def _closure(
    function: Callable[..., Any], positional: list[Any], keywords: dict[str, Any]
) -> Callable[[Sequence[Any]], Any]:
    registers = [each.index for each in positional if isinstance(each, _Register)]
    simple = not any(map(_reads, keywords.values())) and not any(
        isinstance(each, list) and _reads(each) for each in positional
    )
    if simple and len(registers) == len(positional) and not keywords and len(registers) == 2:
        left, right = registers
        return lambda held: function(held[left], held[right])
    if simple and len(registers) == len(positional) == 1 and not keywords:
        only = registers[0]
        return lambda held: function(held[only])

    def general(held: Sequence[Any]) -> Any:  # noqa: ANN401  what torch returns
        return function(
            *[_read(each, held) for each in positional], **{name: _read(each, held) for name, each in keywords.items()}
        )

    return general


def _shape(meta: Any) -> torch.Size | None:  # noqa: ANN401  a meta tensor, or nothing
    return meta.shape if isinstance(meta, torch.Tensor) else None


class _Register(int):
    """The number of a register among constants."""

    @property
    def index(self) -> int:
        """The register."""
        return int(self)


def _resolved(value: Any, scalars: Mapping[int, float], generator: torch.Generator | None) -> Any:  # noqa: ANN401  any argument
    if isinstance(value, Slot):
        return scalars[value.index] if value.index in scalars else _Register(value.index)
    if value is GENERATOR:
        return generator
    if isinstance(value, tuple | list):
        return [_resolved(each, scalars, generator) for each in value]
    return value


def _reads(value: Any) -> bool:  # noqa: ANN401  any argument
    return isinstance(value, _Register) or (isinstance(value, list) and any(map(_reads, value)))


def _read(value: Any, held: Sequence[Any]) -> Any:  # noqa: ANN401  any argument
    if isinstance(value, _Register):
        return held[value]
    return [_read(each, held) for each in value] if isinstance(value, list) else value


def _last_uses(block: Block) -> dict[int, tuple[int, ...]]:
    last: dict[int, int] = {}
    for position, node in enumerate(block.every_node()):
        for value in (*node.operands(), *node.results):
            last[value] = position
    keep = {*block.outputs}
    dead: dict[int, tuple[int, ...]] = {}
    for value, position in last.items():
        if value not in keep and value not in block.scalars:
            dead[position] = (*dead.get(position, ()), value)
    return dead
