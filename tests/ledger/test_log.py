"""The log: which tiles an entry completes, resuming from tiles, and bundles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.log import TILE_WIDTH, Log, Tile, decode_bundle, encode_bundle
from fedpriv.ledger.merkle import HASH_BYTES, leaf_hash, root

ENTRIES = [number.to_bytes(4, "big") for number in range(700)]


def grown(size):
    log = Log()
    tiles = [tile for number in range(size) for tile in log.append(number.to_bytes(4, "big"))]
    return log, tiles


def test_the_root_is_that_of_the_tree():
    log = Log()
    for size, entry in enumerate(ENTRIES[:300], 1):
        log.append(entry)
        assert log.root() == root(map(leaf_hash, ENTRIES[:size]))


def test_a_tile_holds_the_hashes_of_its_level_and_comes_when_it_is_full():
    log, full = grown(700)
    assert [(tile.level, tile.index, tile.width) for tile in full] == [(0, 0, 256), (0, 1, 256)]
    assert full[1].content == b"".join(map(leaf_hash, ENTRIES[256:512]))
    assert [(tile.level, tile.index, tile.width) for tile in log.partial_tiles()] == [(0, 2, 188), (1, 0, 2)]
    assert log.partial_tiles()[1].content == b"".join(root(map(leaf_hash, ENTRIES[a : a + 256])) for a in (0, 256))


def test_the_second_level_fills_after_65536_entries():
    log, full = grown(TILE_WIDTH**2 + 1)
    assert [(tile.level, tile.index) for tile in full[-2:]] == [(0, 255), (1, 0)]
    assert [(tile.level, tile.index, tile.width) for tile in log.partial_tiles()] == [(0, 256, 1), (2, 0, 1)]
    assert log.root() == root(leaf_hash(number.to_bytes(4, "big")) for number in range(TILE_WIDTH**2 + 1))


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 700])
def test_a_log_resumes_from_its_partial_tiles(size):
    log, _ = grown(size)
    kept = {(tile.level, tile.index, tile.width): tile.content for tile in log.partial_tiles()}
    resumed = Log.resume(size, lambda *key: kept[key])
    for number in range(size, size + 300):
        assert resumed.append(number.to_bytes(4, "big")) == log.append(number.to_bytes(4, "big"))
    assert (resumed.size, resumed.root(), resumed.partial_tiles()) == (log.size, log.root(), log.partial_tiles())


def test_a_tile_of_the_wrong_length_does_not_resume():
    with pytest.raises(VerificationFailed, match="3 hashes has 95 bytes"):
        Log.resume(3, lambda *_: bytes(3 * HASH_BYTES - 1))


def test_a_copy_does_not_change_its_original():
    log, _ = grown(5)
    before = (log.size, log.root(), log.partial_tiles())
    log.copy().append(b"more")
    assert (log.size, log.root(), log.partial_tiles()) == before


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.integers(0, 10**6))
def test_a_bundle_reads_back(entries, first):
    assert decode_bundle(encode_bundle(entries), len(entries), first) == entries


def test_a_bundle_that_ends_early_names_the_entry():
    content = encode_bundle([b"one", b"two", b"three"])
    for length in range(5, 10):
        with pytest.raises(VerificationFailed, match="entry 101 is missing or cut off"):
            decode_bundle(content[:length], 3, 100)


def test_a_bundle_with_more_than_its_entries_is_refused():
    with pytest.raises(VerificationFailed, match="5 bytes follow entry 1 "):
        decode_bundle(encode_bundle([b"one", b"two", b"333"]), 2, 0)


def test_a_tile_does_not_print_entries():
    assert "one" not in repr(Tile(-1, 0, 1, encode_bundle([b"one"])))
