"""The registrar: answers requests for certificates on a port of its own, beside the authority's key.

It is a process of its own so that no coordinator holds that key. Each connection is TLS 1.3, asks one thing and is
answered within `SECONDS`. Who may ask what is `METHODS`, deny by default: anybody reads what is public, the holder of a
token gets its one certificate, the holder of a certificate that still holds renews it under the same name and role, and
an administrator takes certificates back. A refusal is a code. What a certificate says follows from the token or from
the certificate before it, never from the request, of which the public key alone is taken.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedpriv.clock import Clock
from fedpriv.errors import FedprivError, HandshakeFailed, UsageError, WireError
from fedpriv.ids import Role
from fedpriv.storage.register import Issued, Promise, Register, TokenRefused
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials, certificates_pem, identify
from fedpriv.transport.enquiry import HEAD, Said, length, pack, text, unpack
from fedpriv.transport.link import Peer
from fedpriv.transport.revocation import NOBODY, REVOKED, keep_revoked, read_revoked

log = logging.getLogger("fedpriv.registrar")

NAME = "registrar"
SECONDS = 10.0
MAXIMUM_CONNECTIONS = 64
_MAXIMUM_REQUEST = 8192
_MAXIMUM_LISTED = 200
_DAYS = 365

Answer: TypeAlias = "dict[str, str | float | int]"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the peer that the TLS connection's certificate names, and that certificate; None without one."""

    peer: Peer | None = None
    certificate: x509.Certificate | None = None


ANYBODY: frozenset[Role] | None = None
METHODS: Mapping[str, frozenset[Role] | None] = {
    "authority": ANYBODY,
    "revoked": ANYBODY,
    "join": ANYBODY,
    "renew": frozenset({Role.WORKER, Role.COORDINATOR, Role.RESEARCHER, Role.AUDITOR, Role.ADMINISTRATOR}),
    "issued": frozenset({Role.AUDITOR, Role.ADMINISTRATOR}),
    "revoke": frozenset({Role.ADMINISTRATOR}),
}
"""Who may ask what, by the role of their certificate; "join" is anybody's who has a token."""


class Desk:
    """What the registrar answers, without a network; one thread at a time."""

    def __init__(self, authority: Authority, register: Register, folder: Path, clock: Clock) -> None:
        """Answer for the authority in `folder`."""
        self._authority, self._register, self._folder, self._clock = authority, register, folder, clock

    def answer(self, said: Said, certificate: bytes | None) -> Answer:
        """Return the answer to one question of whoever showed `certificate` in TLS; a refusal is an answer."""
        base: Answer = {"now": self._clock.now()}
        try:
            method = text(said, "ask", 32)
            asker = self._asker(certificate)
            allowed = METHODS.get(method, frozenset())
            if allowed is not None and (asker.peer is None or asker.peer.role not in allowed):
                log.warning("%s may not ask %r", asker.peer.name if asker.peer else "a stranger", method[:32])
                return base | {"refused": "not-allowed"}
            return base | self._answer(method, said, asker)
        except TokenRefused as refusal:
            log.warning("a token was refused: %s", refusal.why)
            return base | {"refused": refusal.why, "since": refusal.since, "role": refusal.role}
        except HandshakeFailed as error:
            log.warning("a certificate was refused: %s", error)
            return base | {"refused": "certificate"}
        except (WireError, UsageError) as error:
            log.warning("a request makes no sense: %s", error)
            return base | {"refused": "bad-request"}

    def publish(self) -> bytes:
        """Sign and write the list of who is revoked, if there is a newer one; return the list that holds."""
        serials, number = self._register.revoked()
        authorities = (self._authority.certificate,)
        path = self._folder / REVOKED
        if not number:
            return b""
        if not path.exists() or read_revoked(path.read_bytes(), authorities, where=str(path)).number < number:
            keep_revoked(path, self._authority.revoke(serials, number, now=self._clock.now()), authorities)
        return path.read_bytes()

    def issue(self, key: ec.EllipticCurvePublicKey, promised: Promise, now: float) -> Issued:
        """Issue a certificate and have it on record before anybody gets it."""
        certificate = self._authority.certify(
            key, promised.name, Role(promised.role), hosts=promised.hosts, days=promised.days, now=now
        )
        issued = issued_as(certificate, now)
        self._register.record(issued, spki(key))
        return issued

    def _asker(self, certificate: bytes | None) -> Asker:
        if certificate is None:
            return Asker()
        leaf = x509.load_der_x509_certificate(certificate)
        authorities = (self._authority.certificate,)
        pem = self.publish()
        revoked = read_revoked(pem, authorities, where=REVOKED) if pem else NOBODY
        return Asker(identify((leaf,), authorities, revoked=revoked, now=self._clock.now()), leaf)

    def _answer(self, method: str, said: Said, asker: Asker) -> Answer:
        match method:
            case "join":
                return self._join(said)
            case "renew":
                return self._renew(said, asker)
            case "issued":
                return self._issued()
            case "revoke":
                return self._revoke(said, asker)
        return self._public()  # "authority" and "revoked": who is trusted and who no more

    def _public(self) -> Answer:
        return {"authority": certificates_pem((self._authority.certificate,)).decode(), **self._revoked()}

    def _join(self, said: Said) -> Answer:
        now, key = self._clock.now(), requested_key(text(said, "request", _MAXIMUM_REQUEST))
        token, secret = _bytes(said, "token"), _bytes(said, "secret")
        promised = self._register.spend(token, secret, text(said, "role", 32), spki(key), now)
        issued = promised if isinstance(promised, Issued) else self.issue(key, promised, now)
        log.info("%s joined as a %s", issued.name, issued.role)
        return self._handed(issued)

    def _renew(self, said: Said, asker: Asker) -> Answer:
        now, key = self._clock.now(), requested_key(text(said, "request", _MAXIMUM_REQUEST))
        assert asker.peer is not None  # the list of methods lets nobody else ask
        assert asker.certificate is not None
        lifetime = asker.certificate.not_valid_after_utc - asker.certificate.not_valid_before_utc
        days = max(1, min(lifetime.days, _DAYS))
        hosts = hosts_of(asker.certificate)
        issued = self.issue(key, Promise(asker.peer.name, asker.peer.role.value, hosts, days, now), now)
        log.info("the certificate of %s was renewed", issued.name)
        return self._handed(issued)

    def _issued(self) -> Answer:
        found = self._register.issued()
        return {"issued": json.dumps([described(each) for each in found[-_MAXIMUM_LISTED:]]), "count": len(found)}

    def _revoke(self, said: Said, asker: Asker) -> Answer:
        assert asker.peer is not None  # as in _renew
        found = self._register.revoke(text(said, "name", 64), self._clock.now())
        log.warning("%s revoked %d certificates of %s", asker.peer.name, len(found), found[0].name)
        self.publish()
        return {"count": len(found), **self._revoked()}

    def _handed(self, issued: Issued) -> Answer:
        leaf = x509.load_der_x509_certificate(issued.der)
        return {"certificate": certificates_pem((leaf,)).decode(), **self._public()}

    def _revoked(self) -> Answer:
        pem = self.publish()
        return {"revoked": pem.decode()} if pem else {}


