"""Personalisation and posterior averaging in whole runs: in clear, in sums, over the network, and what leaves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, MakeFleet, toy
from torch import nn

import fedpriv as fp

OPEN = (
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Metrics(recipients=(RESEARCHER,)),
    fp.SecureSum(minimum_workers=3),
)
NAMES = ("alice", "bob", "carol")
STRATEGIES = [fp.FedPer(("2",)), fp.FedBN(), fp.Ditto(0.5)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))


def unlike(count, seed, release=OPEN):
    """Return rows of which one worker calls positive what the others call negative."""
    rows = toy(count, seed=seed, release=release, validation=0.3)
    return fp.Dataset(
        "toy", rows.features, rows.target < 0.5 if seed == 0 else rows.target > 0.5, release=release, validation=0.3
    )


@pytest.fixture(scope="module")
def federation():
    workers = [fp.VirtualWorker(name, [unlike(200, seed)]) for seed, name in enumerate(NAMES)]
    with fp.Federation(workers) as made:
        yield made
    for worker in workers:
        worker.close()


def fit(federation, strategy, rounds=2, **options):
    local = fp.LocalTraining(epochs=2, batch_size=20, optimizer=fp.SGD(lr=0.5))
    terms = {"dataset": "toy", "loss": F.binary_cross_entropy_with_logits, "seed": 3, "local": local, **options}
    return federation.fit(network(), rounds=rounds, strategy=strategy, **terms)


def same(one, other) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("strategy", [*STRATEGIES, fp.FedPA(2, 2, 2)], ids=lambda each: each.name)
def test_a_strategy_trains_and_replays_to_the_bit(federation, strategy):
    whole = fit(federation, strategy)
    assert same(whole, fit(federation, strategy))
    moved, first = whole.model.state_dict(), network().state_dict()
    still = {name for name, value in first.items() if torch.equal(moved[name], value)}
    own = {"fedper": {"2.weight", "2.bias"}, "fedbn": {name for name in first if name.startswith("1.")}}
    assert still == own.get(strategy.name, set())


def test_what_stays_is_in_no_message_and_what_is_measured_is_each_workers_own(federation):
    def update_bytes(strategy, **options):
        result = fit(federation, strategy, rounds=1, **options)
        return result, {row.worker: row.bytes for row in result.egress if row.kind == "update"}

    _, whole = update_bytes(fp.FedAvg())
    _, less = update_bytes(fp.FedPer(("0",)))
    _, ditto = update_bytes(fp.Ditto())
    weights = 4 * (4 * 3 + 3)
    assert all(whole[name] - less[name] > weights for name in NAMES)
    assert {ditto[name] - whole[name] for name in NAMES} == {2}  # one mark: whether what it keeps was found
    metrics = {"rounds": 5, "worker_metrics": ("accuracy",)}
    shared = fit(federation, fp.FedAvg(), **metrics).history.rounds[-1]
    own = fit(federation, fp.Ditto(0.01), **metrics).history.rounds[-1]
    odd = {each.worker: each.metrics["accuracy"] for each in shared.workers}["alice"]
    assert {each.worker: each.metrics["accuracy"] for each in own.workers}["alice"] > 0.85
    assert odd < 0.5


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[2]], ids=lambda each: each.name)
def test_it_comes_to_the_same_in_sums(federation, strategy):
    local = fp.LocalTraining(batch_size=200, shuffle=False, optimizer=fp.SGD(lr=0.5))
    clear = fit(federation, strategy, local=local, worker_metrics=("accuracy",))
    summed = fit(
        federation, strategy, local=local, worker_metrics=("accuracy",), secure_aggregation=fp.SecureAggregation()
    )
    for name, value in clear.model.state_dict().items():
        assert torch.allclose(value.double(), summed.model.state_dict()[name].double(), atol=1e-2), name
    measured = [each.history.rounds[-1].worker_metrics["accuracy"] for each in (clear, summed)]
    assert measured[0] == pytest.approx(measured[1], abs=0.05)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.name)
def test_with_privacy_it_is_refused_before_anything_is_sent(federation, strategy):
    before = federation.egress()
    with pytest.raises(fp.UsageError, match="has each worker keep what it made of its rows"):
        fit(federation, strategy, privacy=fp.LocalDP(epsilon=8.0))
    assert federation.egress() == before


def test_over_the_network_the_odd_worker_has_a_model_that_fits_it(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({name: [unlike(200, seed)] for seed, name in enumerate(NAMES)})
    last = fit(fleet.federation, fp.FedPer(("2",)), rounds=8, worker_metrics=("accuracy",)).history.rounds[-1]
    assert all(each.metrics["accuracy"] > 0.85 for each in last.workers)
