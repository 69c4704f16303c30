"""An authority that issues certificates: a federation's own, kept in a folder, or one that dies with the process.

It issues and it signs revocation lists; what was issued and who is revoked, the register beside it keeps
(`storage.register`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedpriv.errors import CredentialsError
from fedpriv.ids import Role, checked_name
from fedpriv.transport import credentials as c
from fedpriv.transport.revocation import signed_list

_CLOCK_SKEW = timedelta(minutes=5)
_LOCAL_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that vouches for others, and its key."""

    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str = "fedpriv-ca", *, days: int = 3650, now: float | None = None) -> Authority:
        """Return a new authority that is valid for `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, checked_name("authority", name))])
        builder = _builder(subject, subject, key.public_key(), days=days, now=now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, folder: str | Path) -> Authority:
        """Return the authority in `folder`: ca.pem and ca-key.pem."""
        certificates = c.read_certificates(Path(folder) / "ca.pem")
        key = c.read_key(Path(folder) / "ca-key.pem")
        if certificates[0].public_key() != key.public_key():
            raise CredentialsError(f"ca.pem and ca-key.pem in {folder} do not belong together; use the original pair")
        return cls(certificates[0], key)

    def save(self, folder: str | Path) -> None:
        """Write ca.pem and ca-key.pem (mode 0600) into `folder`; whoever reads the key can be anyone."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        c.write_private(folder / "ca-key.pem", c.private_pem(self.key))
        (folder / "ca.pem").write_bytes(c.certificates_pem((self.certificate,)))

    def issue(
        self,
        name: str,
        role: Role,
        *,
        hosts: Sequence[str] = _LOCAL_HOSTS,
        days: int = 365,
        now: float | None = None,
    ) -> c.Credentials:
        """Return credentials for `name` in `role`, reachable as `hosts` (names or IP addresses), with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(key.public_key(), name, role, hosts=hosts, days=days, now=now)
        return c.Credentials((certificate,), key, (self.certificate,), c.peer_of(certificate))

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        role: Role,
        *,
        hosts: Sequence[str] = _LOCAL_HOSTS,
        days: int = 365,
        now: float | None = None,
    ) -> x509.Certificate:
        """Return a certificate for whoever holds the private half of `key`."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, checked_name(role.value, name))])
        names: list[x509.GeneralName] = [
            x509.DNSName(name),
            x509.UniformResourceIdentifier(c.ROLE_PREFIX + role.value),
            *(_host(host) for host in hosts if host != name),
        ]
        builder = _builder(subject, self.certificate.subject, key, days=days, now=now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        both = x509.ExtendedKeyUsage((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))
        builder = builder.add_extension(both, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, serials: Mapping[int, float], number: int, *, now: float) -> bytes:
        """Return revocation list `number` in PEM: every serial number, and Unix seconds from which it holds."""
        builder = signed_list(self.certificate.subject, self.key, serials, number, now=now)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the certificate, by which others pin it."""
        return self.certificate.fingerprint(hashes.SHA256())


@cache
def process_authority() -> Authority:
    """Return the authority of this process; its key is never written."""
    return Authority.create("fedpriv-process")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int, now: float | None
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _CLOCK_SKEW)
        .not_valid_after(start + timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
