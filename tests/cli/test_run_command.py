"""`fedpriv run`: where a run is kept, who is waited for, and how to go on with one that was interrupted."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import fedpriv as fp
from fedpriv.cli.run import Interrupted, Missing, run
from fedpriv.cli.stopping import Terminated, terminable
from fedpriv.clock import ManualClock, SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial_with_retry
from fedpriv.transport.hello import Side
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Role
from fedpriv_coordinator.config import load_job
from fedpriv_coordinator.journal import RunFolder
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.worker import Worker, serve_quietly

JOB = """\
name = "tumours"
dataset = "toy"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
evaluate = "model.py:evaluate"
rounds = 3
run = "kept"
worker_metrics = ["loss"]
listen = "{listen}"
local = {{ epochs = 1, batch_size = 8, optimizer = "sgd", lr = 0.1 }}
[workers]
names = ["alice"]
[tls]
ca = "coordinator/ca.pem"
certificate = "coordinator/certificate.pem"
key = "coordinator/key.pem"
"""
MODEL = """\
from pathlib import Path
from torch import nn
calls = []
def build():
    return nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
def evaluate(model):
    calls.append(1)
    if len(calls) == 2:
        raise KeyboardInterrupt
    return {"calls": len(calls)}
"""


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def job_file(folder: Path, authority: Authority, listen: str) -> Path:
    authority.issue("coordinator-1", Role.COORDINATOR).save(folder / "coordinator")
    (folder / "model.py").write_text(MODEL)
    (folder / "job.toml").write_text(JOB.format(listen=listen))
    return folder / "job.toml"


@contextmanager
def dialling_worker(authority: Authority, address: str) -> Iterator[None]:
    rules = [fp.PlainUpdate(recipients=("coordinator-1",)), fp.Metrics(recipients=("coordinator-1",))]
    features = torch.linspace(-1, 1, 90).reshape(30, 3)
    datasets = (Dataset("toy", features, features.sum(1) > 0, release=rules, validation=0.2),)
    name = WorkerName("alice")
    journal = Journal.in_memory(worker=name, clock=SystemClock(), entropy=SystemEntropy())
    credentials = authority.issue("alice", Role.WORKER)
    worker = Worker(name, datasets, executor=InProcessExecutor(datasets), journal=journal, credentials=credentials)

    async def keep_dialling() -> None:
        while True:
            raw = await dial_with_retry(address, credentials, on_wait=lambda *_: None, jitter=lambda: 1.0)
            await serve_quietly(worker, raw, Side.DIALER)

    task = runtime.start(keep_dialling())
    try:
        yield
    finally:
        task.cancel()
        runtime.run(worker.close())


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority, address = Authority.create(), free_address()
    job, kept = job_file(tmp_path, authority, address), tmp_path / "kept"
    with dialling_worker(authority, address):
        with pytest.raises(Interrupted) as interrupted:
            run(job, None, as_json=True)
        assert interrupted.value.exit_code == 130
        saved = f"model and history up to there are saved in {kept}"
        assert str(interrupted.value) == (
            f"interrupted after round 1: {saved}; go on with: fedpriv run {job} --resume {kept}"
        )
        assert f"the run is kept in {kept}" in capsys.readouterr().err
        with pytest.raises(UsageError, match="not finished; go on with"):
            run(job, None, as_json=True)
        run(job, kept, as_json=True)
    said = capsys.readouterr()
    assert f"the run is kept in {kept}; going on after round 1" in said.err
    assert said.err.endswith(f"saved in {kept}\n")
    holds = f"--holds {kept}/witness/WORKER.checkpoint --witness fedpriv.witness/coordinator-1+"
    assert f"  fedpriv audit verify LEDGER --key KEY {holds}" in said.err
    assert (
        f"  fedpriv audit reconcile LEDGER {kept} --key KEY --coordinator-key fedpriv.ingress/coordinator-1+"
        in said.err
    )
    assert verify_ledger(kept / "ingress", key=None).origin == "fedpriv.ingress/coordinator-1"
    assert verify_ledger(tmp_path / "coordinator-state" / "ledger", key=None).entries > 0
    assert (kept / "witness" / "alice.checkpoint").exists()
    assert json.loads(said.out)["rounds"] == 3
    with pytest.raises(UsageError, match="this run is finished"):
        run(job, kept, as_json=True)


@pytest.mark.slow
def test_a_run_that_is_sent_sigterm_ends_in_order_and_says_what_was_saved(tmp_path: Path) -> None:
    authority, address = Authority.create(), free_address()
    job, kept = job_file(tmp_path, authority, address), tmp_path / "kept"
    job.write_text(
        job.read_text().replace("rounds = 3", "rounds = 100000").replace('evaluate = "model.py:evaluate"\n', "")
    )
    command = [sys.executable, "-m", "fedpriv.cli.app", "run", str(job)]
    with (
        dialling_worker(authority, address),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        seen = next((line for line in process.stderr if line.startswith("round 2/")), "it ended before")
        assert seen.startswith("round 2/")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    reached = len(RunFolder(kept).load().history.rounds)
    assert reached >= 2
    assert err.splitlines()[-1].startswith("fedpriv: error: terminated after round ")
    assert f": model and history up to there are saved in {kept}; go on with: fedpriv run {job} --resume" in err
    assert "Traceback" not in err


def test_sigterm_ends_what_is_open_and_is_what_it_was_before_afterwards() -> None:
    before, closed = signal.getsignal(signal.SIGTERM), list[str]()

    def open_and_told_to_end() -> None:
        with terminable():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                closed.append("closed")

    with pytest.raises(Terminated) as ended:
        open_and_told_to_end()
    assert (ended.value.code, closed) == (143, ["closed"])
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_without_a_run_is_refused_before_anything_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        job = job_file(tmp_path, Authority.create(), f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UsageError, match="holds no run to resume"):
            run(job, tmp_path / "other", as_json=False)


def test_the_missing_workers_are_named_every_fifteen_seconds_with_what_to_check(tmp_path: Path) -> None:
    clock, said = ManualClock(), list[str]()
    job = job_file(tmp_path, Authority.create(), "0.0.0.0:7443")
    job.write_text(job.read_text().replace('names = ["alice"]', 'names = ["bob", "alice", "carol"]'))
    missing = Missing(load_job(job), said.append, clock)
    missing.remind()
    missing.note("worker bob is connected")
    clock.advance(15)
    missing.remind()
    missing.remind()
    missing.note("worker alice is connected")
    clock.advance(15)
    missing.remind()
    assert [line.split(" (")[0].split(":")[0] for line in said] == [
        "worker bob is connected",
        "still waiting for alice, carol",
        "worker alice is connected",
        "still waiting for carol",
    ]
    assert "(15 s of 300): check there that the worker runs" in said[1]
    assert "[dial] address leads to port 7443 of this machine" in said[1]
    assert f"the authority in {tmp_path / 'coordinator' / 'ca.pem'}" in said[1]


def test_a_run_ends_its_wait_when_the_job_says_so_and_claims_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_file(tmp_path, Authority.create(), free_address())
    job.write_text(job.read_text().replace('names = ["alice"]', 'names = ["alice"]\nwait_seconds = 0.05'))
    with pytest.raises(
        fp.PeerLost, match=r"0 of 1 workers connected within 0\.05 s .* missing: alice; start them, or take"
    ):
        run(job, None, as_json=False)
    assert "kept in" not in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
