"""`fedpriv plot RUN...`: several runs in one picture, from what each left on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fedpriv.errors import UsageError
from fedpriv_coordinator.comparison import compare
from fedpriv_coordinator.experiment import HISTORY, History


def plot(runs: Sequence[Path], output: Path, columns: Sequence[str]) -> None:
    """Draw the runs in these folders to `output`; raise `UsageError` for a folder without a history."""
    named: dict[str, History] = {}
    for folder in runs:
        path = folder / HISTORY
        if not path.is_file():
            raise UsageError(f"{folder} holds no finished run: it has no {HISTORY}; name a folder of `fedpriv run`")
        name = folder.resolve().name
        named[name if name not in named else str(folder)] = History.from_json(path.read_text(encoding="utf-8"))
    compare(named, output, columns=columns)
    sys.stdout.write(f"{output}\n")
