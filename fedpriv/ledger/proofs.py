"""A proof that one entry is in a ledger, as one small file that verifies offline (C2SP tlog-proof).

`extra`, which the format leaves to whoever writes it, holds the entry itself, so that the file needs nothing beside it:
the entry counts only because its hash leads to the signed root. Parsing is strict; a proof has one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.checkpoint import MAXIMUM_NOTE_BYTES, VerifierKey, from_base64, to_base64
from fedpriv.ledger.cosignature import Cosigned, open_cosigned
from fedpriv.ledger.entries import MAXIMUM_ENTRY_BYTES
from fedpriv.ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion

SUFFIX = ".tlog-proof"
MAXIMUM_HASHES = 63  # of a tree that 2**63 entries would fill
MAXIMUM_PROOF_BYTES = MAXIMUM_NOTE_BYTES + 2 * MAXIMUM_ENTRY_BYTES

_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class EntryProof:
    """That an entry is number `index` under the checkpoint `note`: the hashes from its sibling up, 32 bytes each."""

    index: int
    hashes: tuple[bytes, ...]
    note: bytes
    entry: bytes = field(default=b"", repr=False)


def encode_proof(proof: EntryProof) -> bytes:
    """Return the file's content."""
    extra = [f"extra {to_base64(proof.entry)}"] if proof.entry else []
    lines = [_HEADER, *extra, f"index {proof.index}", *map(to_base64, proof.hashes), "", ""]
    return "\n".join(lines).encode() + proof.note


def decode_proof(data: bytes) -> EntryProof:
    """Return what a file says; raise `VerificationFailed` naming the line that is malformed. Nothing is verified."""
    if len(data) > MAXIMUM_PROOF_BYTES:
        raise VerificationFailed(f"the proof has {len(data)} bytes, more than {MAXIMUM_PROOF_BYTES}")
    head, separator, note = data.partition(b"\n\n")
    first, *rest = head.split(b"\n")
    if not separator or first != _HEADER.encode():
        raise VerificationFailed(
            f"this is no proof: it has {_HEADER!r} in line 1, and a checkpoint after an empty line"
        )
    try:
        lines = [_HEADER, *(line.decode("ascii") for line in rest)]
    except UnicodeDecodeError as error:
        raise VerificationFailed("the proof is not ASCII above its checkpoint") from error
    at = 1
    entry = b""
    if lines[1:2] and lines[1].startswith("extra "):
        entry = from_base64(lines[1].removeprefix("extra ")) or b""
        if not entry:
            raise VerificationFailed("line 2 of the proof is malformed: extra data is base64, or the line is left out")
        at = 2
    index = _INDEX.fullmatch(lines[at]) if len(lines) > at else None
    if index is None:
        raise VerificationFailed(f"line {at + 1} of the proof is not the entry's index")
    hashes = tuple(parse_hash(line, number) for number, line in enumerate(lines[at + 1 :], at + 2))
    if len(hashes) > MAXIMUM_HASHES:
        raise VerificationFailed(f"the proof has {len(hashes)} hashes, more than {MAXIMUM_HASHES}")
    return EntryProof(int(index[1]), hashes, note, entry)


def parse_hash(line: str, number: int) -> bytes:
    """Return the hash in line `number` of a proof; raise `VerificationFailed` if it is not one."""
    found = from_base64(line)
    if found is None or len(found) != HASH_BYTES:
        raise VerificationFailed(f"line {number} of the proof is not a hash of 32 bytes in base64")
    return found


def verify_proof(
    proof: EntryProof, key: VerifierKey, witnesses: Sequence[VerifierKey] = (), *, entry: bytes | None = None
) -> Cosigned:
    """Return the checkpoint that proves `entry`, by default the one in the file, and who witnessed it.

    Raises `VerificationFailed` unless `key` signed the checkpoint and the entry is in it.
    """
    cosigned = open_cosigned(proof.note, key, witnesses)
    checkpoint = cosigned.checkpoint
    content = proof.entry if entry is None else entry
    verify_inclusion(leaf_hash(content), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return cosigned
