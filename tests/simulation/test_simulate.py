"""Simulated runs are what a federation of the same workers would make, whichever engine trains them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fedpriv as fp
from fedpriv.errors import DataError
from fedpriv.learning.partition import growing

ENGINES = ("sequential", "threads", "stacked")
LOCAL = fp.LocalTraining(epochs=2, batch_size=8, optimizer=fp.SGD(lr=0.1, momentum=0.9))
WORKERS = 7


def rows(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a worker: no two have equally many."""
    features = torch.randn(20 + 7 * number, 4, generator=torch.Generator().manual_seed(number))
    return features, (features.sum(1) > 0).long()


def even(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a worker: two whole batches, so that there is one shape to compile."""
    features, target = rows(number)
    return features[:16], target[:16]


def network(*extra: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *extra, nn.Linear(8, 2))


def simulated(engine: str, population: fp.Population | None = None, model: nn.Module | None = None, **options):
    terms = {"loss": F.cross_entropy, "rounds": 2, "local": LOCAL, "on_note": lambda note: None}
    chosen = population or fp.Population(WORKERS, rows)
    return fp.simulate(model or network(), chosen, engine=engine, **{**terms, **options})


def apart(one: fp.Result, other: fp.Result) -> float:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return max(float((left - right).abs().max()) for left, right in pairs)


@pytest.fixture(scope="module")
def deployed() -> fp.Result:
    """What `Federation.fit` makes of virtual workers with the same names and rows."""
    release = [fp.PlainUpdate(recipients=("me",), weight="exact"), fp.Metrics(recipients=("me",))]
    workers = [
        fp.VirtualWorker(name, [fp.Dataset("simulated", *rows(at), rows="exact", validation=0.2, release=release)])
        for at, name in enumerate(fp.Population(WORKERS, rows).names)
    ]
    with fp.Federation(workers) as federation:
        return federation.fit(
            network(), dataset="simulated", loss=F.cross_entropy, rounds=2, local=LOCAL, sampling=fp.Fixed(5),
            worker_metrics=("loss", "accuracy"),
        )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_makes_the_model_and_the_record_of_a_federation(deployed, engine):
    population = fp.Population(WORKERS, rows, validation=0.2)
    found = simulated(engine, population, sampling=fp.Fixed(5), worker_metrics=("loss", "accuracy"))
    if engine == "stacked":
        assert apart(found, deployed) < 1e-6
    else:
        assert apart(found, deployed) == 0
    for mine, theirs in zip(found.history.rounds, deployed.history.rounds, strict=True):
        assert [part.worker for part in mine.workers] == [part.worker for part in theirs.workers if part.weight]
        assert mine.loss == pytest.approx(theirs.loss, abs=1e-6)
        for part in theirs.workers:
            same = next((each for each in mine.workers if each.worker == part.worker), None)
            assert same is None or (same.status, same.weight) == (part.status, part.weight)
            assert same is None or same.metrics == pytest.approx(part.metrics, abs=1e-5)


@pytest.mark.parametrize(
    "strategy",
    [fp.FedProx(0.1), fp.Scaffold(), fp.FedDyn(0.1), fp.FedAdam(0.1), fp.Median(), fp.FedNova(), fp.QFedAvg(0.5)],
    ids=lambda strategy: strategy.name,
)
def test_every_engine_serves_a_strategy_alike(strategy):
    population = fp.Population(WORKERS, even)
    options = {"strategy": strategy, "sampling": fp.Fixed(5), "worker_metrics": ("loss",)}
    one, other = (simulated(engine, population, **options) for engine in ("sequential", "stacked"))
    assert apart(one, other) < 2e-6


def test_workers_that_are_likelier_to_be_asked_count_less_in_every_engine():
    names = fp.Population(WORKERS, rows).names
    sampling = fp.Importance(4, {name: 1.0 + at for at, name in enumerate(names)})
    population = fp.Population(WORKERS, even)
    one, other = (simulated(engine, population, sampling=sampling) for engine in ("sequential", "stacked"))
    assert apart(one, other) < 1e-6


@pytest.mark.slow
def test_a_million_described_workers_take_less_than_a_gigabyte():
    program = (Path(__file__).parents[2] / "benchmarks" / "simulation.py").read_text()
    (million,) = [part.split('"""')[0] for part in program.split('MILLION = """')[1:]]
    finished = subprocess.run([sys.executable, "-c", million], check=True, capture_output=True, text=True, timeout=300)
    kilobytes, _ = finished.stdout.split()
    assert int(kilobytes) < 1_000_000


def test_names_say_that_all_is_simulated():
    result = simulated("auto", name="first")
    assert result.job.name == "simulated first"
    assert {part.worker for part in result.history.rounds[0].workers} == {f"simulated-{at}" for at in range(WORKERS)}
    assert result.egress == ()


def test_auto_says_which_engine_it_picked():
    notes: list[str] = []
    simulated("auto", on_note=notes.append)
    assert notes == ["engine: stacked"]


def test_what_cannot_be_stacked_runs_on_threads_and_says_why():
    notes: list[str] = []
    result = simulated("stacked", model=network(nn.Dropout(0.5)), on_note=notes.append)
    assert notes == ["engine: threads (the plan cannot be stacked: aten.bernoulli.p draws random numbers)"]
    assert apart(result, simulated("sequential", model=network(nn.Dropout(0.5)))) == 0


def test_without_a_note_it_is_said_on_stderr(capsys):
    fp.simulate(network(), fp.Population(2, rows), loss=F.cross_entropy, rounds=1, local=LOCAL)
    assert capsys.readouterr().err == "fedpriv: engine: stacked\n"


def test_shares_of_a_table_are_workers():
    features, target = rows(40)
    shares = growing(len(target), 6, seed=0)
    population = fp.Population.of_table(features, target, shares)
    drawn = fp.Population(6, lambda number: (features[shares[number]], target[shares[number]]))
    assert population.counts == [len(share) for share in shares]
    assert apart(simulated("stacked", population), simulated("sequential", drawn)) < 1e-6


def test_files_are_workers_by_their_natural_names(tmp_path: Path):
    for number in range(3):
        features, target = rows(number)
        np.savez(tmp_path / f"writer-{number}.npz", features=features.numpy(), target=target.numpy())
    population = fp.Population.of_files(tmp_path)
    assert list(population.names) == [f"simulated-writer-{number}" for number in range(3)]
    result = simulated("stacked", population)
    assert [part.weight for part in result.history.rounds[0].workers] == [20.0, 27.0, 34.0]


def test_a_run_is_kept_and_gone_on_with(tmp_path: Path):
    population = fp.Population(WORKERS, even)
    whole = simulated("stacked", population, rounds=3)
    simulated("stacked", population, rounds=2, run=tmp_path / "run")
    again = simulated("stacked", population, rounds=3, run=tmp_path / "run", resume=True)
    assert apart(again, whole) == 0
    assert len(again.history.rounds) == 3


def test_a_worker_without_rows_is_left_out_and_named():
    def some(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        features, target = rows(number)
        return (features[:0], target[:0]) if number == 2 else (features, target)

    for engine in ENGINES:
        parts = simulated(engine, fp.Population(4, some)).history.rounds[0].workers
        assert [part.status for part in parts] == ["folded", "folded", "rejected", "folded"]
        assert parts[2].reason == "it has no rows"


def test_an_update_that_is_not_finite_is_left_out_in_every_engine():
    def one_is_broken(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        features, target = rows(number)
        return (features * float("nan") if number == 1 else features), target

    results = [simulated(engine, fp.Population(4, one_is_broken)) for engine in ENGINES]
    for result in results:
        parts = result.history.rounds[0].workers
        assert [part.status for part in parts] == ["folded", "rejected", "folded", "folded"]
        assert "not finite" in parts[1].reason
    assert apart(results[0], results[2]) < 1e-6


def test_a_cohort_larger_than_the_population_is_everybody():
    result = simulated("stacked", sampling=fp.Fixed(100))
    assert len(result.history.rounds[0].workers) == WORKERS


def test_rounds_that_nobody_is_in_end_the_run():
    broken = fp.Population(3, lambda number: (rows(number)[0] * (1 if number == 0 else torch.nan), rows(number)[1]))
    with pytest.raises(fp.RoundAbandoned, match="1 of 3 workers contributed; the quorum is 2: simulated-1: its update"):
        simulated("stacked", broken, rounds=5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "stack"}, fp.UsageError, "engine 'stack' is not known"),
        ({"population": [rows]}, fp.UsageError, r"population is a list; describe one with fp.Population"),
        ({"population": fp.Population(2, lambda number: rows(number)[0])}, DataError, "return .features, target."),
        (
            {"population": fp.Population(2, lambda number: (torch.zeros(3, 4 + number), torch.zeros(3).long()))},
            DataError,
            "worker 'simulated-1' has features of shape .3, 5.",
        ),
        ({"population": fp.Population(2, lambda number: (torch.zeros(0, 4), torch.zeros(0)))}, DataError, "no rows"),
        (
            {"engine": "stacked", "secure_aggregation": fp.SecureAggregation()},
            fp.UsageError,
            'secure aggregation needs each to be its own; use engine="sequential"',
        ),
        (
            {"population": fp.Population(10**6, rows), "privacy": fp.LocalDP(noise_multiplier=1.0)},
            fp.UsageError,
            "a whole virtual worker of each of the population's 1000000; 256 at most",
        ),
    ],
)
def test_what_cannot_be_simulated_is_said_before_anything_is_trained(options, error, message):
    given = {"engine": "auto", **options}
    with pytest.raises(error, match=message):
        simulated(given.pop("engine"), **given)


@pytest.mark.parametrize("size", [0, True, 2.5])
def test_a_population_has_workers(size):
    with pytest.raises(fp.UsageError, match="describe 1 worker or more"):
        fp.Population(size, rows)


def test_a_folder_without_files_is_no_population(tmp_path: Path):
    with pytest.raises(fp.UsageError, match=r"no file that ends in \.npz"):
        fp.Population.of_files(tmp_path)


def test_a_sum_of_simulated_workers_is_masked_as_a_deployed_one_is():
    result = simulated("auto", fp.Population(4, rows), rounds=1, secure_aggregation=fp.SecureAggregation())
    (record,) = result.history.rounds
    assert record.sums[0].members == tuple(f"simulated-{at}" for at in range(4))
    plain = simulated("sequential", fp.Population(4, rows), rounds=1)
    assert apart(result, plain) < 0.2  # its workers draw their own order of rows


def test_a_private_simulation_is_noised_and_billed_as_a_deployed_run_is():
    result = simulated(
        "auto", fp.Population(3, rows), rounds=1, local=fp.LocalTraining(batch_size=8, optimizer=fp.SGD(0.1)),
        privacy=fp.ExampleDP(clip=1.0, noise_multiplier=1.0, delta=1e-5),
    )  # fmt: skip
    assert result.privacy is not None
    assert "for each row" in result.privacy.words
