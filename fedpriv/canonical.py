"""The only source of bytes that are hashed or signed.

Every value is one type byte, an 8-byte big-endian length and its content, so that no two different values
share an encoding and no field can run into the next. Every message starts with its own tag.
It does not decode: what was signed is rebuilt by the verifier from what it received itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias

_HEAD = struct.Struct(">cQ").pack

Field: TypeAlias = "bytes | str | bool | int | float | Sequence[Field] | None"


def encode(tag: str, *fields: Field) -> bytes:
    """Return the canonical bytes of `fields` under `tag`."""
    return b"".join((_encode(tag), *map(_encode, fields)))


def digest(tag: str, *fields: Field) -> bytes:
    """Return SHA-256 of `encode(tag, *fields)`, 32 bytes."""
    return hashlib.sha256(encode(tag, *fields)).digest()


def digests(tag: str, *fields: Field, last: Iterable[str]) -> list[bytes]:
    """Return `digest(tag, *fields, each)` for each of `last`: what they share is hashed once."""
    shared, found = hashlib.sha256(encode(tag, *fields)), []
    for each in last:
        own = shared.copy()
        own.update(_framed(b"s", each.encode()))
        found.append(own.digest())
    return found


def _encode(value: Field) -> bytes:  # noqa: PLR0911 - one for each type
    match value:
        case bytes():  # the two that stand in every statement come first
            return _framed(b"x", value)
        case str():
            return _framed(b"s", value.encode())
        case None:
            return _framed(b"n", b"")
        case bool():
            return _framed(b"b", b"\x01" if value else b"\x00")
        case int():
            return _framed(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        case float():
            return _framed(b"f", struct.pack(">d", value))
        case _:
            return _framed(b"l", b"".join(map(_encode, value)))


def _framed(kind: bytes, content: bytes) -> bytes:
    return _HEAD(kind, len(content)) + content
