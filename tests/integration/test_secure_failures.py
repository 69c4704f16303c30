"""Orders into a sum of which nothing comes: the worker signs that it stops, which tells nothing of its rows."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from fleets import Fleet, MakeFleet, toy
from torch import nn

import fedpriv as fp
from fedpriv.privacy.reservations import State
from fedpriv.secagg import client
from fedpriv.secagg.reasons import Erased
from fedpriv.wire.messages import ErrorCode, Train
from fedpriv_worker import aggregation, training
from fedpriv_worker.executor import InProcessExecutor

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace")
ON_ROWS, UNFIT = "frank", "grace"
FAILURES = {ON_ROWS: IndexError("Target 7 is out of bounds."), UNFIT: training.Unfit(ErrorCode.INPUT_MISMATCH)}
LOSS = F.binary_cross_entropy_with_logits


class Failing(InProcessExecutor):
    """Fails at every training, as `error` says."""

    error: Exception

    def _outcome(self, request, plan, stopped):
        if isinstance(request, Train):
            raise self.error
        return super()._outcome(request, plan, stopped)


@pytest.fixture
def withdrawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[aggregation.Part, client.State]]:
    """Return what will hold each round that a worker withdrew from, and its state before."""
    found: list[tuple[aggregation.Part, client.State]] = []
    original = aggregation.Rounds._withdrawn

    def watched(self, part, explanation):
        found.append((part, part.state))
        return original(self, part, explanation)

    monkeypatch.setattr(aggregation.Rounds, "_withdrawn", watched)
    return found


def seven(make_fleet: MakeFleet) -> Fleet:
    """Return a fleet of seven, two of which fail at training."""
    rule = fp.SecureSum(rounds_per_day=9)
    made = make_fleet({name: [toy(16, seed=at, release=[rule])] for at, name in enumerate(NAMES)})
    for name, error in FAILURES.items():
        executor = Failing([made.workers[name]._executor._datasets["toy"]])
        made.workers[name]._executor, executor.error = executor, error
    return made


def test_a_worker_whose_training_fails_signs_that_it_stops_and_the_round_goes_on(
    make_fleet: MakeFleet, withdrawn, caplog
) -> None:
    fleet = seven(make_fleet)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    terms = {"dataset": "toy", "loss": LOSS, "rounds": 2, "deadline_seconds": 20, "seed": 3}
    with caplog.at_level(logging.DEBUG):
        result = fleet.federation.fit(model, **terms, secure_aggregation=fleet.secure())
    first, second = result.history.rounds
    assert (first.outcome, second.outcome) == ("complete", "complete")
    assert {part.worker for part in first.workers if part.status == "refused"} == {ON_ROWS, UNFIT}
    findings = {finding.worker: finding for finding in first.findings}
    for name in (ON_ROWS, UNFIT):
        assert (findings[name].reason, findings[name].subject) == ("withdrawn", "")
        assert len(bytes.fromhex(findings[name].signature)) == 64
        entries = [entry.draft for entry in fleet.journals[name].entries()]
        (abort,) = [draft for draft in entries if draft.kind == "secagg-abort" and draft.sid == findings[name].sid]
        assert abort.labels == ()
        assert "secagg-masked" not in {draft.kind for draft in entries}
    # what failed on rows is charged, and nothing but the abort tells of it; what could never fit costs nothing
    charged = {name: next(fleet.journals[name].holds.all()).state for name in FAILURES}
    assert charged == {ON_ROWS: State.INTERRUPTED, UNFIT: State.CANCELLED}
    assert {name: fleet.kinds(name).count("failure") for name in FAILURES} == {ON_ROWS: 1, UNFIT: 2}
    (barred,) = [part.reason for part in second.workers if part.worker == ON_ROWS]
    assert "no rule of the owner lets this result leave" in barred
    assert "Target 7" not in caplog.text
    assert len(withdrawn) == 3  # one of the three orders that failed was refused before it began
    for part, before in withdrawn:
        assert part.own is None
        for secret in ("sealing", "masking", "seed", "held", "inbound", "masks"):
            with pytest.raises(Erased):
                getattr(before.own.secrets, secret)
