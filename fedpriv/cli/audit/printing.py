"""How `fedpriv audit` writes: data on stdout, diagnostics on stderr, times in UTC, nothing unprintable.

Text in a ledger comes from peers: whatever a terminal could take for an instruction becomes a replacement mark. It
formats and prints; it reads no ledger.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from shlex import quote

from rich.console import Console
from rich.text import Text

from fedpriv.cli.terminal import harmless
from fedpriv.ledger.checkpoint import INGRESS_PREFIX

__all__ = [
    "console",
    "counted",
    "harmless",
    "iso_text",
    "moment",
    "print_json",
    "printable",
    "say",
    "say_whose_key",
    "time_text",
]

PLAIN_WIDTH = 200  # columns where there is no terminal to ask


def printable(text: str) -> Text:
    """Return `text` as the terminal may have it: no markup, no control characters."""
    return Text(harmless(text))


def moment(milliseconds: int) -> datetime | None:
    """Return the UTC time of `milliseconds` since 1970, or None beyond the calendar."""
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def time_text(milliseconds: int, *, fraction: bool = True) -> str:
    """Return a time as YYYY-MM-DD HH:MM:SS[.mmm], or as it is on record where no calendar has it."""
    at = moment(milliseconds)
    if at is None:
        return f"{milliseconds} ms"
    return f"{at:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03}" if fraction else f"{at:%Y-%m-%d %H:%M:%S}"


def iso_text(milliseconds: int) -> str:
    """Return a time as RFC 3339 in UTC; the last instant that it can express where the time lies beyond."""
    at = moment(milliseconds) or datetime.max.replace(tzinfo=UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def counted(number: int, one: str, several: str = "") -> str:
    """Return "1 message" or "1,200 messages"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def print_json(found: Mapping[str, object]) -> None:
    """Print one JSON object on one line of ASCII."""
    print(json.dumps(found))  # noqa: T201  # data for another program


def console() -> Console:
    """Return the console for data: as wide as the terminal, or wide enough where there is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def say(text: str) -> None:
    """Print a diagnostic on stderr."""
    Console(stderr=True, highlight=False).print(printable(text), soft_wrap=True)


def say_whose_key(origin: str, vkey: str) -> None:
    """Say that a ledger was held to its own key alone, and where the owner's has to come from."""
    received = origin.startswith(INGRESS_PREFIX)
    whose = "whoever runs that coordinator for the key that `fedpriv run` prints" if received else (
        "its owner for the line in ledger/vkey of the worker's own state folder"
    )  # fmt: skip  # one choice
    option = "--coordinator-key (of verify: --key)" if received else "--key"
    say(
        f"{origin}: verified with the key beside the ledger, {quote(vkey)}; whoever can change that folder can change "
        f"its key, so this proves nothing of who signed: ask {whose}, another way than these files came, and pass it "
        f"with {option}"
    )
