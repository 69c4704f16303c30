"""What one worker holds for us, under the ids that a program knows.

A session counts its values; a program of 0.2 gives them ids. This file joins the two, and says of each value how it is
called and whether it stays when nothing points to it any more. It holds nobody else's values, and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from fedpriv.remote.handle import Handle
from fedpriv.syft.traits import Traits, new_id

PRIVATE: WeakSet[Handle] = WeakSet()
"""Values, of any worker, that not everybody may have; empty in most programs."""


class Store:
    """Values at one worker by id; a value that nothing points to is gone, unless it is kept."""

    def __init__(self) -> None:
        self._handles: WeakValueDictionary[int, Handle] = WeakValueDictionary()
        self._traits: WeakKeyDictionary[Handle, Traits] = WeakKeyDictionary()
        self._kept: set[Handle] = set()
        self._shared: WeakSet[Handle] = WeakSet()

    def __iter__(self) -> Iterator[tuple[Handle, Traits]]:
        return iter([(handle, self._traits[handle]) for handle in list(self._handles.values())])

    def find(self, number: int) -> Handle | None:
        """Return the value of an id, or None."""
        return self._handles.get(number)

    def shared(self, number: int) -> Handle | None:
        """Return the value of an id for one more pointer to it, or None."""
        handle = self._handles.get(number)
        if handle is not None:
            self._shared.add(handle)
        return handle

    def known(self, handle: Handle) -> Traits | None:
        """Return how a value is called, or None where it has no id."""
        return self._traits.get(handle)

    def traits(self, handle: Handle) -> Traits:
        """Return how a value is called, with an id that stays from now on."""
        return self._traits.get(handle) or self.call(handle, Traits(new_id()))

    def call(self, handle: Handle, traits: Traits) -> Traits:
        """Call a value by `traits`, and return them."""
        before = self._traits.get(handle)
        if before is not None and before.id != traits.id:
            self._handles.pop(before.id, None)
        self._handles[traits.id] = handle
        self._traits[handle] = traits
        if traits.users is not None:
            PRIVATE.add(handle)
        return traits

    def is_kept(self, handle: Handle) -> bool:
        """Return whether a value stays when nothing points to it any more."""
        return handle in self._kept

    def keep(self, handle: Handle, *, kept: bool) -> None:
        """Have a value stay when nothing points to it any more, or not."""
        if kept:
            self.traits(handle)
            self._kept.add(handle)
        else:
            self._kept.discard(handle)

    def remove(self, handle: Handle) -> None:
        """Let an id go, and its value with it; whoever points to that by its id finds nothing.

        What the pointer itself was made of or into, such as its `data`, may still need the value and then has it.
        """
        traits = self._traits.pop(handle, None)
        if traits is not None:
            self._handles.pop(traits.id, None)
        if handle in self._shared:
            handle.free()
        self._kept.discard(handle)

    def clear(self) -> None:
        """Let every value go that has an id."""
        for handle, _ in self:
            self.remove(handle)
            handle.free()
