"""What stands here for one value at a worker, and for the memory that several values may show."""

from __future__ import annotations

from fedpriv.labels import Label
from fedpriv.remote.recipes import Shape
from fedpriv.remote.values import Values


class Memory:
    """Memory that several pointers may show, and what was ever written into it."""

    __slots__ = ("label",)

    def __init__(self, label: Label) -> None:
        self.label = label


class Handle:
    """One value at a worker, which is freed when nothing refers to it any more, or before."""

    __slots__ = ("__weakref__", "id", "keep", "memory", "shape", "values")

    def __init__(self, values: Values, number: int, shape: Shape, memory: Memory) -> None:
        self.values = values
        self.id = number
        self.shape = shape
        self.memory = memory
        self.keep = False

    def free(self) -> None:
        """Let the value go now: whatever reads it from here on finds it missing."""
        if not getattr(self, "keep", True):  # torch.compile makes some that are never filled
            self.keep = True
            self.values.free(self.id)

    __del__ = free
