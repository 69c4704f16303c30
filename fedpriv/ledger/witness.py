"""What a witness does with a checkpoint that it is asked to cosign (C2SP tlog-witness), without the asking.

A witness keeps, for each ledger, the longest checkpoint that it cosigned, and cosigns only what extends it. Whoever
calls `consider` stores the state that it returns, durably and before anyone else's turn, and only then cosigns. A
refusal is a value, since it answers a peer; most of them are evidence against the keeper of the ledger.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.checkpoint import MAXIMUM_NOTE_BYTES, Checkpoint, VerifierKey, open_checkpoint, to_base64
from fedpriv.ledger.merkle import EMPTY_ROOT, verify_consistency
from fedpriv.ledger.proofs import MAXIMUM_HASHES, parse_hash

MAXIMUM_REQUEST_BYTES = MAXIMUM_NOTE_BYTES + 4096

Status = Literal[400, 403, 404, 409, 422]

_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """The longest checkpoint of one ledger that a witness cosigned, and its signed note; none at size 0."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    note: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Stale:
    """The request builds on another size than the witness holds, which is `size`: ask again from there."""

    size: int
    status: Status = 409


@dataclass(frozen=True, slots=True)
class Refused:
    """The checkpoint cannot be cosigned; `status` is the answer's in HTTP. At 409 and 422 the ledger was rewritten."""

    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint to be cosigned, and the proof, 32 bytes a hash, that it extends the ledger of `old_size` entries."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def consider(held: Witnessed, key: VerifierKey | None, request: Request) -> Witnessed | Stale | Refused:
    """Return what the witness holds from now on, or why it does not cosign; `key` is None for an unknown origin."""
    if key is None:
        return Refused(404, "this witness does not know the ledger; give its operator the ledger's vkey")
    try:
        found = open_checkpoint(request.note, key)
    except VerificationFailed as error:
        return Refused(403, str(error))
    return _refusal(held, found, request) or Witnessed(found.size, found.root, request.note)


def origin_in(note: bytes) -> str:
    """Return the first line of a note, to look up whose it is; nothing is verified."""
    return note.partition(b"\n")[0].decode(errors="replace")


def encode_request(request: Request) -> bytes:
    """Return the body of an `add-checkpoint` request."""
    lines = [f"old {request.old_size}", *map(to_base64, request.proof), "", ""]
    return "\n".join(lines).encode() + request.note


def decode_request(body: bytes) -> Request:
    """Return what an `add-checkpoint` request asks; raise `VerificationFailed` (status 400) if it is malformed."""
    if len(body) > MAXIMUM_REQUEST_BYTES:
        raise VerificationFailed(f"the request has {len(body)} bytes, more than {MAXIMUM_REQUEST_BYTES}")
    head, separator, note = body.partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    old = _OLD.fullmatch(lines[0])
    if not separator or old is None or len(lines) - 1 > MAXIMUM_HASHES:
        raise VerificationFailed("the request is no old size, at most 63 hashes, an empty line and a checkpoint")
    return Request(int(old[1]), tuple(parse_hash(line, at) for at, line in enumerate(lines[1:], 2)), note)


def _refusal(held: Witnessed, found: Checkpoint, request: Request) -> Stale | Refused | None:
    if request.old_size > found.size:
        return Refused(400, f"the checkpoint has {found.size} entries, fewer than the {request.old_size} it extends")
    if request.old_size != held.size:
        return Stale(held.size)
    if found.size == held.size and found.root != held.root:
        return Refused(409, f"another ledger of {held.size} entries was witnessed: this one was rewritten")
    try:
        verify_consistency(held.size, held.root, found.size, found.root, request.proof)
    except VerificationFailed as error:
        return Refused(422, str(error))
    return None
