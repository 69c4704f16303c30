"""Reading what torch dispatches: which operation, on which pointers, with which numbers, and what identifies it.

It is the hottest path of a pointer: a recipe is found by the key that is made here, on every operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fedpriv.plans.calls import TAKE_NUMBERS

_SAME = frozenset({"aten.detach.default", "aten.alias.default", "aten.lift_fresh.default"})
KINDS: set[type] = set()
"""The types of pointers."""


class Asked:
    """What dispatching needs to know of an overload, whatever its operands are."""

    __slots__ = ("func", "name", "numbers_anew", "same")

    def __init__(self, func: Any) -> None:  # noqa: ANN401  torch's overload
        self.func = func
        self.name = str(func)
        plain = self.name.replace("_.", ".")
        self.numbers_anew = plain in TAKE_NUMBERS or plain.replace(".Tensor", ".Scalar") in TAKE_NUMBERS
        self.same = self.name in _SAME


class Local(Exception):
    """A tensor of this process stands among pointers."""


def read(values: Sequence[Any], key: list[Any], pointers: list[Any], numbers: list[float], *, anew: bool) -> None:
    """Add what tells one recipe from another to `key`: equal numbers of different types or bits are different."""
    for each in values:
        kind = type(each)
        if kind in KINDS:
            pointers.append(each)
            key.append(each._handle.shape)  # noqa: SLF001  this module's own
        elif kind is float:
            if anew:
                numbers.append(each)
                key.append(float)
            else:
                key.append(each.hex())
        elif kind is list or kind is tuple:
            key.append(len(each))
            read(each, key, pointers, numbers, anew=anew)
        elif isinstance(each, Tensor):
            raise Local
        else:
            key.append(kind)
            key.append(each)
