"""Credentials load only when they can be used, and say what is wrong otherwise."""

from __future__ import annotations

import base64
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from ends import authority, coordinator, worker

from fedpriv.errors import CredentialsError, HandshakeFailed, UsageError
from fedpriv.transport.authority import Authority, process_authority
from fedpriv.transport.credentials import Credentials, identify
from fedpriv.transport.revocation import read_revoked
from fedpriv.wire.messages import Role

LATER = time.time() + 400 * 86_400
EARLIER = time.time() - 400 * 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    worker().save(tmp_path)
    return tmp_path


def test_what_is_saved_loads_again(folder: Path) -> None:
    loaded = Credentials.load(folder, name="st-elsewhere", role=Role.WORKER)
    assert loaded.peer == worker().peer
    assert loaded.chain == worker().chain


def test_the_private_key_is_for_its_owners_eyes_only(folder: Path) -> None:
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    with pytest.raises(CredentialsError, match="exists already"):
        worker().save(folder)


def test_secrets_do_not_print() -> None:
    for secret in (worker(), authority()):
        assert "PRIVATE" not in repr(secret)
        assert "key" not in repr(secret)


@pytest.mark.parametrize("name", ["ca.pem", "certificate.pem", "key.pem"])
def test_a_missing_or_empty_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("nothing")
    with pytest.raises(CredentialsError, match=name):
        Credentials.load(folder)
    (folder / name).unlink()
    with pytest.raises(CredentialsError, match=rf"{name} does not exist"):
        Credentials.load(folder)
    (folder / name).mkdir()
    with pytest.raises(CredentialsError, match="cannot be read"):
        Credentials.load(folder)


def test_a_certificate_or_list_of_an_impossible_version_is_one_that_cannot_be_read(folder: Path) -> None:
    impossible = worker().chain_der[0].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x52", 1)
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(impossible) + b"-----END CERTIFICATE-----\n"
    (folder / "certificate.pem").write_bytes(pem)
    with pytest.raises(CredentialsError, match="holds no PEM certificate"):
        Credentials.load(folder)
    der = x509.load_pem_x509_crl(authority().revoke({}, 1, now=time.time())).public_bytes(serialization.Encoding.DER)
    at = der.index(b"\x02\x01\x01")  # version 2, as 1
    crl = base64.encodebytes(der[:at] + b"\x02\x01\x45" + der[at + 3 :])
    with pytest.raises(CredentialsError, match="no revocation list"):
        read_revoked(b"-----BEGIN X509 CRL-----\n" + crl + b"-----END X509 CRL-----\n", (), where="it")


def test_expiry_is_said_with_its_time(folder: Path) -> None:
    with pytest.raises(CredentialsError, match=r"expired at \d{4}-\d\d-\d\d"):
        Credentials.load(folder, now=LATER)
    with pytest.raises(CredentialsError, match=r"not valid before \d{4}-\d\d-\d\d"):
        Credentials.load(folder, now=EARLIER)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    (folder / "key.pem").write_bytes(coordinator().key_pem)
    with pytest.raises(CredentialsError, match="does not belong"):
        Credentials.load(folder)


def test_a_key_that_tls_cannot_use_is_refused(folder: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(CredentialsError, match="P-256"):
        Credentials.load(folder)


def test_another_name_or_role_than_expected_is_said(folder: Path) -> None:
    with pytest.raises(CredentialsError, match="'mercy' was expected"):
        Credentials.load(folder, name="mercy")
    with pytest.raises(CredentialsError, match="a coordinator was expected"):
        Credentials.load(folder, role=Role.COORDINATOR)


def test_a_certificate_of_another_authority_is_refused(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(Authority.create().issue("x", Role.WORKER).authorities_pem)
    with pytest.raises(CredentialsError, match="not issued by an authority that we trust"):
        Credentials.load(folder)


def test_an_expired_authority_vouches_for_nobody() -> None:
    old = Authority.create(days=1, now=EARLIER)
    with pytest.raises(HandshakeFailed, match="'fedpriv-ca' expired"):
        identify(old.issue("a", Role.WORKER).chain, (old.certificate,))


def test_an_authority_survives_its_folder(tmp_path: Path) -> None:
    authority().save(tmp_path)
    assert stat.S_IMODE((tmp_path / "ca-key.pem").stat().st_mode) == 0o600
    again = Authority.load(tmp_path).issue("late", Role.RESEARCHER)
    assert identify(again.chain, (authority().certificate,)).name == "late"
    (tmp_path / "ca.pem").write_bytes(Authority.create().issue("x", Role.WORKER).authorities_pem)
    with pytest.raises(CredentialsError, match="do not belong together"):
        Authority.load(tmp_path)


def test_a_leaf_cannot_vouch_for_another_leaf() -> None:
    """A holder of an ordinary certificate must not become an authority."""
    mallory = authority().issue("mallory", Role.WORKER)
    forged = Authority(mallory.chain[0], mallory.key).issue("coordinator-1", Role.COORDINATOR)
    with pytest.raises(HandshakeFailed):
        identify((forged.chain[0], mallory.chain[0]), (authority().certificate,))


def self_made(*extensions: x509.ExtensionType) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")])
    template = worker().chain[0]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(template.not_valid_before_utc)
    builder = builder.not_valid_after(template.not_valid_after_utc)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("ann")],
        [x509.DNSName("bob"), x509.UniformResourceIdentifier("urn:fedpriv:role:worker")],
        [x509.DNSName("ann"), x509.UniformResourceIdentifier("urn:fedpriv:role:root")],
        [x509.DNSName("ann")] + [x509.UniformResourceIdentifier(f"urn:fedpriv:role:{r.value}") for r in Role],
    ],
    ids=["no names", "no role", "another name", "unknown role", "all roles"],
)
def test_a_certificate_names_itself_and_one_role(names: list[x509.GeneralName]) -> None:
    certificate = self_made(x509.SubjectAlternativeName(names)) if names else self_made()
    with pytest.raises(HandshakeFailed, match="one role"):
        identify((certificate,), (certificate,))


def test_a_name_that_cannot_travel_is_not_issued() -> None:
    with pytest.raises(UsageError, match="not usable"):
        authority().issue("Not A Name", Role.WORKER)


def test_throwaway_credentials_of_one_process_trust_each_other() -> None:
    one, other = Credentials.throwaway("a", Role.WORKER), Credentials.throwaway("b", Role.COORDINATOR)
    assert identify(one.chain, other.authorities) == one.peer
    assert process_authority() is process_authority()
