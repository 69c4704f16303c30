"""The tensors behind one session's ids, and the kernels that run on them.

It runs what the session's table admitted, in order, and nothing else; it knows no label and decides no release. What
torch says of a failure goes no further than this file, because torch's messages quote values: a failure is the run
that failed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from fedpriv.entropy import Entropy, fresh_seed
from fedpriv.errors import StepFailed
from fedpriv.plans.calls import CheckedCall, Layout, Ready
from fedpriv.plans.engine import Engine
from fedpriv.plans.interpreter import Program
from fedpriv.updates import DTYPES
from fedpriv_worker.definitions import Command, Defined, Drop

log = logging.getLogger("fedpriv.worker")


@contextmanager
def denormals_are_zero() -> Iterator[None]:
    """Let this thread take denormals for zero: with them, arithmetic takes as long as values say."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Use(Protocol):
    """A definition made ready: results for operands, all of them or `StepFailed`."""

    def run(self, operands: Sequence[Any]) -> Sequence[Tensor | None]:
        """Return the results."""
        ...


class UsedPlan:
    """A plan at one number of rows."""

    def __init__(self, program: Program, operands: Sequence[Layout], generator: torch.Generator) -> None:
        batch = program.fitting([(each.dtype, each.shape) for each in operands])
        self._engine = Engine(program.block(batch), {}, generator, program.device)
        self._constants = program.constants

    def run(self, operands: Sequence[Any]) -> list[Tensor | None]:
        """Return its outputs, each in memory of its own."""
        given = [each.contiguous() for each in operands]
        outputs = self._engine.run([*given, *self._constants])
        return [each.clone(memory_format=torch.contiguous_format) for each in outputs]


class Bench:
    """One session's tensors; used by one thread at a time."""

    def __init__(self, entropy: Entropy, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._tensors: dict[int, Tensor] = {}
        self._uses: dict[int, Use] = {}
        self._known: dict[int, Use] = {}
        """By the identity of a definition, which the session's table never lets go of."""
        self._generator = torch.Generator(self._device)
        self._generator.manual_seed(fresh_seed(entropy))

    def prepare(self, number: int, defined: Defined) -> None:
        """Make a definition ready under its number; one that stands under several numbers is made ready once."""
        use = self._known.get(id(defined))
        if use is None:
            if isinstance(defined.made, CheckedCall):
                use = Ready(defined.made, self._generator, self._device)
            else:
                use = UsedPlan(defined.made, defined.operands, self._generator)
            self._known[id(defined)] = use
        self._uses[number] = use

    def keep(self, first: int, tensors: Sequence[Tensor]) -> None:
        """Keep own copies of `tensors` under ids `first` and up: nobody else's writes reach them."""
        for at, each in enumerate(tensors):
            self._tensors[first + at] = each.detach().to(self._device).clone(memory_format=torch.contiguous_format)

    def run(self, commands: Sequence[Command]) -> int | None:
        """Carry out `commands` in order up to the first that fails; return its place among them, or None."""
        tensors, uses = self._tensors, self._uses
        with torch.inference_mode(), denormals_are_zero():
            for at, command in enumerate(commands):
                if isinstance(command, Drop):
                    tensors.pop(command.id, None)
                    continue
                try:
                    operands: list[Any] = [tensors[each] for each in command.operands]
                    if command.numbers:
                        operands += command.numbers
                    results = uses[command.definition].run(operands)
                except (StepFailed, KeyError) as failure:
                    log.info("operation %d failed: %s", command.place, type(failure).__name__)
                    return at
                number = command.first
                for result in results:
                    if result is not None:
                        tensors[number] = result
                    number += 1
        return None

    def stand_in(self, first: int, layouts: Sequence[Layout | None]) -> None:
        """Keep zeros of these layouts under ids `first` and up, for results that nobody may hear to have failed."""
        for number, layout in enumerate(layouts, first):
            if layout is not None:
                dtype = DTYPES[layout.dtype]
                made = torch.empty_strided(layout.shape, layout.strides, dtype=dtype, device=self._device)
                self._tensors[number] = made.zero_()

    def fetch(self, number: int) -> Tensor:
        """Return a copy of the value of an id that the table holds, contiguous and of its own elements alone."""
        return self._tensors[number].clone(memory_format=torch.contiguous_format)
