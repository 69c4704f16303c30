"""Proofs read from tiles: the ones that RFC 6962 defines, for any size, from a handful of files."""

from __future__ import annotations

import functools
import hashlib
import random

import pytest

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.log import TILE_WIDTH, Log
from fedpriv.ledger.merkle import leaf_hash, prove_consistency, prove_inclusion, root_at
from fedpriv.ledger.proofs import decode_proof, encode_proof, verify_proof
from fedpriv.storage.proving import TileNodes, prove_entry
from fedpriv.storage.tiles import TileFolder

KEY = SigningKey("fedpriv.ledger/bob", bytes(range(32)))
LARGE = TILE_WIDTH**2 + 300  # two full levels and something begun on three


def content(number):
    return b"entry %d" % number


# RFC 6962, section 2.1, word by word over D[first : first + size].


@functools.cache
def mth(first, size):
    if size <= 1:
        return leaf_hash(content(first)) if size else hashlib.sha256().digest()
    k = 1 << (size - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + mth(first, k) + mth(first + k, size - k)).digest()


def path(m, first, size):
    if size == 1:
        return []
    k = 1 << (size - 1).bit_length() - 1
    if m < k:
        return [*path(m, first, k), mth(first + k, size - k)]
    return [*path(m - k, first + k, size - k), mth(first, k)]


def subproof(m, first, size, whole=True):
    if m == size:
        return [] if whole else [mth(first, size)]
    k = 1 << (size - 1).bit_length() - 1
    if m <= k:
        return [*subproof(m, first, k, whole), mth(first + k, size - k)]
    return [*subproof(m - k, first + k, size - k, False), mth(first, k)]


class Tiles:
    """The tiles of a growing log in memory, as far as a folder keeps them; counts what is read."""

    def __init__(self):
        self.log, self.kept, self.reads = Log(), {}, 0

    def grow(self, size):
        for number in range(self.log.size, size):
            self._keep(self.log.append(content(number)))
        self._keep(self.log.partial_tiles())

    def _keep(self, tiles):
        self.kept.update({(tile.level, tile.index, tile.width): tile.content for tile in tiles})

    def read(self, level, index, width):
        self.reads += 1
        return self.kept[level, index, width]


def test_proofs_of_every_size_up_to_1000_are_the_defined_ones():
    tiles, draw = Tiles(), random.Random(6962)
    for size in range(1001):
        tiles.grow(size)
        node = TileNodes(tiles.read, size).node
        assert root_at(size, node) == mth(0, size)
        for index in {size - 1, draw.randrange(size)} if size else ():
            assert prove_inclusion(index, size, node) == path(index, 0, size)
        for old in {size // 256 * 256, draw.randrange(size + 1)}:
            assert prove_consistency(old, size, node) == (subproof(old, 0, size) if old else [])
            assert root_at(old, node) == mth(0, old)


@pytest.fixture(scope="module")
def large():
    tiles = Tiles()
    tiles.grow(LARGE)
    return tiles


def test_a_proof_over_many_tiles_reads_a_few_of_them(large):
    draw = random.Random(1)
    for _ in range(5):
        index, large.reads = draw.randrange(LARGE), 0
        assert prove_inclusion(index, LARGE, TileNodes(large.read, LARGE).node) == path(index, 0, LARGE)
        assert large.reads <= 6
        old, large.reads = draw.randrange(1, LARGE), 0
        assert prove_consistency(old, LARGE, TileNodes(large.read, LARGE).node) == subproof(old, 0, LARGE)
        assert large.reads <= 6


def test_a_tile_of_the_wrong_length_proves_nothing():
    with pytest.raises(VerificationFailed, match="3 hashes has 64 bytes"):
        TileNodes(lambda *_: bytes(64), 3).node(0, 1)


def published(folder, sizes):
    files, log, begun = TileFolder(folder, durable=False), Log(), []
    for size in sizes:
        old = log.size
        files.extend(log, map(content, range(old, size)), begun)
        files.publish(sign_checkpoint(Checkpoint(KEY.name, size, log.root()), KEY))
        files.drop_partials(old, size)
    return files


@pytest.mark.parametrize("sizes", [[1], [2, 3], [255, 256], [3, 256, 257], [100, 600, 700]])
def test_any_entry_of_a_folder_has_a_proof_that_verifies(tmp_path, sizes):
    files, size = published(tmp_path, sizes), sizes[-1]
    for index in {0, 1, 255, 256, size - 1} & set(range(size)):
        proof = decode_proof(encode_proof(prove_entry(files, KEY.verifier, index)))
        assert verify_proof(proof, KEY.verifier).checkpoint.size == size
        assert (proof.index, proof.entry) == (index, content(index))


def test_what_a_checkpoint_does_not_cover_has_no_proof(tmp_path):
    files = published(tmp_path, [3])
    for index in (3, -1):
        with pytest.raises(UsageError, match=f"entry {index} is not among the 3"):
            prove_entry(files, KEY.verifier, index)
    with pytest.raises(VerificationFailed, match="checkpoint is missing"):
        prove_entry(TileFolder(tmp_path / "absent"), KEY.verifier, 0)
    (tmp_path / "tile/0/000.p/3").unlink()
    with pytest.raises(VerificationFailed, match=r"tile/0/000\.p/3 is missing"):
        prove_entry(files, KEY.verifier, 0)
