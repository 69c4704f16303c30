"""The signed hello proves who the peer is, or there is no link."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest
from ends import authority, coordinator, run, worker

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import FedprivError, HandshakeFailed, PeerLost
from fedpriv.sealed import Envelope, Sealed
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import AwaitingProof, Greeted, Side, State, Terms, accepted_roles, advance, begin, greet
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.memory import MemoryLink, memory_pair
from fedpriv.wire.codec import encode
from fedpriv.wire.messages import Goodbye, Hello, HelloProof, Message, Role

NOW = 1_800_000_000.0
DAY = 86_400.0


def seal(message: Message) -> Sealed:
    return Sealed(encode(message))


def terms(credentials: Credentials, *, nonce: bytes = b"n" * 32, **changes: object) -> Terms:
    basis = Terms(
        credentials=credentials,
        hello=Hello(credentials.chain_der, nonce),
        accepts=accepted_roles(credentials.peer.role),
        name=None,
        tls_certificate=None,
        now=coordinator().chain[0].not_valid_before_utc.timestamp() + 3600,
    )
    return replace(basis, **changes)  # type: ignore[arg-type]


def meet(dialer: Terms, listener: Terms) -> tuple[State, State, list[tuple[Message, ...]]]:
    """Let two sides talk until nobody has anything to say."""
    calling, first = begin(Side.DIALER, dialer)
    answering, nothing = begin(Side.LISTENER, listener)
    assert nothing == ()
    said: list[tuple[Message, ...]] = [first]
    towards_listener = True
    while said[-1]:
        replies: tuple[Message, ...] = ()
        for message in said[-1]:
            if towards_listener:
                answering, more = advance(answering, message)
            else:
                calling, more = advance(calling, message)
            replies += more
        said.append(replies)
        towards_listener = not towards_listener
    return calling, answering, said


def test_each_side_learns_who_the_other_is() -> None:
    calling, answering, said = meet(terms(coordinator(), nonce=b"a" * 32), terms(worker()))
    assert calling == Greeted(worker().peer)
    assert answering == Greeted(coordinator().peer)
    assert [[type(message) for message in each] for each in said] == [[Hello], [Hello, HelloProof], [HelloProof], []]


def test_it_does_not_matter_who_dials() -> None:
    calling, answering, _ = meet(terms(worker()), terms(coordinator(), nonce=b"a" * 32))
    assert (calling, answering) == (Greeted(coordinator().peer), Greeted(worker().peer))


def refused_by_listener(dialer: Terms, listener: Terms, reason: str) -> None:
    """Check that the listener refuses the first hello and says nothing to it."""
    _, (hello,) = begin(Side.DIALER, dialer)
    answering, _ = begin(Side.LISTENER, listener)
    with pytest.raises(HandshakeFailed, match=reason):
        advance(answering, hello)


def test_a_peer_of_another_authority_is_refused_before_we_say_who_we_are() -> None:
    stranger = Authority.create().issue("coordinator-1", Role.COORDINATOR)
    refused_by_listener(terms(stranger), terms(worker()), "ca.pem")


def test_an_expired_or_future_certificate_is_refused() -> None:
    def at(now: float) -> Credentials:
        return authority().issue("coordinator-1", Role.COORDINATOR, days=1, now=now)

    base = terms(worker()).now
    refused_by_listener(terms(at(base - 3 * DAY)), terms(worker()), "expired at")
    refused_by_listener(terms(at(base + DAY)), terms(worker()), "not valid before")


@pytest.mark.parametrize("role", [Role.WORKER])
def test_a_worker_is_not_driven_by_a_worker(role: Role) -> None:
    refused_by_listener(terms(authority().issue("other", role)), terms(worker()), "only a coordinator or researcher")


def test_a_coordinator_drives_no_researcher() -> None:
    researcher = authority().issue("ann", Role.RESEARCHER)
    refused_by_listener(terms(researcher), terms(coordinator()), "only a worker")


def test_another_worker_than_expected_is_refused() -> None:
    refused_by_listener(terms(worker()), terms(coordinator(), name="mercy"), "'mercy' was expected")


def test_a_hello_for_another_certificate_than_tls_showed_is_refused() -> None:
    mallory = authority().issue("mallory", Role.COORDINATOR)
    honest = terms(coordinator())
    refused_by_listener(honest, terms(worker(), tls_certificate=mallory.chain_der[0]), "in between")
    refused_by_listener(honest, terms(worker(), tls_certificate=b""), "in between")
    calling, answering, _ = meet(honest, terms(worker(), tls_certificate=coordinator().chain_der[0]))
    assert (calling, answering) == (Greeted(worker().peer), Greeted(coordinator().peer))


def test_another_protocol_is_refused() -> None:
    hello = Hello(coordinator().chain_der, bytes(32), protocol=2)
    refused_by_listener(terms(coordinator(), hello=hello), terms(worker()), "protocol 2")


def test_a_certificate_that_is_none_is_refused() -> None:
    refused_by_listener(terms(coordinator(), hello=Hello((b"junk",), bytes(32))), terms(worker()), "certificate")


def after_hello(dialer: Terms, listener: Terms) -> tuple[AwaitingProof, Message]:
    """Return the dialler's state after the listener's hello, and the listener's proof."""
    calling, (hello,) = begin(Side.DIALER, dialer)
    answering, _ = begin(Side.LISTENER, listener)
    _, (answer, proof) = advance(answering, hello)
    calling, _ = advance(calling, answer)
    assert isinstance(calling, AwaitingProof)
    return calling, proof


