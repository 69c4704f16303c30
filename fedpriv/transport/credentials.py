"""Who a process is: a certificate chain, its key, and the authorities that it trusts.

Keys are ECDSA P-256, because grpcio refuses Ed25519 certificates. A certificate's common name and DNS name are the
peer's name, its role stands in the URI `urn:fedpriv:role:<role>`. Every error says which file or field is wrong and
what to do about it. Private keys never print, and are written for their owner's eyes only. Whom the authority revoked,
the file revoked.pem beside ca.pem says, if there is one (`revocation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedpriv.clock import in_words
from fedpriv.errors import CredentialsError, HandshakeFailed, UsageError
from fedpriv.ids import PeerName, Role, checked_name
from fedpriv.transport.link import Peer
from fedpriv.transport.revocation import NOBODY, REVOKED, Revoked, load_revoked

ROLE_PREFIX = "urn:fedpriv:role:"
MAXIMUM_DEPTH = 2
SIGNATURE = ec.ECDSA(hashes.SHA256())


class CredentialsSource(Protocol):
    """What a process proves itself with at each moment; asked anew for each connection, from any thread."""

    def current(self) -> Credentials:
        """Return the credentials to use now."""
        ...


@dataclass(frozen=True)
class Credentials:
    """A valid chain (leaf first), the key of its leaf, and the authorities to check others against.

    `revoked` is whom those authorities take back; as a `CredentialsSource` it stays what it is.
    """

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    peer: Peer
    """Who these credentials prove their holder to be."""
    revoked: Revoked = NOBODY

    def current(self) -> Credentials:
        """Return these."""
        return self

    @classmethod
    def load(
        cls, folder: str | Path, *, name: str | None = None, role: Role | None = None, now: float | None = None
    ) -> Credentials:
        """Return the credentials in `folder`: ca.pem, certificate.pem and key.pem."""
        folder = Path(folder)
        return cls.from_files(
            ca=folder / "ca.pem",
            certificate=folder / "certificate.pem",
            key=folder / "key.pem",
            name=name,
            role=role,
            now=now,
        )

    @classmethod
    def from_files(
        cls,
        *,
        ca: str | Path,
        certificate: str | Path,
        key: str | Path,
        name: str | None = None,
        role: Role | None = None,
        now: float | None = None,
    ) -> Credentials:
        """Return the credentials in three PEM files; raise `CredentialsError` unless usable, as `name` in `role`."""
        chain, authorities = read_certificates(Path(certificate)), read_certificates(Path(ca))
        revoked = load_revoked(Path(ca).with_name(REVOKED), authorities)
        credentials = cls.of(chain, read_key(Path(key)), authorities, revoked=revoked, now=now)
        peer = credentials.peer
        if name is not None and peer.name != name:
            raise CredentialsError(
                f"{certificate} is for {peer.name!r}, but {name!r} was expected; "
                f"use that name, or issue a certificate for {name!r} (fedpriv certs issue)"
            )
        if role is not None and peer.role is not role:
            raise CredentialsError(
                f"{certificate} is for a {peer.role.value}, but a {role.value} was expected; "
                f"issue one with that role (fedpriv certs issue)"
            )
        return credentials

    @classmethod
    def of(
        cls,
        chain: Sequence[x509.Certificate],
        key: ec.EllipticCurvePrivateKey,
        authorities: Sequence[x509.Certificate],
        *,
        revoked: Revoked = NOBODY,
        now: float | None = None,
    ) -> Credentials:
        """Return credentials of parts in memory; raise `CredentialsError` if they do not belong together or expired."""
        if chain[0].public_key() != key.public_key():
            raise CredentialsError("the key does not belong to the certificate; use the two that were issued together")
        try:
            peer = identify(chain, authorities, revoked=revoked, now=now)
        except HandshakeFailed as error:
            raise CredentialsError(f"our own certificate cannot be used: {error}") from None
        return cls(tuple(chain), key, tuple(authorities), peer, revoked)

    @classmethod
    def throwaway(cls, name: str, role: Role) -> Credentials:
        """Return credentials from an authority that lives and dies with this process, for peers inside it."""
        from fedpriv.transport.authority import process_authority  # noqa: PLC0415 - authority builds on this module

        return process_authority().issue(name, role)

    def save(self, folder: str | Path) -> None:
        """Write ca.pem, certificate.pem and key.pem (mode 0600) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "key.pem", self.key_pem)
        (folder / "certificate.pem").write_bytes(self.chain_pem)
        (folder / "ca.pem").write_bytes(self.authorities_pem)

    def sign(self, content: bytes) -> bytes:
        """Return the ECDSA P-256 signature over `content`."""
        return self.key.sign(content, SIGNATURE)

    @cached_property
    def chain_der(self) -> tuple[bytes, ...]:
        """The chain as it stands in a hello."""
        return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in self.chain)

    @property
    def chain_pem(self) -> bytes:
        """The chain as TLS wants it."""
        return certificates_pem(self.chain)

    @property
    def authorities_pem(self) -> bytes:
        """The trusted authorities as TLS wants them."""
        return certificates_pem(self.authorities)

    @property
    def key_pem(self) -> bytes:
        """The private key as TLS wants it; never log it."""
        return private_pem(self.key)


