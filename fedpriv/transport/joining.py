"""Asking a registrar: for a first certificate with a token, for the next one with the one before, for who is revoked.

Whom we deal with is settled before a secret is said: the authority's certificate must have the fingerprint that the
token carries, and the registrar must hold a certificate of that authority for just that role. Before that only what is
public is read, over a connection that proves nothing, to say what is wrong: another authority, or a clock that is off.
The private key is made here and never sent. Every refusal says the mend.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv.clock import Clock, in_words
from fedpriv.errors import CredentialsError, FedprivError, HandshakeFailed, NotTrusted, PeerLost, UsageError, WireError
from fedpriv.ids import Role
from fedpriv.transport.credentials import Credentials, certificates_pem, identify
from fedpriv.transport.enquiry import HEAD, Said, length, number, pack, text, unpack
from fedpriv.transport.proxy import connected
from fedpriv.transport.registrar import load_chain
from fedpriv.transport.token import JoinToken, fingerprint_text

TIMEOUT_SECONDS = 10.0
FAR_OFF_SECONDS = 300.0
"""Clocks that differ by more than this are refused: certificates begin so long before they are issued."""


class ClockOff(UsageError):
    """This machine's clock and the registrar's differ by more than certificates allow."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What a registrar handed out: a certificate chain, and the list of who is revoked (b"" where there is none)."""

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    revoked: bytes = field(repr=False)


def join(token: JoinToken, registrar: str, role: Role, key: ec.EllipticCurvePrivateKey, clock: Clock) -> Handed:
    """Return the certificate that `token` promises, for `key`; raise with the mend, and the token unspent if it may be.

    Asked again with the same key, the registrar answers the same: who was cut off may ask again.
    """
    authorities = pinned_authority(token, registrar, clock)
    said: Said = {
        "ask": "join", "token": _text(token.id), "secret": _text(token.secret), "role": role.value,
        "request": signing_request(key),
    }  # fmt: skip  # one question
    return _handed(_asked(registrar, said, authorities), authorities, role, key, clock)


def renew(registrar: str, own: Credentials, key: ec.EllipticCurvePrivateKey, clock: Clock) -> Handed:
    """Return a certificate for `key` under the name and role of `own`, which must still hold."""
    said: Said = {"ask": "renew", "request": signing_request(key)}
    answer = _asked(registrar, said, own.authorities, own)
    return _handed(answer, own.authorities, own.peer.role, key, clock)


def ask_revoked(registrar: str, own: Credentials) -> bytes:
    """Return the list of who is revoked, in PEM and not yet checked; b"" while nobody is."""
    answer = _asked(registrar, {"ask": "revoked"}, own.authorities)
    return text(answer, "revoked").encode() if "revoked" in answer else b""


def ask_as(registrar: str, own: Credentials, said: Said) -> Said:
    """Return the registrar's answer to `own`, proved by its certificate; raise with the mend for a refusal."""
    return _asked(registrar, said, own.authorities, own)


def clock_ahead(registrar: str, clock: Clock) -> float:
    """Return by how many seconds this machine's clock is ahead of the registrar's, which proves nothing of itself."""
    before = clock.now()
    now = number(_talk(registrar, {"ask": "authority"}, _unproved()), "now")
    return (before + clock.now()) / 2 - now


