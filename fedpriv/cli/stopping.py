"""Being asked to end: SIGTERM, as service managers and schedulers send it, ends a command in order.

It is raised in the main thread, so that whatever is open is closed and whoever counts on it says what was saved. It
makes nothing durable: a run has saved each round before it says so.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """Somebody sent SIGTERM."""

    def __init__(self) -> None:
        super().__init__(int(TERMINATED))


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM comes within; a second one interrupts the cleaning up as well.

    Outside of the main thread, where no signal arrives, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of a signal's handler
    raise Terminated
