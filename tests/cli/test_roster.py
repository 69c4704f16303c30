"""Rosters on the command line: an administrator signs, owners accept, and nothing older or of another key counts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedpriv.cli import certs, roster
from fedpriv.errors import ConfigError, CredentialsError, FedprivError, UsageError, VerificationFailed
from fedpriv.secagg.reasons import Refused
from fedpriv.storage.rosters import SignedRoster, load_identity, load_roster
from fedpriv_worker.enrolment import NotAccepted
from fedpriv_worker.rosters import AcceptedRoster


def run(app: typer.Typer, *words: str | Path) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


CONFIG = """
[worker]
name = "{name}"
state = "state"
[listen]
address = "127.0.0.1:0"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[secure_aggregation]
administrator = "{key}"
"""


class Federation:
    """An administrator and the configurations of its workers, in one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.key = run(certs.app, "administrator", home / "administrator").split()[0]
        self.roster = home / "roster.toml"

    def worker(self, name: str, key: str | None = None) -> Path:
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        (folder / "worker.toml").write_text(CONFIG.format(name=name, key=key or self.key))
        return folder / "worker.toml"

    def line(self, name: str) -> str:
        return run(roster.app, "show", "--config", self.worker(name)).splitlines()[0]

    def sign(self, *lines: str) -> None:
        words = ("--federation", "clinics", "--administrator", self.home / "administrator", "--out", self.roster)
        run(certs.app, "roster", *words, *lines)

    def accept(self, name: str, file: Path | None = None) -> str:
        return run(roster.app, "accept", file or self.roster, "--config", self.home / name / "worker.toml")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def test_a_roster_that_is_signed_is_accepted_and_shown(federation: Federation) -> None:
    lines = [federation.line(name) for name in ("bob", "alice")]
    federation.sign(*lines)
    assert "federation clinics, version 1, 2 workers" in federation.accept("alice")
    shown = json.loads(run(roster.app, "show", "--json", "--config", federation.home / "alice" / "worker.toml"))
    assert [each["name"] for each in shown["roster"]["workers"]] == ["alice", "bob"]
    assert f"alice={shown['key']}" in lines
    assert (federation.home / "alice" / "state" / "identity-key").stat().st_mode & 0o777 == 0o600


def test_versions_rise_and_none_before_is_accepted_again(federation: Federation) -> None:
    lines = [federation.line(name) for name in ("alice", "bob", "carol")]
    federation.sign(*lines)
    first = federation.home / "first.toml"
    first.write_text(federation.roster.read_text())
    federation.sign(*lines[:2])
    assert load_roster(federation.roster).roster.version == 2
    federation.accept("alice")
    with pytest.raises(NotAccepted, match="version 1 does not follow version 2") as older:
        federation.accept("alice", first)
    assert older.value.exit_code == 4
    federation.accept("alice")  # the same again changes nothing
    accepted = load_roster(federation.roster).roster
    administrator = load_identity(federation.home / "administrator" / certs.ADMINISTRATOR_KEY)
    other = SignedRoster.sign(replace(accepted, members=accepted.members[:1]), administrator)
    other.save(federation.home / "other.toml")
    with pytest.raises(NotAccepted, match="another one of version 2 than that of version 2, which was accepted"):
        federation.accept("alice", federation.home / "other.toml")


def test_a_roster_put_back_behind_the_worker_is_not_used(federation: Federation) -> None:
    lines = [federation.line(name) for name in ("alice", "bob", "carol")]
    federation.sign(*lines)
    old = federation.roster.read_text()
    federation.sign(*lines[:2])
    federation.accept("alice")
    key = load_administrator(federation)
    accepted, remembered = AcceptedRoster(federation.home / "alice" / "state", key), {}

    def raise_to(name: str, version: int) -> int:
        before = remembered.get(name, -1)
        remembered[name] = max(version, before)
        return before

    assert accepted.current(raise_to).version == 2
    (federation.home / "alice" / "state" / "roster.toml").write_text(old)
    with pytest.raises(VerificationFailed, match="version 2 was used already"):
        accepted.current(raise_to)


def load_administrator(federation: Federation) -> bytes:
    from fedpriv.storage.rosters import key_of

    return key_of(federation.key, "administrator")


