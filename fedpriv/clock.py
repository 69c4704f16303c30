"""Time as a parameter: cores receive seconds, shells read them from a `Clock`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time for records and monotonic time for deadlines; safe to read from any thread."""

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards, from an arbitrary start."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The operating system's clock."""

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to; for tests and replays."""

    seconds: float = 1_767_225_600.0

    def now(self) -> float:
        """Return the time that was last set."""
        return self.seconds

    def monotonic(self) -> float:
        """Return the time that was last set."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self.seconds += seconds
