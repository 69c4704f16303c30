"""The program of 0.2 against two worker processes, as their owners start them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from test_syft_seed import trained, trained_here
from torch import nn

import fedpriv as fp
import fedpriv.syft as sy
from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

CONFIG = """\
[worker]
name = "{name}"
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
release = [ {{ rule = "approval" }} ]
"""


@contextmanager
def process(home: Path, name: str, authority: Authority) -> Iterator[int]:
    """Start a worker as `fedpriv worker start` does, yield its port, and end it as an owner does."""
    authority.issue(name, Role.WORKER).save(home)
    (home / "worker.toml").write_text(CONFIG.format(name=name))
    (home / "rows.csv").write_text("x,y\n" + "\n".join(f"{at},{at % 2}" for at in range(20)))
    start = [sys.executable, "-m", "fedpriv.cli.app", "worker", "start", "--config", str(home / "worker.toml")]
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        line = ""
        while not line.startswith("listening on "):
            line = running.stderr.readline()
            assert line, "the worker ended before it listened"
        yield int(line.rpartition(":")[2])
        running.terminate()
        running.stderr.read()
    assert running.returncode == 0


@pytest.mark.slow
def test_the_program_runs_over_two_worker_processes_and_their_ledgers_verify(tmp_path: Path) -> None:
    authority, hook = Authority.create(), sy.TorchHook(torch)
    authority.issue("me", Role.RESEARCHER).save(tmp_path / "me")
    credentials = fp.Credentials.load(tmp_path / "me")
    torch.manual_seed(0)
    remote, local = nn.Linear(2, 1), nn.Linear(2, 1)
    local.load_state_dict(remote.state_dict())
    with ExitStack() as stack:
        workers = [
            sy.WebsocketClientWorker(
                hook, host="127.0.0.1", id=name, credentials=credentials,
                port=stack.enter_context(process(tmp_path / name, name, authority)),
            )
            for name in ("bob", "alice")
        ]  # fmt: skip  # one line of parts
        losses = trained(*workers, remote)
        for worker in workers:
            worker.close()
    assert torch.allclose(torch.stack(losses), torch.stack(trained_here(local)), atol=1e-6)
    for name in ("bob", "alice"):
        assert verify_ledger(tmp_path / name / "state" / "ledger", key=None).entries > 20
