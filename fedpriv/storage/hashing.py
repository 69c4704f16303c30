"""Payload digests on two threads; what is hashed, and why in chunks, is said in `ledger.entries`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fedpriv.ledger.entries import chunk_digest, chunked
from fedpriv.ledger.entries import chunk_digests as sequential_chunk_digests

PARALLEL_FROM_BYTES = 8 << 20


def chunk_digests(payload: Sequence[memoryview]) -> list[bytes]:
    """Return SHA-256 of every 1 MiB of the concatenated parts; hashlib lets go of the interpreter while it works."""
    if sum(part.nbytes for part in payload) <= PARALLEL_FROM_BYTES:
        return sequential_chunk_digests(payload)
    chunks = list(chunked(payload))
    half = len(chunks) // 2
    with ThreadPoolExecutor(1, thread_name_prefix="fedpriv-digest") as second:
        later = second.submit(_digests, chunks[half:])
        return [*_digests(chunks[:half]), *later.result()]


def _digests(chunks: Sequence[Sequence[memoryview]]) -> list[bytes]:
    return [chunk_digest(chunk) for chunk in chunks]
