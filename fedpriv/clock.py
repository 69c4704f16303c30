"""Time as a parameter: cores receive seconds, shells read them from a `Clock`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
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
class SteadyClock:
    """The wall clock of `clock`, in whole milliseconds, except that it stands still where that one jumps back."""

    clock: Clock
    latest: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def milliseconds(self) -> int:
        """Return milliseconds since 1970-01-01 UTC, never less than before and never less than `latest`."""
        with self._lock:
            self.latest = max(self.latest, int(self.clock.now() * 1000))
            return self.latest

    def behind(self) -> float:
        """Return by how many seconds `clock` is behind this one, 0 where it never jumped back."""
        return max(0.0, self.milliseconds() / 1000 - self.clock.now())


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


def in_words(seconds: float) -> str:
    """Return a duration for people in its two largest units, "2 h 3 min", "41 s"; its sign is left out."""
    left, parts = round(abs(seconds)), []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
