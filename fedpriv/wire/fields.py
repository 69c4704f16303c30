"""What all messages have in common: how one type of them travels, and bounds on texts, lists and digests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import WireError
from fedpriv.ids import PlanDigest
from fedpriv.updates import TensorSet
from fedpriv.wire import messages as m

MAXIMUM_TEXT = 4096
MAXIMUM_ITEMS = 16_384
MAXIMUM_KINDS = 16
MAXIMUM_KIND = 64
MAXIMUM_PURPOSE_BYTES = 1024
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """How one message type travels: its field of `Header`, the attribute that holds its tensors, and its fields."""

    field: str
    pack: Callable[[Any, Any], None]
    unpack: Callable[[Any, TensorSet], m.Message]
    tensors: str = ""


def text(value: str) -> str:
    """Return `value`; raise `WireError` for one that is too long or could drive a terminal."""
    if len(value) > MAXIMUM_TEXT:
        raise WireError(f"a text of {len(value)} characters; {MAXIMUM_TEXT} at most are accepted")
    if not value.isprintable():  # texts reach terminals, logs and reports
        raise WireError("a text with control characters; only printable ones are accepted")
    return value


def texts(values: Sequence[str]) -> tuple[str, ...]:
    """Return `values` as texts."""
    return tuple(map(text, bounded(values)))


def kinds(values: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics or statistics that an order names; raise `WireError` for more than an owner would read."""
    if len(values) > MAXIMUM_KINDS or any(len(value) > MAXIMUM_KIND for value in values):
        raise WireError(
            f"an order of {len(values)} metrics or statistics, {max(map(len, values))} characters the longest; "
            f"{MAXIMUM_KINDS} of {MAXIMUM_KIND} at most are accepted"
        )
    return tuple(map(text, values))


def purpose(value: str) -> str:
    """Return what an order states as its purpose; raise `WireError` for more than an owner would read."""
    length = len(value.encode("utf-8", "replace"))
    if length > MAXIMUM_PURPOSE_BYTES:
        raise WireError(f"a purpose of {length} bytes in UTF-8; {MAXIMUM_PURPOSE_BYTES} at most are accepted")
    return text(value)


def bounded(items: Sequence[Any]) -> Iterable[Any]:
    """Return `items`; raise `WireError` where there are too many."""
    if len(items) > MAXIMUM_ITEMS:
        raise WireError(f"a list of {len(items)} items; {MAXIMUM_ITEMS} at most are accepted")
    return items


def short(value: bytes, most: int, what: str) -> bytes:
    """Return `value`; raise `WireError` where it is longer than `most`."""
    if len(value) > most:
        raise WireError(f"{what} of {len(value)} bytes; {most} at most are accepted")
    return value


def digest(value: bytes) -> PlanDigest:
    """Return a plan's digest; raise `WireError` for another length."""
    if len(value) != DIGEST_BYTES:
        raise WireError(f"a plan digest of {len(value)} bytes; it has {DIGEST_BYTES}")
    return PlanDigest(value)
