"""`fedpriv worker start` with every bad input: exit code 2, a message with the mend, nothing written."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedpriv.cli import worker
from fedpriv.errors import FedprivError, UsageError
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

CONFIG = """\
[worker]
name = "alice"
[{section}]
address = "{address}"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
"""
ROWS = "a,b,y\n1.0,2.0,true\n2.0,1.5,false\n0.5,2.5,true\n"


def home(tmp_path: Path, *, config: str = "", rows: str = ROWS, days: int = 30, now: float | None = None) -> Path:
    folder = tmp_path / "alice"
    folder.mkdir()
    (folder / "rows.csv").write_text(rows)
    Authority.create(now=now).issue("alice", Role.WORKER, days=days, now=now).save(folder)
    (folder / "worker.toml").write_text(config or text())
    return folder


def text(section: str = "dial", address: str = "127.0.0.1:1") -> str:
    return CONFIG.format(section=section, address=address)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": text().replace("name = ", "nmae = ", 1)}, "did you mean 'name'"),
        ({"config": text().replace('"y"', '"z"')}, "'z'"),
        ({"config": text().replace("[dial]", 'device = "cuda:0"\n[dial]')}, "cpu alone"),
        ({"config": text().replace("rows.csv", "other.csv")}, "other.csv"),
        ({"config": text().partition("[[dataset]]")[0]}, "no data set yet: add one to"),
        ({"config": text().replace('"alice"', '"bob"', 1)}, "'alice'"),
        ({"rows": "a,b,y\n1.0,,true\n"}, "1 row with"),
        ({"rows": "a,b,y\n"}, "no rows"),
        ({"rows": "a,b,y\nx,2.0,true\n"}, "'a'"),
        ({"now": 1_600_000_000.0, "days": 30}, "expired"),
    ],
    ids=[
        "unknown key",
        "no target",
        "a device",
        "no file",
        "no data set",
        "other name",
        "missing value",
        "no rows",
        "text column",
        "expired",
    ],
)
def test_bad_input_is_refused_with_its_mend_and_nothing_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = home(tmp_path, **change)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(FedprivError) as refused:
        worker.start(folder / "worker.toml")
    assert refused.value.exit_code == 2
    assert message in str(refused.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_port_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder = home(tmp_path, config=text("listen", f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(UsageError, match="port is in use"):
            worker.start(folder / "worker.toml")
    assert not (folder / "state").exists()


@pytest.mark.slow
def test_an_unreachable_coordinator_is_tried_again_with_growing_pauses_and_sigterm_ends_it_cleanly(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = home(tmp_path, config=text("dial", f"127.0.0.1:{port}"))
    command = [sys.executable, "-m", "fedpriv.cli.app", "worker", "start", "--config", str(folder / "worker.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while not any("attempt 2" in line for line in said):
            said.append(process.stderr.readline())
            assert said[-1], "".join(said)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "does not listen" in "".join(said)
    assert "stopped; its ledger is published" in rest
    assert (folder / "state" / "ledger" / "checkpoint").exists()
