"""The signed hello: both sides prove who they are before anything else is said.

Dialer: Hello -> listener checks the chain and that it is the one of the TLS connection, answers Hello and HelloProof ->
dialer checks both, answers HelloProof -> listener checks it. A proof is an ECDSA signature over the signing side, the
protocol, both leaf certificates and both nonces, so that it is good for this one meeting of these two peers: it
cannot be replayed, reflected or relayed. `advance` is pure; `greet` drives it over a link. What a peer may do
afterwards is not decided here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv import canonical
from fedpriv.entropy import Entropy, SystemEntropy
from fedpriv.errors import FedprivError, HandshakeFailed, PeerLost
from fedpriv.transport.credentials import SIGNATURE, Credentials, CredentialsSource, identify
from fedpriv.transport.link import Link, Peer
from fedpriv.transport.software import SOFTWARE, mismatch
from fedpriv.wire.bodies import NONCE_BYTES
from fedpriv.wire.codec import decode
from fedpriv.wire.messages import PROTOCOL, Hello, HelloProof, Message, Role

TIMEOUT_SECONDS = 30.0
_TAG = "fedpriv/hello/v1"
_ACCEPTED: Mapping[Role, frozenset[Role]] = {
    Role.WORKER: frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    Role.COORDINATOR: frozenset({Role.WORKER}),
    Role.RESEARCHER: frozenset({Role.WORKER}),
}
"""Who talks to whom over a link; a role that is not here talks to nobody."""

Sent = TypeVar("Sent")


class Side(Enum):
    """Who opened the stream; nothing else depends on it."""

    DIALER = "dialer"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True)
class Terms:
    """What one side brings to a meeting and whom it accepts; `tls_certificate` is None where TLS does not show it."""

    credentials: Credentials
    hello: Hello
    accepts: frozenset[Role]
    name: str | None
    tls_certificate: bytes | None
    now: float


@dataclass(frozen=True, slots=True)
class AwaitingHello:
    """Nothing is known of the peer; a dialer has sent its hello, a listener has sent nothing."""

    side: Side
    terms: Terms


@dataclass(frozen=True, slots=True)
class AwaitingProof:
    """The peer's chain is good, but it has not signed yet."""

    side: Side
    terms: Terms
    claimed: Peer
    key: ec.EllipticCurvePublicKey = field(repr=False)
    theirs: Hello


@dataclass(frozen=True, slots=True)
class Greeted:
    """The peer signed both hellos: it is who it claims to be."""

    peer: Peer


State: TypeAlias = AwaitingHello | AwaitingProof | Greeted


def begin(side: Side, terms: Terms) -> tuple[State, tuple[Message, ...]]:
    """Return the first state and what to send."""
    return AwaitingHello(side, terms), (terms.hello,) if side is Side.DIALER else ()


def advance(state: State, message: Message) -> tuple[State, tuple[Message, ...]]:
    """Return the state after `message` and what to send; raise `HandshakeFailed` if it proves nothing."""
    match state, message:
        case AwaitingHello(), Hello():
            return _on_hello(state, message)
        case AwaitingProof(), HelloProof():
            return _on_proof(state, message)
    raise HandshakeFailed(f"a {type(message).__name__} came in the middle of the handshake; the peer is no fedpriv")


def accepted_roles(role: Role) -> frozenset[Role]:
    """Return whom a holder of `role` talks to: workers are driven, coordinators and researchers drive."""
    return _ACCEPTED.get(role, frozenset())


def transcript(signer: Side, dialer: Hello, listener: Hello) -> bytes:
    """Return the bytes that `signer` signs: who signs, and everything that makes this meeting unlike any other."""
    fingerprints = [hashlib.sha256(hello.certificates[0]).digest() for hello in (dialer, listener)]
    return canonical.encode(_TAG, signer.value, PROTOCOL, fingerprints, [dialer.nonce, listener.nonce])


