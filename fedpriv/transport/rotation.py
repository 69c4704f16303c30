"""Credentials as files that may be replaced while a process runs: renewed certificates, new revocation lists.

Each new connection uses what the files say at that moment; connections that are open go on. Files that cannot be used
change nothing but the log: what was loaded last stays in use. A certificate and its new key are two files, so a renewal
writes the key first, beside the old one (`replace_pair`), and whoever reads takes the key that fits the certificate: a
crash between the two loses neither. It asks nobody for a renewal; `renewal` does.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv.errors import CredentialsError, FedprivError
from fedpriv.ids import Role
from fedpriv.storage.files import sync_folders, write_atomically
from fedpriv.transport.credentials import Credentials, certificates_pem, private_pem, read_certificates, read_key
from fedpriv.transport.revocation import REVOKED

log = logging.getLogger("fedpriv.transport")


@dataclass(frozen=True, slots=True)
class CredentialPaths:
    """Where a process keeps ca.pem, its certificate and its key."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def revoked(self) -> Path:
        """The revocation list, beside ca.pem."""
        return self.ca.with_name(REVOKED)

    @property
    def next_key(self) -> Path:
        """The key of a certificate that is being renewed, or was renewed when the process was killed."""
        return self.key.with_name(f"{self.key.name}.next")


class CredentialFiles:
    """The credentials that the files hold now; a `CredentialsSource` that may be asked from any thread."""

    def __init__(self, paths: CredentialPaths, *, name: str | None = None, role: Role | None = None) -> None:
        """Load them; raise `CredentialsError` unless they can be used, as `name` in `role`."""
        self.paths = paths
        self._name, self._role = name, role
        self._lock = threading.Lock()
        settle(paths)
        self._seen = _stamps(paths)
        self._held = self._load()

    def current(self) -> Credentials:
        """Return what the files say now, or what they said when they could last be used."""
        with self._lock:
            stamps = _stamps(self.paths)
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self._held = self._load()
                    log.info("credentials of %s were read again", self._held.peer.name)
                except FedprivError as error:
                    log.warning("the credentials on disk changed and cannot be used, the old ones stay: %s", error)
            return self._held

    def _load(self) -> Credentials:
        paths = self.paths
        key = paths.next_key if _fits(paths.next_key, paths.certificate) else paths.key
        return Credentials.from_files(
            ca=paths.ca, certificate=paths.certificate, key=key, name=self._name, role=self._role
        )


def replace_pair(paths: CredentialPaths, chain: tuple[x509.Certificate, ...], key: ec.EllipticCurvePrivateKey) -> None:
    """Put a new certificate and its key in the place of the old pair; killed anywhere, one of both pairs is whole."""
    write_atomically(paths.next_key, private_pem(key), mode=0o600)
    write_atomically(paths.certificate, certificates_pem(chain))
    settle(paths)


def settle(paths: CredentialPaths) -> None:
    """Finish a replacement that was cut short: move the new key to its place, or drop it if it was never certified."""
    if not paths.next_key.exists():
        return
    if _fits(paths.next_key, paths.certificate):
        paths.next_key.replace(paths.key)
        sync_folders({paths.key.parent})
    elif _fits(paths.key, paths.certificate):
        paths.next_key.unlink()


def _fits(key: Path, certificate: Path) -> bool:
    """Return whether `key` is there and belongs to the certificate."""
    try:
        return key.exists() and read_key(key).public_key() == read_certificates(certificate)[0].public_key()
    except CredentialsError:
        return False


def _stamps(paths: CredentialPaths) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what tells one version of each file from another."""

    def stamp(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    return tuple(map(stamp, (paths.ca, paths.certificate, paths.key, paths.next_key, paths.revoked)))
