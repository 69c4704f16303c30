"""Rosters and identities as files: `roster.toml`, which people read and an administrator signs, and raw 32-byte keys.

A file is read strictly, and what is read is signed or not: whose signature counts is for whoever pinned a key.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedpriv import settings
from fedpriv.entropy import Entropy
from fedpriv.errors import ConfigError, StorageFailed, UsageError
from fedpriv.ids import WorkerName, checked_name
from fedpriv.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, Identity, key_text
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.files import read_bounded, write_atomically

ROSTER = "roster.toml"
IDENTITY_KEY = "identity-key"


@dataclass(frozen=True, slots=True)
class SignedRoster:
    """A roster with its administrator's signature, which is not checked here.

    `administrator` is the key that says to have signed, for people to compare: what counts is the one that was pinned.
    """

    roster: Roster
    signature: bytes = field(repr=False)
    administrator: bytes | None = field(default=None, compare=False)

    @classmethod
    def sign(cls, roster: Roster, administrator: Identity) -> SignedRoster:
        """Return `roster` with a signature of `administrator`."""
        return cls(roster, roster.signed(administrator), administrator.public)

    def save(self, path: Path) -> None:
        """Write the roster to `path`, whole or not at all."""
        write_atomically(path, to_text(self).encode())


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    key: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class _File:
    federation: str
    version: int
    signature: str
    workers: tuple[_Member, ...] = field(metadata=settings.key("worker"))
    administrator: str | None = None


def to_text(signed: SignedRoster) -> str:
    """Return the roster as the TOML text that `load_roster` reads."""
    roster = signed.roster
    lines = ["# Who may take part in secure aggregation."]
    if signed.administrator is not None:
        lines += [
            "# Who says to have signed it. What counts is the administrator that an owner pinned in worker.toml.",
            f'administrator = "{key_text(signed.administrator)}"',
        ]
    lines += [
        "# The signature covers every line below but comments.",
        f'federation = "{roster.federation}"',
        f"version = {roster.version}",
        f'signature = "{key_text(signed.signature)}"',
    ]
    for member in roster.members:
        lines += ["", "[[worker]]", f'name = "{member.name}"', f'key = "{key_text(member.key)}"']
        lines += [f"version = {member.version}"] if member.version != 1 else []
    return "\n".join(lines) + "\n"


def load_roster(path: Path) -> SignedRoster:
    """Return the roster in the file at `path`; raise `ConfigError` with the place and the remedy."""
    file = settings.load(path, _File)
    members = tuple(
        Member(WorkerName(each.name), key_of(each.key, f"{path.name} key of {each.name!r}"), each.version)
        for each in file.workers
    )
    try:
        roster = Roster(checked_name("federation", file.federation), file.version, members)
    except UsageError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    named = None if file.administrator is None else key_of(file.administrator, f"{path.name} administrator")
    return SignedRoster(roster, key_of(file.signature, f"{path.name} signature", SIGNATURE_BYTES), named)


def key_of(text: str, where: str, length: int = KEY_BYTES) -> bytes:
    """Return what `key_text` wrote, `length` bytes; raise `ConfigError` for any other text."""
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != length or key_text(key) != text:
        raise ConfigError(f"{where} is not {length} bytes in base64; copy it whole, as it was printed")
    return key


def load_identity(path: Path) -> Identity | None:
    """Return the private key in the file at `path`, None where there is none; raise `StorageFailed` for another."""
    content = read_bounded(path, KEY_BYTES)
    if content is None:
        return None
    if len(content) != KEY_BYTES:
        raise StorageFailed(
            f"{path} holds no key of {KEY_BYTES} bytes; restore it, or have a new one put on the roster"
        )
    return Identity(Ed25519PrivateKey.from_private_bytes(content))


def made_identity(path: Path, entropy: Entropy) -> Identity:
    """Return the private key in the file at `path`, made now (mode 0600) if there is none."""
    found = load_identity(path)
    if found is None:
        found = new_identity(entropy)
        write_atomically(path, found.private.private_bytes_raw(), mode=0o600)
    return found


def new_identity(entropy: Entropy) -> Identity:
    """Return an identity from 32 fresh bytes."""
    return Identity(Ed25519PrivateKey.from_private_bytes(entropy.random_bytes(KEY_BYTES)))
