"""What goes wrong: workers that hang, leave or share a name, plans that ask for too much, runs that are stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, MakeFleet, dialling_fleet, make_worker, toy
from torch import nn

import fedpriv as fp
from fedpriv.plans.plan import Plan
from fedpriv.plans.validation import Quota
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Request, Role, Train
from fedpriv_coordinator.experiment import RoundRecord
from fedpriv_worker.actions import Outcome
from fedpriv_worker.executor import InProcessExecutor, Programs
from fedpriv_worker.worker import serve_quietly

OPEN = (fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"), fp.Metrics(recipients=(RESEARCHER,)))
LOSS = F.binary_cross_entropy_with_logits
LOCAL = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


class Hanging:
    """An executor that stops answering at its n-th training request, until it is let go."""

    def __init__(self, inner: InProcessExecutor, at: int) -> None:
        self.inner, self.left = inner, at
        self.reached, self.go = threading.Event(), threading.Event()

    def carry_out(self, request: Request, plan: Plan | None, stopped: Callable[[], bool], peer: str) -> Outcome:
        if isinstance(request, Train):
            self.left -= 1
            if self.left == 0:
                self.reached.set()
                self.go.wait(30)
        return self.inner.carry_out(request, plan, stopped, peer)


def hang(worker: fp.VirtualWorker, at: int) -> Hanging:
    hanging = Hanging(worker._worker._executor, at)
    worker._worker._executor = hanging
    return hanging


def test_a_worker_that_hangs_costs_one_deadline_and_its_late_update_changes_nothing() -> None:
    torch.set_num_threads(2)
    alice, bob = (
        fp.VirtualWorker(name, [toy(40, seed=seed, release=OPEN)]) for seed, name in enumerate(("alice", "bob"))
    )
    hanging = hang(bob, at=2)

    def let_go(record: RoundRecord) -> None:
        if record.number == 2:
            hanging.go.set()

    with fp.Federation([alice, bob]) as federation:
        result = federation.fit(
            network(), dataset="toy", loss=LOSS, rounds=4, local=LOCAL, quorum=1, deadline_seconds=0.5, on_round=let_go
        )
    status = [{part.worker: part.status for part in record.workers} for record in result.history.rounds]
    assert status[0] == {"alice": "folded", "bob": "folded"}
    assert status[1]["bob"] in {"late", "lost"}
    assert status[3] == {"alice": "folded", "bob": "folded"}
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 4


def test_a_worker_that_goes_away_between_two_rounds_is_lost_in_the_later_one() -> None:
    workers = [fp.VirtualWorker(name, [toy(40, seed=at, release=OPEN)]) for at, name in enumerate(("ann", "bob"))]
    with fp.Federation(workers) as federation:

        def cut(record: RoundRecord) -> None:
            if record.number == 1:
                runtime.run(federation._members.connected["bob"].close())

        result = federation.fit(network(), dataset="toy", loss=LOSS, rounds=3, local=LOCAL, quorum=1, on_round=cut)
    status = [{part.worker: part.status for part in record.workers} for record in result.history.rounds]
    assert status == [{"ann": "folded", "bob": "folded"}, {"ann": "folded", "bob": "lost"}, {"ann": "folded"}]
    (lost,) = result.lost
    assert (lost.worker, lost.round) == ("bob", 2)
    assert "went away between" in lost.reason


def test_a_worker_that_is_cut_off_in_a_round_is_named_and_the_round_goes_on(tmp_path: Path) -> None:
    authority = Authority.create()
    hanging: list[Hanging] = []
    journals, raws, serving = [], {}, []

    def start(address: str) -> None:
        for seed, name in enumerate(("alice", "bob", "carol")):
            credentials = authority.issue(name, Role.WORKER)
            worker, journal = make_worker(name, [toy(40, seed=seed, release=OPEN)], credentials)
            if name == "bob":
                worker._executor = Hanging(worker._executor, at=2)
                hanging.append(worker._executor)
            raws[name] = runtime.run(dial(address, credentials))
            serving.append(runtime.start(serve_quietly(worker, raws[name], Side.DIALER)))
            journals.append(journal)

    async def abort() -> None:
        raws["bob"]._stream.abort()

    def cut() -> None:
        hanging[0].reached.wait(30)
        runtime.run(abort())

    cutter = threading.Thread(target=cut)
    coordinator = authority.issue(RESEARCHER, Role.COORDINATOR)
    with fp.Federation.listen(
        "127.0.0.1:0", credentials=coordinator, workers=["alice", "bob", "carol"], on_listening=start
    ) as federation:
        cutter.start()
        result = federation.fit(network(), dataset="toy", loss=LOSS, rounds=3, local=LOCAL, quorum=2)
        cutter.join()
        hanging[0].go.set()
    for each in serving:
        each.result(10)
    assert [(lost.worker, lost.round) for lost in result.lost] == [("bob", 2)]
    assert [part.worker for part in result.history.rounds[2].workers] == ["alice", "carol"]


def test_a_second_worker_under_a_name_that_is_taken_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    authority, notes = Authority.create(), []
    closing = []

    def start(address: str) -> None:
        first, second = (authority.issue("alice", Role.WORKER) for _ in range(2))
        for credentials in (first, second):
            worker, _ = make_worker("alice", [toy(40, release=OPEN)], credentials)
            raw = runtime.run(dial(address, credentials))
            serving = runtime.start(serve_quietly(worker, raw, Side.DIALER))
            closing.append(serving)
            while not notes or (credentials is second and not any("connected already" in note for note in notes)):
                pause.wait(0.01)
            while credentials is first and not any("is connected" in note for note in notes):
                pause.wait(0.01)

    pause = threading.Event()
    coordinator = authority.issue(RESEARCHER, Role.COORDINATOR)
    with fp.Federation.listen(
        "127.0.0.1:0", credentials=coordinator, workers=["alice"], on_listening=start, on_note=notes.append
    ) as federation:
        assert federation.workers == ("alice",)
    assert any("give each its own name and certificate" in note for note in notes)
    for each in closing:
        each.result(10)
    assert "turned us away: a worker called 'alice' is connected there already; stop that one" in caplog.text


def test_a_worker_that_the_job_does_not_name_is_told_so_and_both_sides_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority, notes = Authority.create(), []
    credentials = authority.issue("alicia", Role.WORKER)
    serving = []

    def start(address: str) -> None:
        worker, _ = make_worker("alicia", [toy(40, release=OPEN)], credentials)
        for _ in range(2):
            raw = runtime.run(dial(address, credentials))
            serving.append(runtime.start(serve_quietly(worker, raw, Side.DIALER)))
            serving[-1].result(10)

    coordinator = authority.issue(RESEARCHER, Role.COORDINATOR)
    with pytest.raises(fp.PeerLost):
        fp.Federation.listen(
            "127.0.0.1:0", credentials=coordinator, workers=["alice"], wait_seconds=0.1, on_listening=start,
            on_note=notes.append,
        )  # fmt: skip  # one line of terms
    (note,) = (each for each in notes if "alicia" in each)
    assert "worker 'alicia' is not one of alice (did you mean 'alice'?)" in note
    assert "add it to names under [workers] in the job" in note
    told = [record for record in caplog.records if "turned us away" in record.getMessage()]
    assert len(told) == 2
    assert "me turned us away: it expects no worker of this name" in told[0].getMessage()
    assert "add 'alicia' to names under [workers]" in told[0].getMessage()


def test_two_virtual_workers_with_one_name_are_refused() -> None:
    with pytest.raises(fp.UsageError, match="two workers have the name 'alice'"):
        fp.Federation([fp.VirtualWorker("alice"), fp.VirtualWorker("alice")])


def test_a_plan_over_the_owners_quota_is_refused_by_code_before_anything_runs() -> None:
    worker = fp.VirtualWorker("alice", [toy(40, release=OPEN)])
    worker._worker._executor = InProcessExecutor([toy(40, release=OPEN)], Programs(Quota(maximum_bytes=1 << 16)))
    big = nn.Sequential(nn.Linear(4, 4096), nn.Linear(4096, 1), nn.Flatten(0))
    with fp.Federation([worker]) as federation, pytest.raises(fp.RoundAbandoned, match="memory or work"):
        federation.fit(big, dataset="toy", loss=LOSS, rounds=1, local=LOCAL)
    assert "update" not in [entry.draft.kind for entry in worker.entries()]


def test_an_unknown_data_set_names_the_nearest_before_anything_is_sent(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"alice": [toy(40, release=OPEN)]})
    with pytest.raises(fp.UsageError, match="did you mean 'toy'"):
        fleet.federation.fit(network(), dataset="tay", loss=LOSS, rounds=1, local=LOCAL)
    assert set(fleet.kinds("alice")) == {"hello", "hello-proof", "announcement", "checkpoint"}


def test_a_model_whose_output_does_not_fit_the_loss_is_refused_before_anything_is_sent() -> None:
    worker = fp.VirtualWorker("alice", [toy(40, release=OPEN)])
    with fp.Federation([worker]) as federation, pytest.raises(fp.UsageError, match=r"squeeze|shape"):
        federation.fit(nn.Linear(4, 1), dataset="toy", loss=LOSS, rounds=1, local=LOCAL)
    kinds = {entry.draft.kind for entry in worker.entries()}
    assert kinds == {"hello", "hello-proof", "announcement", "checkpoint"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"quorum": 3}, "quorum"),
        ({"deadline_seconds": 0.0}, "deadline"),
        ({"worker_metrics": ("acuracy",)}, "did you mean 'accuracy'"),
        ({"resume": True}, "resume"),
    ],
)
def test_terms_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    worker = fp.VirtualWorker("alice", [toy(40, release=OPEN)])
    with fp.Federation([worker]) as federation, pytest.raises(fp.UsageError, match=message):
        federation.fit(network(), **{"dataset": "toy", "loss": LOSS, "rounds": 1, "local": LOCAL, **options})


def test_a_run_that_was_stopped_goes_on_after_its_last_whole_round(tmp_path: Path) -> None:
    def workers() -> list[fp.VirtualWorker]:
        return [
            fp.VirtualWorker(name, [toy(40, seed=seed, release=OPEN)]) for seed, name in enumerate(("alice", "bob"))
        ]

    def stop(record: RoundRecord) -> None:
        if record.number == 2:
            raise KeyboardInterrupt

    terms = {"dataset": "toy", "loss": LOSS, "rounds": 5, "local": LOCAL, "seed": 3}
    with fp.Federation(workers()) as federation:
        whole = federation.fit(network(), **terms)
    with fp.Federation(workers()) as federation, pytest.raises(KeyboardInterrupt):
        federation.fit(network(), **terms, run=tmp_path, on_round=stop)
    with fp.Federation(workers()) as federation:
        resumed = federation.fit(network(), **terms, run=tmp_path, resume=True)
    assert [record.number for record in resumed.history.rounds] == [1, 2, 3, 4, 5]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)


def test_a_run_is_not_resumed_with_another_model(tmp_path: Path) -> None:
    worker = fp.VirtualWorker("alice", [toy(40, release=OPEN)])
    with fp.Federation([worker]) as federation:
        federation.fit(network(), dataset="toy", loss=LOSS, rounds=1, local=LOCAL, run=tmp_path)
        other = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1), nn.Flatten(0))
        with pytest.raises(fp.UsageError, match="resume with what the run was started with"):
            federation.fit(other, dataset="toy", loss=LOSS, rounds=2, local=LOCAL, run=tmp_path, resume=True)


def test_the_dialling_fleet_leaves_nothing_running(tmp_path: Path) -> None:
    before = threading.active_count()
    fleet = dialling_fleet({"alice": [toy(40, release=OPEN)]}, tmp_path)
    fleet.close()
    assert threading.active_count() <= before + 2
