"""`fedpriv worker join`: from a token to a folder in which a worker can be started.

The key is made here, before anything is asked, so that a join that was cut off goes on with the same one. Nothing that
exists is overwritten. It needs no torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv import settings
from fedpriv.cli.logs import say
from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError
from fedpriv.ids import Role
from fedpriv.secagg.keys import key_text
from fedpriv.storage.files import make_folder, write_atomically
from fedpriv.transport.credentials import Credentials, certificates_pem, private_pem, read_key
from fedpriv.transport.enquiry import REGISTRAR_PORT
from fedpriv.transport.joining import Handed, join
from fedpriv.transport.revocation import REVOKED
from fedpriv.transport.token import JoinToken, fingerprint_text
from fedpriv_worker.template import FILE, Told, write_template

_KEY, _CERTIFICATE, _CA = "key.pem", "certificate.pem", "ca.pem"


def join_worker(token_text: str, coordinator: str, registrar: str, folder: Path | None) -> None:
    """Get a certificate for what `token_text` promises and write the worker's folder; say what to do next."""
    token = JoinToken.parse(token_text)
    address = settings.address(coordinator, "--coordinator")
    where = _registrar(registrar or token.registrar, address)
    place = folder or Path()
    for name in (FILE, _CERTIFICATE, _CA):
        if (place / name).exists():
            raise UsageError(f"{place / name} exists already; join in an empty folder: --folder FOLDER")
    make_folder(place)
    key = _own_key(place / _KEY)
    handed = join(token, where, Role.WORKER, key, SystemClock())
    credentials = Credentials.of(handed.chain, key, handed.authorities)
    _write(place, handed)
    administrator = key_text(token.administrator) if token.administrator else ""
    config = write_template(place, credentials.peer.name, Told(address, where, administrator))
    sys.stdout.write(f"{config}\n")
    say(f"joined as {credentials.peer.name}; the authority is {fingerprint_text(token.authority)}")
    if administrator:
        say(f"rosters count if {administrator} signed them: compare that with what the administrator told you")
    say(f"ready: add a data set to {config}, then fedpriv worker start --config {quote(str(config))}")
    say(f"if it does not connect: fedpriv doctor --config {quote(str(config))}")


def _registrar(given: str, coordinator: str) -> str:
    """Return where the registrar is: as was said, or on the coordinator's host."""
    if given:
        return settings.address(given, "--registrar")
    return f"{coordinator.rpartition(':')[0]}:{REGISTRAR_PORT}"


def _own_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in `path`, of a join that was cut off, or a new one, kept there before it is used."""
    if path.exists():
        return read_key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    write_atomically(path, private_pem(key), mode=0o600)
    return key


def _write(place: Path, handed: Handed) -> None:
    write_atomically(place / _CERTIFICATE, certificates_pem(handed.chain))
    if handed.revoked:
        write_atomically(place / REVOKED, handed.revoked)
    write_atomically(place / _CA, certificates_pem(handed.authorities))
