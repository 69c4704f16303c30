from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.cli.certs import app
from fedpriv.errors import CredentialsError, UsageError
from fedpriv.transport.credentials import Credentials
from fedpriv.wire.messages import Role


def run(*words: str | Path) -> None:
    outcome = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output


def test_an_issued_certificate_names_its_holder_and_role(tmp_path: Path) -> None:
    run("ca", tmp_path / "ca")
    run("issue", "alice", "--ca", tmp_path / "ca", "--out", tmp_path / "alice")
    run(
        "issue",
        "boss",
        "--role",
        "coordinator",
        "--ca",
        tmp_path / "ca",
        "--out",
        tmp_path / "boss",
        "--host",
        "h.example",
    )
    assert Credentials.load(tmp_path / "alice").peer.role is Role.WORKER
    assert Credentials.load(tmp_path / "boss", name="boss", role=Role.COORDINATOR)
    assert (tmp_path / "alice" / "key.pem").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca" / "ca-key.pem").stat().st_mode & 0o077 == 0


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    run("ca", tmp_path / "ca")
    before = (tmp_path / "ca" / "ca.pem").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        CliRunner().invoke(app, ["ca", str(tmp_path / "ca")], catch_exceptions=False)
    assert (tmp_path / "ca" / "ca.pem").read_bytes() == before


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"make one once with: fedpriv certs ca .*none"):
        CliRunner().invoke(
            app,
            ["issue", "alice", "--ca", str(tmp_path / "none"), "--out", str(tmp_path / "a")],
            catch_exceptions=False,
        )
    assert not (tmp_path / "a").exists()