def test_another_key_than_the_one_that_the_owner_pinned_signs_nothing(federation: Federation, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other")
    federation.sign(federation.line("alice"), federation.line("bob"))
    federation.worker("alice", other.key)
    with pytest.raises(VerificationFailed) as refused:
        federation.accept("alice")
    assert refused.value.exit_code == 3
    said = str(refused.value)
    assert f"is signed by {federation.key}, and the key {other.key}, which worker.toml pins as administrator" in said


def test_a_changed_roster_is_not_the_signed_one(federation: Federation) -> None:
    federation.sign(federation.line("alice"), federation.line("bob"))
    text = federation.roster.read_text()
    federation.roster.write_text(text.replace('name = "bob"', 'name = "bot"'))
    with pytest.raises(VerificationFailed, match=rf"does not verify: the key {re.escape(federation.key)}, which"):
        federation.accept("alice")


def test_a_roster_that_names_another_key_than_the_one_that_signed_it_convinces_nobody(federation: Federation) -> None:
    """Whoever alters the file cannot have the owner told that it is signed by a key of their choice."""
    federation.sign(federation.line("alice"), federation.line("bob"))
    text, theirs = federation.roster.read_text(), federation.line("bob").partition("=")[2]
    federation.roster.write_text(text.replace(f'administrator = "{federation.key}"', f'administrator = "{theirs}"'))
    federation.accept("alice")  # the line is for people alone
    federation.roster.write_text(federation.roster.read_text().replace('name = "bob"', 'name = "bot"'))
    with pytest.raises(VerificationFailed) as refused:
        federation.accept("alice")
    assert theirs not in str(refused.value)


def test_a_worker_that_is_not_on_it_or_with_another_key_does_not_accept_it(federation: Federation) -> None:
    alice, bob, carol = (federation.line(name) for name in ("alice", "bob", "carol"))
    federation.sign(alice, bob)
    with pytest.raises(Refused, match="'carol' is not on the roster"):
        federation.accept("carol")
    federation.sign(alice, f"bob={carol.removeprefix('carol=')}")
    with pytest.raises(Refused, match=r"has the key \S{44} for 'bob', and this worker holds \S{44};"):
        federation.accept("bob")


def test_a_replaced_key_counts_up_and_another_federation_is_another_roster(federation: Federation) -> None:
    alice, bob, carol = (federation.line(name) for name in ("alice", "bob", "carol"))
    federation.sign(alice, bob)
    federation.sign(alice, f"bob={carol.removeprefix('carol=')}")
    assert [each.version for each in load_roster(federation.roster).roster.members] == [1, 2]
    where = ("--administrator", federation.home / "administrator", "--out", federation.roster)
    with pytest.raises(UsageError, match="is of federation 'clinics', not 'banks'"):
        run(certs.app, "roster", "--federation", "banks", *where, alice)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("alice",), UsageError, "is no NAME=KEY"),
        (("alice=xyz",), ConfigError, "the key of 'alice' is not 32 bytes in base64"),
        (("Alice=xyz",), UsageError, "worker name 'Alice' is not usable"),
    ],
)
def test_what_is_no_worker_is_refused(
    federation: Federation, words: tuple[str, ...], error: type[FedprivError], says: str
) -> None:
    with pytest.raises(error, match=says):
        federation.sign(*words)


def test_without_an_administrator_nothing_is_signed_and_none_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="holds no administrator; make one"):
        run(certs.app, "roster", "--federation", "clinics", "--administrator", tmp_path, "--out", tmp_path / "r", "a=b")
    run(certs.app, "administrator", tmp_path / "administrator")
    with pytest.raises(UsageError, match="exists and may be in use"):
        run(certs.app, "administrator", tmp_path / "administrator")


def test_an_owner_who_pins_nobody_accepts_nothing(federation: Federation) -> None:
    federation.sign(federation.line("alice"), federation.line("bob"))
    config = federation.home / "alice" / "worker.toml"
    config.write_text(config.read_text().partition("[secure_aggregation]")[0])
    with pytest.raises(UsageError, match="pins no administrator"):
        federation.accept("alice")