def pinned_authority(token: JoinToken, registrar: str, clock: Clock) -> tuple[x509.Certificate, ...]:
    """Return the authority that has the fingerprint in `token`; raise `NotTrusted` with both, or `ClockOff`."""
    before = clock.now()
    said = _talk(registrar, {"ask": "authority"}, _unproved())
    ahead = (before + clock.now()) / 2 - number(said, "now")
    found = _certificates(said, "authority")[0]
    fingerprint = found.fingerprint(hashes.SHA256())
    if fingerprint != token.authority:
        raise NotTrusted(
            f"the registrar at {registrar} is of another authority than the token: the token says\n"
            f"  {fingerprint_text(token.authority)}\nand it shows\n  {fingerprint_text(fingerprint)}\n"
            "check the address; if it is right, somebody stands in between, or the authority was made anew: ask "
            "whoever gave you the token"
        )
    if abs(ahead) > FAR_OFF_SECONDS:
        raise ClockOff(
            f"this machine's clock is {in_words(ahead)} {'ahead of' if ahead > 0 else 'behind'} the registrar's, and "
            f"certificates allow {in_words(FAR_OFF_SECONDS)}; set the one that is wrong (timedatectl set-ntp true), "
            "then use the same token"
        )
    return (found,)


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a signing request in PEM that proves that we hold `key`; the registrar decides who we are."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _asked(registrar: str, said: Said, authorities: Sequence[x509.Certificate], own: Credentials | None = None) -> Said:
    """Return the answer of the registrar of `authorities`; raise `PeerLost`, `NotTrusted` or what it refuses with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # it is known by its role, wherever it listens
    context.load_verify_locations(cadata=certificates_pem(authorities).decode())
    if own is not None:
        load_chain(context, own)
    answer = _talk(registrar, said, context, authorities)
    if "refused" in answer:
        raise _refusal(registrar, answer)
    return answer


def _unproved() -> ssl.SSLContext:
    """Return TLS that proves nothing: what is read over it is public, and is checked against a fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _talk(registrar: str, said: Said, context: ssl.SSLContext, authorities: Sequence[x509.Certificate] = ()) -> Said:
    """Ask one question; nothing is said before the other side proved to be a registrar of `authorities`, if any."""
    with connected(registrar, TIMEOUT_SECONDS) as plain:
        try:
            with context.wrap_socket(plain) as secured:
                if authorities:
                    _check_registrar(registrar, secured, authorities)
                secured.sendall(pack(said))
                return unpack(_exactly(secured, length(_exactly(secured, HEAD.size))))
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(
                f"the registrar at {registrar} shows a certificate that our authority did not issue, or that does not "
                f"hold now ({error.verify_message}); check the address and both clocks"
            ) from None
        except ssl.SSLError as error:
            raise HandshakeFailed(
                f"no TLS with {registrar} ({error.reason}); is it the registrar's port (fedpriv certs serve)? Our own "
                "certificate may have expired or be of another authority"
            ) from None
        except (OSError, WireError) as error:
            raise PeerLost(
                f"the registrar at {registrar} did not answer ({type(error).__name__}); check the address, and look "
                "there at what `fedpriv certs serve` says"
            ) from None


def _check_registrar(registrar: str, secured: ssl.SSLSocket, authorities: Sequence[x509.Certificate]) -> None:
    shown = secured.getpeercert(binary_form=True)
    peer = identify((x509.load_der_x509_certificate(shown or b""),), authorities)
    if peer.role is not Role.REGISTRAR:
        raise NotTrusted(
            f"{registrar} shows the certificate of {peer.name!r}, a {peer.role.value}, and not of a registrar: it may "
            "stand in between; nothing was said to it, check the address"
        )


def _exactly(secured: ssl.SSLSocket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        part = secured.recv(count - len(content))
        if not part:
            raise WireError("the connection ended in the middle of an answer")
        content += part
    return bytes(content)


def _refusal(registrar: str, answer: Said) -> FedprivError:
    """Return what a refusal means and what to do; the code is one of a fixed list, the text is ours."""
    code = text(answer, "refused", 64)
    another = "ask whoever runs the authority for another one (fedpriv certs join-token)"
    ago = in_words(number(answer, "now") - number(answer, "since")) if "since" in answer else ""
    match code:
        case "unknown-token":
            why = f"the registrar at {registrar} does not know this token; copy it whole, or {another}"
        case "token-used":
            why = (
                f"the token was used {ago} ago, by another key than this machine's; if that was not you, say so to "
                f"whoever runs the authority (fedpriv certs revoke), and {another}"
            )
        case "token-expired":
            why = f"the token expired {ago} ago; {another}"
        case "wrong-role":
            role = text(answer, "role", 32)
            known = role if role in {each.value for each in Role} else "another role"
            why = f"the token is for a certificate of another role ({known}) than was asked for; {another} of that role"
        case "certificate" | "not-allowed":
            why = (
                f"the registrar at {registrar} does not let our certificate ask that: it was revoked, expired, or is "
                f"of a role that may not; {another}"
            )
        case _:
            why = f"the registrar at {registrar} did not understand us; install the same fedpriv on both sides"
    return CredentialsError(why)


def _handed(
    answer: Said,
    authorities: tuple[x509.Certificate, ...],
    role: Role,
    key: ec.EllipticCurvePrivateKey,
    clock: Clock,
) -> Handed:
    """Return what was handed out once it is known to be usable: for our key, in our role, of our authority."""
    chain = _certificates(answer, "certificate")
    credentials = Credentials.of(chain, key, authorities, now=clock.now())
    if credentials.peer.role is not role:
        raise CredentialsError(f"the registrar gave a certificate of a {credentials.peer.role.value}, not {role.value}")
    revoked = text(answer, "revoked").encode() if "revoked" in answer else b""
    return Handed(chain, authorities, revoked)


def _certificates(said: Said, name: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(text(said, name).encode()))
    except (ValueError, x509.InvalidVersion):
        raise WireError(f"the registrar's {name} is no certificate") from None


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
