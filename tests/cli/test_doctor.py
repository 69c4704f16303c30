"""`fedpriv doctor` on machines that are well and on machines that are not: each failure with its mend and exit code."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from registrars import opened

from fedpriv.cli import doctor, joining
from fedpriv.clock import ManualClock, SystemClock
from fedpriv.ids import Role
from fedpriv.transport import listen
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.diagnosis import check_clock, check_disk, check_registrar
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv.transport.stream import StreamLink

AUTHORITY = Authority.create()


async def quiet(link: StreamLink) -> None:
    await link.receive()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    listener = Listener("127.0.0.1:0", AUTHORITY.issue("coordinator-1", Role.COORDINATOR), quiet)
    runtime.run(listener.start())
    yield listener.address
    runtime.run(listener.close())


def home(tmp_path: Path, address: str, *, own: Credentials | None = None, more: str = "") -> Path:
    folder = tmp_path / "alice"
    (own or AUTHORITY.issue("alice", Role.WORKER)).save(folder)
    config = folder / "worker.toml"
    config.write_text(
        f'[worker]\nname = "alice"\n[dial]\naddress = "{address}"\n[tls]\nca = "ca.pem"\n'
        f'certificate = "certificate.pem"\nkey = "key.pem"\n{more}'
    )
    return config


def examined(
    capsys: pytest.CaptureFixture[str], config: Path | None = None, job: Path | None = None
) -> tuple[int, dict[str, dict[str, str]]]:
    with pytest.raises(SystemExit) as ended:
        doctor.doctor(config, job, None, None, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (ended.value.code == 0)
    return int(ended.value.code or 0), {check["name"]: check for check in document["checks"]}


def test_all_is_well(tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examined(capsys, home(tmp_path, address))
    assert code == 0
    assert list(checks) == [
        "versions", "configuration", "disk", "certificate", "name", "port", "tls", "version", "clock",
    ]  # fmt: skip
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert "fedpriv" in checks["version"]["found"]


def test_people_read_a_line_for_each_and_the_mend_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        doctor.doctor(home(tmp_path, "127.0.0.1:1"), None, None, None, as_json=False)
    said = capsys.readouterr().out
    assert ended.value.code == 5
    assert "FAILED  port          127.0.0.1:1 does not listen\n" in said
    assert "-> start the other side, or check the address" in said


def test_a_name_that_leads_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examined(capsys, home(tmp_path, "nowhere.invalid:7443"))
    assert code == 5
    assert list(checks)[-1] == "name"
    assert "check its spelling" in checks["name"]["mend"]


def test_another_authority_is_said_with_both_keys(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = home(tmp_path, address, own=Authority.create().issue("alice", Role.WORKER))
    code, checks = examined(capsys, config)
    assert code == 5
    assert "its authority's key is" in checks["tls"]["found"]
    assert "ours is" in checks["tls"]["found"]
    assert "ca.pem of one authority" in checks["tls"]["mend"]


def test_a_clock_far_from_the_other_sides_says_by_how_much(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        @staticmethod
        def time() -> float:
            return time.time() + 5000

    monkeypatch.setattr(listen, "time", Late)
    code, checks = examined(capsys, home(tmp_path, address))
    assert code == 2
    assert checks["clock"]["found"].startswith("1 h 23 min behind 127.0.0.1:")
    assert "timedatectl" in checks["clock"]["mend"]


def test_an_expired_certificate_and_an_open_key(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Authority.create(now=time.time() - 90 * 86_400)
    own = old.issue("alice", Role.WORKER, days=30, now=time.time() - 60 * 86_400)
    code, checks = examined(capsys, home(tmp_path, address, own=own))
    assert code == 2
    assert "expired at" in checks["certificate"]["found"]
    (tmp_path / "well").mkdir()
    config = home(tmp_path / "well", address)
    (config.parent / "key.pem").chmod(0o644)
    code, checks = examined(capsys, config)
    assert code == 2
    assert "chmod 600" in checks["key"]["mend"]


def test_a_certificate_that_ends_soon_is_warned_of_unless_a_registrar_renews_it(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = AUTHORITY.issue("alice", Role.WORKER, days=5)
    code, checks = examined(capsys, home(tmp_path, address, own=own))
    assert code == 0
    assert checks["certificate"]["state"] == "warning"
    (tmp_path / "renewed").mkdir()
    config = home(tmp_path / "renewed", address, own=own, more='registrar = "127.0.0.1:1"\n')
    code, checks = examined(capsys, config)
    assert checks["certificate"]["state"] == "ok"
    assert checks["registrar"]["state"] == "warning"
    assert code == 0


def test_a_worker_that_joined_is_well_with_its_registrar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path / "ca") as office:
        joining.join_worker(office.token().text, "127.0.0.1:1", "", tmp_path / "alice")
        capsys.readouterr()
        _, checks = examined(capsys, tmp_path / "alice" / "worker.toml")
        assert checks["registrar"]["state"] == "ok"
        late = check_registrar(office.address, ManualClock(SystemClock().now() - 400))
        assert late.state == "failed"
        assert "6 min 40 s behind" in late.found


def test_a_configuration_that_cannot_be_read_is_the_first_failure(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = home(tmp_path, address)
    config.write_text(config.read_text().replace("name =", "nmae ="))
    code, checks = examined(capsys, config)
    assert code == 2
    assert "nmae" in checks["configuration"]["found"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpriv.transport import diagnosis

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diagnosis.tempfile, "NamedTemporaryFile", full)
    found = check_disk(tmp_path / "state")
    assert found.state == "failed"
    assert "No space left" in found.found
    assert found.exit_code == 1


def test_a_job_needs_its_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AUTHORITY.issue("coordinator-1", Role.COORDINATOR).save(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        job = tmp_path / "job.toml"
        job.write_text(
            'name = "toy"\ndataset = "toy"\nmodel = "model.py:build"\nloss = "model.py:loss"\nrounds = 1\n'
            f'listen = "127.0.0.1:{taken.getsockname()[1]}"\nlocal = {{ epochs = 1, batch_size = 2, lr = 0.1 }}\n'
            '[workers]\nnames = ["alice"]\n'
            '[tls]\nca = "ca.pem"\ncertificate = "certificate.pem"\nkey = "key.pem"\n'
        )
        code, checks = examined(capsys, job=job)
    assert code == 0
    assert checks["port"]["state"] == "warning"
    assert "stop what listens there" in checks["port"]["mend"]


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "ok"), (29.0, "ok"), (-40.0, "warning"), (301.0, "failed")])
def test_clocks_may_differ_a_little(ahead: float, state: str) -> None:
    assert check_clock(ahead, "hub").state == state


def test_the_listeners_own_version_comes_with_the_welcome(address: str) -> None:
    from fedpriv.transport.dial import dial

    async def welcome() -> StreamLink:
        link = await dial(address, AUTHORITY.issue("alice", Role.WORKER))
        await link.close()
        return link

    said = asyncio.run(welcome()).welcome
    assert said is not None
    assert said.protocol == "1"
