"""Orders into a sum of which nothing comes: a failure on rows shows in nothing, what never fits ends in an abort."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fleets import Fleet, MakeFleet, toy, virtual_fleet
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

    def _outcome(self, request, plan, stopped, peer):
        if isinstance(request, Train):
            raise self.error
        return super()._outcome(request, plan, stopped, peer)


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


def said(fleet: Fleet, name: str) -> list[str]:
    return [kind for kind in fleet.kinds(name) if kind != "checkpoint"]


def test_a_failure_on_rows_shows_in_nothing_and_what_never_fits_is_signed(
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
    for record in (first, second):
        assert [part.worker for part in record.workers if part.status == "refused"] == [UNFIT]
        assert [finding.worker for finding in record.findings] == [UNFIT]
    assert (first.findings[0].reason, first.findings[0].subject) == ("withdrawn", "")
    assert len(bytes.fromhex(first.findings[0].signature)) == 64
    aborts = [entry.draft for entry in fleet.journals[UNFIT].entries() if entry.draft.kind == "secagg-abort"]
    assert aborts[0].labels == ()
    assert aborts[0].sid == first.findings[0].sid
    assert "secagg-masked" not in fleet.kinds(UNFIT)
    # the same messages, the same charge and the same rights as of a worker whose training went well
    assert said(fleet, ON_ROWS) == said(fleet, "bob")
    charged = {name: {held.state for held in fleet.journals[name].holds.all()} for name in ("bob", ON_ROWS, UNFIT)}
    assert charged == {"bob": {State.ACKNOWLEDGED}, ON_ROWS: {State.ACKNOWLEDGED}, UNFIT: {State.CANCELLED}}
    assert "request" in caplog.text
    assert "STEP_FAILED" in caplog.text  # the owner's own log says so
    assert "Target 7" not in caplog.text
    assert len(withdrawn) == 2
    for _, before in withdrawn:
        for secret in ("sealing", "masking", "seed", "held", "inbound", "masks"):
            with pytest.raises(Erased):
                getattr(before.own.secrets, secret)


def test_what_failed_weighs_nothing_in_the_mean(tmp_path: Path) -> None:
    """With half of the workers failing, the model moves by the mean of the other half, not by half of it."""
    torch.manual_seed(0)
    made, moved = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), []
    for failing in ((), NAMES[:3]):
        fleet = virtual_fleet({name: [toy(16, seed=1, release=[fp.SecureSum()])] for name in NAMES[:6]}, tmp_path)
        for name in failing:
            executor = Failing([fleet.workers[name]._executor._datasets["toy"]])
            fleet.workers[name]._executor, executor.error = executor, FAILURES[ON_ROWS]
        terms = {"dataset": "toy", "loss": LOSS, "rounds": 1, "deadline_seconds": 20}
        local = fp.LocalTraining(batch_size=64)
        result = fleet.federation.fit(made, **terms, local=local, secure_aggregation=fleet.secure())
        moved.append(torch.cat([each.detach().flatten() for each in result.model.parameters()]))
        fleet.close()
    torch.testing.assert_close(*moved, rtol=0, atol=2**-15)
