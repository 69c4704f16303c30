"""Keys of one round: X25519 agreements, what HKDF makes of them, sealing of shares, and signatures of identities.

Every key is derived under the session's id as salt and a tag of its own (A.3), so that none fits another session,
direction or purpose. Points that X25519 maps to zero and keys in a second spelling are refused. Nothing is generated
here: randomness is a parameter.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedpriv import canonical
from fedpriv.entropy import Entropy
from fedpriv.ids import WorkerName
from fedpriv.secagg.reasons import Reason, Refused

KEY_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16  # of ChaCha20-Poly1305
PREFIX = "fedpriv/secagg/v1/"

_PRIME = (1 << 255) - 19
_NONCE = bytes(12)  # sound only because every key seals one message

# The u of every point of order 1, 2, 4 and 8 on the curve and its twist; X25519 maps all of them to zero.
_LOW_ORDER = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
# The y of every Ed25519 point of those orders; under such a key anybody's signature verifies.
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    )
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A worker's own Ed25519 key, the one of its roster entry; the private half never prints."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        """The 32 bytes that stand in the roster."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """Return the 64-byte signature of canonical bytes."""
        return self.private.sign(statement)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An X25519 key of one round; the private half never prints."""

    private: X25519PrivateKey = field(repr=False)
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """Return the pair of a 32-byte private key."""
        key = X25519PrivateKey.from_private_bytes(private)
        return cls(key, key.public_key().public_bytes_raw())

    @property
    def private_bytes(self) -> bytes:
        """The 32 bytes that are shared out."""
        return self.private.private_bytes_raw()

    def agree(self, peer: WorkerName, public: bytes | X25519PublicKey) -> bytes:
        """Return the 32-byte X25519 output with `peer`; raise `Refused` for a key of low order (RFC 7748, 6.1).

        A key that meets many others is parsed once, by `parsed`.
        """
        try:
            return self.private.exchange(parsed(public) if isinstance(public, bytes) else public)
        except ValueError:
            message = (
                f"the key of worker {peer!r} has low order, so anyone would know what is agreed with it; leave it out"
            )
            raise Refused(Reason.UNUSABLE_KEY, message, subject=peer) from None


def key_text(key: bytes) -> str:
    """Return a public key or a signature as files and people write it: base64."""
    return base64.b64encode(key).decode()


def parsed(public: bytes) -> X25519PublicKey:
    """Return the key of 32 bytes as the library holds it; raise `ValueError` for another length."""
    return X25519PublicKey.from_public_bytes(public)


def fresh_pair(entropy: Entropy) -> KeyPair:
    """Return a pair from 32 fresh bytes."""
    return KeyPair.of(entropy.random_bytes(KEY_BYTES))


def check_agreement_key(peer: WorkerName, public: bytes) -> None:
    """Raise `Refused` unless `public` is 32 bytes, the one spelling of its u-coordinate, and not of low order."""
    coordinate = int.from_bytes(public, "little")
    if len(public) != KEY_BYTES or coordinate >= _PRIME or coordinate in _LOW_ORDER:
        message = f"a key of worker {peer!r} is not 32 reduced bytes, or of low order; leave the worker out"
        raise Refused(Reason.UNUSABLE_KEY, message, subject=peer)


def is_identity_key(public: bytes) -> bool:
    """Return whether `public` can be an identity: 32 bytes, reduced, not of small order."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    return len(public) == KEY_BYTES and y < _PRIME and y not in _SMALL_ORDER


def check_signature(signer: str, public: bytes, signature: bytes, statement: bytes) -> None:
    """Raise `Refused` unless `signature` is that of the key `public` over `statement` (RFC 8032, S below the order)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except (InvalidSignature, ValueError):
        message = f"a signature of {signer!r} does not verify; someone altered the message or uses another key"
        raise Refused(Reason.BAD_SIGNATURE, message, subject=signer) from None


def derive(material: bytes, sid: bytes, info: bytes) -> bytes:
    """Return HKDF-SHA256 (RFC 5869) of `material` with salt `sid`, 32 bytes."""
    return HKDF(SHA256(), KEY_BYTES, sid, info).derive(material)


def share_key(agreed: bytes, sid: bytes, route: tuple[WorkerName, WorkerName], publics: tuple[bytes, bytes]) -> bytes:
    """Return the key of the one message of shares from `route[0]` to `route[1]`; `publics` are their C, in order."""
    return derive(agreed, sid, canonical.encode(f"{PREFIX}share", *route, *publics))


def pairwise_key(agreed: bytes, sid: bytes, one: tuple[WorkerName, bytes], other: tuple[WorkerName, bytes]) -> bytes:
    """Return the key of the mask between two workers, given as (name, S); the same whichever comes first."""
    (first, first_key), (second, second_key) = sorted((one, other))
    return derive(agreed, sid, canonical.encode(f"{PREFIX}pairwise", first, second, first_key, second_key))


def self_key(seed: bytes, sid: bytes, worker: WorkerName) -> bytes:
    """Return the key of the mask of `worker` alone."""
    return derive(seed, sid, canonical.encode(f"{PREFIX}self", worker))


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return ChaCha20-Poly1305 of `plaintext`, its tag at the end; `key` must seal nothing else, ever."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, associated)


def unseal(key: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Return the plaintext, or None where the tag, the key or the associated data is another."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, associated)
    except InvalidTag:
        return None
