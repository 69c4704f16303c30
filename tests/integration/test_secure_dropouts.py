"""Workers that are lost in a round of secure aggregation, at every step: the round goes on, or a fresh one follows."""

from __future__ import annotations

import asyncio

import pytest
import torch
import torch.nn.functional as F
from fleets import PHASES, Dies, Fleet, MakeFleet, toy
from torch import nn

import fedpriv as fp
from fedpriv.privacy.reservations import State
from fedpriv.transport.runtime import runtime
from fedpriv_worker.worker import Worker

NAMES = ("alice", "bob", "carol", "dave", "erin")
AWAITED = {
    "advertise": "keys",
    "shares": "sealed shares",
    "masked": "masked vectors",
    "confirm": "signatures over who is in the sum",
    "unmask": "shares that take the masks off",
}
LOSS = F.binary_cross_entropy_with_logits
LOCAL = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


def five(make_fleet: MakeFleet) -> Fleet:
    return make_fleet({name: [toy(40, seed=at, release=[fp.SecureSum()])] for at, name in enumerate(NAMES)})


def fit(fleet: Fleet, rounds: int) -> fp.Result:
    terms = {"dataset": "toy", "loss": LOSS, "local": LOCAL, "rounds": rounds, "deadline_seconds": 20, "seed": 3}
    return fleet.federation.fit(network(), **terms, secure_aggregation=fleet.secure())


async def all_ended(worker: Worker) -> None:
    await asyncio.gather(*worker._ending)


def statuses(result: fp.Result, number: int) -> dict[str, str]:
    return {part.worker: part.status for part in result.history.rounds[number - 1].workers}


@pytest.mark.parametrize("phase", PHASES)
def test_a_round_survives_one_worker_lost_in_any_phase(make_fleet: MakeFleet, phase: str) -> None:
    fleet = five(make_fleet)
    fleet.workers["erin"].reached = Dies(phase)
    result = fit(fleet, rounds=2)
    assert [record.outcome for record in result.history.rounds] == ["complete", "complete"]
    in_the_sum = phase in ("confirm", "unmask")
    assert statuses(result, 1) == {**dict.fromkeys(NAMES, "folded"), "erin": "folded" if in_the_sum else "lost"}
    assert statuses(result, 2) == dict.fromkeys(NAMES[:4], "folded")
    (lost,) = result.history.rounds[0].findings
    assert (lost.worker, lost.explanation) == ("erin", f"worker 'erin' went away while {AWAITED[phase]} were awaited")
    first, second = (record.sums[0] for record in result.history.rounds)
    assert (first.invited, first.members) == (NAMES, NAMES if in_the_sum else NAMES[:4])
    assert (second.invited, second.members) == (NAMES[:4], NAMES[:4])
    assert (first.threshold, second.threshold, first.minimum) == (4, 3, 3)


@pytest.mark.parametrize("phase", PHASES)
def test_below_the_tolerance_a_round_is_abandoned_and_a_fresh_one_follows(make_fleet: MakeFleet, phase: str) -> None:
    fleet = five(make_fleet)
    for name in ("dave", "erin"):
        fleet.workers[name].reached = Dies(phase)
    result = fit(fleet, rounds=2)
    assert [record.outcome for record in result.history.rounds] == ["abandoned", "complete"]
    assert statuses(result, 2) == dict.fromkeys(NAMES[:3], "folded")
    sids = [{e.draft.sid for e in fleet.journals["alice"].entries() if e.draft.round == number} for number in (1, 2)]
    assert sids[0].isdisjoint(sids[1])
    assert len({entry.draft.sid for entry in fleet.journals["alice"].entries()} - {""}) == 2


def test_what_a_lost_worker_had_reserved_is_given_back_unless_its_words_left(make_fleet: MakeFleet) -> None:
    rule = fp.SecureSum(rounds_per_day=9)
    fleet = make_fleet({name: [toy(40, seed=at, release=[rule])] for at, name in enumerate(NAMES)})
    fleet.workers["dave"].reached = Dies("shares")
    result = fit(fleet, rounds=1)
    runtime.run(all_ended(fleet.workers["dave"]))
    assert statuses(result, 1)["dave"] == "lost"
    used = {name: [held.state for held in fleet.journals[name].holds.all()] for name in ("alice", "dave")}
    assert used["dave"] == [State.CANCELLED]
    assert used["alice"] in ([State.COMMITTED], [State.ACKNOWLEDGED])  # that the round is saved may not have come yet
