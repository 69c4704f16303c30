"""Payload digests on two threads, and those of models; why in chunks is said in `ledger.entries`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fedpriv import canonical
from fedpriv.ledger.entries import chunk_digest, chunked
from fedpriv.ledger.entries import chunk_digests as sequential_chunk_digests
from fedpriv.updates import TensorSpec

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


def tensors_digest(specs: Iterable[TensorSpec], payload: Sequence[memoryview]) -> bytes:
    """Return a digest, 32 bytes, of tensors: names, dtypes, shapes, and every 1 MiB of all values together."""
    described: list[canonical.Field] = [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]
    return canonical.digest("fedpriv/model/v1", described, chunk_digests(payload))


def _digests(chunks: Sequence[Sequence[memoryview]]) -> list[bytes]:
    return [chunk_digest(chunk) for chunk in chunks]
