"""Signed checkpoints: how long a ledger is and what its root is, in the C2SP formats that others' tools read.

`signed-note`, `tlog-checkpoint` and Go's `vkey` lines, Ed25519 only. Parsing is strict: every line that is accepted
is the only way to write what it says, so that no byte of a file can change unnoticed. Signatures by keys that we were
not asked about are carried and ignored; those of witnesses are in `cosignature`. No IO here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.merkle import HASH_BYTES

LEDGER_PREFIX = "fedpriv.ledger/"
INGRESS_PREFIX = "fedpriv.ingress/"
WITNESS_PREFIX = "fedpriv.witness/"
MAXIMUM_NOTE_BYTES = 1 << 16
MAXIMUM_SIGNATURES = 64

_SECRET_PREFIX = "PRIVATE+KEY+"  # noqa: S105  # the format's marker, not a secret
_KEY_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SMALL_ORDER = frozenset(
    bytes.fromhex(encoded)
    for encoded in (
        "0100000000000000000000000000000000000000000000000000000000000000",  # order 1
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 1, y + p
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
        "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 4, y + p
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
    )
)
"""The 8 points whose order divides 8 in all 14 encodings, the sign bit aside: `ge25519_has_small_order` of libsodium.

Under such a key one signature, made without any secret, is good for every message, or for one in a few (Chalkias,
Garillot and Nikolaenko, "Taming the many EdDSAs", 2020).
"""


class Algorithm(IntEnum):
    """What a key signs, as the first byte of its encoding: a note's text, or that with a time (a witness's)."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The claim that the ledger `origin` has `size` entries under `root`."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key, 32 bytes; its text is a `vkey` line."""

    name: str
    public: bytes
    algorithm: Algorithm = Algorithm.ED25519

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256 over name, newline, algorithm and key."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._encoded).digest()[:4]

    @property
    def _encoded(self) -> bytes:
        return bytes([self.algorithm]) + self.public

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{to_base64(self._encoded)}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A named Ed25519 private key, 32 bytes; never prints. Give a ledger and a witness different ones."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> VerifierKey:
        """The public half, for what it signs as the keeper of a ledger."""
        return VerifierKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    @property
    def cosigner(self) -> VerifierKey:
        """The public half, for what it signs as a witness."""
        return VerifierKey(self.name, self.verifier.public, Algorithm.COSIGNATURE)

    def to_text(self) -> str:
        """Return the private key in the text form of Go's note tools; whoever holds it can sign."""
        secret = to_base64(bytes([Algorithm.ED25519]) + self.seed)
        return f"{_SECRET_PREFIX}{self.name}+{self.verifier.key_id.hex()}+{secret}"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note: whose it says it is, and the bytes after the key's id."""

    name: str
    key_id: bytes
    signature: bytes

    def is_by(self, key: VerifierKey) -> bool:
        """Return whether the line names `key`; whether it verifies is another question."""
        return (self.name, self.key_id) == (key.name, key.key_id)

    def __bytes__(self) -> bytes:
        return f"— {self.name} {to_base64(self.key_id + self.signature)}".encode()


def origin_of(worker: WorkerName) -> str:
    """Return the origin line, and key name, of a worker's ledger: what left it."""
    return f"{LEDGER_PREFIX}{worker}"


def ingress_origin_of(coordinator: WorkerName) -> str:
    """Return the origin line, and key name, of a coordinator's ledger: what reached it."""
    return f"{INGRESS_PREFIX}{coordinator}"


def witness_name_of(coordinator: WorkerName) -> str:
    """Return the key name under which a coordinator cosigns the checkpoints of others."""
    return f"{WITNESS_PREFIX}{coordinator}"


