"""What a data set has spent, recomputed by an auditor from ledger entries alone, is what the worker says at each."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fleets import RESEARCHER, Fleet, virtual_fleet
from test_private_attacks import VICTIM, PrivateCheat, fleet_of
from test_private_runs import PLAIN, fit, held

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.policy.decision import Recipient
from fedpriv.privacy.accountants import cost_of
from fedpriv.privacy.bills import MAXIMUM_BESIDE, Beside, event_of, recomputed
from fedpriv.privacy.budget import epsilon_of
from fedpriv.privacy.mechanisms import Gaussian
from fedpriv.privacy.modes import Mode
from fedpriv.privacy.relations import Relation
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Update
from fedpriv_worker import session
from fedpriv_worker.session import priced
from fedpriv_worker.steps import Step

TOY, ME = DatasetName("toy"), Recipient(PeerName(RESEARCHER), "researcher")


def audited(fleet: Fleet, worker: str) -> list[tuple[float, float]]:
    """Return after each entry with a bill what the entry says was spent, and what follows from entries up to it."""
    drafts = [entry.draft for entry in fleet.journals[worker].entries() if entry.draft.dp.event]
    known = [(each.dp.event, each.dp.relation) for each in drafts]
    return [(float(each.dp.spent), recomputed(known[: at + 1])) for at, each in enumerate(drafts)]


@pytest.fixture
def closing():
    fleets: list[Fleet] = []
    yield fleets
    for fleet in fleets:
        fleet.close()


@pytest.mark.parametrize(
    "mode",
    [
        fp.ExampleDP(clip=0.5, noise_multiplier=2.0),
        fp.DistributedDP(noise_multiplier=4.0, scale_bits=12),
        fp.LocalDP(noise_multiplier=2.0),
        fp.CentralDP(noise_multiplier=3.0),
        fp.TreeDP(noise_multiplier=3.0),
    ],
    ids=lambda mode: type(mode).__name__,
)
def test_the_bill_of_each_mode_follows_from_the_ledger_alone(tmp_path: Path, closing: list[Fleet], mode: Mode) -> None:
    summed = isinstance(mode, fp.DistributedDP)
    fleet = virtual_fleet(held(fp.SecureSum() if summed else PLAIN), tmp_path)
    closing.append(fleet)
    fit(fleet, mode, secure_aggregation=fleet.secure() if summed else None)
    found = audited(fleet, "alice")
    assert len(found) == 2
    for said, again in found:
        assert again == pytest.approx(said, rel=1e-5)
    (_, event), *_ = [(0, entry.draft.dp.event) for entry in fleet.journals["alice"].entries() if entry.draft.dp.event]
    terms = json.loads(event)["terms"]
    assert terms["clip"] == mode.clip
    assert terms["mode"] == type(mode).__name__
    assert terms["noise_multiplier"] == mode.noise_multiplier


def test_what_was_executed_for_nobody_is_charged_and_stands_beside_the_next_bill(
    tmp_path: Path, closing: list[Fleet]
) -> None:
    """A coordinator hangs up while its order is carried out, comes back, and finds that it was billed."""
    fleet = fleet_of(tmp_path, fp.DifferentialPrivacy(8.0))
    closing.append(fleet)
    cheat, worker = PrivateCheat(fleet), fleet.workers[VICTIM]
    computed, hung_up = threading.Event(), threading.Event()

    def reached(step: Step) -> None:
        if step is Step.COMPUTED and not computed.is_set():
            computed.set()
            assert hung_up.wait(10)

    worker.reached = reached

    left, leave = asyncio.Event(), worker.leave
    worker.leave = lambda carried: (leave(carried), left.set())

    async def abandoned() -> None:
        connection = await cheat.coordinator._offering.ready(WorkerName(VICTIM), cheat.job.training)
        asking = asyncio.create_task(connection.ask(cheat.order(), timeout_seconds=10))
        await asyncio.to_thread(computed.wait, 10)
        await connection.close()
        with pytest.raises(fp.PeerLost):
            await asking
        await left.wait()
        hung_up.set()
        await asyncio.wait(tuple(worker._ending))

    runtime.run(abandoned())
    assert "update" not in fleet.kinds(VICTIM)
    spent = epsilon_of(fleet.journals[VICTIM].holds.spent(TOY), 1e-5)
    assert spent > 0
    door, journal = worker.door, fleet.journals[VICTIM]
    order = replace(cheat.order(), request=2)
    price = priced(door.facts, order, cheat.job.training)
    (_, note) = session.handle(session.Session(door.facts, ME, {cheat.job.training.digest: cheat.job.training}), order)
    assert price is not None
    admitted = door.admit(order, note[1].forecast, ME, price)
    door.release(Update(2, order.round, 1.0, {}, cheat.model), order, note[1].forecast, ME, admitted)
    ((said, again),) = audited(fleet, VICTIM)
    assert again == pytest.approx(said, rel=1e-5)
    assert said == pytest.approx(epsilon_of(journal.holds.spent(TOY), 1e-5), rel=1e-5)
    assert said > 1.3 * spent


def test_more_mechanisms_than_an_entry_names_are_counted_and_not_guessed() -> None:
    cost = cost_of(Gaussian(2.0), Relation.REPLACE_ONE, terms={"clip": 1.0})
    budget = fp.Budget(8.0, 1e-5)
    many = [
        Beside(cost_of(Gaussian(2.0 + at), Relation.REPLACE_ONE, terms={}).event, "REPLACE_ONE", 1)
        for at in range(MAXIMUM_BESIDE + 3)
    ]
    event = event_of(cost, budget, charged=True, beside=many)
    assert len(event) < 10_000
    with pytest.raises(UsageError, match="3 charges are not named"):
        recomputed([(event, "REPLACE_ONE")])
    few = event_of(cost, budget, charged=True, beside=many[:2])
    assert recomputed([(few, "REPLACE_ONE")]) > recomputed(
        [(event_of(cost, budget, charged=True, beside=()), "REPLACE_ONE")]
    )


@pytest.mark.parametrize("event", ["", "[]", "{}", '{"charged":true}', '{"charged":true,"budget":{"delta":1e-5}}'])
def test_what_is_no_bill_is_not_added_up(event: str) -> None:
    with pytest.raises(UsageError):
        recomputed([(event, "REPLACE_ONE")])
