"""A ledger's folder in the layout of C2SP tlog-tiles, as any static web server can serve it.

`checkpoint`, `vkey`, `tile/<level>/<index>[.p/<width>]` and `tile/entries/<index>[.p/<width>]`. A checkpoint is
written only after every tile that it needs is on the disk; a partial tile stays until the full one exists. Nothing
here decides what is in a tile (`ledger.log`) or whether a folder is right (`storage.verification`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpriv.errors import NotAFile, StorageFailed, VerificationFailed
from fedpriv.ledger.checkpoint import MAXIMUM_NOTE_BYTES
from fedpriv.ledger.entries import MAXIMUM_ENTRY_BYTES
from fedpriv.ledger.log import ENTRIES, TILE_WIDTH, Log, Tile, encode_bundle
from fedpriv.ledger.merkle import HASH_BYTES
from fedpriv.storage.files import make_folder, read_bounded, sync_folders, write_atomically

CHECKPOINT = "checkpoint"
VKEY = "vkey"
TILE = "tile"
MAXIMUM_LEVEL = 5  # 256**6 entries fit below

_PATH = re.compile(r"tile/(entries|[0-5])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Return the relative path of a tile; index 1234067 is coded x001/x234/067."""
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03}")
    name = f"{TILE}/{'entries' if level == ENTRIES else level}/{'/'.join(reversed(groups))}"
    return name if width == TILE_WIDTH else f"{name}.p/{width}"


def parse_tile_path(path: str) -> tuple[int, int, int]:
    """Return level, index and width of a path that `tile_path` writes; raise `VerificationFailed` for any other."""
    found = _PATH.fullmatch(path)
    if found:
        level = ENTRIES if found[1] == "entries" else int(found[1])
        index = int(found[2].replace("x", "").replace("/", ""))
        width = int(found[3]) if found[3] else TILE_WIDTH
        if tile_path(level, index, width) == path:
            return level, index, width
    raise VerificationFailed(f"{path!r} is no tile of a ledger; nothing else belongs under {TILE}/")


@dataclass(frozen=True, slots=True)
class TileFolder:
    """One ledger's folder; `durable` is off for copies, which can be made again."""

    path: Path
    durable: bool = True

    def create(self, vkey: str) -> None:
        """Make the folder and write the verifier key into it."""
        make_folder(self.path)
        write_atomically(self.path / VKEY, f"{vkey}\n".encode(), durable=self.durable)

    def checkpoint(self) -> bytes | None:
        """Return the signed checkpoint, or None if there is none."""
        return self._read(CHECKPOINT, MAXIMUM_NOTE_BYTES)

    def vkey(self) -> bytes | None:
        """Return the content of the verifier key's file, or None if there is none."""
        return self._read(VKEY, MAXIMUM_NOTE_BYTES)

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return a tile's content; raise `VerificationFailed` if it is missing or too long to be one."""
        content = self.find(level, index, width)
        if content is None:
            raise VerificationFailed(f"{tile_path(level, index, width)} is missing")
        return content

    def find(self, level: int, index: int, width: int) -> bytes | None:
        """Return a tile's content, or None if there is no such file; raise `VerificationFailed` if it is too long."""
        maximum = width * (MAXIMUM_ENTRY_BYTES + 2 if level == ENTRIES else HASH_BYTES)
        name = tile_path(level, index, width)
        content = self._read(name, maximum)
        if content is not None and len(content) > maximum:
            raise VerificationFailed(f"{name} is longer than {maximum} bytes")
        return content

    def partial_widths(self, level: int, index: int) -> list[int]:
        """Return the widths in which a tile is kept unfinished, ascending."""
        folder = self.path / f"{tile_path(level, index)}.p"
        return sorted(int(name) for name in _names(folder) if name.isascii() and name.isdecimal())

    def files(self) -> Iterator[str]:
        """Yield the relative path of every file under `tile`, temporary ones aside."""
        for folder, _, names in os.walk(self.path / TILE):
            for name in sorted(names):
                if not (name.startswith(".") and name.endswith(".tmp")):
                    yield (Path(folder) / name).relative_to(self.path).as_posix()

    def strangers(self) -> list[str]:
        """Return the names in the folder itself that are none of a ledger's, temporary ones aside."""
        return sorted(
            name
            for name in _names(self.path)
            if name not in (CHECKPOINT, VKEY, TILE) and not (name.startswith(".") and name.endswith(".tmp"))
        )

    def extend(self, log: Log, entries: Iterable[bytes], begun: list[bytes]) -> None:
        """Append `entries` to `log` and write every tile that it needs; `begun` is the last bundle so far."""
        touched: set[Path] = set()
        for entry in entries:
            begun.append(entry)
            full = log.append(entry)
            if len(begun) == TILE_WIDTH:
                full.append(Tile(ENTRIES, log.size // TILE_WIDTH - 1, TILE_WIDTH, encode_bundle(begun)))
                begun.clear()
            self._write(full, touched)
        partial = log.partial_tiles()
        if begun:
            partial.append(Tile(ENTRIES, log.size // TILE_WIDTH, len(begun), encode_bundle(begun)))
        self._write(partial, touched)
        if self.durable:
            sync_folders(sorted(touched))

    def publish(self, note: bytes) -> None:
        """Replace the checkpoint by `note`; every tile that it needs is written already."""
        write_atomically(self.path / CHECKPOINT, note, durable=self.durable)
        if self.durable:
            sync_folders([self.path])

    def drop_partials(self, old_size: int, new_size: int) -> None:
        """Remove the unfinished forms of the tiles that became full as the log grew."""
        for level in range(ENTRIES, MAXIMUM_LEVEL + 1):
            shift = 8 * (max(level, 0) + 1)
            if new_size >> shift > old_size >> shift:
                shutil.rmtree(self.path / f"{tile_path(level, old_size >> shift)}.p", ignore_errors=True)

    def _read(self, name: str, maximum: int) -> bytes | None:
        """Return a file's content; raise `VerificationFailed` for what is no file: a ledger has no such thing."""
        try:
            return read_bounded(self.path / name, maximum)
        except NotAFile:
            raise VerificationFailed(f"{self.path / name} is no regular file; a ledger has none but those") from None

    def _write(self, tiles: Iterable[Tile], touched: set[Path]) -> None:
        for tile in tiles:
            path = self.path / tile_path(tile.level, tile.index, tile.width)
            make_folder(path.parent)
            write_atomically(path, tile.content, durable=self.durable)
            touched.update(folder for folder in path.parents if folder.is_relative_to(self.path))


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageFailed(f"cannot list {folder}: {error.strerror}") from error
