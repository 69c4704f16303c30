"""Rounds of secure aggregation on every transport: the sum is right, and nothing of one worker leaves but masked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, Fleet, MakeFleet, dialling_fleet, listening_fleet, toy, virtual_fleet
from torch import nn

import fedpriv as fp
from fedpriv.policy.rules import cite

NAMES = ("alice", "bob", "carol", "dave", "erin")
RULE = fp.SecureSum()
PLAIN = (
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Statistics(recipients=(RESEARCHER,)),
    fp.Metrics(recipients=(RESEARCHER,)),
)
LOSS = F.binary_cross_entropy_with_logits
LOCAL = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5), shuffle=False)
IN_THE_OPEN = {"hello", "hello-proof", "announcement", "plan-accepted", "checkpoint", "failure", "goodbye"}
OF_THE_PROTOCOL = {"secagg-advertise", "secagg-shares", "secagg-masked", "secagg-confirm", "secagg-unmask"}


RULES = {
    "all": (*PLAIN, RULE),
    "uniform": (fp.PlainUpdate(recipients=(RESEARCHER,), weight="uniform"), RULE),
    "sums": (RULE,),
    "of-five": (fp.SecureSum(minimum_workers=5),),
    "noised": (fp.SecureSum(maximum_epsilon=1.0),),
    "in-clear": PLAIN,
}
"""The data sets of every worker, the same rows in each, by what may leave of them."""


def with_state() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


def rows(at: int, name: str) -> fp.Dataset:
    count = 40 + 17 * at
    if name != "noised":
        return toy(count, seed=at, release=RULES[name], validation=0.25, name=name)
    found = toy(count, seed=at)
    return fp.Dataset(name, found.features, found.target, release=RULES[name], budget=fp.Budget(2.0, 1e-5))


def held(names: tuple[str, ...] = NAMES, sets: tuple[str, ...] = tuple(RULES)) -> dict[str, list[fp.Dataset]]:
    return {name: [rows(at, each) for each in sets] for at, name in enumerate(names)}


@pytest.fixture(
    scope="module", params=[virtual_fleet, listening_fleet, dialling_fleet], ids=["virtual", "dial-in", "dial-out"]
)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet of five on each transport, for all tests here."""
    made = request.param(held(), tmp_path_factory.mktemp("fleet"))
    try:
        yield made
    finally:
        made.close()


def since(fleet: Fleet, worker: str, began: int) -> list[str]:
    """Return the kinds of what a worker recorded after its first `began` entries."""
    return fleet.kinds(worker)[began:]


def fit(fleet: Fleet, dataset: str, *, model: nn.Module | None = None, **options: object) -> fp.Result:
    terms = {"dataset": dataset, "loss": LOSS, "local": LOCAL, "rounds": 1, "deadline_seconds": 20, "seed": 3}
    return fleet.federation.fit(model or linear(), **{**terms, **options})


def test_a_secure_run_is_the_plain_run_to_the_precision_of_fixed_point(fleet: Fleet) -> None:
    terms = {"model": with_state(), "rounds": 2, "worker_metrics": ("loss",)}
    plain = fit(fleet, "all", **terms).model.state_dict()
    result = fit(fleet, "all", **terms, secure_aggregation=fleet.secure())
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 2
    for name, value in result.model.state_dict().items():
        assert torch.allclose(value, plain[name], atol=1e-4), name
    assert result.history.rounds[0].loss == pytest.approx(0.7, abs=0.3)
    assert result.history.rounds[1].worker_metrics.keys() == {"loss"}


def test_uniform_weights_are_the_plain_mean(fleet: Fleet) -> None:
    plain = fit(fleet, "uniform").model.state_dict()
    secure = fit(fleet, "uniform", secure_aggregation=fleet.secure(weights="uniform")).model.state_dict()
    for name, value in secure.items():
        assert torch.allclose(value, plain[name], atol=1e-4), name


def test_statistics_are_those_of_all_rows(fleet: Fleet) -> None:
    found = fleet.federation.statistics("sums", secure_aggregation=fleet.secure())
    features = torch.cat([own[0].training.features for own in held(sets=("sums",)).values()]).double()
    assert found.count == len(features)
    assert torch.allclose(found.mean, features.mean(0), atol=1e-5)
    assert torch.allclose(found.deviation, features.std(0, correction=0), atol=1e-5)


