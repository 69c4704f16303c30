"""Whom an authority takes back: an X.509 revocation list (RFC 5280, section 5) that it signed, as a file beside ca.pem.

Both sides of a handshake look at the list that they have. A list that nobody we trust signed is refused, never ignored,
and so is an older one than the list that it would replace. One that is due to be renewed still says what it says: whom
it names stays out. It holds serial numbers and dates, and nothing private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fedpriv.errors import CredentialsError
from fedpriv.storage.files import read_bounded, write_atomically

REVOKED = "revoked.pem"
MAXIMUM_LIST_BYTES = 1 << 20
_DUE = timedelta(days=30)


@dataclass(frozen=True, slots=True, eq=False)
class Revoked:
    """Serial numbers of one authority's certificates, each with the moment from which it holds; lists count up."""

    serials: Mapping[int, datetime] = field(default_factory=dict, repr=False)
    number: int = 0
    pem: bytes = field(default=b"", repr=False)

    def since(self, chain: Sequence[x509.Certificate]) -> datetime | None:
        """Return when the first revoked certificate of `chain` was revoked, None if none was."""
        return next((self.serials[each.serial_number] for each in chain if each.serial_number in self.serials), None)


NOBODY = Revoked()
"""What holds where there is no list."""


def read_revoked(pem: bytes, authorities: Sequence[x509.Certificate], *, where: str) -> Revoked:
    """Return what a list in PEM says; raise `CredentialsError` unless one of `authorities` signed it."""
    try:
        found = x509.load_pem_x509_crl(pem if len(pem) <= MAXIMUM_LIST_BYTES else b"")
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        signed = any(_signed(found, authority) for authority in authorities)
        serials = {each.serial_number: each.revocation_date_utc for each in found}
    except (ValueError, TypeError, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise CredentialsError(
            f"{where} is no revocation list of at most {MAXIMUM_LIST_BYTES} bytes; copy it whole from the authority's "
            "folder"
        ) from None
    if not signed:
        raise CredentialsError(
            f"{where} was not signed by an authority that we trust; copy it from the folder of the authority in ca.pem"
        )
    return Revoked(serials, number, found.public_bytes(Encoding.PEM))


def load_revoked(path: Path, authorities: Sequence[x509.Certificate]) -> Revoked:
    """Return what the file at `path` says, nobody where there is none; raise `CredentialsError` for another file."""
    content = read_bounded(path, MAXIMUM_LIST_BYTES)
    return NOBODY if content is None else read_revoked(content, authorities, where=str(path))


def keep_revoked(path: Path, pem: bytes, authorities: Sequence[x509.Certificate]) -> bool:
    """Put a newer list at `path` and return True; return False for the one that is there.

    Raise `CredentialsError` for one that is older, or not signed: who withholds a list must not be able to undo one.
    """
    offered, kept = read_revoked(pem, authorities, where="the list that was offered"), load_revoked(path, authorities)
    if offered.number < kept.number:
        raise CredentialsError(
            f"the list that was offered is number {offered.number}, and {path} is number {kept.number} already; "
            "ask whoever runs the authority whether it was restored from an old copy"
        )
    if offered.number == kept.number:
        return False
    write_atomically(path, offered.pem)
    return True


def signed_list(
    issuer: x509.Name, key: ec.EllipticCurvePrivateKey, serials: Mapping[int, float], number: int, *, now: float
) -> x509.CertificateRevocationListBuilder:
    """Return the unsigned list number `number` of an authority: serial numbers, and Unix seconds from which each is."""
    start = datetime.fromtimestamp(now, UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    builder = builder.last_update(start).next_update(start + _DUE)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    for serial, since in sorted(serials.items()):
        revoked = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(revoked.revocation_date(datetime.fromtimestamp(since, UTC)).build())
    return builder


def _signed(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return (
        found.issuer == authority.subject
        and isinstance(key, ec.EllipticCurvePublicKey)
        and found.is_signature_valid(key)
    )
