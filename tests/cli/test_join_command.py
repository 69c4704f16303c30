"""`fedpriv worker join` and the commands of the register: what is written, what is said, what is never overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from registrars import Office, opened
from typer.testing import CliRunner

from fedpriv.cli import joining
from fedpriv.cli.certs import app
from fedpriv.errors import CredentialsError, FedprivError, UsageError
from fedpriv.ids import Role
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.token import JoinToken
from fedpriv_worker.config import load_config


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with opened(tmp_path / "ca") as office:
        yield office


def said(*words: str | Path) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_a_worker_joins_and_its_folder_is_ready_for_its_data(
    office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said("administrator", tmp_path / "administrator")
    words = ("--ca", office.folder, "--administrator", tmp_path / "administrator" / "administrator.pub")
    token = said("join-token", "--worker", "st-elsewhere", "--registrar", office.address, *words).strip()
    home = tmp_path / "st-elsewhere"
    joining.join_worker(token, "coordinator.example:7443", "", home)
    config = load_config(home / "worker.toml")
    assert (config.worker.name, config.dial.address) == ("st-elsewhere", "coordinator.example:7443")
    assert config.tls.registrar == office.address
    assert config.secure_aggregation is not None
    assert config.datasets == ()
    assert Credentials.load(home, name="st-elsewhere", role=Role.WORKER)
    assert (home / "key.pem").stat().st_mode & 0o077 == 0
    told = capsys.readouterr()
    assert told.out == f"{home / 'worker.toml'}\n"
    assert "ready: add a data set" in told.err
    assert "compare that with what the administrator told you" in told.err


def test_nothing_that_exists_is_overwritten_and_the_token_stays_good(office: Office, tmp_path: Path) -> None:
    token, home = office.token().text, tmp_path / "alice"
    joining.join_worker(token, "localhost:7443", "", home)
    before = (home / "certificate.pem").read_bytes()
    with pytest.raises(UsageError, match=r"worker\.toml exists already; join in an empty folder"):
        joining.join_worker(office.token("bob").text, "localhost:7443", "", home)
    assert (home / "certificate.pem").read_bytes() == before


def test_a_join_that_failed_goes_on_with_the_same_key(office: Office, tmp_path: Path) -> None:
    token, home = office.token(), tmp_path / "alice"
    with pytest.raises(FedprivError, match="does not listen"):
        joining.join_worker(token.text, "localhost:7443", "127.0.0.1:1", home)
    key = (home / "key.pem").read_bytes()
    joining.join_worker(token.text, "localhost:7443", "", home)
    assert (home / "key.pem").read_bytes() == key


def test_a_token_for_another_role_makes_no_worker(office: Office, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"another role \(coordinator\)"):
        joining.join_worker(office.token("boss", Role.COORDINATOR).text, "localhost:7443", "", tmp_path / "boss")
    assert not (tmp_path / "boss" / "worker.toml").exists()


@pytest.mark.parametrize("coordinator", ["nowhere", "host:0", "host:port", "::1:7443"])
def test_a_coordinator_that_is_no_address_is_refused_before_anything_is_written(
    office: Office, tmp_path: Path, coordinator: str
) -> None:
    with pytest.raises(UsageError, match="coordinator"):
        joining.join_worker(office.token().text, coordinator, "", tmp_path / "alice")
    assert not (tmp_path / "alice").exists()


def test_what_was_issued_is_listed_and_revoked_by_name(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    said("ca", ca)
    for _ in range(2):
        said("issue", "alice", "--ca", ca, "--out", tmp_path / f"alice-{len(list(tmp_path.iterdir()))}")
    said("issue", "ann", "--role", "auditor", "--ca", ca, "--out", tmp_path / "ann")
    assert said("revoke", "alice", "--ca", ca) == "2 of alice revoked\n"
    rows = json.loads(said("list", "--ca", ca, "--json"))
    assert [(row["name"], row["revoked"] is None) for row in rows] == [
        ("alice", False),
        ("alice", False),
        ("ann", True),
    ]
    assert "ann  auditor" in said("list", "--ca", ca)
    with pytest.raises(UsageError, match="no certificate of 'alice' that still holds"):
        said("revoke", "alice", "--ca", ca)
    assert (ca / "register.sqlite").stat().st_mode & 0o077 == 0


def test_an_administrator_revokes_from_afar_and_an_auditor_lists(office: Office, tmp_path: Path) -> None:
    for name, role in (("alice", "worker"), ("boss", "administrator"), ("ann", "auditor")):
        said("issue", name, "--role", role, "--ca", office.folder, "--out", tmp_path / name)
    at = ("--at", office.address, "--credentials")
    assert said("revoke", "alice", *at, tmp_path / "boss") == "1 of alice revoked\n"
    assert "alice  worker" in said("list", *at, tmp_path / "ann")
    with pytest.raises(CredentialsError, match="of a role that may not"):
        said("revoke", "boss", *at, tmp_path / "ann")


@pytest.mark.parametrize("expires", ["0s", "31d", "soon"])
def test_a_token_lasts_some_time_and_not_for_ever(tmp_path: Path, expires: str) -> None:
    said("ca", tmp_path / "ca")
    with pytest.raises(UsageError, match="--expires"):
        said("join-token", "--worker", "alice", "--expires", expires, "--ca", tmp_path / "ca")


def test_the_registrar_is_a_process_that_a_worker_joins_at_and_sigterm_ends(tmp_path: Path) -> None:
    ca, home = tmp_path / "ca", tmp_path / "alice"
    said("ca", ca)
    command = [sys.executable, "-m", "fedpriv.cli.app", "certs", "serve", "--ca", str(ca), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().rpartition(" ")[2].strip()
        token = said("join-token", "--worker", "alice", "--ca", ca).strip()
        assert JoinToken.parse(token).registrar == ""
        joining.join_worker(token, "localhost:7443", address, home)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "the registrar stopped" in rest
    assert "alice joined as a worker" in rest
    assert Credentials.load(home).peer.name == "alice"
