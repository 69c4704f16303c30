"""A worker process, a researcher who asks, and an owner who answers from another process: the whole path."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fedpriv as fp
from fedpriv.cli import app as command
from fedpriv.errors import FedprivError
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

pytestmark = pytest.mark.slow

CONFIG = """\
[worker]
name = "alice"
[listen]
address = "127.0.0.1:0"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
release = [ { rule = "approval" } ]
"""


def run(capsys, home: Path, *arguments) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command.main([*map(str, arguments), "--config", str(home / "worker.toml")])
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.fixture
def home(tmp_path: Path) -> Path:
    authority = Authority.create()
    authority.issue("me", Role.RESEARCHER).save(tmp_path / "me")
    authority.issue("alice", Role.WORKER).save(tmp_path)
    (tmp_path / "worker.toml").write_text(CONFIG)
    rows = [f"{x},{x * x},{'true' if x > 0 else 'false'}" for x in range(-20, 20)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,y", *rows]))
    return tmp_path


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """Start the worker; end it as an owner does, and hold it to a clean end."""
    start = [sys.executable, "-m", "fedpriv.cli.app", "worker", "start", "--config", str(home / "worker.toml")]
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = ""
        while not line.startswith("listening on "):
            line = process.stderr.readline()
            assert line
        yield line.removeprefix("listening on ").strip()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert not (home / "state" / "control.sock").exists()


def test_what_waits_is_explained_approved_done_and_withdrawn(home, address, capsys) -> None:
    worker = fp.connect(address, credentials=fp.Credentials.load(home / "me"))
    federation = fp.Federation([worker])

    def fit(rounds: int) -> fp.FitResult:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
        local = fp.LocalTraining(epochs=1, batch_size=8, optimizer=fp.SGD(lr=0.01))
        loss = F.binary_cross_entropy_with_logits
        return federation.fit(model, dataset="toy", loss=loss, rounds=rounds, local=local)

    with pytest.raises(FedprivError):
        fit(2)
    code, out = run(capsys, home, "worker", "requests", "--json")
    assert code == 0
    (request,) = map(json.loads, out.splitlines())
    assert (request["standing"], request["recipient"], request["releases"]) == ("waiting", "me", ["update"])

    code, out = run(capsys, home, "worker", "explain", request["id"])
    assert "it waits for your answer" in out
    assert "3 trained numbers in 2 tensors" in out
    assert run(capsys, home, "worker", "approve", request["id"], "--releases", 2)[0] == 0
    assert [record.outcome for record in fit(2).history.rounds] == ["complete", "complete"]

    code, out = run(capsys, home, "worker", "explain", request["id"], "--json")
    found = json.loads(out)
    assert found["approval"]["used"] == 2
    assert (found["left"]["messages"], found["left"]["outside_forecast"]) == (2, [])
    with pytest.raises(FedprivError):
        fit(1)

    assert run(capsys, home, "worker", "deny", request["id"], "--why", "the study is over")[0] == 0
    with pytest.raises(FedprivError, match="its owner denied this very request") as refused:
        fit(1)
    assert "the study is over" not in str(refused.value)
    code, out = run(capsys, home, "worker", "datasets", "--json")
    assert json.loads(out)["budget"]["releases"] == 2
    federation.close()
