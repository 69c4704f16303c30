"""A join token: the line that whoever runs an authority gives to a new peer, by telephone, letter or chat.

It carries what the peer needs to know whom it deals with, the SHA-256 of the authority's certificate; what proves that
it was invited, a secret that is good once; and, where they are known, the registrar's address and the public key of
the administrator who signs rosters. Whoever reads a token before it is used can join in its holder's name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Self

from fedpriv.entropy import Entropy
from fedpriv.errors import ConfigError, UsageError
from fedpriv.settings import address

PREFIX = "fedpriv-join-1."
ID_BYTES, SECRET_BYTES, FINGERPRINT_BYTES, KEY_BYTES, _CHECK_BYTES = 8, 16, 32, 32, 4
_MAXIMUM_TEXT = 1024
_DAMAGED = "this is no whole join token; copy it again, all of it, from where fedpriv certs join-token printed it"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What one token carries."""

    id: bytes
    secret: bytes = field(repr=False)
    authority: bytes
    registrar: str = ""
    administrator: bytes = b""

    @classmethod
    def fresh(cls, entropy: Entropy, authority: bytes, *, registrar: str = "", administrator: bytes = b"") -> Self:
        """Return a token with a new id and secret."""
        return cls(
            entropy.random_bytes(ID_BYTES), entropy.random_bytes(SECRET_BYTES), authority, registrar, administrator
        )

    @property
    def text(self) -> str:
        """The token as one word, with a check that a missing letter does not pass."""
        fixed = self.id + self.secret + self.authority
        rest = json.dumps({"at": self.registrar, "administrator": self.administrator.hex()}, separators=(",", ":"))
        content = fixed + rest.encode()
        return PREFIX + base64.urlsafe_b64encode(content + _check(content)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token in `text`; raise `UsageError` for what is none, which says nothing of what it was."""
        text = text.strip()
        if not text.startswith(PREFIX) or len(text) > _MAXIMUM_TEXT:
            raise UsageError(_DAMAGED)
        body = text.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            content, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
            ends = ID_BYTES, ID_BYTES + SECRET_BYTES, ID_BYTES + SECRET_BYTES + FINGERPRINT_BYTES
            rest = json.loads(content[ends[2] :] if check == _check(content) else b"")
            found = cls(
                content[: ends[0]], content[ends[0] : ends[1]], content[ends[1] : ends[2]],
                rest["at"] and address(rest["at"], "the registrar"), bytes.fromhex(rest["administrator"]),
            )  # fmt: skip  # one part after the other
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError, binascii.Error, RecursionError):
            raise UsageError(_DAMAGED) from None
        if len(found.administrator) not in {0, KEY_BYTES}:
            raise UsageError(_DAMAGED)
        return found


def fingerprint_text(fingerprint: bytes) -> str:
    """Return a fingerprint as people compare it: hexadecimal, in groups of four."""
    digits = fingerprint.hex()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECK_BYTES]
