"""Rounds of secure aggregation on every transport: the sum is right, and nothing of one worker leaves but masked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, Fleet, MakeFleet, toy
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
LOCAL = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5))
IN_THE_OPEN = {"hello", "hello-proof", "announcement", "plan-accepted", "checkpoint", "failure", "goodbye"}
OF_THE_PROTOCOL = {"secagg-advertise", "secagg-shares", "secagg-masked", "secagg-confirm", "secagg-unmask"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def held(release: object, names: tuple[str, ...] = NAMES) -> dict[str, list[fp.Dataset]]:
    return {
        name: [toy(40 + 17 * at, seed=at, release=release, validation=0.25)] for at, name in enumerate(names)
    }  # fmt: skip  # one line a worker


def fit(fleet: Fleet, *, rounds: int = 2, **options: object) -> fp.Result:
    terms = {"dataset": "toy", "loss": LOSS, "local": LOCAL, "rounds": rounds, "deadline_seconds": 20, "seed": 3}
    return fleet.federation.fit(network(), **{**terms, **options})


def test_a_secure_run_is_the_plain_run_to_the_precision_of_fixed_point(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held((*PLAIN, RULE)))
    plain = fit(fleet, worker_metrics=("loss",)).model.state_dict()
    result = fit(fleet, worker_metrics=("loss",), secure_aggregation=fleet.secure())
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 2
    for name, value in result.model.state_dict().items():
        assert torch.allclose(value, plain[name], atol=1e-4), name
    assert result.history.rounds[0].loss == pytest.approx(0.7, abs=0.3)
    assert result.history.rounds[1].worker_metrics.keys() == {"loss"}


def test_uniform_weights_are_the_plain_mean(make_fleet: MakeFleet) -> None:
    uniform = (fp.PlainUpdate(recipients=(RESEARCHER,), weight="uniform"),)
    fleet = make_fleet(held((*uniform, RULE)))
    plain = fit(fleet).model.state_dict()
    secure = fit(fleet, secure_aggregation=fleet.secure(weights="uniform")).model.state_dict()
    for name, value in secure.items():
        assert torch.allclose(value, plain[name], atol=1e-4), name


def test_statistics_are_those_of_all_rows(make_fleet: MakeFleet) -> None:
    datasets = held([RULE])
    fleet = make_fleet(datasets)
    found = fleet.federation.statistics("toy", secure_aggregation=fleet.secure())
    rows = torch.cat([own[0].training.features for own in datasets.values()]).double()
    assert found.count == len(rows)
    assert torch.allclose(found.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(found.deviation, rows.std(0, correction=0), atol=1e-5)


def test_ledgers_show_nothing_of_a_worker_but_masked_words_and_what_the_protocol_needs(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held([RULE]))
    fleet.federation.statistics("toy", secure_aggregation=fleet.secure())
    result = fit(fleet, worker_metrics=("loss", "accuracy"), secure_aggregation=fleet.secure(), purpose="a trial")
    for name in NAMES:
        entries = list(fleet.journals[name].entries())
        assert {entry.draft.kind for entry in entries} <= IN_THE_OPEN | OF_THE_PROTOCOL
        received = sum(row.bytes for row in fleet.federation.egress() if row.worker == name)
        assert received == fleet.ledger_bytes(name)
        labelled = [entry.draft for entry in entries if entry.draft.labels]
        assert [draft.kind for draft in labelled] == ["secagg-masked", "secagg-unmask"] * 5
        assert {(draft.policy, draft.labels) for draft in labelled} == {(cite(RULE), (f"toy/{name}",))}
        sids = [entry.draft.sid for entry in entries if entry.draft.kind in OF_THE_PROTOCOL]
        assert all(len(sid) == 64 for sid in sids)
        assert {sids.count(sid) for sid in sids} == {5}
        trained = [draft for draft in labelled if draft.round == 1]
        assert {len(draft.model) for draft in trained} == {len(draft.plan) for draft in trained} == {64}
        assert {draft.purpose for draft in trained} == {"a trial"}
    for record in result.history.rounds:
        assert all(part.weight == 0 and not part.metrics for part in record.workers)
        assert record.worker_metrics.keys() == {"loss", "accuracy"}


def test_a_rule_for_more_workers_than_are_in_the_sum_lets_nothing_out(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held([fp.SecureSum(minimum_workers=5)]))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner lets this result leave"):
        fit(fleet, secure_aggregation=fleet.secure())
    assert not {kind for kind in fleet.kinds("alice") if kind.startswith("secagg")}
    fit(fleet, rounds=1, secure_aggregation=fleet.secure(minimum_workers=5))
    assert fleet.kinds("alice").count("secagg-masked") == 1


def test_a_rule_with_a_limit_on_noise_lets_nothing_out_because_there_is_none(make_fleet: MakeFleet) -> None:
    rule, budget = fp.SecureSum(maximum_epsilon=1.0), fp.Budget(2.0, 1e-5)
    rows = toy(64)
    data = {name: [fp.Dataset("toy", rows.features, rows.target, release=[rule], budget=budget)] for name in NAMES}
    fleet = make_fleet(data)
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet, secure_aggregation=fleet.secure())
    assert "secagg-masked" not in fleet.kinds("alice")


def test_rules_for_what_is_in_clear_do_not_make_a_worker_join_a_sum(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held(PLAIN))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet, secure_aggregation=fleet.secure())


def test_a_rule_for_sums_lets_nothing_out_in_clear(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held([RULE]))
    with pytest.raises(fp.RoundAbandoned, match="no rule of the owner"):
        fit(fleet)
    assert "update" not in fleet.kinds("alice")


def test_a_strategy_that_needs_every_update_is_refused_with_the_reason(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held([RULE]))
    with pytest.raises(fp.UsageError, match="'median' needs every worker's own update, and under secure aggregation"):
        fit(fleet, secure_aggregation=fleet.secure(), strategy=fp.Median())


def test_two_workers_are_too_few(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(held([RULE], NAMES[:2]))
    with pytest.raises(fp.RoundAbandoned, match="2 workers of the roster are connected, 3 are needed in the sum"):
        fit(fleet, secure_aggregation=fleet.secure())
