"""A peer joins with a token, renews and hears who is revoked, over real TLS; each refusal says its mend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from registrars import Office, new_key, opened

from fedpriv.clock import SystemClock
from fedpriv.errors import CredentialsError, FedprivError, HandshakeFailed, NotTrusted, PeerLost, UsageError
from fedpriv.ids import Role
from fedpriv.storage.register import Promise
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials, identify
from fedpriv.transport.joining import ClockOff, Handed, ask_as, ask_revoked, join, renew
from fedpriv.transport.registrar import Registrar, spki
from fedpriv.transport.revocation import read_revoked
from fedpriv.transport.runtime import Runtime
from fedpriv.transport.token import JoinToken, fingerprint_text

CLOCK = SystemClock()


@pytest.fixture
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with opened(tmp_path_factory.mktemp("ca")) as office:
        yield office


def joined(office: Office, name: str = "alice", role: Role = Role.WORKER, *, days: int = 30) -> Credentials:
    key = new_key()
    handed = join(office.token(name, role, days=days), office.address, role, key, CLOCK)
    return Credentials.of(handed.chain, key, handed.authorities)


def refused(office: Office, token: JoinToken, says: str, role: Role = Role.WORKER) -> str:
    with pytest.raises(FedprivError, match=says) as error:
        join(token, office.address, role, new_key(), CLOCK)
    return str(error.value)


def test_a_token_gives_the_certificate_that_it_promises_for_a_key_that_stays_here(office: Office) -> None:
    key = new_key()
    handed = join(office.token("st-elsewhere"), office.address, Role.WORKER, key, CLOCK)
    credentials = Credentials.of(handed.chain, key, handed.authorities)
    assert (credentials.peer.name, credentials.peer.role) == ("st-elsewhere", Role.WORKER)
    assert handed.authorities == (office.authority.certificate,)
    (issued,) = office.register.issued()
    assert (issued.name, issued.serial) == ("st-elsewhere", handed.chain[0].serial_number)


def test_a_token_is_good_once_and_the_second_peer_hears_that_somebody_was_there(office: Office) -> None:
    token = office.token()
    join(token, office.address, Role.WORKER, new_key(), CLOCK)
    office.clock.advance(120)
    says = refused(office, token, "used 2 min ago, by another key")
    assert "fedpriv certs revoke" in says
    assert "fedpriv certs join-token" in says
    assert len(office.register.issued()) == 1


def test_who_lost_the_answer_asks_again_with_the_same_key_and_gets_the_same_certificate(office: Office) -> None:
    token, key = office.token(), new_key()
    first = join(token, office.address, Role.WORKER, key, CLOCK)
    assert join(token, office.address, Role.WORKER, key, CLOCK).chain == first.chain
    office.clock.advance(3600)
    with pytest.raises(CredentialsError, match="expired"):
        join(replace(token), office.address, Role.WORKER, key, replace_clock(3600))


def replace_clock(ahead: float) -> SystemClock:
    class Ahead(SystemClock):
        def now(self) -> float:
            return time.time() + ahead

    return Ahead()


def test_a_key_that_spent_a_token_and_was_killed_before_it_was_answered_is_answered_later(office: Office) -> None:
    token, key = office.token(), new_key()
    promised = office.register.spend(token.id, token.secret, "worker", spki(key.public_key()), office.clock.now())
    assert isinstance(promised, Promise)
    assert join(token, office.address, Role.WORKER, key, CLOCK).chain[0].public_key() == key.public_key()


def test_an_expired_token_says_since_when(office: Office) -> None:
    token = office.token(seconds=60)
    office.clock.advance(180)
    assert "fedpriv certs join-token" in refused(office, token, "expired 2 min ago")


def test_a_token_of_another_role_is_refused_and_stays_good(office: Office) -> None:
    token = office.token("ann", Role.RESEARCHER)
    refused(office, token, "another role \\(researcher\\)")
    assert join(token, office.address, Role.RESEARCHER, new_key(), CLOCK).chain


def test_a_guessed_secret_is_no_more_than_an_unknown_token(office: Office) -> None:
    token = office.token()
    wrong, unknown = replace(token, secret=bytes(16)), replace(token, id=bytes(8))
    assert refused(office, wrong, "does not know this token") == refused(office, unknown, "does not know this token")
    assert join(token, office.address, Role.WORKER, new_key(), CLOCK).chain


def test_another_authority_is_named_by_both_fingerprints_and_the_secret_is_not_said(office: Office) -> None:
    elsewhere = Authority.create().fingerprint
    says = refused(office, replace(office.token(), authority=elsewhere), "another authority")
    assert fingerprint_text(elsewhere) in says
    assert fingerprint_text(office.authority.fingerprint) in says
    assert office.register.issued() == ()


@pytest.mark.parametrize(("ahead", "says"), [(-7380, "behind"), (7380, "ahead of")])
def test_a_clock_that_is_off_is_said_by_how_much_before_the_token_is_spent(
    office: Office, ahead: float, says: str
) -> None:
    token = office.token(seconds=86_400)
    with pytest.raises(ClockOff, match=f"2 h [23] min {says} the registrar's.*timedatectl"):
        join(token, office.address, Role.WORKER, new_key(), replace_clock(ahead))
    assert join(token, office.address, Role.WORKER, new_key(), CLOCK).chain


def test_a_worker_cannot_pass_for_the_registrar(office: Office, tmp_path) -> None:
    """Who holds any certificate of the authority must not get to hear a secret."""
    mallory, runtime = joined(office, "mallory"), Runtime()
    trap = Registrar(("127.0.0.1", 0), office.desk, mallory)
    runtime.run(trap.__aenter__())
    try:
        with pytest.raises(NotTrusted, match="certificate of 'mallory', a worker, and not of a registrar"):
            join(office.token(), f"127.0.0.1:{trap.port}", Role.WORKER, new_key(), CLOCK)
    finally:
        runtime.run(trap.__aexit__(None, None, None))
        runtime.close()


def test_a_certificate_is_renewed_under_its_own_name_and_role_for_a_new_key(office: Office) -> None:
    own, key = joined(office), new_key()
    handed = renew(office.address, own, key, CLOCK)
    fresh = Credentials.of(handed.chain, key, own.authorities)
    assert (fresh.peer.name, fresh.peer.role) == (own.peer.name, own.peer.role)
    assert fresh.chain[0].serial_number != own.chain[0].serial_number
    assert len(office.register.issued()) == 2


def test_who_is_revoked_renews_nothing_and_everybody_can_know(office: Office) -> None:
    own, boss = joined(office), joined(office, "boss", Role.ADMINISTRATOR)
    again = renew(office.address, own, new_key(), CLOCK)
    assert ask_revoked(office.address, own) == b""
    assert ask_as(office.address, boss, {"ask": "revoke", "name": "alice"})["count"] == 2
    with pytest.raises(CredentialsError, match="revoked, expired, or is of a role that may not"):
        renew(office.address, own, new_key(), CLOCK)
    revoked = read_revoked(ask_revoked(office.address, boss), boss.authorities, where="the list")
    for chain in (own.chain, again.chain):
        with pytest.raises(HandshakeFailed, match=r"revoked at .* UTC.*join-token"):
            identify(chain, own.authorities, revoked=revoked)
    assert identify(boss.chain, boss.authorities, revoked=revoked) == boss.peer


def test_a_revoked_name_cannot_use_its_token_again(office: Office) -> None:
    token, key = office.token(), new_key()
    join(token, office.address, Role.WORKER, key, CLOCK)
    office.register.revoke("alice", office.clock.now())
    with pytest.raises(CredentialsError, match="was used"):
        join(token, office.address, Role.WORKER, key, CLOCK)


@pytest.mark.parametrize("role", [Role.WORKER, Role.COORDINATOR, Role.RESEARCHER, Role.AUDITOR])
def test_only_an_administrator_revokes(office: Office, role: Role) -> None:
    own = joined(office, "somebody", role)
    with pytest.raises(CredentialsError, match="of a role that may not"):
        ask_as(office.address, own, {"ask": "revoke", "name": "somebody"})
    assert office.register.issued()[0].revoked is None


def test_an_auditor_and_an_administrator_see_what_was_issued_and_nobody_else_does(office: Office) -> None:
    for name, role in (("ann", Role.AUDITOR), ("boss", Role.ADMINISTRATOR)):
        assert "ann" in str(ask_as(office.address, joined(office, name, role), {"ask": "issued"})["issued"])
    with pytest.raises(CredentialsError):
        ask_as(office.address, joined(office), {"ask": "issued"})


def test_a_certificate_of_another_authority_does_not_even_get_through_tls(office: Office) -> None:
    other = Authority.create().issue("boss", Role.ADMINISTRATOR)
    mixed = Credentials(other.chain, other.key, (office.authority.certificate,), other.peer)
    with pytest.raises(PeerLost):
        ask_as(office.address, mixed, {"ask": "revoke", "name": "alice"})


def test_a_registrar_that_is_not_there_says_what_to_start() -> None:
    token = JoinToken(bytes(8), bytes(16), bytes(32))
    with pytest.raises(PeerLost, match="does not listen; start the other side"):
        join(token, "127.0.0.1:1", Role.WORKER, new_key(), CLOCK)


def test_a_token_comes_back_from_its_text_and_a_damaged_one_does_not() -> None:
    token = JoinToken(b"i" * 8, b"s" * 16, b"f" * 32, "ca.example:7444", b"k" * 32)
    assert JoinToken.parse(f" {token.text}\n") == token
    assert "s" * 16 not in repr(token)
    for damaged in (token.text[:-1], token.text[1:], token.text.swapcase(), "", "fedpriv-join-1.", "x" * 2000):
        with pytest.raises(UsageError, match="no whole join token") as error:
            JoinToken.parse(damaged)
        assert token.text[20:60] not in str(error.value)


def test_what_is_handed_out_does_not_print() -> None:
    assert "BEGIN" not in repr(Handed((), (), b"BEGIN"))
