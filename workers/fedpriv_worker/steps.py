"""The steps that a release takes, by name, in their order.

A worker reports each as it reaches it, to whoever was given at its start: nobody, unless a test wants to end the
process exactly there. Nothing depends on the report.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias


class Step(Enum):
    """Where a release is; what is durable at each is what a crash there leaves."""

    RESERVE = "reserve"
    RESERVED = "reserved"
    COMPUTED = "computed"
    APPEND = "append"
    COMMIT = "commit"
    COMMITTED = "committed"
    SEND = "send"
    SENT = "sent"
    ACKNOWLEDGE = "acknowledge"
    ACKNOWLEDGED = "acknowledged"
    SIGN = "sign"
    PUBLISHED = "published"


Reached: TypeAlias = Callable[[Step], None]


def unwatched(step: Step) -> None:
    """Tell nobody."""