def _on_hello(state: AwaitingHello, theirs: Hello) -> tuple[State, tuple[Message, ...]]:
    terms = state.terms
    if (why := mismatch(str(theirs.protocol), theirs.software)) is not None:
        raise HandshakeFailed(why)
    if terms.tls_certificate is not None and terms.tls_certificate != theirs.certificates[0]:
        raise HandshakeFailed("the hello names another certificate than the TLS connection; somebody stands in between")
    chain, claimed = _identified(theirs.certificates, terms)
    if claimed.role not in terms.accepts:
        accepted = " or ".join(sorted(role.value for role in terms.accepts)) or "nobody"
        raise HandshakeFailed(
            f"{claimed.name!r} is a {claimed.role.value}, but only a {accepted} is accepted here; use a certificate of "
            "that role (fedpriv certs issue --role)"
        )
    if terms.name is not None and claimed.name != terms.name:
        raise HandshakeFailed(f"{claimed.name!r} answered where {terms.name!r} was expected; check the address")
    key = chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    after = AwaitingProof(state.side, terms, claimed, key, theirs)
    return after, (terms.hello, _proof(after)) if state.side is Side.LISTENER else ()


def _on_proof(state: AwaitingProof, proof: HelloProof) -> tuple[State, tuple[Message, ...]]:
    other = Side.LISTENER if state.side is Side.DIALER else Side.DIALER
    try:
        state.key.verify(proof.signature, _transcript(state, other), SIGNATURE)
    except InvalidSignature:
        raise HandshakeFailed(
            f"the peer shows the certificate of {state.claimed.name!r} but cannot sign for it; it is not who it claims"
        ) from None
    return Greeted(state.claimed), (_proof(state),) if state.side is Side.DIALER else ()


def _proof(state: AwaitingProof) -> HelloProof:
    return HelloProof(state.terms.credentials.sign(_transcript(state, state.side)))


def _transcript(state: AwaitingProof, signer: Side) -> bytes:
    ours, theirs = state.terms.hello, state.theirs
    return transcript(signer, ours, theirs) if state.side is Side.DIALER else transcript(signer, theirs, ours)


def _identified(certificates: tuple[bytes, ...], terms: Terms) -> tuple[list[x509.Certificate], Peer]:
    """Return the parsed chain and whom it names; whatever a stranger's certificate provokes is a failed handshake."""
    own = terms.credentials
    try:
        chain = [x509.load_der_x509_certificate(certificate) for certificate in certificates]
        return chain, identify(chain, own.authorities, revoked=own.revoked, now=terms.now)
    except FedprivError:
        raise
    except Exception:  # noqa: BLE001 - the parser raises many kinds, and their text quotes the certificate
        raise HandshakeFailed("the hello holds a certificate that cannot be read; issue another one") from None


async def greet(
    side: Side,
    link: Link[Sent],
    credentials: CredentialsSource,
    seal: Callable[[Message], Sent],
    *,
    name: str | None = None,
    accepts: frozenset[Role] | None = None,
    software: str = SOFTWARE,
    entropy: Entropy | None = None,
    now: float | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Peer:
    """Prove who both ends of `link` are and return the other one; close the link and raise if that fails.

    `seal` turns each outgoing message into what this side's link sends. `name` is whom we expect, if anybody.
    Raise `HandshakeFailed` with the reason, `PeerLost` if the other side left or took over `timeout_seconds`.
    """
    nonce, own = (entropy or SystemEntropy()).random_bytes(NONCE_BYTES), credentials.current()
    terms = Terms(
        credentials=own,
        hello=Hello(own.chain_der, nonce, PROTOCOL, software),
        accepts=accepted_roles(own.peer.role) if accepts is None else accepts,
        name=name,
        tls_certificate=link.raw.tls_certificate,
        now=time.time() if now is None else now,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            peer = await _drive(side, link, terms, seal)
    except TimeoutError:
        await link.close()
        raise PeerLost(
            f"the handshake did not end within {timeout_seconds:g} s; is the other side overloaded?"
        ) from None
    except FedprivError:
        await link.close()
        raise
    link.identify(peer)
    return peer


async def _drive(side: Side, link: Link[Sent], terms: Terms, seal: Callable[[Message], Sent]) -> Peer:
    state, replies = begin(side, terms)
    while True:
        for reply in replies:
            await link.send(seal(reply))
        if isinstance(state, Greeted):
            return state.peer
        envelope = await link.receive()
        if envelope is None:
            raise PeerLost(
                "the other side closed the link during the handshake; it may not trust our certificate or not "
                "accept our role: its own log says why"
            )
        state, replies = advance(state, decode(envelope))
