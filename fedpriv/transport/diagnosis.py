"""What stands between this machine and a peer, one check after the other: each says what it found, and its mend.

The same steps as a connection takes: the name, the proxy, the port, TLS with our certificate, the version and the clock
on the other side. A check that cannot be made because an earlier one failed is left out. Nothing private is said to
anybody: TLS is opened, what the other side says of itself is read, and the connection ends.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from fedpriv.clock import Clock, in_words
from fedpriv.errors import FedprivError, NotTrusted, PeerLost, UsageError
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.joining import FAR_OFF_SECONDS, clock_ahead
from fedpriv.transport.proxy import connected, proxy_for, split_address, why_unreachable
from fedpriv.transport.stream import Welcome
from fedpriv.transport.token import fingerprint_text

State = Literal["ok", "warning", "failed"]
CONNECT_SECONDS = 5.0
SKEW_SECONDS = 30.0
LEAST_FREE_BYTES = 1 << 30
SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `mend` says what to do where it is not as it should be."""

    name: str
    state: State
    found: str
    mend: str = ""
    exit_code: int = 0


def failed(name: str, error: FedprivError) -> Check:
    """Return a check that an error of ours ended: what happened before its first ";", the mend after it."""
    found, _, mend = str(error).partition("; ")
    return Check(name, "failed", found, mend or "see above", error.exit_code)


def check_disk(folder: Path) -> Check:
    """Return whether a state folder, or the one it will be made in, can be written and has room."""
    place = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".fedpriv-doctor-") as file:
            file.write(bytes(4096))
            file.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        mend = f"let the user that runs fedpriv write in {place}, or free space there"
        return Check("disk", "failed", f"{place} cannot be written ({error.strerror})", mend, 1)
    found = f"{place}: {free / 2**30:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        mend = "free some space: nothing leaves that the ledger cannot record"
        return Check("disk", "warning", found, mend)
    return Check("disk", "ok", found)


def check_credentials(own: Credentials, key: Path, clock: Clock, *, renews: bool) -> Iterator[Check]:
    """Yield whether a certificate holds for long enough, and whether others can read its key."""
    left = own.chain[0].not_valid_after_utc.timestamp() - clock.now()
    found = f"{own.peer.name}, a {own.peer.role.value}, for another {in_words(left)}"
    if left < SOON_DAYS * 86_400 and not renews:
        mend = "renew it before it expires: name a registrar under [tls], or fedpriv certs issue"
        yield Check("certificate", "warning", found, mend)
    else:
        yield Check("certificate", "ok", found)
    mode = key.stat().st_mode & 0o777
    if mode & 0o077:
        yield Check("key", "failed", f"others can read {key} (mode {mode:o})", f"chmod 600 {key}", 2)


def check_peer(address: str, own: Credentials, clock: Clock) -> Iterator[Check]:
    """Yield what there is between us and whoever listens at `address`; end with the first failure."""
    try:
        host, port = split_address(address)
        proxy = proxy_for(host)
    except UsageError as error:
        yield failed("name", error)
        return
    if proxy is not None:
        yield Check("proxy", "ok", f"{proxy.address}, from https_proxy")
    else:
        yield (named := _name(address, host, port))
        if named.state == "failed":
            return
    try:
        connected(address, CONNECT_SECONDS).close()
    except PeerLost as error:
        yield failed("port", error)
        return
    yield Check("port", "ok", f"{address} answers")
    try:
        welcome = asyncio.run(_welcome(address, own))
    except FedprivError as error:
        yield _tls_failure(address, own, error)
        return
    yield Check("tls", "ok", f"both sides trust {fingerprint_text(_key_of(own.authorities[0]))[:19]}")
    yield Check("version", "ok", f"protocol {welcome.protocol}, {welcome.software} there")
    if welcome.clock is not None:
        yield check_clock(clock.now() - welcome.clock, address)


def check_registrar(address: str, clock: Clock) -> Check:
    """Return whether a registrar answers, and by how much its clock differs."""
    try:
        ahead = clock_ahead(address, clock)
    except FedprivError as error:
        found = failed("registrar", error)
        return Check("registrar", "warning", found.found, f"{found.mend}; until then nothing renews the certificate")
    skew = check_clock(ahead, address)
    return Check("registrar", skew.state, f"{address} answers; {skew.found}", skew.mend, skew.exit_code)


def check_clock(ahead: float, whom: str) -> Check:
    """Return how far our clock is from that of `whom`: certificates allow five minutes."""
    found = f"{in_words(ahead)} {'ahead of' if ahead > 0 else 'behind'} {whom}"
    mend = "set whichever clock is wrong: timedatectl set-ntp true"
    if abs(ahead) > FAR_OFF_SECONDS:
        return Check("clock", "failed", found, mend, 2)
    return Check("clock", "warning", found, mend) if abs(ahead) > SKEW_SECONDS else Check("clock", "ok", found)


def check_listening(address: str) -> Check:
    """Return whether a port can be had here, or is being listened at already."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((bare, int(port)))
    except OSError as error:
        mend = "that is as it should be while fedpriv runs; otherwise stop what listens there, or choose another port"
        return Check("port", "warning", f"{address} cannot be had ({error.strerror})", mend)
    return Check("port", "ok", f"{address} is free to listen at")


def _name(address: str, host: str, port: int) -> Check:
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        return failed("name", PeerLost(why_unreachable(address, error)))
    return Check("name", "ok", f"{host} is {', '.join(sorted(found))}")


async def _welcome(address: str, own: Credentials) -> Welcome:
    link = await dial(address, own, timeout_seconds=2 * CONNECT_SECONDS)
    await link.close()
    assert link.welcome is not None  # dial returns no other link
    return link.welcome


def _tls_failure(address: str, own: Credentials, error: FedprivError) -> Check:
    """Return why TLS failed; where the other side is of another authority, with both keys for people to compare."""
    found = failed("tls", error)
    theirs = _issuer_of(address) if isinstance(error, NotTrusted) else None
    ours = _key_of(own.authorities[0])
    if theirs is None or theirs == ours:
        return found
    both = f"its authority's key is {fingerprint_text(theirs)}, ours is {fingerprint_text(ours)}"
    mend = "both sides need the ca.pem of one authority: ask whoever runs it which of both it is"
    return Check("tls", "failed", f"{found.found}: {both}", mend, found.exit_code)


def _issuer_of(address: str) -> bytes | None:
    """Return the key identifier of the authority that issued what `address` shows, if it shows anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with connected(address, CONNECT_SECONDS) as plain, context.wrap_socket(plain) as secured:
            shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
        identifier = shown.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value
    except (OSError, ValueError, PeerLost, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    return identifier.key_identifier if isinstance(identifier, x509.AuthorityKeyIdentifier) else None


def _key_of(authority: x509.Certificate) -> bytes:
    """Return the key identifier of an authority."""
    return x509.SubjectKeyIdentifier.from_public_key(authority.public_key()).digest
