"""A hash tree over everybody's keys: a worker verifies its own and its neighbours' against one root, not all.

The shape is that of RFC 6962: a node without a sibling goes up as it is. One proof holds for any number of leaves: it
has the hashes that are missing on the way to the root, level by level from below, left to right, each once. Leaves come
hashed, by place from 0; `statements` says of what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from fedpriv import canonical
from fedpriv.secagg.keys import PREFIX
from fedpriv.secagg.reasons import Reason, Refused

_NODE = canonical.encode(f"{PREFIX}node")


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash over two subtrees, 32 bytes each."""
    return sha256(_NODE + left + right).digest()


class Tree:
    """Every level of the tree over `leaves`, at least one, so that it can prove any of them."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            self._levels.append([*(node_hash(left, right) for left, right in pairs), *level[len(level) & ~1 :]])

    @property
    def root(self) -> bytes:
        """The hash that stands for all leaves."""
        return self._levels[-1][0]

    def proof(self, places: Iterable[int]) -> tuple[bytes, ...]:
        """Return the hashes that lead from the leaves at `places` to the root; none where these are all."""
        known, found = set(places), []
        for level in self._levels[:-1]:
            found += [level[place] for place in _missing(known, len(level))]
            known = {place >> 1 for place in known}
        return tuple(found)


def root_of(size: int, leaves: Mapping[int, bytes], proof: Sequence[bytes]) -> bytes:
    """Return the root of a tree of `size` leaves from those that are known, by place, and the hashes of a `proof`.

    Raises `Refused` where the proof is of another length; one that is wrong gives another root.
    """
    level, hashes, width = dict(leaves), iter(proof), size
    while width > 1:
        level.update(zip(_missing(level.keys(), width), hashes, strict=False))
        if not all(place ^ 1 in level or place ^ 1 >= width for place in level):
            raise _wrong_length(proof)
        level = {
            place >> 1: node_hash(each, level[place + 1]) if place + 1 < width else each
            for place, each in level.items()
            if not place & 1
        }
        width = (width + 1) >> 1
    if next(hashes, None) is not None:
        raise _wrong_length(proof)
    return level[0]


def _missing(known: Iterable[int], width: int) -> list[int]:
    """Return the places of a level of `width` nodes whose siblings are known and they are not, left to right."""
    there = set(known)
    return sorted(sibling for place in there if (sibling := place ^ 1) < width and sibling not in there)


def _wrong_length(proof: Sequence[bytes]) -> Refused:
    message = f"a proof of {len(proof)} hashes does not lead from the keys that came with it to one root"
    return Refused(Reason.MALFORMED_MESSAGE, message)