def parse_verifier_key(text: str, algorithm: Algorithm = Algorithm.ED25519) -> VerifierKey:
    """Return the key of a `vkey` line; raise `UsageError` if it is not exactly one of this algorithm."""
    name, key = _named_key(text, "verifier key", algorithm)
    verifier = VerifierKey(name, key, algorithm)
    if str(verifier) != text:
        raise UsageError(f"the verifier key of {name!r} does not match its key id; copy the whole line from the owner")
    if key[:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER:
        raise UsageError(f"the verifier key of {name!r} is a point of small order: anybody can sign for it; refuse it")
    return verifier


def parse_signing_key(text: str) -> SigningKey:
    """Return the key that `SigningKey.to_text` wrote; raise `UsageError`, quoting nothing, if it is not one."""
    if not text.startswith(_SECRET_PREFIX):
        raise UsageError("a signing key begins with PRIVATE+KEY+")
    name, seed = _named_key(text.removeprefix(_SECRET_PREFIX), "signing key", Algorithm.ED25519)
    signer = SigningKey(name, seed)
    if signer.to_text() != text:
        raise UsageError(f"the signing key of {name!r} does not match its key id")
    return signer


def sign_note(text: str, key: SigningKey) -> bytes:
    """Return `text`, which ends with a newline, as a note signed by `key` (C2SP signed-note)."""
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    line = bytes(NoteSignature(key.name, key.verifier.key_id, signature))
    return f"{text}\n".encode() + line + b"\n"


def open_note(note: bytes, key: VerifierKey) -> str:
    """Return the text of `note`; raise `VerificationFailed` unless `key` signed exactly it."""
    text, signatures = split_note(note)
    found = [each for each in signatures if each.is_by(key)]
    for each in found:
        check_signature(key, each.signature, text.encode())
    if not found:
        raise VerificationFailed(f"no signature is by the key {key.name}+{key.key_id.hex()}")
    return text


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the signed checkpoint, as served and as stored."""
    return sign_note(f"{checkpoint.origin}\n{checkpoint.size}\n{to_base64(checkpoint.root)}\n", key)


def open_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint that `key` signed; raise `VerificationFailed` naming the line that is wrong."""
    lines = open_note(note, key).split("\n")
    if len(lines) != 4:
        raise VerificationFailed(f"a checkpoint has 3 lines before its signatures, this one {len(lines) - 1}")
    origin, size, root, _ = lines
    if origin != key.name:
        raise VerificationFailed(f"line 1: the checkpoint is of {origin!r}, the key of {key.name!r}")
    if not _SIZE.fullmatch(size):
        raise VerificationFailed("line 2: the size is not a plain decimal number")
    root_bytes = from_base64(root)
    if root_bytes is None or len(root_bytes) != HASH_BYTES:
        raise VerificationFailed("line 3: the root is not 32 bytes in base64")
    return Checkpoint(origin, int(size), root_bytes)


def check_signature(key: VerifierKey, signature: bytes, message: bytes) -> None:
    """Raise `VerificationFailed` unless `signature` is Ed25519 by `key` over exactly `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as error:
        raise VerificationFailed(f"the signature of {key.name!r} does not verify") from error


def split_note(note: bytes) -> tuple[str, list[NoteSignature]]:
    """Return the text of a note, with its last newline, and its signatures; raise `VerificationFailed` if malformed."""
    if len(note) > MAXIMUM_NOTE_BYTES:
        raise VerificationFailed(f"the note has {len(note)} bytes, more than {MAXIMUM_NOTE_BYTES}")
    try:
        content = note.decode()
    except UnicodeDecodeError as error:
        raise VerificationFailed("the note is not UTF-8") from error
    if any(character < " " and character != "\n" for character in content):
        raise VerificationFailed("the note has a control character")
    text, separator, signatures = content.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise VerificationFailed("the note has no block of signatures after an empty line")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAXIMUM_SIGNATURES:
        raise VerificationFailed(f"the note has {len(lines)} signatures, more than {MAXIMUM_SIGNATURES}")
    return text + "\n", [parse_signature(line, number) for number, line in enumerate(lines, 1)]


def parse_signature(line: str, number: int = 1) -> NoteSignature:
    """Return what a signature line says; raise `VerificationFailed`, naming its number, if it is malformed."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signature = from_base64(encoded)
    if dash != "—" or not _KEY_NAME.fullmatch(name) or signature is None or len(signature) < 5:
        raise VerificationFailed(f"signature line {number} is malformed")
    return NoteSignature(name, signature[:4], signature[4:])


def to_base64(data: bytes) -> str:
    """Return standard base64, padded."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes | None:
    """Return what `text` encodes, or None: also when its unused bits are set, which would be a second spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if to_base64(data) == text else None


def _named_key(text: str, what: str, algorithm: Algorithm) -> tuple[str, bytes]:
    name, _, rest = text.partition("+")
    _, _, encoded = rest.partition("+")
    key = from_base64(encoded)
    if not _KEY_NAME.fullmatch(name) or key is None or len(key) != 33 or key[0] not in tuple(Algorithm):
        raise UsageError(f"this is no Ed25519 {what}: expected name+8 hex digits+base64, as in the ledger's vkey file")
    if key[0] != algorithm:
        wanted, other = ("a witness", "a ledger") if algorithm is Algorithm.COSIGNATURE else ("a ledger", "a witness")
        raise UsageError(f"the {what} of {name!r} is of {other}, not of {wanted}")
    return name, key[1:]
