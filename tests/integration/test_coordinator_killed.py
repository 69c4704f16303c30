"""Kill -9 of `fedpriv run` at any instant: `--resume` goes on at the exact round, and the model is the same to the bit.

Three workers are processes that dial; they live through all of it and come back by themselves.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dying import Nursery
from dying_coordinators import MOMENTS
from safetensors.torch import load_file

from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

pytestmark = pytest.mark.chaos

ROUNDS = 3
WORKERS = ("alice", "bob", "carol")
CONFIG = """\
[worker]
name = "{name}"
threads = 1
[dial]
address = "{address}"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
release = [{{ rule = "plain-update", recipients = ["coordinator-1"] }}]
"""
JOB = """\
name = "toy"
dataset = "toy"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
rounds = {rounds}
seed = 5
run = "{run}"
state = "state"
listen = "{address}"
local = {{ epochs = 1, batch_size = 4, optimizer = "sgd", lr = 0.1 }}
[workers]
names = ["alice", "bob", "carol"]
quorum = 3
deadline_seconds = 60
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
"""
MODEL = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))\n"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Site:
    """A coordinator's folder, three workers that run all the while, and runs that end or are killed."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.nursery, self.folder, self.address = nursery, folder, free_address()
        authority = Authority.create()
        authority.issue("coordinator-1", Role.COORDINATOR).save(folder)
        (folder / "model.py").write_text(MODEL)
        generator = torch.Generator().manual_seed(0)
        self.pids = []
        for name in WORKERS:
            home = folder / name
            authority.issue(name, Role.WORKER).save(home)
            rows = torch.randn(12, 2, generator=generator).tolist()
            lines = [f"{a:.4f},{b:.4f},{'true' if a > b else 'false'}" for a, b in rows]
            (home / "rows.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
            (home / "worker.toml").write_text(CONFIG.format(name=name, address=self.address))
            self.pids.append(nursery.start(task="start", config=home / "worker.toml")["pid"])

    def run(self, name: str, *, resume: bool = False, moment: str | None = None, at: int = 1) -> int:
        """Run or resume a job in the folder `name` and return how the process ended."""
        job = self.folder / f"{name}.toml"
        job.write_text(JOB.format(rounds=ROUNDS, run=name, address=self.address))
        kept = str(self.folder / name) if resume else ""
        return self.nursery.ended(self.nursery.start(task="run", job=job, resume=kept, step=moment, at=at)["pid"])

    def model(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "model.safetensors")

    def said(self) -> str:
        return (self.folder / "run.log").read_text()

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
            assert self.nursery.ended(pid) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    nursery = Nursery()
    try:
        site = Site(nursery, tmp_path_factory.mktemp("site"))
        assert site.run("undisturbed") == 0, site.said()
        yield site
        site.close()
    finally:
        nursery.close()


def killed_and_resumed(site: Site, name: str, moment: str, at: int) -> None:
    assert site.run(name, moment=moment, at=at) == -signal.SIGKILL, site.said()
    began = (site.folder / name / "round.json").exists()
    finished = not began and (site.folder / name / "history.json").exists()
    if not finished:
        assert site.run(name, resume=began) == 0, site.said()
    for tensor, value in site.model("undisturbed").items():
        assert torch.equal(site.model(name)[tensor], value)
    history = json.loads((site.folder / name / "history.json").read_text())
    assert [each["number"] for each in history["rounds"]] == list(range(1, ROUNDS + 1))
    for worker in WORKERS:
        assert verify_ledger(site.folder / worker / "state" / "ledger", key=None).entries > 0


ONCE = ("the result is being written", "the result is written")
EVERY = [(moment, at) for moment in MOMENTS for at in ((1,) if moment in ONCE else (1, 2, 5))]


def test_a_coordinator_that_is_killed_while_it_saves_a_round_goes_on_with_it(site: Site) -> None:
    killed_and_resumed(site, "quick", "a file is on the disk", 6)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "at"), [each for each in EVERY if each[1] < 5 or "round" not in each[0]])
def test_at_every_moment(site: Site, moment: str, at: int) -> None:
    killed_and_resumed(site, f"every-{EVERY.index((moment, at))}", moment, at)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_again_and_again_until_it_is_through(site: Site, seed: int) -> None:
    chance, name = random.Random(seed), f"again-{seed}"
    for _ in range(4):
        resume = (site.folder / name / "round.json").exists()
        if (site.folder / name / "history.json").exists() and not resume:
            break
        ended = site.run(name, resume=resume, moment=chance.choice([*MOMENTS]), at=chance.randint(1, 6))
        assert ended in (0, -signal.SIGKILL), site.said()
    if (site.folder / name / "round.json").exists() or not (site.folder / name / "history.json").exists():
        assert site.run(name, resume=(site.folder / name / "round.json").exists()) == 0, site.said()
    for tensor, value in site.model("undisturbed").items():
        assert torch.equal(site.model(name)[tensor], value)
