"""Cosignatures of checkpoints: what a witness saw, and when (C2SP tlog-cosignature, Ed25519 `cosignature/v1`).

A cosignature says that at a time this was the longest ledger of its origin that the witness had seen, consistent with
every one before. Whoever cosigns has checked that first (`witness`). How many witnesses are enough is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import (
    Algorithm,
    Checkpoint,
    NoteSignature,
    SigningKey,
    VerifierKey,
    check_signature,
    open_checkpoint,
    parse_signature,
    split_note,
)

MAXIMUM_TIME = (1 << 63) - 1
MAXIMUM_COSIGNATURES = 16  # as many signatures as every reader of notes has to accept

_TIME_BYTES = 8


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified statement of witness `name`, made at `time`, in seconds since 1970-01-01 UTC."""

    name: str
    time: int


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that its keeper signed, who witnessed it, and the names on lines that nobody verified."""

    checkpoint: Checkpoint
    witnessed: tuple[Cosignature, ...]
    unverified: tuple[str, ...]


def cosign(note: bytes, key: SigningKey, time: int) -> bytes:
    """Return the signature line, without its newline, by which `key` witnesses `note` at `time` in seconds."""
    if not 0 <= time <= MAXIMUM_TIME:
        raise UsageError(f"a cosignature cannot be dated {time} seconds after 1970")
    text, _ = split_note(note)
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(_message(text, time))
    stamped = time.to_bytes(_TIME_BYTES, "big") + signature
    return bytes(NoteSignature(key.name, key.cosigner.key_id, stamped))


def open_cosigned(note: bytes, key: VerifierKey, witnesses: Sequence[VerifierKey]) -> Cosigned:
    """Return the checkpoint that `key` signed and what `witnesses` say of it.

    Raises `VerificationFailed` if the line of any of them does not verify. Of a witness with several lines the latest
    counts, once.
    """
    checkpoint = open_checkpoint(note, key)
    text, signatures = split_note(note)
    latest: dict[str, Cosignature] = {}
    unverified: dict[str, None] = {}
    for each in signatures:
        witness = next((witness for witness in witnesses if each.is_by(witness)), None)
        if witness is not None:
            found = _verified(text, each, witness)
            latest[str(witness)] = max(latest.get(str(witness), found), found, key=lambda one: one.time)
        elif not each.is_by(key):
            unverified[each.name] = None
    return Cosigned(checkpoint, tuple(latest.values()), tuple(unverified))


def read_cosignature(line: bytes, note: bytes, witness: VerifierKey) -> Cosignature:
    """Return what a line says of `note`; raise `VerificationFailed` unless it is a cosignature of it by `witness`."""
    signature = _parsed(line)
    if not signature.is_by(witness):
        raise VerificationFailed(f"the cosignature is by {signature.name!r}, not by the key of {witness.name!r}")
    return _verified(split_note(note)[0], signature, witness)


def add_cosignatures(note: bytes, lines: Sequence[bytes]) -> bytes:
    """Return `note` with `lines`, each instead of one that its key has there already.

    Raises `VerificationFailed` for a malformed line, `UsageError` beyond 16 cosignatures. The lines are not verified.
    """
    text, signatures = split_note(note)
    kept = {(each.name, each.key_id): each for each in signatures}
    for line in lines:
        added = _parsed(line)
        kept[added.name, added.key_id] = added
    if len(kept) > 1 + MAXIMUM_COSIGNATURES:
        raise UsageError(
            f"the checkpoint has {len(kept) - 1} cosignatures, at most {MAXIMUM_COSIGNATURES} are kept; "
            "ask fewer witnesses"
        )
    return f"{text}\n".encode() + b"".join(bytes(each) + b"\n" for each in kept.values())


def cosignature_lines(note: bytes, key: VerifierKey) -> list[bytes]:
    """Return every signature line of `note`, without its newline, that is not by `key`."""
    return [bytes(each) for each in split_note(note)[1] if not each.is_by(key)]


def _parsed(line: bytes) -> NoteSignature:
    try:
        return parse_signature(line.decode())
    except UnicodeDecodeError as error:
        raise VerificationFailed("the signature line is not UTF-8") from error


def _verified(text: str, found: NoteSignature, witness: VerifierKey) -> Cosignature:
    if witness.algorithm is not Algorithm.COSIGNATURE:
        raise UsageError(f"the key of {witness.name!r} is of a ledger; a witness's begins with B after the second '+'")
    time = int.from_bytes(found.signature[:_TIME_BYTES], "big")
    if time > MAXIMUM_TIME:
        raise VerificationFailed(f"the cosignature of {witness.name!r} has no possible time")
    check_signature(witness, found.signature[_TIME_BYTES:], _message(text, time))
    return Cosignature(witness.name, time)


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
