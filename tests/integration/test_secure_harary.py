"""Runs on a Harary graph, over 44 workers two of which are lost: the sum is that in the open, to the last bit.

Rows are chosen so that every number of an update is a multiple of 2**-5, which floats and fixed point both hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fleets import Dies
from torch import nn

import fedpriv as fp
from fedpriv.errors import RoundAbandoned
from fedpriv.remote.enrolment import process_roster
from fedpriv_coordinator.config import load_job

COUNT = 44
NAMES = tuple(f"worker-{number:02d}" for number in range(1, COUNT + 1))
BEFORE_ITS_WORDS, AFTER_ITS_WORDS = NAMES[7], NAMES[30]
LOCAL = fp.LocalTraining(epochs=1, batch_size=8, optimizer=fp.SGD(lr=0.125))
JOB = """\
name = "many"
dataset = "toy"
model = "model.py:build"
loss = "torch.nn.functional:mse_loss"
rounds = 1
listen = "127.0.0.1:0"
local = { epochs = 1, batch_size = 8, lr = 0.125 }
[workers]
names = ["worker-01"]
[secure_aggregation]
roster = "roster.toml"
graph = "harary"
minimum_workers = 40
weights = "uniform"
colluding = 0.05
lost = 0.05
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
"""


def light_worker(name: str, terms: fp.OwnerTerms) -> fp.VirtualWorker:
    generator = torch.Generator().manual_seed(NAMES.index(name))
    features = torch.randint(-1, 2, (8, 3), generator=generator).float()
    target = torch.randint(-1, 2, (8,), generator=generator).float()
    rules = [fp.SecureSum(), fp.PlainUpdate(recipients=("me",), weight="uniform"), fp.Statistics(recipients=("me",))]
    return fp.VirtualWorker(name, [fp.Dataset("toy", features, target, release=rules)], terms=terms)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[fp.VirtualWorker]]:
    terms = fp.OwnerTerms(minimum_cohort=40, colluding=0.05)
    made = [light_worker(name, terms) for name in NAMES]
    yield made
    for worker in made:
        worker.close()


def model() -> nn.Module:
    made = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Flatten(0))
    nn.init.zeros_(made[0].weight)
    return made


def fit(federation: fp.Federation, secure: fp.SecureAggregation | None) -> fp.Result:
    loss = torch.nn.functional.mse_loss
    return federation.fit(
        model(), dataset="toy", loss=loss, rounds=1, local=LOCAL, secure_aggregation=secure, deadline_seconds=60
    )


def test_a_sum_on_a_graph_equals_the_one_in_the_open_though_two_are_lost(
    workers: list[fp.VirtualWorker], tmp_path: Path
) -> None:
    process_roster(workers).save(tmp_path / "roster.toml")
    (tmp_path / "job.toml").write_text(JOB)
    secure = load_job(tmp_path / "job.toml").secure_aggregation
    assert secure is not None
    assert secure.graph == "harary"
    in_the_open = [worker for worker in workers if worker.name != BEFORE_ITS_WORDS]
    with fp.Federation(in_the_open) as federation:
        plain, plain_statistics = fit(federation, None), federation.statistics("toy")
        statistics = federation.statistics("toy", secure_aggregation=secure)
    assert torch.equal(statistics.mean, plain_statistics.mean)
    assert torch.equal(statistics.deviation, plain_statistics.deviation)
    named = {worker.name: worker for worker in workers}
    named[BEFORE_ITS_WORDS]._worker.reached = Dies("masked")
    named[AFTER_ITS_WORDS]._worker.reached = Dies("confirm")
    with fp.Federation(workers) as federation:
        result = fit(federation, secure)
    statuses = {part.worker: part.status for part in result.history.rounds[0].workers}
    assert statuses == {**dict.fromkeys(NAMES, "folded"), BEFORE_ITS_WORDS: "lost"}
    assert {finding.worker for finding in result.history.rounds[0].findings} == {BEFORE_ITS_WORDS, AFTER_ITS_WORDS}
    (summed,), (alone,) = result.model.parameters(), plain.model.parameters()
    assert torch.count_nonzero(summed)
    assert torch.equal(summed, alone)
    kinds = [entry.draft for entry in workers[0].entries() if entry.draft.kind == "secagg-shares"]
    sealed_for_all = (COUNT - 1) * 150
    assert kinds[-1].bytes < sealed_for_all / 2  # shares go to neighbours, not to everybody


def test_a_graph_for_too_few_workers_is_refused_with_what_is_possible(workers: list[fp.VirtualWorker]) -> None:
    secure = fp.SecureAggregation(graph="harary", colluding=1 / 3, lost=0.25)
    with fp.Federation(workers[:8]) as federation, pytest.raises(fp.UsageError) as refused:
        fit(federation, secure)
    assert str(refused.value) == (
        "colluding is 0.333 of 8 enrolled, lost is 0.25: no Harary graph is safe for 8 workers of which 2 may be "
        "hostile and 2 lost; use the complete graph; or lower lost: of 8 workers 1 may be lost; with these shares it "
        "takes 10 workers or more"
    )


def test_an_owner_who_counts_on_more_hostile_workers_refuses_a_graph_for_fewer() -> None:
    made = [light_worker(name, fp.OwnerTerms()) for name in NAMES[:6]]
    try:
        secure = fp.SecureAggregation(graph="harary", colluding=0.0, lost=0.0)
        with (
            fp.Federation(made) as federation,
            pytest.raises(RoundAbandoned, match=r"graph-too-thin|threshold-too-low"),
        ):
            fit(federation, secure)
    finally:
        for worker in made:
            worker.close()
