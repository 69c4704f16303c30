"""An append-only log as a state machine: entries in, tiles out (C2SP tlog-tiles, 256 wide).

It holds the hashes of the tiles that are not full yet and nothing else, so its size is a few kilobytes whatever the
log's. It says which tiles to write, never writes them, and knows no signature.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.merkle import HASH_BYTES, Frontier, leaf_hash, root

TILE_WIDTH = 256
TILE_HEIGHT = 8
ENTRIES = -1  # the "level" of the bundles that hold the entries themselves

ReadTile = Callable[[int, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 hashes of one level, or entries where `level` is `ENTRIES`; partial while `width` is below 256."""

    level: int
    index: int
    width: int
    content: bytes = field(repr=False)


class Log:
    """A log of `size` entries, ready for the next one."""

    __slots__ = ("_frontier", "_levels")

    def __init__(self) -> None:
        self._frontier = Frontier()
        self._levels: list[list[bytes]] = []

    @classmethod
    def resume(cls, size: int, read: ReadTile) -> Log:
        """Return the log of `size` entries from its partial tiles; `read` takes level, index and width."""
        log = cls()
        peaks: list[bytes] = []
        for level, width in _partial_widths(size):
            hashes = split_hashes(read(level, size >> TILE_HEIGHT * (level + 1), width) if width else b"", width)
            log._levels.append(hashes)
            peaks = _peaks(hashes) + peaks
        log._frontier = Frontier(size, peaks)
        return log

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._frontier.size

    def copy(self) -> Log:
        """Return an independent log in the same state."""
        other = Log()
        other._frontier = Frontier(self._frontier.size, self._frontier.peaks)
        other._levels = [list(hashes) for hashes in self._levels]
        return other

    def append(self, entry: bytes) -> list[Tile]:
        """Add an entry; return the tiles of hashes that it completes, lowest level first."""
        full = []
        completed = self._frontier.append(leaf_hash(entry))
        for level, node in enumerate(completed[::TILE_HEIGHT]):
            if level == len(self._levels):
                self._levels.append([])
            hashes = self._levels[level]
            hashes.append(node)
            if len(hashes) == TILE_WIDTH:
                index = (self.size >> TILE_HEIGHT * (level + 1)) - 1
                full.append(Tile(level, index, TILE_WIDTH, b"".join(hashes)))
                hashes.clear()
        return full

    def partial_tiles(self) -> list[Tile]:
        """Return the tiles of hashes that are begun and not full."""
        return [
            Tile(level, self.size >> TILE_HEIGHT * (level + 1), len(hashes), b"".join(hashes))
            for level, hashes in enumerate(self._levels)
            if hashes
        ]

    def root(self) -> bytes:
        """Return the root over all entries."""
        return self._frontier.root()


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries as a bundle: each after its length as a big-endian uint16."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def decode_bundle(content: bytes, width: int, first: int) -> list[bytes]:
    """Return the `width` entries of a bundle from number `first` on; raise `VerificationFailed` for one cut off."""
    entries = []
    position = 0
    for number in range(first, first + width):
        start = position + 2
        position = start + int.from_bytes(content[position:start], "big")
        if start > len(content) or position > len(content):
            raise VerificationFailed(f"entry {number} is missing or cut off: its bundle ends too early")
        entries.append(content[start:position])
    if position != len(content):
        raise VerificationFailed(f"{len(content) - position} bytes follow entry {first + width - 1} in its bundle")
    return entries


def split_hashes(content: bytes, width: int) -> list[bytes]:
    """Return the `width` hashes of a tile, 32 bytes each; raise `VerificationFailed` if it has another length."""
    if len(content) != width * HASH_BYTES:
        raise VerificationFailed(f"a tile of {width} hashes has {len(content)} bytes, not {width * HASH_BYTES}")
    return [content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)]


def _partial_widths(size: int) -> list[tuple[int, int]]:
    widths = []
    level = 0
    while size:
        widths.append((level, size % TILE_WIDTH))
        size >>= TILE_HEIGHT
        level += 1
    return widths


def _peaks(hashes: Sequence[bytes]) -> list[bytes]:
    peaks, start = [], 0
    for bit in reversed(range(TILE_HEIGHT)):
        if len(hashes) >> bit & 1:
            peaks.append(root(hashes[start : start + (1 << bit)]))
            start += 1 << bit
    return peaks
