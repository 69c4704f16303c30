"""Reading back JSON that we wrote: each function accepts what is written and nothing else, and names the place.

All raise `UsageError`, with the place, what is there and what is accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeVar

from fedpriv.errors import UsageError

T = TypeVar("T")


def keys(document: object, expected: set[str], where: str) -> dict[str, Any]:
    """Return the object `document`, which has exactly the keys `expected`."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is a {type(document).__name__}, not an object")
    if wrong := sorted(set(document) ^ expected):
        unknown = [key for key in wrong if key in document]
        kind = "does not know" if unknown else "misses"
        raise UsageError(f"{where} {kind} {(unknown or wrong)[0]!r}; it has exactly {', '.join(sorted(expected))}")
    return document


def items(document: object, where: str) -> Iterator[tuple[int, object]]:
    """Return the items of the list `document` with their places."""
    if not isinstance(document, list):
        raise UsageError(f"{where} is a {type(document).__name__}, not a list")
    return iter(enumerate(document))


def metrics(document: object, where: str) -> dict[str, float]:
    """Return the object `document` of numbers by name."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is a {type(document).__name__}, not an object")
    return {name: number(value, f"{where}.{name}") for name, value in document.items()}


def number(value: object, where: str) -> float:
    """Return `value`, a number; one that is not finite is written as a text."""
    if isinstance(value, str) and value in {"nan", "inf", "-inf"}:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UsageError(f"{where} is {value!r}, not a finite number")
    return float(value)


def integer(value: object, where: str) -> int:
    """Return `value`, a whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{where} is {value!r}, not a whole number of 0 or more")
    return value


def text(value: object, where: str) -> str:
    """Return `value`, a text."""
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}, not a text")
    return value


def one_of(value: object, allowed: tuple[T, ...], where: str) -> T:
    """Return which of `allowed` it is that `value` equals, in value and type."""
    for each in allowed:
        if value == each and type(value) is type(each):
            return each
    raise UsageError(f"{where} is {value!r}, not one of {', '.join(map(str, allowed))}")
