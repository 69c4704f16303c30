"""The tensors behind one session's ids, and the kernels that run on them.

It runs what the session's table admitted, in order, and nothing else; it knows no label and decides no release. What
torch says of a failure goes no further than this file, because torch's messages quote values: a failure is the run
that failed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fedpriv.entropy import Entropy
from fedpriv.errors import StepFailed
from fedpriv.plans.calls import CheckedCall, Ready
from fedpriv_worker.definitions import Command, Drop, Run

log = logging.getLogger("fedpriv.worker")

SEED_BYTES = 7


class Use(Protocol):
    """A definition made ready: results for operands, all of them or `StepFailed`."""

    def run(self, operands: Sequence[Any]) -> list[Tensor | None]:
        """Return the results."""
        ...


class Bench:
    """One session's tensors; used by one thread at a time."""

    def __init__(self, entropy: Entropy, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._tensors: dict[int, Tensor] = {}
        self._uses: dict[int, Use] = {}
        self._generator = torch.Generator(self._device)
        self._generator.manual_seed(int.from_bytes(entropy.random_bytes(SEED_BYTES), "big"))

    def prepare(self, definition: int, checked: CheckedCall) -> None:
        """Make a checked call ready under the number of its definition."""
        self._uses[definition] = Ready(checked, self._generator, self._device)

    def keep(self, first: int, tensors: Sequence[Tensor]) -> None:
        """Keep own copies of `tensors` under ids `first` and up: nobody else's writes reach them."""
        for at, each in enumerate(tensors):
            self._tensors[first + at] = each.detach().to(self._device).clone(memory_format=torch.contiguous_format)

    def run(self, commands: Sequence[Command]) -> list[Run]:
        """Carry out `commands` in order; return those that failed, among them every one that reads what is missing."""
        tensors, failed = self._tensors, list[Run]()
        with torch.inference_mode():
            for command in commands:
                if isinstance(command, Drop):
                    tensors.pop(command.id, None)
                    continue
                try:
                    operands: list[Any] = [tensors[each] for each in command.operands]
                    results = self._uses[command.definition].run([*operands, *command.numbers])
                except (StepFailed, KeyError) as failure:
                    log.info("operation %d failed: %s", command.place, type(failure).__name__)
                    failed.append(command)
                    continue
                number = command.first
                for result in results:
                    if result is not None:
                        tensors[number] = result
                    number += 1
        return failed

    def fetch(self, number: int) -> Tensor:
        """Return a copy of the value of an id that the table holds, contiguous and of its own elements alone."""
        return self._tensors[number].clone(memory_format=torch.contiguous_format)
