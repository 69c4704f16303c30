"""What this process carried: links and bytes, counted where frames pass. No name, no kind of message, no value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counters that only grow; written on the loop's thread, read from any."""

    links_opened: int = 0
    links_closed: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


tally = Tally()
"""The one of this process."""