class Registrar:
    """A `Desk` on a port; use it as an async context."""

    def __init__(self, address: tuple[str, int], desk: Desk, credentials: Credentials) -> None:
        """Prepare to listen at host and port (0 lets the system pick) as `credentials`, of role registrar."""
        self._address, self._desk = address, desk
        self._context = server_context(credentials)
        self._server: asyncio.Server | None = None
        self._open = 0
        self._answering = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port, the chosen one where 0 was asked for."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(
                self._serve, *self._address, ssl=self._context, ssl_handshake_timeout=SECONDS
            )
        except OSError as error:
            host, port = self._address
            raise UsageError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what listens there, or choose another port"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, whatever it says, and end it."""
        self._open += 1
        try:
            if self._open <= MAXIMUM_CONNECTIONS:
                async with asyncio.timeout(SECONDS):
                    await self._talk(reader, writer)
        except (OSError, TimeoutError, WireError, asyncio.IncompleteReadError) as error:
            log.info("a connection ended without an answer: %s", type(error).__name__)
        except FedprivError as error:
            log.error("a request could not be answered: %s", error)  # noqa: TRY400 - no traceback
        except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes provoke must not end the registrar
            log.error("a defect of ours: %s", type(error).__name__)  # noqa: TRY400 - its text may quote
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = unpack(await reader.readexactly(length(await reader.readexactly(HEAD.size))))
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        async with self._answering:
            answer = await asyncio.to_thread(self._desk.answer, said, shown)
        writer.write(pack(answer))
        await writer.drain()


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Return TLS 1.3 for a server that asks for a certificate and does without: joining peers have none yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=credentials.authorities_pem.decode())
    load_chain(context, credentials)
    return context


def load_chain(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Give `context` a certificate and its key, which OpenSSL takes from files alone: one that is gone at once."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # mode 0600
        file.write(credentials.key_pem + credentials.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)


def requested_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a signing request whose holder proved to have the private one; raise `WireError`."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        proved = fits and request.is_signature_valid
    except Exception:  # noqa: BLE001 - the parser raises many kinds, and their text quotes the request
        proved = False
    if not proved:
        raise WireError("a signing request that is none, is not signed by its own key, or whose key is not ECDSA P-256")
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def issued_as(certificate: x509.Certificate, now: float) -> Issued:
    """Return how a certificate stands in the register."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    role = next(
        uri.rpartition(":")[2] for uri in _alternatives(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    )
    expires = certificate.not_valid_after_utc.timestamp()
    der = certificate.public_bytes(Encoding.DER)
    return Issued(certificate.serial_number, str(names[0].value), role, now, expires, None, der)


def described(issued: Issued) -> dict[str, str | float | None]:
    """Return a register's row for people and programs."""
    return {
        "name": issued.name, "role": issued.role, "serial": f"{issued.serial:x}", "issued": issued.issued,
        "expires": issued.expires, "revoked": issued.revoked,
    }  # fmt: skip  # one row


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses that a certificate was issued for."""
    names = _alternatives(certificate)
    addresses = tuple(str(each) for each in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _bytes(said: Said, key: str) -> bytes:
    try:
        return base64.b64decode(text(said, key, 128), validate=True)
    except (ValueError, binascii.Error):
        raise WireError(f"{key!r} is not base64") from None