def test_a_recorded_proof_is_worth_nothing_at_the_next_meeting() -> None:
    _, old = after_hello(terms(coordinator(), nonce=b"1" * 32), terms(worker()))
    calling, fresh = after_hello(terms(coordinator(), nonce=b"2" * 32), terms(worker()))
    with pytest.raises(HandshakeFailed, match="cannot sign"):
        advance(calling, old)
    assert advance(calling, fresh)[0] == Greeted(worker().peer)


def test_our_own_proof_sent_back_is_worth_nothing() -> None:
    calling, proof = after_hello(terms(coordinator()), terms(worker()))
    _, (ours,) = advance(calling, proof)
    with pytest.raises(HandshakeFailed, match="cannot sign"):
        advance(calling, ours)


def test_who_shows_anothers_certificate_cannot_prove_it() -> None:
    thief = replace(authority().issue("mallory", Role.WORKER), chain=worker().chain)
    calling, proof = after_hello(terms(coordinator()), terms(thief))
    with pytest.raises(HandshakeFailed, match="not who it claims"):
        advance(calling, proof)


def test_a_proof_made_for_one_peer_does_not_convince_another() -> None:
    """Mallory meets the worker as itself and forwards the worker's answer to a coordinator that dialled Mallory."""
    mallory = authority().issue("mallory", Role.COORDINATOR)
    victim, (hello,) = begin(Side.DIALER, terms(coordinator(), nonce=b"v" * 32))
    assert isinstance(hello, Hello)
    answering, _ = begin(Side.LISTENER, terms(worker(), tls_certificate=mallory.chain_der[0]))
    _, (answer, proof) = advance(answering, Hello(mallory.chain_der, hello.nonce))
    victim, _ = advance(victim, answer)
    with pytest.raises(HandshakeFailed, match="cannot sign"):
        advance(victim, proof)


def test_messages_out_of_order_end_the_handshake() -> None:
    answering, _ = begin(Side.LISTENER, terms(worker()))
    for message in (HelloProof(b"x"), Goodbye()):
        with pytest.raises(HandshakeFailed, match="in the middle"):
            advance(answering, message)
    calling, _ = after_hello(terms(coordinator()), terms(worker()))
    with pytest.raises(HandshakeFailed, match="in the middle"):
        advance(calling, Hello(worker().chain_der, bytes(32)))


def ends() -> tuple[OpenLink, SealedLink, MemoryLink, MemoryLink]:
    near, far = memory_pair()
    return OpenLink(near), SealedLink(far), near, far


def test_greeting_binds_both_links_to_their_peers() -> None:
    async def scenario() -> None:
        calling, answering, _, _ = ends()
        peers = await asyncio.gather(
            greet(Side.DIALER, calling, coordinator(), encode, name="st-elsewhere"),
            greet(Side.LISTENER, answering, worker(), seal),
        )
        assert peers == [worker().peer, coordinator().peer]
        assert calling.peer == worker().peer
        assert answering.peer.fingerprint == hashlib.sha256(coordinator().chain_der[0]).digest()

    run(scenario())


def test_both_sides_of_a_refused_greeting_have_a_closed_link_and_a_reason() -> None:
    async def scenario() -> None:
        calling, answering, near, far = ends()
        stranger = Authority.create().issue("coordinator-1", Role.COORDINATOR)
        results = await asyncio.gather(
            greet(Side.DIALER, calling, stranger, encode),
            greet(Side.LISTENER, answering, worker(), seal),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [PeerLost, HandshakeFailed]
        assert "may not trust our certificate" in str(results[0])
        assert far.bytes_sent == 0
        for link in (near, far):
            with pytest.raises(PeerLost):
                await link.send(Envelope(b"h"))

    run(scenario())


def test_a_peer_that_says_nothing_is_left() -> None:
    async def scenario() -> None:
        calling, _, near, _ = ends()
        with pytest.raises(PeerLost, match="within 0 s"):
            await greet(Side.DIALER, calling, coordinator(), encode, timeout_seconds=0)
        with pytest.raises(PeerLost):
            await near.send(Envelope(b"h"))

    run(scenario())


@pytest.mark.parametrize("seed", range(30))
def test_a_mutated_handshake_ends_with_an_error_of_ours(seed: int) -> None:
    stream = SeededEntropy(b"%d" % seed)

    def mutate(envelope: Envelope) -> Envelope:
        position = int.from_bytes(stream.random_bytes(4), "big") % len(envelope.header)
        flip = stream.random_bytes(1)[0] or 1
        header = bytearray(envelope.header)
        header[position] ^= flip
        return Envelope(bytes(header))

    async def scenario() -> None:
        calling, answering, near, far = ends()
        (near if seed % 2 else far).faults.change = mutate
        results = await asyncio.gather(
            greet(Side.DIALER, calling, coordinator(), encode),
            greet(Side.LISTENER, answering, worker(), seal),
            return_exceptions=True,
        )
        victim = results[1] if seed % 2 else results[0]
        assert isinstance(victim, FedprivError)

    run(scenario())