def test_ledgers_show_nothing_of_a_worker_but_masked_words_and_what_the_protocol_needs(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held(sets=("sums",)))
    fleet.federation.statistics("sums", secure_aggregation=fleet.secure())
    asked = {"worker_metrics": ("loss", "accuracy"), "secure_aggregation": fleet.secure(), "purpose": "a trial"}
    result = fit(fleet, "sums", rounds=2, **asked)
    for name in NAMES:
        entries = list(fleet.journals[name].entries())
        assert {entry.draft.kind for entry in entries} <= IN_THE_OPEN | OF_THE_PROTOCOL
        answered = [entry.draft.bytes for entry in entries if entry.draft.kind != "checkpoint"]  # one may be on its way
        egress = [row for row in fleet.federation.egress() if row.worker == name and row.kind != "checkpoint"]
        assert sum(row.bytes for row in egress) == sum(answered)
        labelled = [entry.draft for entry in entries if entry.draft.labels]
        assert [draft.kind for draft in labelled] == ["secagg-masked", "secagg-unmask"] * 5
        assert {(draft.policy, draft.labels) for draft in labelled} == {(cite(RULE), (f"sums/{name}",))}
        sids = [entry.draft.sid for entry in entries if entry.draft.kind in OF_THE_PROTOCOL]
        assert all(len(sid) == 64 for sid in sids)
        assert {sids.count(sid) for sid in sids} == {5}
        trained = [draft for draft in labelled if draft.round == 1]
        assert {len(draft.model) for draft in trained} == {len(draft.plan) for draft in trained} == {64}
        assert {draft.purpose for draft in trained} == {"a trial"}
    for record in result.history.rounds:
        assert all(part.weight == 0 and not part.metrics for part in record.workers)
        assert record.worker_metrics.keys() == {"loss", "accuracy"}


def test_a_rule_for_more_workers_than_are_in_the_sum_lets_nothing_out(fleet: Fleet) -> None:
    began = len(fleet.kinds("alice"))
    said = r"minimum_workers of the rule secure-sum.*; raise minimum_workers.* \(here 4 of 5 workers have to be in it\)"
    with pytest.raises(fp.RoundAbandoned, match=said) as refused:
        fit(fleet, "of-five", secure_aggregation=fleet.secure())
    assert str(refused.value).count("alice, bob, carol, dave, erin: refused: its owner lets this out in a sum") == 1
    assert not {kind for kind in since(fleet, "alice", began) if kind.startswith("secagg")}
    fit(fleet, "of-five", secure_aggregation=fleet.secure(minimum_workers=5))
    assert since(fleet, "alice", began).count("secagg-masked") == 1


@pytest.mark.parametrize("dataset", ["noised", "in-clear"])
def test_rules_that_no_sum_of_this_version_satisfies_do_not_make_a_worker_join_one(fleet: Fleet, dataset: str) -> None:
    """One wants noise, of which there is none; the others are about what leaves in clear."""
    began = len(fleet.kinds("alice"))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet, dataset, secure_aggregation=fleet.secure())
    assert not {kind for kind in since(fleet, "alice", began) if kind.startswith("secagg")}


def test_a_rule_for_sums_lets_nothing_out_in_clear(fleet: Fleet) -> None:
    began = len(fleet.kinds("alice"))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet, "sums")
    assert "update" not in since(fleet, "alice", began)


def test_a_strategy_that_needs_every_update_is_refused_with_the_reason(fleet: Fleet) -> None:
    with pytest.raises(fp.UsageError, match="'median' needs every worker's own update, and under secure aggregation"):
        fit(fleet, "sums", secure_aggregation=fleet.secure(), strategy=fp.Median())


def test_two_workers_are_too_few(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held(NAMES[:2], ("sums",)))
    with pytest.raises(fp.UsageError, match=r"minimum_workers is 3, and a round asks at most 2 workers .* have more"):
        fit(fleet, "sums", secure_aggregation=fleet.secure())
