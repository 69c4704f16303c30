"""What a tensor of this process is called: its id, its tags and its description, and who may have it.

They are kept on the tensor itself, as plain values, and only where they were asked for: nothing is kept of other
tensors, and what torch saves of this one loads anywhere. A copy of a tensor has an id of its own.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

_KEY = "_syft"
_IDS = 10**11


@dataclass(frozen=True, slots=True)
class Traits:
    """How one object is called; `users` are those who may have it, None for everybody."""

    id: int
    tags: frozenset[str] = frozenset()
    description: str = ""
    users: frozenset[str] | None = None


def new_id() -> int:
    """Return an id that nobody has used."""
    return secrets.randbelow(_IDS)


def traits_of(tensor: Tensor) -> Traits:
    """Return what `tensor` is called, with an id that stays from now on."""
    traits = known_traits(tensor)
    if traits is None:
        traits = give(tensor, Traits(new_id()))
    given = tensor.__dict__.get("id")  # a program may set the id itself
    return traits if given is None else replace(traits, id=int(given))


def known_traits(tensor: Tensor) -> Traits | None:
    """Return what `tensor` is called, or None where nobody asked yet."""
    kept: tuple[Any, ...] | None = tensor.__dict__.get(_KEY)
    if kept is None:
        return None
    owner, number, tags, description, users = kept
    own = Traits(number, frozenset(tags), description, None if users is None else frozenset(users))
    return own if owner == id(tensor) else give(tensor, replace(own, id=new_id()))  # it is a copy


def give(tensor: Tensor, traits: Traits) -> Traits:
    """Call `tensor` by `traits` and return them."""
    users = None if traits.users is None else tuple(sorted(traits.users))
    tensor.__dict__[_KEY] = (id(tensor), traits.id, tuple(sorted(traits.tags)), traits.description, users)
    return traits