def identify(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    *,
    revoked: Revoked = NOBODY,
    now: float | None = None,
) -> Peer:
    """Return whom `chain` (leaf first) names; raise `HandshakeFailed` unless `authorities` vouch for it now."""
    moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    peer = peer_of(chain[0])
    for certificate in chain:
        _check_dates(certificate, moment)
    policy = PolicyBuilder().store(Store(list(authorities))).time(moment).max_chain_depth(MAXIMUM_DEPTH)
    try:
        policy.build_client_verifier().verify(chain[0], list(chain[1:]))
    except VerificationError:
        for authority in authorities:
            if authority.subject == chain[-1].issuer:
                _check_dates(authority, moment)
        raise HandshakeFailed(
            f"the certificate of {peer.name!r} was not issued by an authority that we trust; "
            "both sides need the same ca.pem"
        ) from None
    if (since := revoked.since(chain)) is not None:
        raise HandshakeFailed(
            f"the certificate of {peer.name!r} was revoked at {since:%Y-%m-%d %H:%M} UTC; if that was a mistake, ask "
            "whoever runs the authority for another one (fedpriv certs join-token)"
        )
    return peer


def peer_of(leaf: x509.Certificate) -> Peer:
    """Return whom `leaf` names, whoever issued it; raise `HandshakeFailed` if it is not one of ours."""
    name = _common_name(leaf)
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise HandshakeFailed(f"the certificate of {name!r} has a key that is not ECDSA P-256; issue a new one")
    return Peer(PeerName(name), _role(leaf, name), leaf.fingerprint(hashes.SHA256()))


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS 8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to a new `path` that only its owner can read; raise `CredentialsError` rather than overwrite."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise CredentialsError(f"{path} exists already; move it away first, a lost key cannot be made again") from None
    path.write_bytes(content)


def _check_dates(certificate: x509.Certificate, moment: datetime) -> None:
    name = _common_name(certificate)
    if moment > certificate.not_valid_after_utc:
        raise HandshakeFailed(
            f"the certificate of {name!r} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, "
            f"{in_words((moment - certificate.not_valid_after_utc).total_seconds())} ago by this machine's clock; "
            "issue a new one (fedpriv certs issue or join-token)"
        )
    if moment < certificate.not_valid_before_utc:
        raise HandshakeFailed(
            f"the certificate of {name!r} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
            f"and it is {moment:%Y-%m-%d %H:%M} here, "
            f"{in_words((certificate.not_valid_before_utc - moment).total_seconds())} too early; "
            "set the clock of whichever machine is wrong (timedatectl set-ntp true)"
        )


def _common_name(certificate: x509.Certificate) -> str:
    try:
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        return checked_name("peer", names[0] if len(names) == 1 else "")
    except (ValueError, UsageError):
        raise HandshakeFailed(
            "a certificate without one usable common name; issue one with fedpriv certs issue"
        ) from None


def _role(leaf: x509.Certificate, name: str) -> Role:
    """Return the only role that `leaf` names; a certificate for another name has none."""
    roles: list[Role] = []
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if name in names.get_values_for_type(x509.DNSName):
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            roles = [Role(uri.removeprefix(ROLE_PREFIX)) for uri in uris if uri.startswith(ROLE_PREFIX)]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        roles = []
    if len(roles) != 1:
        raise HandshakeFailed(
            f"the certificate of {name!r} does not name itself and one role of "
            f"{', '.join(role.value for role in Role)}; issue one with fedpriv certs issue"
        )
    return roles[0]


def certificates_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return `certificates` one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Return the certificates in a PEM file, at least one."""
    try:
        return tuple(x509.load_pem_x509_certificates(_content(path)))
    except (ValueError, x509.InvalidVersion):
        raise CredentialsError(f"{path} holds no PEM certificate; write one with fedpriv certs issue") from None


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the ECDSA P-256 key in a PEM file."""
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialsError(f"{path} holds no unencrypted PEM private key; use the one issued with it") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CredentialsError(f"the key in {path} is not ECDSA P-256, which TLS here needs; issue a new pair")
    return key


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CredentialsError(
            f"{path} does not exist; write it with fedpriv certs issue, or correct the path"
        ) from None
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
