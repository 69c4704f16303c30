"""One federation, several runs: none writes over another's folder, and each counts what came in it alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fedpriv as fp
from fedpriv.errors import RoundAbandoned, UsageError
from fedpriv.transport.runtime import runtime

LOSS = torch.nn.functional.binary_cross_entropy_with_logits


def virtual(name: str, seed: int) -> fp.VirtualWorker:
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed))
    rules = [fp.PlainUpdate(recipients=("me",)), fp.SecureSum()]
    return fp.VirtualWorker(name, [fp.Dataset("toy", features, features.sum(1) > 0, release=rules)])


@pytest.fixture
def federation() -> Iterator[fp.Federation]:
    workers = [virtual(name, seed) for seed, name in enumerate(("alice", "bob", "carol"))]
    with fp.Federation(workers) as made:
        yield made
    for worker in workers:
        worker.close()


def fit(federation: fp.Federation, **options: object) -> fp.Result:
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    return federation.fit(model, dataset="toy", loss=LOSS, **{"rounds": 1, "deadline_seconds": 20, **options})


def test_a_second_run_in_the_folder_of_a_first_is_refused_unless_it_goes_on_there(
    federation: fp.Federation, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    first = fit(federation, run=folder)
    with pytest.raises(UsageError, match=rf"{re.escape(str(folder))} holds a run that is not finished; .* resume=True"):
        fit(federation, run=folder)
    assert len(fit(federation, run=folder, resume=True, rounds=2).history.rounds) == 2
    first.save(tmp_path / "saved")
    with pytest.raises(UsageError, match=r"saved holds a run that is finished; name another folder with run=$"):
        fit(federation, run=tmp_path / "saved")
    with pytest.raises(UsageError, match="saved holds no run to resume: the run there is finished"):
        fit(federation, run=tmp_path / "saved", resume=True)


def test_what_left_is_counted_for_each_run_alone_and_for_the_federation_in_all(federation: fp.Federation) -> None:
    runs = [fit(federation), fit(federation, rounds=2)]
    for result, updates in zip(runs, (1, 2), strict=True):
        rows = {(row.worker, row.kind): row for row in result.egress}
        assert rows["alice", "update"].messages == updates
        assert ("alice", "announcement") not in rows
    whole = {(row.worker, row.kind): row for row in federation.egress()}
    assert whole["alice", "update"].messages == 3
    assert whole["alice", "announcement"].messages == 1
    assert "1 x update" in repr(runs[0])
    assert "2 x update" in repr(runs[1])


def test_a_sum_of_statistics_is_in_the_history_of_the_runs_after_it(federation: fp.Federation) -> None:
    federation.statistics("toy", secure_aggregation=fp.SecureAggregation())
    result = fit(federation, secure_aggregation=fp.SecureAggregation())
    (before,) = result.history.before
    assert (before.summands, before.members) == ("statistics", ("alice", "bob", "carol"))
    assert type(result.history).from_json(result.history.to_json()) == result.history


def test_nobody_waits_for_a_worker_that_cannot_come_back(federation: fp.Federation) -> None:
    """Were it waited for, this would take the whole deadline of a day."""

    def lose(record: object) -> None:
        if record.number == 1:
            for name in ("bob", "carol"):
                runtime.run(federation._members.connected[name].close())

    with pytest.raises(RoundAbandoned, match=r"round 2 cannot begin: 1 of 3 workers connected, and 2 are needed; miss"):
        fit(federation, rounds=3, on_round=lose, deadline_seconds=86_400)


def test_a_worker_that_had_answered_when_others_ended_the_round_is_not_called_late() -> None:
    """Three keys came, two owners refuse, four are needed."""
    workers = [virtual(name, seed) for seed, name in enumerate(("alice", "bob", "carol"))]
    for name in ("dave", "erin"):
        features = torch.zeros(20, 4)
        workers.append(fp.VirtualWorker(name, [fp.Dataset("toy", features, features.sum(1) > 0, release=[])]))
    seen: list[object] = []
    with fp.Federation(workers) as made, pytest.raises(RoundAbandoned, match="dave, erin: refused: no rule") as ended:
        fit(made, rounds=2, secure_aggregation=fp.SecureAggregation(), on_round=seen.append)
    for worker in workers:
        worker.close()
    (record,) = seen
    assert {part.worker: part.status for part in record.workers} == {
        **dict.fromkeys(("alice", "bob", "carol"), "unused"),
        **dict.fromkeys(("dave", "erin"), "refused"),
    }
    assert record.reason == "3 workers left of 5, and 4 are needed in the sum"
    assert str(ended.value).startswith(f"the run ends with round 2: {record.reason}; dave, erin: refused")
