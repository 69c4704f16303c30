"""Memory for what arrives: fresh, or the last large piece again once nobody looks at it any more.

Touching a gigabyte for the first time can take longer than receiving it, so a process keeps room for one message. The
memory is not cleared: whoever takes it fills all of it before anybody else may look. At most one piece is kept.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, TypeAlias

import numpy as np

KEPT_FROM_BYTES = 8 << 20

_Array: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"


class Buffers:
    """A source of byte buffers that keeps its last large one; safe to use from any thread."""

    __slots__ = ("_kept", "_lent", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: _Array | None = None
        self._lent: weakref.ref[_Array] | None = None

    def take(self, count: int) -> memoryview:
        """Return `count` bytes that nobody else refers to, with arbitrary content."""
        if count < KEPT_FROM_BYTES:
            return np.empty(count, dtype=np.uint8).data
        with self._lock:
            # Every view and tensor over what was lent keeps that array alive: once it is gone, nobody looks.
            in_use = self._lent is not None and self._lent() is not None
            if self._kept is None or in_use or not count <= self._kept.nbytes <= 2 * count:
                self._kept = None
                self._kept = np.empty(count, dtype=np.uint8)
            lent = self._kept[:count]
            self._lent = weakref.ref(lent)
            return lent.data


buffers = Buffers()
"""The one of this process."""
