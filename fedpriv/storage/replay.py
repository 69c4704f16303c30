"""A ledger replayed from its entries, and compared with its files as it grows, one bundle at a time.

Every tile that the entries yield is compared with the file, in every width in which it is kept, and no file may be left
over. Where the entries come from, and who signed the roots, is `storage.verification`.
"""

from __future__ import annotations

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint
from fedpriv.ledger.entries import Entry, decode_entry
from fedpriv.ledger.log import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Log, Tile, encode_bundle
from fedpriv.ledger.merkle import HASH_BYTES
from fedpriv.storage.tiles import CHECKPOINT, TileFolder, parse_tile_path, tile_path


class Replay:
    """The log as its entries say it should be, compared with the files as it grows."""

    def __init__(self, files: TileFolder, keeper: str, checkpoint: Checkpoint, held: Checkpoint | None) -> None:
        """Expect entries of `keeper`, the signed root, and that of a checkpoint that somebody else kept."""
        self._files = files
        self._keeper = keeper
        self._checkpoint = checkpoint
        self._held = held
        self._begun: list[bytes] = []
        self.log = Log()
        self.message_bytes = 0
        self._compare_root()

    def add(self, content: bytes) -> None:
        """Take the next entry; raise `VerificationFailed` if it, or a tile that it completes, is not as signed."""
        number = self.log.size
        entry = decoded(number, content)
        if entry.worker != self._keeper:
            raise VerificationFailed(f"entry {number} is of worker {entry.worker!r}, the ledger of {self._keeper!r}")
        self.message_bytes += entry.draft.bytes
        self._begun.append(content)
        full = self.log.append(content)
        if len(self._begun) == TILE_WIDTH:
            full.append(Tile(ENTRIES, number // TILE_WIDTH, TILE_WIDTH, encode_bundle(self._begun)))
        for tile in full:
            self._compare(tile)
        if len(self._begun) == TILE_WIDTH:
            self._begun.clear()
        self._compare_root()

    def finish(self) -> None:
        """Compare the unfinished tiles; raise `VerificationFailed` for any file that no entry accounts for."""
        for tile in self.log.partial_tiles():
            self._compare(tile)
        if self._begun:
            bundle = encode_bundle(self._begun)
            self._compare(Tile(ENTRIES, self.log.size // TILE_WIDTH, len(self._begun), bundle))
        for name in self._files.strangers():
            raise VerificationFailed(f"{name!r} is no file of a ledger; nothing else belongs in {self._files.path}")
        for name in self._files.files():
            level, index, width = parse_tile_path(name)
            if index * TILE_WIDTH + width > self.log.size >> TILE_HEIGHT * max(level, 0):
                raise VerificationFailed(
                    f"{name} reaches beyond the {self.log.size} entries: the checkpoint is an older one, or the copy "
                    "is incomplete"
                )

    def _compare_root(self) -> None:
        if self.log.size == self._checkpoint.size and self.log.root() != self._checkpoint.root:
            for tile in self.log.partial_tiles():
                self._compare(tile)  # names the entry, where the tiles still tell
            raise VerificationFailed(
                f"something was changed after it was signed: the {self.log.size} entries have the root "
                f"{self.log.root().hex()}, but {CHECKPOINT} signs {self._checkpoint.root.hex()}"
            )
        if self._held and self.log.size == self._held.size and self.log.root() != self._held.root:
            raise VerificationFailed(
                f"the checkpoint of {self._held.size} entries that was kept elsewhere has another root: the ledger was "
                "rolled back to fewer entries and continued, or rewritten, and signed again"
            )

    def _compare(self, tile: Tile) -> None:
        """Compare every form in which a tile is kept: the finished one, and the unfinished ones, its beginnings."""
        signed = (self._checkpoint.size >> TILE_HEIGHT * max(tile.level, 0)) - tile.index * TILE_WIDTH
        required = min(signed, TILE_WIDTH)
        kept = {width for width in self._files.partial_widths(tile.level, tile.index) if width < tile.width}
        for width in sorted({*kept, tile.width, required}):
            found = self._files.find(tile.level, tile.index, width) if width > 0 else None
            if found is None and width == required and width > 0:
                raise VerificationFailed(f"{tile_path(tile.level, tile.index, width)} is missing")
            if found is not None and found != self._beginning(tile, width):
                raise VerificationFailed(_difference(tile, width, found))

    def _beginning(self, tile: Tile, width: int) -> bytes:
        return encode_bundle(self._begun[:width]) if tile.level == ENTRIES else tile.content[: width * HASH_BYTES]


def decoded(number: int, content: bytes) -> Entry:
    """Return entry `number`; raise `VerificationFailed` if the bytes are not one, or another one."""
    try:
        entry = decode_entry(content)
    except VerificationFailed as error:
        raise VerificationFailed(f"entry {number}: {error}; it was changed after it was written") from error
    if entry.seq != number:
        raise VerificationFailed(f"entry {number} says that it is number {entry.seq}: entries were moved or removed")
    return entry


def _difference(tile: Tile, width: int, found: bytes) -> str:
    name = tile_path(tile.level, tile.index, width)
    if tile.level == 0 and len(found) == width * HASH_BYTES:
        at = next(
            i
            for i in range(width)
            if found[i * HASH_BYTES :][:HASH_BYTES] != tile.content[i * HASH_BYTES :][:HASH_BYTES]
        )
        number = tile.index * TILE_WIDTH + at
        return f"entry {number} was changed after it was signed: it does not have the hash that {name} holds for it"
    return f"{name} does not match the tree: it was changed after it was signed, or is not what its entries yield"
