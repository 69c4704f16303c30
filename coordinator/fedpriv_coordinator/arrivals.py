"""Updates that arrived before their turn: in memory up to a limit, then in files.

An update is kept until it is taken, and taken once. The files lie in a private temporary folder and are
safetensors, which holds numbers and names and can carry no code; `close` removes them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from fedpriv.ids import WorkerName
from fedpriv.updates import TensorSet

MEMORY_BYTES = 512 * 1024 * 1024


class Arrivals:
    """Updates by worker name; holds at most `memory_bytes` of them in memory."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._limit = memory_bytes
        self._held: dict[WorkerName, TensorSet] = {}
        self._spilled: dict[WorkerName, Path] = {}
        self._files = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, worker: WorkerName, update: TensorSet) -> None:
        """Keep the update of `worker` until `take`."""
        held = sum(each.nbytes for each in self._held.values())
        if held + update.nbytes <= self._limit or not self._held:
            self._held[worker] = update
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fedpriv-arrivals-")
        path = Path(self._folder.name) / f"{self._files}.safetensors"
        self._files += 1
        save_file({name: tensor.contiguous() for name, tensor in update}, path)
        self._spilled[worker] = path

    def take(self, worker: WorkerName) -> TensorSet:
        """Return the update of `worker` and forget it."""
        if worker in self._held:
            return self._held.pop(worker)
        path = self._spilled.pop(worker)
        tensors = load_file(path)
        path.unlink()
        return TensorSet(tensors)

    def close(self) -> None:
        """Forget what was never taken and remove the files."""
        self._held.clear()
        self._spilled.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
