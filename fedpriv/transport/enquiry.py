"""What registrar and peers say to each other: one question and one answer on a TLS connection, then it ends.

Each is a JSON object behind its length, four bytes, of at most 64 KiB: nothing larger is read, and nothing is
allocated for what does not come. Values are strings and numbers; anything else is refused where it is asked for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TypeAlias

from fedpriv.errors import WireError

MAXIMUM_BYTES = 1 << 16
REGISTRAR_PORT = 7444
HEAD = struct.Struct(">I")

Said: TypeAlias = Mapping[str, "str | float | int"]


def pack(said: Said) -> bytes:
    """Return the bytes of a question or an answer."""
    content = json.dumps(dict(said), separators=(",", ":"), allow_nan=False).encode()
    if len(content) > MAXIMUM_BYTES:
        raise WireError(f"an answer of {len(content)} bytes; {MAXIMUM_BYTES} at most can be sent")
    return HEAD.pack(len(content)) + content


def length(head: bytes) -> int:
    """Return how many bytes follow; raise `WireError` for more than may."""
    if len(head) != HEAD.size:
        raise WireError("the connection ended before anything was said")
    (count,) = HEAD.unpack(head)
    if not 0 < count <= MAXIMUM_BYTES:
        raise WireError(f"{count} bytes are announced; 1 to {MAXIMUM_BYTES} are accepted")
    return int(count)


def unpack(content: bytes) -> Said:
    """Return what was said; raise `WireError` unless it is a flat object of strings and numbers."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise WireError("what was said is no JSON") from None
    if not isinstance(found, dict) or not all(_is_plain(value) for value in found.values()):
        raise WireError("what was said is no flat object of strings and numbers")
    return found


def text(said: Said, key: str, most: int = MAXIMUM_BYTES) -> str:
    """Return the string under `key`; raise `WireError` if there is none, or a longer one."""
    value = said.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise WireError(f"{key!r} is missing, too long, or no string")
    return value


def number(said: Said, key: str) -> float:
    """Return the number under `key`; raise `WireError` if there is none."""
    value = said.get(key)
    if isinstance(value, str) or value is None or not abs(value) < 1 << 53:
        raise WireError(f"{key!r} is missing, too large, or no number")
    return float(value)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
