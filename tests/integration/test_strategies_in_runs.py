"""Strategies in whole runs: replayed, resumed, refused, attacked, and under secure aggregation."""

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
NAMES = ("alice", "bob", "carol", "dave", "erin")
TERMS = {"dataset": "toy", "loss": F.binary_cross_entropy_with_logits, "seed": 3}
ANY = [fp.FedAdam(0.05), fp.QFedAvg(1.0), fp.MultiKrum(1), fp.Scaffold(), fp.FedDyn(0.1)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1), nn.Flatten(0))


def local(**options: object) -> fp.LocalTraining:
    return fp.LocalTraining(**{"epochs": 1, "batch_size": 16, "optimizer": fp.SGD(lr=0.3), **options})


def virtual(rows=(40, 50, 60, 70, 80), release=OPEN) -> list[fp.VirtualWorker]:
    return [
        fp.VirtualWorker(name, [toy(count, seed=seed, release=release, validation=0.2)])
        for seed, (name, count) in enumerate(zip(NAMES, rows, strict=True))
    ]


@pytest.fixture(scope="module")
def federation():
    workers = virtual()
    with fp.Federation(workers) as made:
        yield made
    for worker in workers:
        worker.close()


def fit(federation, strategy, rounds=2, **options):
    terms = {**TERMS, "local": local(), "worker_metrics": ("loss",), "quorum": 5, **options}
    return federation.fit(network(), rounds=rounds, strategy=strategy, **terms)


def same(one, other) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("strategy", ANY, ids=lambda each: each.name)
def test_a_strategy_trains_replays_to_the_bit_and_resumes_with_its_memory(federation, strategy, tmp_path):
    whole = fit(federation, strategy)
    fit(federation, strategy, rounds=1, run=tmp_path)
    assert same(whole, fit(federation, strategy, run=tmp_path, resume=True))
    moved = whole.model.state_dict()
    assert int(moved["1.num_batches_tracked"]) > 0
    assert moved["1.num_batches_tracked"].dtype is torch.int64
    assert any(not torch.equal(moved[name], value) for name, value in network().state_dict().items())


