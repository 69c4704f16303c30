"""A coordinator that dies on command: `fedpriv run` in a child of the nursery, killed at the n-th time of a moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpriv.cli import run as command
from fedpriv.errors import FedprivError
from fedpriv_coordinator import journal
from fedpriv_coordinator.coordinator import Coordinator
from fedpriv_coordinator.course import Course
from fedpriv_coordinator.experiment import Result
from fedpriv_coordinator.federation import Federation
from fedpriv_coordinator.journal import RunFolder
from fedpriv_coordinator.rounds import Watch

MOMENTS: dict[str, tuple[Any, str]] = {
    "an order is made": (Coordinator, "_training"),
    "an update is here": (Course, "_arrived"),
    "a round is measured": (Watch, "measure"),
    "a round is being saved": (RunFolder, "save"),
    "a file is on the disk": (journal, "_sync"),
    "a round is saved and nobody knows": (Coordinator, "close_round"),
    "a round is closed": (Federation, "_after_round"),
    "the result is being written": (Result, "save"),
    "the result is written": (RunFolder, "finish"),
}
"""What is about to be called when the process is killed."""


def run(job: Path, resume: Path | None, moment: str | None, at: int, said: Callable[..., None]) -> None:
    """Run or resume a job as `fedpriv run` does, up to the n-th time of `moment`; its words go beside the job."""
    os.dup2(os.open(job.with_name("run.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if moment is not None:
        _die_before(*MOMENTS[moment], at)
    said(pid=os.getpid(), address="")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        command.run(job, resume, as_json=True)
    except FedprivError as error:
        os.write(2, f"{error}\n".encode())
        raise


def _die_before(owner: Any, name: str, at: int) -> None:
    original, left = getattr(owner, name), at

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, dying)
