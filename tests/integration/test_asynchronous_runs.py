"""FedBuff in whole runs: over virtual workers and over the network, replayed, resumed, refused, in simulated time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, MakeFleet, toy
from torch import nn

import fedpriv as fp

OPEN = (fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"), fp.SecureSum(minimum_workers=3))
NAMES = ("alice", "bob", "carol", "dave", "erin")
DEVICES = fp.SimulatedDevices.unlike(NAMES, seed=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1), nn.Flatten(0))


@pytest.fixture(scope="module")
def workers():
    made = [fp.VirtualWorker(name, [toy(40 + 10 * seed, seed=seed, release=OPEN)]) for seed, name in enumerate(NAMES)]
    yield made
    for worker in made:
        worker.close()


@pytest.fixture(scope="module")
def simulated(workers):
    with fp.Federation(workers, devices=DEVICES) as made:
        yield made


def fit(federation, strategy=None, rounds=6, **options):
    local = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.3))
    terms = {"dataset": "toy", "loss": F.binary_cross_entropy_with_logits, "seed": 3, "local": local, **options}
    return federation.fit(network(), rounds=rounds, strategy=strategy or fp.FedBuff(2), **terms)


def same(one, other) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def parts(result):
    return [part for record in result.history.rounds for part in record.workers]


def test_steps_take_the_first_updates_and_slow_workers_are_stale_and_not_lost(simulated):
    result = fit(simulated, rounds=8)
    assert all(len(step) == 2 for step in result.history.arrivals)
    assert {part.status for part in parts(result)} == {"folded"}
    slowest = max(NAMES, key=lambda name: DEVICES.devices[name].seconds)
    assert min(part.staleness for part in parts(result)) == 0
    assert max(part.staleness for part in parts(result)) > 1
    assert sum(slowest in step for step in result.history.arrivals) <= 2
    assert fp.History.from_json(result.history.to_json()) == result.history


def test_a_simulated_run_is_the_same_to_the_bit_when_run_again(simulated, workers):
    with fp.Federation(workers, devices=DEVICES) as again:
        one, other = fit(simulated), fit(again)
    assert one.history.arrivals == other.history.arrivals
    assert one.history.column("simulated_seconds") == other.history.column("simulated_seconds")
    assert same(one, other)


def test_the_arrivals_of_a_run_replay_it_to_the_bit_without_its_devices(simulated, workers):
    one = fit(simulated)
    with fp.Federation(workers) as plain:
        replayed = fit(plain, fp.FedBuff(2, arrivals=one.history.arrivals))
    assert [part.staleness for part in parts(replayed)] == [part.staleness for part in parts(one)]
    assert same(one, replayed)
    assert replayed.history.column("simulated_seconds") == (None,) * 6


def test_a_round_of_simulated_devices_takes_as_long_as_the_slowest(simulated):
    record = fit(simulated, fp.FedAvg(), rounds=1).history.rounds[0]
    assert record.simulated_seconds == pytest.approx(max(DEVICES.answer(name, 1).seconds for name in NAMES))


def test_a_device_that_drops_out_costs_its_update_and_is_asked_again(workers):
    devices = fp.SimulatedDevices({name: fp.Device(1.0, 0.1, drops_out=0.3) for name in NAMES}, seed=4)
    with fp.Federation(workers, devices=devices) as federation:
        result = fit(federation, rounds=4)
    assert {part.status for part in parts(result)} == {"folded", "lost"}
    assert "its simulated device dropped out" in {part.reason for part in parts(result)}
    assert {part.worker for part in parts(result) if part.status == "folded"} > {"alice"}


def test_a_run_goes_on_from_its_folder(simulated, tmp_path):
    fit(simulated, rounds=2, run=tmp_path)
    result = fit(simulated, rounds=4, run=tmp_path, resume=True)
    assert len(result.history.arrivals) == 4
    assert parts(result)[4].staleness == 0  # what was under way when the run ended is asked for anew


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"secure_aggregation": fp.SecureAggregation(), "strategy": fp.FedAvg()},
            "simulated devices pace updates in clear",
        ),
        ({"sampling": fp.Fixed(3)}, "fedbuff has none: whoever is idle is asked; leave sampling out"),
        ({"worker_metrics": ("loss",)}, "stop its training to measure each step of fedbuff"),
        ({"strategy": fp.FedBuff(6)}, "there are 5 workers; use a buffer of 5 or fewer"),
        ({"quorum": 4}, "the quorum is 4; leave quorum out"),
        ({"privacy": fp.LocalDP(epsilon=8.0)}, "'fedbuff' needs every worker's own update"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(simulated, options, says):
    before = simulated.egress()
    with pytest.raises(fp.UsageError, match=says):
        fit(simulated, **options)
    assert simulated.egress() == before


def test_it_is_refused_under_secure_aggregation(workers):
    with fp.Federation(workers) as plain, pytest.raises(fp.UsageError, match="'fedbuff' needs every worker's own"):
        fit(plain, secure_aggregation=fp.SecureAggregation())


def test_over_the_network_it_trains_and_replays_to_the_bit(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({name: [toy(60, seed=seed, release=OPEN)] for seed, name in enumerate(NAMES)})
    one = fit(fleet.federation)
    assert all(record.outcome == "complete" for record in one.history.rounds)
    assert same(one, fit(fleet.federation, fp.FedBuff(2, arrivals=one.history.arrivals)))
