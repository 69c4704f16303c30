"""Randomness as a parameter: the operating system's, or an AES-256-CTR stream from a seed.

Keys, nonces and noise that protect anyone come from `SystemEntropy`. `SeededEntropy` is for what may be
replayed (partitions, the order of rows); its stream is SP 800-38A AES-256-CTR with a zero IV under SHA-256(seed).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes


class Entropy(Protocol):
    """A source of random bytes; never repeats a byte of its stream."""

    def random_bytes(self, count: int) -> bytes:
        """Return `count` fresh bytes."""
        ...


def fresh_seed(entropy: Entropy) -> int:
    """Return a seed of 56 bits for a generator of torch's, which takes no more than 63."""
    return int.from_bytes(entropy.random_bytes(7), "big")


@dataclass(frozen=True, slots=True)
class SystemEntropy:
    """The operating system's generator."""

    def random_bytes(self, count: int) -> bytes:
        """Return `count` fresh bytes from the operating system."""
        return secrets.token_bytes(count)


_ZEROS = memoryview(bytes(1 << 18))
"""What a stream is added to: nothing."""


class SeededEntropy:
    """A reproducible stream; the seed never prints."""

    __slots__ = ("_stream",)

    def __init__(self, seed: bytes) -> None:
        key = hashlib.sha256(b"fedpriv/entropy/v1" + seed).digest()
        self._stream: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def random_bytes(self, count: int) -> bytes:
        """Return the next `count` bytes of the stream."""
        return self._stream.update(_ZEROS[:count] if count <= len(_ZEROS) else bytes(count))
