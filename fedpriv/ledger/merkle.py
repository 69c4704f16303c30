"""The Merkle tree of RFC 6962: roots that grow leaf by leaf, and the proofs that go with them.

leaf = SHA256(00 || entry), node = SHA256(01 || left || right), and the root of nothing is SHA256(""). A check that
fails raises `VerificationFailed`; none returns a truth value. Signatures are in `checkpoint`, files in `storage.tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from fedpriv.errors import UsageError, VerificationFailed

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

ReadNode = Callable[[int, int], bytes]
"""The root of a complete subtree: its height, and its number among those of that height, from the left."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the complete subtrees that a tree falls into, largest first: all that growing it needs."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count():
            raise UsageError(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(self.peaks)}")

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf hash; return the root of every subtree that it completes, by height, the leaf itself first."""
        completed = [leaf]
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            completed.append(node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return _folded(self.peaks) if self.peaks else EMPTY_ROOT


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def root_at(size: int, node: ReadNode) -> bytes:
    """Return the root over the first `size` leaves of a tree that has at least as many."""
    return _range(0, size, node) if size else EMPTY_ROOT


def prove_inclusion(index: int, size: int, node: ReadNode) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` leaves (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise UsageError(f"no proof for leaf {index}: the tree has {size} leaves")
    low, high = 0, size
    path: list[bytes] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range(middle, high, node))
            high = middle
        else:
            path.append(_range(low, middle, node))
            low = middle
    return path[::-1]


def prove_consistency(old: int, new: int, node: ReadNode) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is a prefix of the one of `new` (RFC 6962, 2.1.2)."""
    if not 0 <= old <= new:
        raise UsageError(f"no proof for size {old}: the tree has {new} leaves")
    if old in (0, new):
        return []
    low, high = 0, new
    path: list[bytes] = []
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range(middle, high, node))
            high = middle
        else:
            path.append(_range(low, middle, node))
            low = middle
    return ([_range(low, high, node)] if low else []) + path[::-1]


class Tree:
    """Every complete subtree of a growing tree, so that it can prove any entry and any earlier size."""

    __slots__ = ("_frontier", "_levels")

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._frontier = Frontier()
        self._levels: list[list[bytes]] = []
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._frontier.size

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        for height, node in enumerate(self._frontier.append(leaf)):
            if height == len(self._levels):
                self._levels.append([])
            self._levels[height].append(node)

    def node(self, height: int, index: int) -> bytes:
        """Return the root of a complete subtree, as a `ReadNode`."""
        return self._levels[height][index]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> None:
    """Raise `VerificationFailed` unless `proof` shows that `leaf` is number `index` of `size` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise VerificationFailed(f"no entry {index} is in a ledger of {size}")
    node = leaf
    for sibling, is_left in _steps(index, size - 1, proof):
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
    if node != expected_root:
        raise VerificationFailed(f"entry {index} is not in the ledger of {size} with root {expected_root.hex()}")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise `VerificationFailed` unless `proof` shows that `old` entries are the first of `new` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        raise VerificationFailed(f"a ledger of {new} entries cannot extend one of {old}")
    if old in (0, new):
        consistent = not proof and old_root == (EMPTY_ROOT if old == 0 else new_root)
    else:
        consistent = _consistent_roots(old, old_root, new, proof) == (old_root, new_root)
    if not consistent:
        raise VerificationFailed(f"the ledger of {new} entries does not extend the one of {old}")


def _consistent_roots(old: int, old_root: bytes, new: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise VerificationFailed("the proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    older = newer = path[0]
    for sibling, is_left in _steps(position, last, path[1:]):
        if is_left:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
        else:
            newer = node_hash(newer, sibling)
    return older, newer


def _steps(position: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each sibling on the way to the root, and whether it stands on the left."""
    for sibling in proof:
        if last == 0:
            raise VerificationFailed("the proof is too long")
        is_left = position & 1 == 1 or position == last
        yield sibling, is_left
        while is_left and position and not position & 1:
            position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    if last:
        raise VerificationFailed("the proof is too short")


def _folded(peaks: Sequence[bytes]) -> bytes:
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = node_hash(peak, node)
    return node


def _range(low: int, high: int, node: ReadNode) -> bytes:
    """Return the root over leaves `low` to `high` - 1, where `low` is a multiple of a power of two that is no less."""
    peaks = []
    while low < high:
        height = (high - low).bit_length() - 1
        peaks.append(node(height, low >> height))
        low += 1 << height
    return _folded(peaks)


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1
