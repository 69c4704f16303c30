"""Durations as people type them: a number and a unit, such as 90m, 12h, 7d."""

from __future__ import annotations

import re

from fedpriv.errors import UsageError

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_of(text: str) -> float:
    """Return the seconds in a duration such as 90m, 12h, 7d; raise `UsageError` for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"--expires {text!r:.40} is no duration; write a number and s, m, h, d or w, such as 7d")
    return float(int(match[1]) * _SECONDS[match[2]])
