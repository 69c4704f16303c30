"""The folder's layout: names of tiles, what is kept, and files that are whole or absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import StorageFailed, VerificationFailed
from fedpriv.ledger.log import ENTRIES, Log, Tile
from fedpriv.storage.files import make_folder, read_bounded, sync_folders, write_atomically
from fedpriv.storage.tiles import TileFolder, parse_tile_path, tile_path


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 1234067, 256), "tile/0/x001/x234/067"),
        ((1, 999, 5), "tile/1/999.p/5"),
        ((2, 1000, 256), "tile/2/x001/000"),
        ((ENTRIES, 67, 255), "tile/entries/067.p/255"),
    ],
)
def test_a_tile_has_the_name_that_the_format_gives_it(tile, path):
    assert tile_path(*tile) == path
    assert parse_tile_path(path) == tile


@given(st.integers(ENTRIES, 5), st.integers(0, 10**12), st.integers(1, 256))
def test_every_name_reads_back(level, index, width):
    assert parse_tile_path(tile_path(level, index, width)) == (level, index, width)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/0000", "tile/0/x000/001", "tile/00/000", "tile/6/000", "tile/data/000", "tile/0/000.p/0",
        "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p", "tile/0/001/x000", "tile/0/../000", "000",
        "tile/0/\u0660\u0660\u0660",
    ],
)  # fmt: skip  # short names
def test_another_name_for_a_tile_is_refused(path):
    with pytest.raises(VerificationFailed, match="no tile"):
        parse_tile_path(path)


def published(folder, sizes):
    log, files, begun = Log(), TileFolder(folder), []
    for size in sizes:
        old = log.size
        files.extend(log, (b"%d" % number for number in range(old, size)), begun)
        files.publish(b"note %d" % size)
        files.drop_partials(old, size)
    return files


def test_partial_tiles_stay_until_their_full_tile_exists(tmp_path):
    files = published(tmp_path, [3, 200])
    assert sorted(files.files()) == [
        "tile/0/000.p/200", "tile/0/000.p/3", "tile/entries/000.p/200", "tile/entries/000.p/3",
    ]  # fmt: skip  # pairs
    assert files.partial_widths(0, 0) == [3, 200]


def test_partial_tiles_go_when_their_full_tile_is_published(tmp_path):
    files = published(tmp_path, [3, 200, 513])
    assert sorted(files.files()) == [
        "tile/0/000", "tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2",
        "tile/entries/000", "tile/entries/001", "tile/entries/002.p/1",
    ]  # fmt: skip  # a line a level
    assert files.checkpoint() == b"note 513"


def test_a_missing_tile_is_named(tmp_path):
    with pytest.raises(VerificationFailed, match=r"tile/0/000\.p/3 is missing"):
        TileFolder(tmp_path).read(0, 0, 3)


def test_a_tile_that_is_too_long_is_not_read_into_memory(tmp_path):
    path = tmp_path / tile_path(0, 0, 3)
    make_folder(path.parent)
    write_atomically(path, bytes(10_000))
    with pytest.raises(VerificationFailed, match="longer than 96 bytes"):
        TileFolder(tmp_path).read(0, 0, 3)
    assert read_bounded(path, 10) == bytes(11)


def test_a_write_that_is_refused_says_where_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint"
    write_atomically(path, b"old")
    (tmp_path / ".checkpoint.tmp").mkdir()
    with pytest.raises(StorageFailed, match="checkpoint"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_is_in_the_way_of_a_folder_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="cannot create"):
        make_folder(tmp_path / "file" / "inner")
    with pytest.raises(StorageFailed, match="cannot flush"):
        sync_folders([tmp_path / "absent"])
    with pytest.raises(StorageFailed, match="cannot read"):
        read_bounded(tmp_path, 10)
    (tmp_path / "tile" / "0").mkdir(parents=True)
    loop = tmp_path / "tile" / "0" / "000.p"
    loop.symlink_to(loop)
    with pytest.raises(StorageFailed, match="cannot list"):
        TileFolder(tmp_path).partial_widths(0, 0)


def test_files_are_as_private_as_asked(tmp_path):
    write_atomically(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_tile_prints_without_its_content():
    assert "content" not in repr(Tile(0, 0, 1, bytes(32)))
