"""Private runs on every transport: each mode trains, and bills what it executed; the budget has the last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, Fleet, MakeFleet, virtual_fleet
from torch import nn

import fedpriv as fp
from fedpriv.ids import DatasetName
from fedpriv.learning.strategies import Strategy
from fedpriv.ledger.entries import Entry
from fedpriv.privacy import accountants, renyi, tables
from fedpriv.privacy.accountants import epsilon_by_rdp
from fedpriv.privacy.events import from_json
from fedpriv.privacy.mechanisms import DiscreteGaussian, Gaussian, PoissonSampled, Repeated, Skellam
from fedpriv.privacy.modes import Mode
from fedpriv.privacy.relations import Relation

NAMES = ("alice", "bob", "carol", "dave", "erin")
ROWS = 64
ROUNDS = 2
LOSS = F.binary_cross_entropy_with_logits
LOCAL = fp.LocalTraining(epochs=1, batch_size=32, optimizer=fp.SGD(lr=0.5))
PLAIN, SUM = fp.PlainUpdate(recipients=(RESEARCHER,)), fp.SecureSum()
WIDE = fp.Budget(1000.0, 1e-5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


def rows(seed: int, count: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return features, features.sum(1) > 0


def held(rule: object, budget: fp.Budget | None = WIDE, names: tuple[str, ...] = NAMES) -> dict[str, list[fp.Dataset]]:
    return {
        name: [fp.Dataset("toy", *rows(at), release=[rule], budget=budget)] for at, name in enumerate(names)
    }  # fmt: skip  # one line a worker


def fit(fleet: Fleet, mode: Mode, **options: object) -> fp.Result:
    terms = {"dataset": "toy", "loss": LOSS, "local": LOCAL, "rounds": ROUNDS, "deadline_seconds": 30}
    return fleet.federation.fit(network(), privacy=mode, **{**terms, **options})


def billed(fleet: Fleet, worker: str) -> list[Entry]:
    return [entry for entry in fleet.journals[worker].entries() if entry.draft.dp.event]


@pytest.fixture
def virtual(tmp_path: Path):
    made: list[Fleet] = []

    def make(data: dict[str, list[fp.Dataset]]) -> Fleet:
        made.append(virtual_fleet(data, tmp_path))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


STEP = PoissonSampled(32 / 60, Gaussian(2.0))  # 64 rows are announced as 60
MODES = {
    "central": (fp.CentralDP(noise_multiplier=2.0), PLAIN, False, Gaussian(2.0)),
    "central in sums": (fp.CentralDP(noise_multiplier=2.0), SUM, True, Gaussian(2.0)),
    "tree": (fp.TreeDP(noise_multiplier=2.0), PLAIN, False, Gaussian(2.0)),
    "tree in sums": (fp.TreeDP(noise_multiplier=2.0, bands=2), SUM, True, Gaussian(2.0)),
    "local": (fp.LocalDP(noise_multiplier=2.0), fp.DifferentialPrivacy(50.0), False, Gaussian(2.0)),
    "local in sums": (fp.LocalDP(noise_multiplier=2.0), fp.SecureSum(maximum_epsilon=50.0), True, Gaussian(2.0)),
    "example": (fp.ExampleDP(noise_multiplier=2.0), fp.DifferentialPrivacy(50.0), False, Repeated(STEP, 2)),
    "example in sums": (
        fp.ExampleDP(noise_multiplier=2.0), fp.SecureSum(maximum_epsilon=50.0), True, Repeated(STEP, 2)
    ),
}  # fmt: skip  # one line a mode
TRUSTED = (fp.CentralDP, fp.TreeDP)


@pytest.mark.parametrize("name", MODES)
def test_what_is_billed_and_on_record_is_the_mechanism_of_the_mode(virtual: Callable[..., Fleet], name: str) -> None:
    mode, rule, summed, mechanism = MODES[name]
    fleet = virtual(held(rule))
    result = fit(fleet, mode, secure_aggregation=fleet.secure() if summed else None)
    assert [record.outcome for record in result.history.rounds] == ["complete"] * ROUNDS
    relation = Relation.ADD_OR_REMOVE_ONE if isinstance(mode, fp.ExampleDP) else Relation.REPLACE_ONE
    entries = billed(fleet, "alice")
    assert [entry.draft.kind for entry in entries] == ["secagg-masked" if summed else "update"] * ROUNDS
    assert {from_json(entry.draft.dp.event) for entry in entries} == {mechanism}
    trusted = isinstance(mode, TRUSTED)
    assert {entry.draft.dp.relation for entry in entries} == {relation.value + (" trusted" if trusted else "")}
    times = 1 if isinstance(mode, fp.TreeDP) else ROUNDS  # the noise of a tree is one mechanism, charged at once
    total = epsilon_by_rdp(Repeated(STEP, 4) if "example" in name else Repeated(mechanism, times), 1e-5, relation)
    assert float(entries[-1].draft.dp.spent) == pytest.approx(total, rel=1e-5)
    assert entries[-1].draft.dp.limit == "1000"


@pytest.mark.parametrize("kind", ["skellam", "discrete-gaussian"])
def test_shared_noise_is_billed_for_the_honest_that_are_certain(virtual: Callable[..., Fleet], kind: str) -> None:
    """Five workers, four in each sum at least, one of them colluding: three are certain."""
    fleet = virtual(held(fp.SecureSum(maximum_epsilon=50.0)))
    mode = fp.DistributedDP(noise_multiplier=2.0, mechanism=kind)
    fit(fleet, mode, secure_aggregation=fleet.secure())
    noise = mode.noise(rounds=ROUNDS, workers=5, threshold=4, minimum=3, dimension=5, colluding=1)
    assert noise.honest == 3
    (event,) = {entry.draft.dp.event for entry in billed(fleet, "bob")}
    assert from_json(event) == noise.mechanism
    assert isinstance(noise.mechanism, Skellam if kind == "skellam" else DiscreteGaussian)


def test_every_transport_trains_privately(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held(fp.SecureSum(maximum_epsilon=100.0)))
    shared = fit(fleet, fp.DistributedDP(noise_multiplier=1.0), secure_aggregation=fleet.secure(), rounds=1)
    by_rows = fit(fleet, fp.ExampleDP(noise_multiplier=1.0), secure_aggregation=fleet.secure(), rounds=1)
    for result in (shared, by_rows):
        assert [part.status for part in result.history.rounds[0].workers] == ["folded"] * 5
    assert len(billed(fleet, "carol")) == 2


def test_a_job_is_as_private_as_it_aims_to_be_and_a_rule_for_that_much_lets_it_out(
    virtual: Callable[..., Fleet],
) -> None:
    fleet = virtual(held(fp.DifferentialPrivacy(3.0), fp.Budget(3.0, 1e-5)))
    fit(fleet, fp.ExampleDP(epsilon=3.0))
    assert 2.99 < float(billed(fleet, "erin")[-1].draft.dp.spent) <= 3.0


def test_noise_of_the_coordinators_promise_satisfies_no_rule_that_asks_for_it(virtual: Callable[..., Fleet]) -> None:
    fleet = virtual(held(fp.DifferentialPrivacy(900.0)))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet, fp.CentralDP(noise_multiplier=2.0))
    assert billed(fleet, "alice") == []


def test_a_budget_that_is_gone_ends_its_workers_part_and_not_the_run(virtual: Callable[..., Fleet]) -> None:
    small = held(PLAIN, fp.Budget(9.5, 1e-5), NAMES[:1])  # one round under REPLACE_ONE costs 6.99, two 11
    fleet = virtual({**held(PLAIN), **small})
    result = fit(fleet, fp.LocalDP(noise_multiplier=1.5), quorum=4)
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 2
    (first, second) = (record.workers[0] for record in result.history.rounds)
    assert (first.status, second.status) == ("folded", "refused")
    assert "the privacy budget of its data set has not enough left" in second.reason
    assert len(billed(fleet, "alice")) == 1


def test_a_second_coordinator_finds_the_budget_as_the_first_left_it(virtual: Callable[..., Fleet]) -> None:
    fleet = virtual(held(PLAIN, fp.Budget(9.5, 1e-5)))
    fit(fleet, fp.LocalDP(noise_multiplier=1.5), rounds=1)
    with (
        fp.Federation(_virtual_workers(fleet), name=RESEARCHER) as second,
        pytest.raises(fp.RoundAbandoned, match="budget"),
    ):
        second.fit(network(), dataset="toy", loss=LOSS, rounds=1, local=LOCAL, privacy=fp.LocalDP(noise_multiplier=1.5))


def _virtual_workers(fleet: Fleet) -> list[fp.VirtualWorker]:
    return list(fleet.federation._rounds._here)


def test_a_result_says_what_it_came_to_after_each_round_for_whom_and_by_what(
    virtual: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = virtual(held(fp.DifferentialPrivacy(50.0)))
    result = fit(fleet, fp.ExampleDP(noise_multiplier=2.0))
    found = result.privacy
    assert found is not None
    assert found.rounds == tuple(epsilon_by_rdp(Repeated(STEP, 2 * each), 1e-5) for each in (1, 2))
    assert found.accountant == "PLD"
    assert 0.8 * found.rounds[-1] < found.epsilon < found.rounds[-1]
    assert found.workers == dict.fromkeys(NAMES, found.epsilon)
    assert found.words.startswith(f"ExampleDP: epsilon {found.epsilon:.4g} at delta 1e-05, by PLD, for each row: ")
    assert found.words in str(result)
    page = (result.save(tmp_path / "run") / "report.html").read_text()
    assert "<h2>Privacy</h2>" in page
    assert f"Epsilon after each round, by RDP, as budgets count it: {found.rounds[0]:.3g}, " in page
    assert found.document()["rounds"] == {"accountant": "RDP", "epsilon": list(found.rounds)}


def test_a_result_of_distributed_noise_is_by_rdp_and_of_a_promise_says_so(virtual: Callable[..., Fleet]) -> None:
    fleet = virtual(held(SUM))
    shared = fit(fleet, fp.DistributedDP(noise_multiplier=4.0), secure_aggregation=fleet.secure(), rounds=1).privacy
    assert shared is not None
    assert (shared.accountant, shared.unit, shared.relation) == ("RDP", "worker", "REPLACE_SPECIAL")
    assert not shared.trusted
    promised = fit(fleet, fp.CentralDP(noise_multiplier=4.0), secure_aggregation=fleet.secure(), rounds=1).privacy
    assert promised is not None
    assert promised.words.endswith("; the noise is the coordinator's promise")


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (fp.ExampleDP(delta=0.05), {}, "delta is 0.05, not below 1/60"),
        (fp.DistributedDP(), {}, "a share of the noise at each worker, which protects nobody outside of a sum"),
        (fp.LocalDP(), {"worker_metrics": ("loss",)}, r"worker_metrics \(loss\) would leave without noise"),
        (fp.CentralDP(adaptive=fp.AdaptiveClip(), noise_multiplier=1.0), {}, "use a fixed clip, at least 11 workers"),
        (
            fp.CentralDP(adaptive=fp.AdaptiveClip(), noise_multiplier=1.0),
            {"secure_aggregation": fp.SecureAggregation()},
            "which nobody sees under secure aggregation",
        ),
        (fp.TreeDP(separation=2, participations=1), {}, "here every one is asked in every round"),
        (fp.TreeDP(), {"resume": True}, "it cannot be resumed"),
        (
            fp.ExampleDP(),
            {"local": fp.LocalTraining(batch_size=64)},
            "batch_size is 64 and worker 'alice' anno",
        ),
        (fp.ExampleDP(), {"local": fp.LocalTraining(drop_last=True)}, "each private step draws a Poisson sample"),
        (fp.LocalDP(epsilon=1e-4), {}, r"use one from 0\.001 to 10000, or ask for a larger epsilon"),
        (fp.LocalDP(clip=1e7), {}, r"a clip of 1e\+07; use one from 1e-06 to 1e\+06"),
        (fp.LocalDP(noise_multiplier=1e5), {}, "noise multiplier 100000 cannot be drawn or billed"),
        ("example", {}, "privacy is a str; use fp.ExampleDP"),
        (fp.LocalDP(), {"strategy": fp.Median()}, "'median' needs every worker's own update, and LocalDP"),
        (fp.LocalDP(), {"strategy": fp.Scaffold()}, "'scaffold' has each worker keep what it made of its rows"),
        (fp.CentralDP(), {"strategy": fp.FedDyn()}, "'feddyn' has each worker keep what it made of its rows"),
        (fp.ExampleDP(), {"strategy": fp.FedProx()}, "'fedprox' adds a term to local training, and ExampleDP trains"),
        (fp.CentralDP(), {"sampling": fp.Fixed(2)}, "'fixed' asks some of the workers, and CentralDP reckons with all"),
        (fp.TreeDP(), {"sampling": fp.Poisson(0.5)}, "'poisson' asks some of the workers, and TreeDP reckons with all"),
        (
            fp.DistributedDP(),
            {"sampling": fp.RoundRobin(2), "secure_aggregation": fp.SecureAggregation()},
            "'round-robin' asks some of the workers, and DistributedDP reckons with all",
        ),
    ],
)
def test_what_cannot_be_private_so_is_refused_before_anything_is_sent(
    virtual: Callable[..., Fleet], mode: Mode, options: dict[str, object], message: str
) -> None:
    fleet = virtual(held(PLAIN, names=NAMES[:3]))
    with pytest.raises(fp.UsageError, match=message):
        fit(fleet, mode, **options)
    assert "plan-accepted" not in fleet.kinds("alice")


def test_a_model_that_counts_batches_or_mixes_rows_is_refused(virtual: Callable[..., Fleet]) -> None:
    fleet = virtual(held(PLAIN, names=NAMES[:3]))
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Flatten(0))
    terms = {"dataset": "toy", "loss": LOSS, "local": LOCAL}
    with pytest.raises(fp.UsageError, match=r"would count batches and so rows in clear; .* GroupNorm"):
        fleet.federation.fit(model, privacy=fp.LocalDP(noise_multiplier=2.0), **terms)
    with pytest.raises(fp.TraceError, match="GroupNorm or LayerNorm in place of BatchNorm"):
        fleet.federation.fit(model, privacy=fp.ExampleDP(noise_multiplier=2.0), **terms)


def test_a_run_says_before_it_begins_whose_budget_will_run_out_and_when(virtual: Callable[..., Fleet]) -> None:
    small = held(PLAIN, fp.Budget(9.5, 1e-5), NAMES[:1])  # pays one round of two
    none = held(PLAIN, None, NAMES[1:2])
    fleet, notes = virtual({**held(PLAIN), **small, **none}), []
    fit(fleet, fp.LocalDP(noise_multiplier=1.5), quorum=4, on_note=notes.append)
    assert notes == [
        "the budget of alice runs out in round 2 of 2: epsilon 9.5 of 9.5 is left; it will refuse from then on"
    ]
    assert fleet.kinds("alice").count("budget-left") == 1


@pytest.mark.parametrize(("count", "runs_out", "bills"), [(2, None, (1, 1, 1, 1, 0)), (3, 2, (1, 1, 1, 1, 1))])
def test_a_sampled_worker_pays_for_the_rounds_it_is_asked_in_and_is_foretold_by_those(
    virtual: Callable[..., Fleet], count: int, runs_out: int | None, bills: tuple[int, ...]
) -> None:
    """In turns of two alice is asked once in two rounds, in turns of three twice."""
    small = held(PLAIN, fp.Budget(9.5, 1e-5), NAMES[:1])  # pays one round
    fleet, notes = virtual({**held(PLAIN), **small}), []
    mode, drawn = fp.LocalDP(noise_multiplier=1.5), fp.RoundRobin(count)
    result = fit(fleet, mode, quorum=2, sampling=drawn, on_note=notes.append)
    assert [note.split(":")[0] for note in notes] == (
        [] if runs_out is None else [f"the budget of alice runs out in round {runs_out} of 2"]
    )
    assert tuple(len(billed(fleet, name)) for name in NAMES) == bills
    assert result.privacy is not None
    assert set(result.privacy.workers) == {name for name, bill in zip(NAMES, bills, strict=True) if bill}


@pytest.mark.parametrize("strategy", [fp.FedProx(0.1), fp.FedAdam(0.05), fp.FedPA(0, 1, 2)], ids=lambda each: each.name)
@pytest.mark.parametrize("summed", [False, True], ids=["clear", "sums"])
def test_strategies_of_noisy_means_train_privately_at_the_same_bill(
    virtual: Callable[..., Fleet], strategy: Strategy, summed: bool
) -> None:
    fleet = virtual(held(SUM if summed else PLAIN, names=NAMES))
    secure = fleet.secure() if summed else None
    result = fit(fleet, fp.LocalDP(noise_multiplier=2.0), strategy=strategy, secure_aggregation=secure)
    assert [record.outcome for record in result.history.rounds] == ["complete"] * ROUNDS
    assert {from_json(entry.draft.dp.event) for entry in billed(fleet, "alice")} == {Gaussian(2.0)}
    first, trained = network().state_dict(), result.model.state_dict()
    assert any(not torch.equal(first[name], trained[name]) for name in first)


def test_a_budget_is_shown_to_whom_a_rule_of_its_data_set_names_and_to_nobody_else(
    virtual: Callable[..., Fleet],
) -> None:
    fleet, notes = virtual(held(fp.PlainUpdate(recipients=("another",)), fp.Budget(0.1, 1e-5))), []
    with pytest.raises(fp.RoundAbandoned):
        fit(fleet, fp.LocalDP(noise_multiplier=1.5), on_note=notes.append)
    assert notes == []
    assert "budget-left" not in fleet.kinds("alice")


def test_a_loss_that_fails_on_every_row_is_refused_without_a_charge_and_bars_nobody(
    virtual: Callable[..., Fleet],
) -> None:
    """Class weights cannot be mapped over rows; that it fails has nothing to do with them."""
    data = {}
    for at, name in enumerate(NAMES[:3]):
        features, target = rows(at)
        data[name] = [fp.Dataset("toy", features, target.long(), release=[PLAIN], budget=WIDE)]
    fleet, model = virtual(data), nn.Linear(4, 2)
    terms = {"dataset": "toy", "local": LOCAL, "rounds": 1, "privacy": fp.ExampleDP(noise_multiplier=2.0)}
    with pytest.raises(fp.RoundAbandoned, match="its own validation does not accept the plan"):
        fleet.federation.fit(
            model, loss=lambda out, label: F.cross_entropy(out, label, weight=torch.tensor([1.0, 2.0])), **terms
        )
    assert not any(fleet.journals["alice"].holds.spent(DatasetName("toy")))
    fleet.federation.fit(model, loss=F.cross_entropy, **terms)
    assert any(fleet.journals["alice"].holds.spent(DatasetName("toy")))


@pytest.mark.parametrize("mode", [fp.LocalDP(noise_multiplier=2.0), fp.ExampleDP(noise_multiplier=2.0)], ids=repr)
def test_no_price_is_found_on_a_loop_that_others_wait_for(
    virtual: Callable[..., Fleet], mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accountants take from milliseconds to minutes, and one loop serves every link of its process."""
    where: list[bool] = []

    def noted(known: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object, **named: object) -> object:
            where.append(asyncio._get_running_loop() is not None)
            return known(*given, **named)

        return called

    monkeypatch.setattr(renyi, "_single", noted(renyi._single))
    monkeypatch.setattr(accountants, "epsilon_by_pld", noted(accountants.epsilon_by_pld))
    monkeypatch.setattr(tables, "discrete_gaussian", noted(tables.discrete_gaussian))
    result = fit(virtual(held(PLAIN, names=NAMES[:2])), mode)
    assert result.privacy is not None
    assert len(where) > 10
    assert not any(where)
