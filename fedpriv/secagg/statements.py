"""The canonical bytes of everything that is hashed, signed or bound to a ciphertext in a round.

Each has its own tag, then the session's id, then who says it, so that nothing said in one place means anything in
another. Sets are sorted here, whatever the order in which they came.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv import canonical
from fedpriv.ids import WorkerName
from fedpriv.secagg.keys import PREFIX, TAG_BYTES
from fedpriv.secagg.messages import Abort, Advertise, Named
from fedpriv.secagg.ring import Words
from fedpriv.secagg.shamir import SECRETS

_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class History:
    """What everybody in a session has agreed on so far, 32 bytes each: U1 and the keys, U2, U3; empty until then."""

    sid: bytes
    h1: bytes = b""
    h2: bytes = b""
    h3: bytes = b""


def commitment(sid: bytes, worker: WorkerName, seed: bytes) -> bytes:
    """Return the commitment of `worker` to its 32-byte seed b; the seed's entropy is what hides it."""
    return canonical.digest(f"{PREFIX}b-commit", sid, worker, seed)


def advertised(sid: bytes, worker: WorkerName, sealing: bytes, masking: bytes, committed: bytes) -> bytes:
    """Return what a worker signs in round 0."""
    return canonical.encode(f"{PREFIX}round-0", sid, worker, sealing, masking, committed)


def entry_hash(each: Advertise) -> bytes:
    """Return the leaf of a worker's keys and commitment in the tree over all."""
    return canonical.digest(f"{PREFIX}entry", each.sid, each.worker, each.sealing, each.masking, each.commitment)


def roll_hash(sid: bytes, members: Iterable[WorkerName], root: bytes) -> bytes:
    """Return h1, over U1 and the root of the tree over its entries, sorted by name."""
    return canonical.digest(f"{PREFIX}u1", sid, _list(members), root)


def shared(history: History, worker: WorkerName, ciphertexts: Named) -> bytes:
    """Return what a worker signs in round 1."""
    sealed = canonical.digest(f"{PREFIX}ciphertexts", _table(sorted(ciphertexts)))
    return canonical.encode(f"{PREFIX}round-1", history.sid, worker, history.h1, sealed)


def sharers_hash(history: History, members: Iterable[WorkerName]) -> bytes:
    """Return h2, over U2."""
    return canonical.digest(f"{PREFIX}u2", history.sid, history.h1, _list(members))


def masked(history: History, worker: WorkerName, words: Words) -> bytes:
    """Return what a worker signs in round 2, shape (d,); the words are contiguous and little-endian."""
    return canonical.encode(f"{PREFIX}round-2", history.sid, worker, history.h1, history.h2, words_hash(words))


def words_hash(words: Words) -> bytes:
    """Return SHA-256 of the words' bytes; block by block through the cache, which takes 0.6 of the time."""
    hasher, block = hashlib.sha256(), np.empty(min(words.size, _BLOCK), words.dtype)
    for at in range(0, words.size, _BLOCK):
        part = words[at : at + _BLOCK]
        near = block[: part.size]
        near[:] = part
        hasher.update(near.data)
    return hasher.digest()


def survivors_hash(history: History, members: Iterable[WorkerName]) -> bytes:
    """Return h3, over U3."""
    return canonical.digest(f"{PREFIX}u3", history.sid, history.h1, history.h2, _list(members))


def confirmed(history: History, worker: WorkerName) -> bytes:
    """Return what a worker signs in round 3."""
    return canonical.encode(f"{PREFIX}round-3", history.sid, worker, history.h1, history.h2, history.h3)


def unmasked(history: History, worker: WorkerName, self_shares: Named, key_shares: Named) -> bytes:
    """Return what a worker signs in round 4."""
    shares = canonical.digest(f"{PREFIX}shares", _table(sorted(self_shares)), _table(sorted(key_shares)))
    return canonical.encode(f"{PREFIX}round-4", history.sid, worker, history.h1, history.h2, history.h3, shares)


def aborted(worker: WorkerName, abort: Abort) -> bytes:
    """Return what a worker signs when it stops; the signature in `abort` is not part of it."""
    return canonical.encode(f"{PREFIX}abort", abort.sid, worker, abort.round, abort.reason.value, abort.subject)


def sealed_for(history: History, sender: WorkerName, recipient: WorkerName) -> bytes:
    """Return the data that a ciphertext of shares is bound to."""
    return canonical.encode(f"{PREFIX}sealed", history.sid, history.h1, sender, recipient)


def share_header(sender: WorkerName, recipient: WorkerName, point: int) -> bytes:
    """Return how a plaintext of shares begins; the two shares, b then s, follow it. The point has four bytes."""
    return canonical.encode(f"{PREFIX}pair", sender, recipient, point.to_bytes(4, "big"))


def shortest_ciphertext(sender: WorkerName) -> int:
    """Return the bytes of a ciphertext of shares, those of its recipient's name not counted, which add their own."""
    return len(share_header(sender, WorkerName(""), 0)) + 2 * SECRETS.share_bytes + TAG_BYTES


def _list(members: Iterable[WorkerName]) -> tuple[bytes, bytes]:
    """Return names, sorted, as two fields: every length, every name. Each has one to 63 bytes, so a length fits one."""
    names = sorted(members)
    return bytes(map(len, names)), "".join(names).encode()


def _table(rows: Sequence[tuple[str, bytes]]) -> tuple[bytes, bytes, bytes]:
    """Return names with contents as three fields: every length, every name, every content.

    As injective as an item for each, and several times faster. Names count characters, which `ids` makes bytes.
    """
    names, contents = zip(*rows, strict=True) if rows else ((), ())
    lengths = struct.pack(f">{2 * len(rows)}Q", *map(len, names), *map(len, contents))
    return lengths, "".join(names).encode(), b"".join(contents)
