"""A run's folder: after every round the model and the history are on disk, so that a run can be resumed.

Each round is written to new files, then one small file is renamed over `round.json`: a crash at any instant
leaves the last whole round. Nothing here holds anything that a worker did not release.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file

from fedpriv.errors import UsageError
from fedpriv.updates import TensorSet
from fedpriv_coordinator.experiment import HISTORY, History

POINTER = "round.json"
FINISHED, UNFINISHED = "that is finished", "that is not finished"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a run had reached: the rounds behind it, the plan and strategy it trains by, the model, and its memory."""

    history: History
    plan: str
    strategy: str
    model: TensorSet = field(repr=False)
    memory: TensorSet = field(default_factory=TensorSet, repr=False)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk; `folder` belongs to this run alone."""

    folder: Path

    @property
    def holds(self) -> str:
        """Whether it holds a run that is finished or one that is not, in words; "" for neither."""
        if (self.folder / POINTER).exists():
            return UNFINISHED
        return FINISHED if (self.folder / HISTORY).exists() else ""

    def save(self, saved: Saved) -> None:
        """Make the state after a round durable, then forget the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(saved.history.rounds)
        model, memory, history = (f"round-{number}.{each}" for each in ("safetensors", "memory.safetensors", "json"))
        for name, tensors in ((model, saved.model), (memory, saved.memory)):
            save_file({each: tensor.contiguous() for each, tensor in tensors}, self.folder / name)
        (self.folder / history).write_text(saved.history.to_json())
        names = {"model": model, "memory": memory, "history": history}
        pointer = {"round": number, "plan": saved.plan, "strategy": saved.strategy, **names}
        staged = self.folder / f"{POINTER}.new"
        staged.write_text(json.dumps(pointer))
        for name in (*names.values(), staged.name):
            _sync(self.folder / name)
        staged.rename(self.folder / POINTER)
        for path in self.folder.glob("round-*.*"):
            if path.name not in names.values():
                path.unlink()

    def load(self) -> Saved:
        """Return the last whole round; raise `UsageError` when this folder holds none."""
        pointer_path = self.folder / POINTER
        if not pointer_path.is_file():
            why = "the run there is finished" if self.holds == FINISHED else f"it has no {POINTER}"
            raise UsageError(f"{self.folder} holds no run to resume: {why}; start a run without resuming")
        pointer = json.loads(pointer_path.read_text())
        history = History.from_json((self.folder / pointer["history"]).read_text())
        model, memory = (TensorSet(load_file(self.folder / pointer[each])) for each in ("model", "memory"))
        return Saved(history, pointer["plan"], pointer["strategy"], model, memory)

    def finish(self) -> None:
        """Remove the files that only a resumption needs."""
        (self.folder / POINTER).unlink(missing_ok=True)
        for path in self.folder.glob("round-*.*"):
            path.unlink()


def _sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
