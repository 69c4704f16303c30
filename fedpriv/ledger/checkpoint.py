"""Signed checkpoints: how long a ledger is and what its root is, in the C2SP formats that others' tools read.

`signed-note`, `tlog-checkpoint` and Go's `vkey` lines, Ed25519 only. Parsing is strict: every line that is accepted
is the only way to write what it says, so that no byte of a file can change unnoticed. Signatures by keys that we were
not asked about (witnesses) are carried and ignored. No IO here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.merkle import HASH_BYTES

ORIGIN_PREFIX = "fedpriv.ledger/"
MAXIMUM_NOTE_BYTES = 1 << 16
MAXIMUM_SIGNATURES = 64

_ED25519 = b"\x01"
_SECRET_PREFIX = "PRIVATE+KEY+"  # noqa: S105  # the format's marker, not a secret
_KEY_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


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

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256 over name, newline, algorithm and key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.public)}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A named Ed25519 private key, 32 bytes; never prints."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def to_text(self) -> str:
        """Return the private key in the text form of Go's note tools; whoever holds it can sign."""
        return f"{_SECRET_PREFIX}{self.name}+{self.verifier.key_id.hex()}+{_base64(_ED25519 + self.seed)}"


def origin_of(worker: WorkerName) -> str:
    """Return the origin line, and key name, of a worker's ledger."""
    return f"{ORIGIN_PREFIX}{worker}"


def parse_verifier_key(text: str) -> VerifierKey:
    """Return the key of a `vkey` line; raise `UsageError` if it is not exactly one."""
    name, _, key = _named_key(text, "verifier key")
    verifier = VerifierKey(name, key)
    if str(verifier) != text:
        raise UsageError(f"the verifier key of {name!r} does not match its key id; copy the whole line from the owner")
    return verifier


def parse_signing_key(text: str) -> SigningKey:
    """Return the key that `SigningKey.to_text` wrote; raise `UsageError`, quoting nothing, if it is not one."""
    if not text.startswith(_SECRET_PREFIX):
        raise UsageError("a signing key begins with PRIVATE+KEY+")
    name, _, seed = _named_key(text.removeprefix(_SECRET_PREFIX), "signing key")
    signer = SigningKey(name, seed)
    if signer.to_text() != text:
        raise UsageError(f"the signing key of {name!r} does not match its key id")
    return signer


def sign_note(text: str, key: SigningKey) -> bytes:
    """Return `text`, which ends with a newline, as a note signed by `key` (C2SP signed-note)."""
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    return f"{text}\n— {key.name} {_base64(key.verifier.key_id + signature)}\n".encode()


def open_note(note: bytes, key: VerifierKey) -> str:
    """Return the text of `note`; raise `VerificationFailed` unless `key` signed exactly it."""
    text, signatures = _split_note(note)
    valid = False
    for number, line in enumerate(signatures, 1):
        name, signature = _signature(line, number)
        if name == key.name and signature[:4] == key.key_id:
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(signature[4:], text.encode())
            except InvalidSignature as error:
                raise VerificationFailed(f"the signature of {key.name!r} in line {number} does not verify") from error
            valid = True
    if not valid:
        raise VerificationFailed(f"no signature is by the key {key.name}+{key.key_id.hex()}")
    return text


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the signed checkpoint, as served and as stored."""
    return sign_note(f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n", key)


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
    root_bytes = _unbase64(root)
    if root_bytes is None or len(root_bytes) != HASH_BYTES:
        raise VerificationFailed("line 3: the root is not 32 bytes in base64")
    return Checkpoint(origin, int(size), root_bytes)


def _named_key(text: str, what: str) -> tuple[str, str, bytes]:
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    key = _unbase64(encoded)
    if not _KEY_NAME.fullmatch(name) or key is None or len(key) != 33 or key[:1] != _ED25519:
        raise UsageError(f"this is no Ed25519 {what}: expected name+8 hex digits+base64, as in the ledger's vkey file")
    return name, key_id, key[1:]


def _split_note(note: bytes) -> tuple[str, list[str]]:
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
    return text + "\n", lines


def _signature(line: str, number: int) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signature = _unbase64(encoded)
    if dash != "—" or not _KEY_NAME.fullmatch(name) or signature is None or len(signature) < 5:
        raise VerificationFailed(f"signature line {number} is malformed")
    return name, signature


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes | None:
    """Return what `text` encodes, or None: also when its unused bits are set, which would be a second spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None
