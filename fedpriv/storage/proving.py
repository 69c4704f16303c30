"""Proofs from a ledger's folder: a few tiles are read, never the whole ledger.

What is read is not verified first: a proof made from a tile that was changed does not verify. Whether the folder as a
whole is right is `storage.verification`.
"""

from __future__ import annotations

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import VerifierKey, open_checkpoint
from fedpriv.ledger.log import ENTRIES, TILE_HEIGHT, TILE_WIDTH, ReadTile, decode_bundle, split_hashes
from fedpriv.ledger.merkle import prove_inclusion, root
from fedpriv.ledger.proofs import EntryProof
from fedpriv.storage.tiles import CHECKPOINT, TileFolder


class TileNodes:
    """The complete subtrees of a ledger of `size` entries, read from its tiles, each tile once."""

    __slots__ = ("_read", "_size", "_tiles")

    def __init__(self, read: ReadTile, size: int) -> None:
        self._read = read
        self._size = size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def node(self, height: int, index: int) -> bytes:
        """Return the root of a complete subtree, as a `merkle.ReadNode`; raise `VerificationFailed` for a bad tile."""
        level, above = divmod(height, TILE_HEIGHT)
        first = index << above
        start = first % TILE_WIDTH
        return root(self._tile(level, first // TILE_WIDTH)[start : start + (1 << above)])

    def _tile(self, level: int, index: int) -> list[bytes]:
        hashes = self._tiles.get((level, index))
        if hashes is None:
            width = min(TILE_WIDTH, (self._size >> TILE_HEIGHT * level) - index * TILE_WIDTH)
            hashes = split_hashes(self._read(level, index, width), width)
            self._tiles[level, index] = hashes
        return hashes


def prove_entry(files: TileFolder, key: VerifierKey, index: int) -> EntryProof:
    """Return the proof, entry included, that entry `index` is under the checkpoint of a folder.

    Raises `UsageError` for an entry that it does not cover, and `VerificationFailed` where a file is missing or not as
    `key` signed it.
    """
    note = files.checkpoint()
    if note is None:
        raise VerificationFailed(f"{files.path}/{CHECKPOINT} is missing: there is nothing to prove an entry under")
    size = open_checkpoint(note, key).size
    if not 0 <= index < size:
        raise UsageError(f"entry {index} is not among the {size} of the checkpoint; ask for a signed one, from 0 on")
    hashes = prove_inclusion(index, size, TileNodes(files.read, size).node)
    bundle, at = divmod(index, TILE_WIDTH)
    first = bundle * TILE_WIDTH
    width = min(TILE_WIDTH, size - first)
    return EntryProof(index, tuple(hashes), note, decode_bundle(files.read(ENTRIES, bundle, width), width, first)[at])