def test_a_run_is_not_resumed_by_another_strategy(federation, tmp_path):
    fit(federation, fp.FedAvgM(), rounds=1, run=tmp_path)
    with pytest.raises(fp.UsageError, match="was trained by fedavgm, this job by fedadam"):
        fit(federation, fp.FedAdam(), rounds=2, run=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("strategy", "options", "says"),
    [
        (fp.QFedAvg(), {"worker_metrics": ()}, r"weighs workers by their loss: ask for it with worker_metrics"),
        (fp.Krum(1), {"quorum": 3}, r"= 5 updates in every round, and the quorum is 3; raise it to 5"),
        (fp.Bulyan(1), {}, r"4 x attackers \+ 3 = 7 workers, and there are 5; assume at most 0 attackers"),
        (fp.FedSGD(), {}, "batch_size is 16 and a worker announces"),
        (fp.FedNova(), {"local": local(optimizer=fp.Adam())}, "fednova normalises runs of SGD"),
        (fp.Median(), {"secure_aggregation": fp.SecureAggregation()}, "'median' needs every worker's own update"),
        (
            fp.FedAvg(),
            {"sampling": fp.Fixed(3), "quorum": 4},
            "quorum is 4, but 3 workers may be all that a round asks",
        ),
        (fp.Krum(1), {"sampling": fp.Fixed(4), "quorum": 4}, "5 workers, and there are 4; assume at most 0"),
        (
            fp.FedAvg(),
            {"secure_aggregation": fp.SecureAggregation(), "sampling": fp.Fixed(3, over=1.5), "quorum": 3},
            "'fixed' counts updates by factors or takes the first that come",
        ),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(federation, strategy, options, says):
    before = federation.egress()
    with pytest.raises(fp.UsageError, match=says):
        fit(federation, strategy, **options)
    assert federation.egress() == before


@pytest.mark.parametrize("secure", [None, fp.SecureAggregation(minimum_workers=3)], ids=["clear", "sums"])
def test_a_round_asks_whom_its_sampling_draws_and_nobody_else(federation, secure):
    terms = {"sampling": fp.Fixed(3), "quorum": None, "worker_metrics": (), "secure_aggregation": secure}
    result = fit(federation, fp.FedAvg(), rounds=3, **terms)
    asked = [tuple(part.worker for part in record.workers) for record in result.history.rounds]
    expected = [fp.Fixed(3).choose(NAMES, seed=3, round_number=number).workers for number in (1, 2, 3)]
    assert asked == expected
    assert len(set(asked)) > 1
    assert all(record.outcome == "complete" for record in result.history.rounds)


def test_a_round_of_sums_that_draws_too_few_says_so(federation):
    terms = {"quorum": 2, "secure_aggregation": fp.SecureAggregation(), "worker_metrics": ()}
    with pytest.raises(fp.UsageError, match="minimum_workers is 3, and a round asks at most 2 workers"):
        fit(federation, fp.FedAvg(), rounds=1, sampling=fp.Fixed(2), **terms)
    coins, terms["quorum"] = fp.Poisson(0.5), 1

    def drawn(seed):
        return [len(coins.choose(NAMES, seed=seed, round_number=number).workers) for number in (1, 2)]

    seed = next(each for each in range(1000) if drawn(each) == [2, 5])
    first, second = fit(federation, fp.FedAvg(), sampling=coins, seed=seed, **terms).history.rounds
    assert (first.outcome, second.outcome) == ("abandoned", "complete")
    assert first.reason == "nobody was asked: 2 of 5 workers drawn, and 3 are needed in the sum"


def test_workers_state_is_kept_between_rounds_and_begins_anew_where_it_is_lost(caplog):
    workers = virtual()
    with fp.Federation(workers) as federation:
        whole = fit(federation, fp.Scaffold(), rounds=3)
        assert same(whole, fit(federation, fp.Scaffold(), rounds=3))  # a first round begins anew
        assert not same(whole, fit(federation, fp.FedAvg(), rounds=3))

        def forget(record):
            if record.number == 1:
                workers[0]._worker._executor._keeping._kept.clear()  # as a restart does

        caplog.clear()
        forgetful = fit(federation, fp.Scaffold(), rounds=3, on_round=forget)
    for worker in workers:
        worker.close()
    assert not same(whole, forgetful)
    assert sum("it begins anew in round 2" in message for message in caplog.messages) == 1
    assert all(record.outcome == "complete" for record in forgetful.history.rounds)
    anew = [(record.number, part.worker) for record in forgetful.history.rounds for part in record.workers if part.anew]
    assert anew == [(2, "alice")]
    assert not any(part.anew for record in whole.history.rounds for part in record.workers)
    assert "alice began anew in round 2: what it kept for its strategy was gone" in repr(forgetful)
    assert fp.History.from_json(forgetful.history.to_json()) == forgetful.history


@pytest.mark.parametrize("strategy", [fp.FedAvgM(0.5), fp.Scaffold()], ids=lambda each: each.name)
def test_a_strategy_of_means_comes_to_the_same_in_sums(federation, strategy):
    terms = {"worker_metrics": (), "local": local(shuffle=False)}  # in a sum each worker draws an order of its own
    clear = fit(federation, strategy, **terms)
    summed = fit(federation, strategy, **terms, secure_aggregation=fp.SecureAggregation(weights="rows"))
    for name, value in clear.model.state_dict().items():
        assert torch.allclose(value.double(), summed.model.state_dict()[name].double(), atol=1e-2), name


def test_over_the_network_a_robust_strategy_does_without_a_poisoned_worker(make_fleet: MakeFleet) -> None:
    honest = {name: [toy(60, seed=seed, release=OPEN)] for seed, name in enumerate(NAMES)}
    flipped = toy(60, seed=9, release=OPEN)
    honest["erin"] = [fp.Dataset("toy", flipped.features * 50, flipped.target < 0.5, release=OPEN)]
    fleet, held_out = make_fleet(honest), toy(300, seed=7)

    def accuracy(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"accuracy": float(((model(held_out.features) > 0).float() == held_out.target).float().mean())}

    plain = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    found = {}
    for strategy in (fp.FedAvg(), fp.MultiKrum(1)):
        terms = {**TERMS, "local": local(), "quorum": 5, "evaluate": accuracy, "rounds": 8, "strategy": strategy}
        found[strategy.name] = fleet.federation.fit(plain, **terms).history.rounds[-1].metrics["accuracy"]
    assert found["multi-krum"] > 0.9 > found["fedavg"] + 0.1
