"""Worker processes that are killed in a round of secure aggregation, after any of their messages: the round goes on.

The workers are those of `fedpriv worker start`, each a process with a state folder of its own, and the killing is that
of `fedpriv demo --kill`. In each round of one run another worker is killed, after another message.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dying import Nursery
from torch import nn

import fedpriv as fp
from fedpriv.cli.demo_data import enrol
from fedpriv.cli.killing import KINDS, Kill, Killer
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.privacy.reservations import State
from fedpriv.storage.verification import read_entries, verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role
from fedpriv_coordinator.federation import Federation
from fedpriv_worker.journal import Journal

pytestmark = pytest.mark.chaos

NAMES = tuple(f"worker-{number:02d}" for number in range(1, 13))
AFTER = ("", *KINDS.values())
VICTIMS = {NAMES[at]: Kill(NAMES[at], at + 1, after) for at, after in enumerate(AFTER)}
ROUNDS = len(AFTER) + 1
ROWS = 8
LEARNING_RATE = 0.25
# What a worker that was started again finds of the round in which it was killed.
LEAVES = {
    "": None,
    "secagg-advertise": State.INTERRUPTED,
    "secagg-shares": State.INTERRUPTED,
    "secagg-masked": State.LOST,
    "secagg-confirm": State.LOST,
    "secagg-unmask": State.LOST,
}
CONFIG = """\
[worker]
name = "{name}"
state = "{state}"
threads = 1
[dial]
address = "{address}"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[secure_aggregation]
administrator = "{administrator}"
[[dataset]]
name = "toy"
path = "rows.npz"
target = "target"
release = [{{ rule = "secure-sum", rounds_per_day = 1000 }}]
"""


def rows(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one worker's rows, features of shape (8, 2)."""
    generator = torch.Generator().manual_seed(NAMES.index(name))
    features = torch.randn(ROWS, 2, generator=generator)
    return features, features @ torch.tensor([1.0, -2.0]) + torch.randn(ROWS, generator=generator)


def state(folder: Path, name: str) -> Path:
    return folder / "workers" / name / "state"


@dataclass
class Run:
    """What is left of the run: its result, the coordinator's first model, and how each process ended."""

    folder: Path
    result: fp.Result
    first: nn.Module
    ended: dict[str, int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder, authority, nursery = tmp_path_factory.mktemp("run"), Authority.create(), Nursery()
    signed, administrator = enrol(folder, NAMES)
    pids: dict[str, int] = {}
    killers = [
        Killer(kill, partial(lambda name, sent: os.kill(pids[name], sent), name)) for name, kill in VICTIMS.items()
    ]

    def start(address: str) -> None:
        for name in NAMES:
            home = state(folder, name).parent
            features, target = rows(name)
            np.savez(home / "rows.npz", features=features.numpy(), target=target.numpy())
            authority.issue(name, Role.WORKER).save(home)
            terms = {"name": name, "state": "state", "address": address, "administrator": administrator}
            (home / "worker.toml").write_text(CONFIG.format(**terms))
            pids[name] = nursery.start(task="start", config=home / "worker.toml")["pid"]

    def on_message(worker: str, kind: str) -> None:
        for killer in killers:
            killer.heard(worker, kind)

    def round_begins(number: int) -> None:
        for killer in killers:
            killer.round_begins(number)

    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    try:
        with Federation.listen(
            "127.0.0.1:0", credentials=authority.issue("me", Role.COORDINATOR), workers=NAMES, on_listening=start,
            on_message=on_message,
        ) as federation:  # fmt: skip  # one line of terms
            round_begins(1)
            result = federation.fit(
                first, dataset="toy", loss=F.mse_loss, rounds=ROUNDS, quorum=3, deadline_seconds=60,
                local=fp.LocalTraining(epochs=1, batch_size=ROWS, optimizer=fp.SGD(lr=LEARNING_RATE)),
                secure_aggregation=fp.SecureAggregation(roster=signed),
                on_round=lambda record: round_begins(record.number + 1),
            )  # fmt: skip  # one line of terms
        for name in NAMES[len(VICTIMS) :]:
            os.kill(pids[name], signal.SIGTERM)
        yield Run(folder, result, first, {name: nursery.ended(pid) for name, pid in pids.items()})
    finally:
        nursery.close()


def test_only_those_were_killed_that_were_to_be(run: Run) -> None:
    assert run.ended == {name: -signal.SIGKILL if name in VICTIMS else 0 for name in NAMES}


def test_every_round_is_complete_and_says_who_went_away(run: Run) -> None:
    rounds = run.result.history.rounds
    assert [record.outcome for record in rounds] == ["complete"] * ROUNDS
    for record, (name, kill) in zip(rounds, VICTIMS.items(), strict=False):
        in_the_sum = kill.after in ("secagg-masked", "secagg-confirm", "secagg-unmask")
        statuses = {part.worker: part.status for part in record.workers}
        assert statuses == {
            **dict.fromkeys(NAMES[record.number - 1 :], "folded"),
            name: "folded" if in_the_sum else "lost",
        }
    # a loss after the last message may be noticed a round later
    assert [lost.worker for lost in run.result.lost] == list(VICTIMS)


def test_every_sum_is_of_exactly_those_whose_words_arrived(run: Run) -> None:
    """Train again here, in the open, on the rows of those whom the history has in the sum."""
    model = run.first
    for record in run.result.history.rounds:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        updates = []
        for part in record.workers:
            if part.status == "folded":
                features, target = rows(part.worker)
                model.load_state_dict(before)
                model.zero_grad()
                F.mse_loss(model(features), target).backward()
                updates.append({name: -LEARNING_RATE * each.grad for name, each in model.named_parameters()})
        means = {name: torch.stack([update[name] for update in updates]).mean(0) for name in before}
        model.load_state_dict({name: value + means[name] for name, value in before.items()})
    for name, value in run.result.model.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-3), name


@pytest.mark.parametrize("name", NAMES)
def test_every_ledger_verifies_and_ends_where_the_process_did(run: Run, name: str) -> None:
    folder = state(run.folder, name)
    verify_ledger(folder / "ledger", key=None)
    entries = list(read_entries(folder / "ledger"))
    received = sum(row.bytes for row in run.result.egress if row.worker == name)
    assert received <= sum(entry.draft.bytes for entry in entries)
    if name not in VICTIMS:
        return
    kill = VICTIMS[name]
    kinds = [entry.draft.kind for entry in entries if entry.draft.kind.startswith("secagg")]
    begun = list(KINDS.values())[: AFTER.index(kill.after)]
    assert kinds == list(KINDS.values()) * (kill.round - 1) + begun


@pytest.mark.parametrize("name", VICTIMS)
def test_a_worker_that_was_killed_is_charged_for_what_it_had_begun_and_sends_nothing_again(run: Run, name: str) -> None:
    kill, folder = VICTIMS[name], state(run.folder, name)
    journal = Journal.open(folder, worker=WorkerName(name), clock=SystemClock(), entropy=SystemEntropy())
    try:
        found = {held.round: held.state for held in journal.holds.all()}
    finally:
        journal.close()
    assert found.get(kill.round) == LEAVES[kill.after]
    assert set(found) == set(range(1, kill.round + (kill.after != "")))
