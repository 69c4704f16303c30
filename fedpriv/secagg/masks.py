"""Masks: the AES-256-CTR stream of a key, added to words block by block, inside the cache.

A stream is AES-256-CTR (SP 800-38A) from the counter block 2 on, read as little-endian words of full width; its key is
used for one vector of one round. These are the bytes that AES-256-GCM (SP 800-38D) makes of zeros under a zero nonce,
and so they are made: OpenSSL's GCM is up to twice as fast as its CTR, and no tag is ever asked for. Keys come from
`keys`. Memory is two blocks and the ciphers of one group, whatever the number of masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from fedpriv.secagg.ring import Words

Mask: TypeAlias = tuple[bytes, bool]
"""A stream's key, 32 bytes, and whether it is added; else it is taken away."""

_BLOCK_BYTES = 1 << 18
_GROUP = 512
_FROM_TWO = modes.GCM(bytes(12))  # the nonce may be zero, as a key makes one stream


def apply_masks(words: Words, masks: Iterable[Mask]) -> None:
    """Add each mask to `words`, or take it away, in place and modulo the ring; the words must be contiguous.

    Blocks of 256 KiB stay in the cache while a group of 512 streams passes over them.
    """
    pending = iter(masks)
    while group := list(islice(pending, _GROUP)):
        _apply(words, [(_stream(key), added) for key, added in group])


def _apply(words: Words, streams: list[tuple[CipherContext, bool]]) -> None:
    width = words.itemsize
    zeros, block = bytes(_BLOCK_BYTES), np.empty(_BLOCK_BYTES // width, words.dtype)
    buffer = block.data.cast("B")
    for at, count in _blocks(words.size, _BLOCK_BYTES // width):
        nothing = zeros if count * width == len(zeros) else zeros[: count * width]
        room, mask, part = buffer[: count * width], block[:count], words[at : at + count]
        for stream, added in streams:
            stream.update_into(nothing, room)
            if added:
                np.add(part, mask, out=part)
            else:
                np.subtract(part, mask, out=part)


def _blocks(length: int, most: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, most):
        yield at, min(most, length - at)


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), _FROM_TWO).encryptor()
