"""What a federation leaves behind to check: both sides' ledgers agree, and a ledger cannot be cut short unnoticed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, MakeFleet, make_worker, toy
from torch import nn

import fedpriv as fp
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Entry
from fedpriv.ledger.reconciling import Count, reconcile
from fedpriv.plans.plan import Plan
from fedpriv.storage.verification import read_entries, verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.runtime import Running, runtime
from fedpriv.wire.messages import Role, Train
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.worker import Worker, serve_quietly

OPEN = (
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Metrics(recipients=(RESEARCHER,)),
    fp.Statistics(recipients=(RESEARCHER,)),
)
TERMS = {
    "dataset": "toy",
    "loss": F.binary_cross_entropy_with_logits,
    "local": fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5)),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


def from_worker(ingress: Path, name: str) -> list[Entry]:
    return [entry for entry in read_entries(ingress) if entry.draft.peer == name]


def test_what_was_received_is_what_each_worker_recorded(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(
        {name: [toy(64, seed=at, release=OPEN, validation=0.25)] for at, name in enumerate(("alice", "bob"))}
    )
    fleet.federation.statistics("toy")
    result = fleet.federation.fit(network(), **TERMS, rounds=2, worker_metrics=("loss",))
    fleet.federation.close()
    result.save(tmp_path / "run")
    assert verify_ledger(tmp_path / "run" / "ingress", key=result.evidence.ingress.vkey).direction == "received"
    for name, journal in fleet.journals.items():
        count, received = Count(), from_worker(tmp_path / "run" / "ingress", name)
        findings = list(reconcile(journal.entries(), received, RESEARCHER, count))
        assert [finding for finding in findings if finding.sent is None or finding.sent.draft.kind != "goodbye"] == []
        assert {"hello", "hello-proof", "announcement", "statistics", "update", "evaluation", "checkpoint"} <= {
            entry.draft.kind for entry in received
        }


def test_every_worker_is_cosigned_over_everything_but_the_last_words(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet({"alice": [toy(64, release=OPEN)]})
    result = fleet.federation.fit(network(), **TERMS, rounds=2)
    fleet.federation.close()
    result.save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "witness.json").read_text())
    (alice,) = document["workers"]
    assert alice["size"] > max(entry.seq for entry in fleet.journals["alice"].entries() if entry.draft.kind == "update")
    held = (tmp_path / "run" / "witness" / "alice.checkpoint").read_bytes()
    fleet.journals["alice"].publication.export(tmp_path / "ledger")
    verify_ledger(tmp_path / "ledger", key=alice["ledger"], witnesses=[document["witness"]], holds=held)


class Cut:
    """An executor that cuts its worker off once, when it has trained and before it answers."""

    def __init__(self, inner: InProcessExecutor, cut: Callable[[], None]) -> None:
        self.inner, self.cut, self.done = inner, cut, False

    def carry_out(self, request: object, plan: Plan | None, stopped: Callable[[], bool], peer: str) -> object:
        outcome = self.inner.carry_out(request, plan, stopped, peer)  # type: ignore[arg-type]
        if isinstance(request, Train) and not self.done:
            self.done = True
            self.cut()
        return outcome


def test_a_worker_that_lost_its_link_in_a_round_dials_again_and_is_still_counted(tmp_path: Path) -> None:
    authority, serving, addresses = Authority.create(), list[Running[None]](), list[str]()
    coordinator = authority.issue(RESEARCHER, Role.COORDINATOR)
    credentials = authority.issue("alice", Role.WORKER)
    worker, journal = make_worker("alice", [toy(40, release=OPEN)], credentials)
    links = []

    def attach(address: str) -> None:
        addresses.append(address)
        links.append(runtime.run(dial(address, credentials)))
        serving.append(runtime.start(serve_quietly(worker, links[-1], Side.DIALER)))

    async def abort() -> None:
        links[0]._stream.abort()

    def cut() -> None:
        runtime.run(abort())
        again.start()

    again = threading.Thread(target=lambda: attach(addresses[0]))
    worker._executor = Cut(worker._executor, cut)
    with fp.Federation.listen("127.0.0.1:0", credentials=coordinator, workers=["alice"], on_listening=attach) as held:
        result = held.fit(network(), **TERMS, rounds=2, quorum=1, deadline_seconds=30.0)
    again.join()
    for each in serving:
        each.result(10)
    assert [part.status for record in result.history.rounds for part in record.workers] == ["folded", "folded"]
    assert len(links) == 2
    assert [entry.draft.kind for entry in journal.entries()].count("announcement") == 2
    runtime.run(worker.close())


def state_worker(state: Path, authority: Authority) -> tuple[Worker, fp.Credentials]:
    name, datasets = WorkerName("alice"), (toy(40, release=OPEN),)
    journal = Journal.open(state, worker=name, clock=SystemClock(), entropy=SystemEntropy())
    credentials = authority.issue(name, Role.WORKER)
    executor = InProcessExecutor(datasets)
    return Worker(name, datasets, executor=executor, journal=journal, credentials=credentials), credentials


def train(authority: Authority, folder: Path, **options: object) -> list[str]:
    """Run one round with a worker that has a state folder, and return what was noted."""
    worker, credentials = state_worker(folder / "worker", authority)
    serving, notes = list[Running[None]](), list[str]()

    def attach(address: str) -> None:
        raw = runtime.run(dial(address, credentials))
        serving.append(runtime.start(serve_quietly(worker, raw, Side.DIALER)))

    coordinator = authority.issue(RESEARCHER, Role.COORDINATOR)
    try:
        with fp.Federation.listen(
            "127.0.0.1:0", credentials=coordinator, workers=["alice"], on_listening=attach, on_note=notes.append,
            state=folder / "coordinator", **options,
        ) as federation:  # fmt: skip
            federation.fit(network(), **TERMS, rounds=1)
    finally:
        for each in serving:
            each.result(10)
        runtime.run(worker.close())
    return notes


@pytest.mark.slow
def test_a_worker_whose_state_was_restored_from_an_old_copy_takes_part_no_more(tmp_path: Path) -> None:
    authority = Authority.create()
    train(authority, tmp_path)
    shutil.copytree(tmp_path / "worker", tmp_path / "copy")
    train(authority, tmp_path)
    shutil.rmtree(tmp_path / "worker")
    shutil.copytree(tmp_path / "copy", tmp_path / "worker")
    before = len(list(read_entries(tmp_path / "copy" / "ledger")))
    with pytest.raises(fp.PeerLost):
        train(authority, tmp_path, wait_seconds=2.0)
    kinds = [entry.draft.kind for entry in read_entries(tmp_path / "worker" / "ledger")][before:]
    assert "update" not in kinds


def test_a_round_that_was_not_saved_is_asked_for_again_and_answered_with_the_same_release(tmp_path: Path) -> None:
    limited = [fp.PlainUpdate(recipients=(RESEARCHER,), rounds_per_day=2)]
    worker = fp.VirtualWorker("alice", [toy(40, release=limited)])

    def stop(model: nn.Module) -> dict[str, float]:
        raise KeyboardInterrupt

    with fp.Federation([worker]) as federation, pytest.raises(KeyboardInterrupt):
        federation.fit(network(), **TERMS, rounds=1, run=tmp_path, evaluate=stop)
    with fp.Federation([worker]) as federation:
        result = federation.fit(network(), **TERMS, rounds=2, run=tmp_path)
    assert [record.outcome for record in result.history.rounds] == ["complete", "complete"]
    first, again, second = (entry for entry in worker.entries() if entry.draft.kind == "update")
    assert (first.draft.source, again.draft.source, second.draft.source) == (-1, first.seq, -1)
    assert first.draft.bytes == again.draft.bytes
    worker.close()


def test_a_run_that_is_resumed_acknowledges_the_round_that_was_saved_last(tmp_path: Path) -> None:
    worker = fp.VirtualWorker("alice", [toy(40, release=OPEN)])
    with fp.Federation([worker]) as federation:
        federation.fit(network(), **TERMS, rounds=1, run=tmp_path)
        before = federation._members.traffic()["alice"][1]
        result = federation.fit(network(), **TERMS, rounds=1, run=tmp_path, resume=True)
        assert federation._members.traffic()["alice"][1] > before
    assert len(result.history.rounds) == 1
    worker.close()


@pytest.mark.parametrize("names", [("alice",), ("alice", "bob")])
def test_a_run_that_owners_have_to_approve_says_whom_it_waits_for(names: tuple[str, ...]) -> None:
    workers = [fp.VirtualWorker(name, [toy(40, release=[fp.Approval()])]) for name in names]
    with fp.Federation(workers) as federation, pytest.raises(fp.FedprivError) as caught:
        federation.fit(network(), **TERMS, rounds=3)
    verb = "owners of alice, bob have" if len(names) > 1 else "owner of alice has"
    assert f"the {verb} been asked" in str(caught.value)
    assert str(caught.value).count("fedpriv worker requests") == 1
    assert str(caught.value).count("been asked") == 1
    for worker in workers:
        worker.close()
