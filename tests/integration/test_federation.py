"""One federated training, end to end, on every transport."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from fleets import RESEARCHER, MakeFleet, toy
from torch import nn

import fedpriv as fp

OPEN = (
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Statistics(recipients=(RESEARCHER,)),
    fp.Metrics(recipients=(RESEARCHER,)),
)
PLAIN = fp.PlainUpdate(recipients=(RESEARCHER,))
LOSS = F.binary_cross_entropy_with_logits


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def local(**options: object) -> fp.LocalTraining:
    return fp.LocalTraining(**{"epochs": 1, "batch_size": 16, "optimizer": fp.SGD(lr=0.5), **options})


def test_training_reaches_what_central_training_reaches(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"alice": [toy(200, seed=1, release=OPEN)], "bob": [toy(120, seed=2, release=OPEN)]})
    held_out = toy(400, seed=3)

    def accuracy(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"accuracy": float(((model(held_out.features) > 0).float() == held_out.target).float().mean())}

    result = fleet.federation.fit(network(), dataset="toy", loss=LOSS, rounds=12, local=local(), evaluate=accuracy)
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 12
    assert result.history.rounds[-1].metrics["accuracy"] > 0.95


def test_one_full_batch_round_equals_a_step_on_all_rows(make_fleet: MakeFleet) -> None:
    parts = {"alice": toy(96, seed=1, release=OPEN), "bob": toy(32, seed=2, release=OPEN)}
    fleet = make_fleet({name: [part] for name, part in parts.items()})
    model = network()
    result = fleet.federation.fit(model, dataset="toy", loss=LOSS, rounds=1, local=local(batch_size=96))
    central = copy.deepcopy(model)
    features = torch.cat([part.features for part in parts.values()])
    target = torch.cat([part.target for part in parts.values()])
    LOSS(central(features), target).backward()
    with torch.no_grad():
        for name, parameter in central.named_parameters():
            expected = parameter - 0.5 * parameter.grad
            assert torch.allclose(result.model.get_parameter(name), expected, atol=1e-6)


def test_the_given_model_is_left_as_it_was_and_replays_are_equal(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"alice": [toy(50, seed=1, release=OPEN)], "bob": [toy(40, seed=2, release=OPEN)]})
    model = network()
    before = copy.deepcopy(model.state_dict())
    first = fleet.federation.fit(model, dataset="toy", loss=LOSS, rounds=2, local=local(), seed=7)
    second = fleet.federation.fit(model, dataset="toy", loss=LOSS, rounds=2, local=local(), seed=7)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])


def test_every_byte_that_arrived_is_in_a_ledger(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        {
            "alice": [toy(64, seed=1, release=OPEN, validation=0.25)],
            "bob": [toy(32, seed=2, release=OPEN, validation=0.25)],
        }
    )
    fleet.federation.statistics("toy")
    fleet.federation.fit(
        network(), dataset="toy", loss=LOSS, rounds=2, local=local(), worker_metrics=("loss", "accuracy")
    )
    for name in ("alice", "bob"):
        received = sum(row.bytes for row in fleet.federation.egress() if row.worker == name)
        assert received == fleet.ledger_bytes(name)
        assert {"hello", "hello-proof", "announcement", "statistics", "update", "evaluation"} <= set(fleet.kinds(name))


def test_worker_metrics_are_the_weighted_mean_over_validation_rows(make_fleet: MakeFleet) -> None:
    parts = {
        "alice": toy(200, seed=1, release=OPEN, validation=0.5),
        "bob": toy(100, seed=2, release=OPEN, validation=0.5),
    }
    fleet = make_fleet({name: [part] for name, part in parts.items()})
    result = fleet.federation.fit(
        network(), dataset="toy", loss=LOSS, rounds=1, local=local(), worker_metrics=("accuracy", "loss")
    )
    with torch.no_grad():
        correct = torch.cat(
            [(result.model(part.evaluation.features) > 0).float() == part.evaluation.target for part in parts.values()]
        )
    assert result.history.rounds[0].worker_metrics["accuracy"] == pytest.approx(float(correct.float().mean()), abs=1e-6)


def test_federated_statistics_are_those_of_all_rows(make_fleet: MakeFleet) -> None:
    parts = {"alice": toy(50, seed=1, release=OPEN), "bob": toy(31, seed=2, release=OPEN)}
    fleet = make_fleet({name: [part] for name, part in parts.items()})
    found = fleet.federation.statistics("toy")
    rows = torch.cat([part.features for part in parts.values()]).double()
    assert found.count == 81
    assert torch.allclose(found.mean, rows.mean(0))
    assert torch.allclose(found.deviation, rows.std(0, correction=0))


def test_without_a_rule_nothing_but_handshake_announcement_and_codes_leaves(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"alice": [toy(50)]})
    with pytest.raises(fp.FedprivError, match="alice"):
        fleet.federation.fit(network(), dataset="toy", loss=LOSS, rounds=5, local=local())
    with pytest.raises(fp.WorkerRefused):
        fleet.federation.statistics("toy")
    assert set(fleet.kinds("alice")) == {"hello", "hello-proof", "announcement", "failure"}


def test_a_rule_for_somebody_else_lets_nothing_out(make_fleet: MakeFleet) -> None:
    other = (fp.PlainUpdate(recipients=("somebody-else",)),)
    fleet = make_fleet({"alice": [toy(50, release=other)], "bob": [toy(50, release=OPEN)]})
    result = fleet.federation.fit(network(), dataset="toy", loss=LOSS, rounds=1, local=local(), quorum=1)
    status = {part.worker: part.status for part in result.history.rounds[0].workers}
    assert status == {"alice": "refused", "bob": "folded"}
    assert "update" not in fleet.kinds("alice")


def test_a_rounded_weight_is_all_that_a_coordinator_learns_of_the_row_count(make_fleet: MakeFleet) -> None:
    rounded = (fp.PlainUpdate(recipients=(RESEARCHER,)),)
    fleet = make_fleet({"alice": [toy(57, release=rounded)]})
    result = fleet.federation.fit(network(), dataset="toy", loss=LOSS, rounds=1, local=local())
    assert result.history.rounds[0].workers[0].weight == 50.0


def test_an_update_that_is_not_finite_is_left_out_and_the_run_goes_on(make_fleet: MakeFleet) -> None:
    wild = fp.Dataset("toy", torch.full((40, 4), 1e25), torch.arange(40) % 2 == 0, release=OPEN)
    fleet = make_fleet({"alice": [toy(50, release=OPEN)], "bob": [wild], "carol": [toy(50, seed=4, release=OPEN)]})
    result = fleet.federation.fit(
        network(), dataset="toy", loss=F.mse_loss, rounds=2, local=local(optimizer=fp.SGD(lr=0.01)), quorum=2
    )
    bob = next(part for part in result.history.rounds[0].workers if part.worker == "bob")
    assert bob.status == "rejected"
    assert "not finite" in bob.reason
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([PLAIN], "no rule of the owner lets this result leave"),
        ([PLAIN, fp.Approval()], "its owner has been asked"),
    ],
)
def test_metrics_that_a_worker_does_not_give_are_named_with_the_reason_and_the_remedy(
    make_fleet: MakeFleet, rules: list[fp.PlainUpdate | fp.Approval], why: str
) -> None:
    fleet = make_fleet(
        {
            "alice": [toy(50, seed=1, release=OPEN, validation=0.5)],
            "bob": [toy(40, seed=2, release=rules, validation=0.5)],
        }
    )
    terms = {"dataset": "toy", "loss": LOSS, "local": local()}
    result = fleet.federation.fit(network(), rounds=2, worker_metrics=("accuracy",), **terms)
    assert result.history.rounds[1].worker_metrics.keys() == {"accuracy"}
    (line,) = (line for line in str(result).splitlines() if "no metrics from" in line)
    assert line.startswith(f"  no metrics from bob in 2 of 2 rounds: accuracy: worker 'bob' refused: {why}")
    assert ('{ rule = "metrics", kinds = ["accuracy"] }' in line) is (fp.Approval() not in rules)
    assert "without worker_metrics, as with evaluate, nobody is asked for them" in line
    (part,) = (each for each in result.history.rounds[0].workers if each.worker == "bob")
    assert (part.status, part.unmeasured != "") == ("folded", True)


def test_an_update_that_is_refused_says_what_was_asked_for_with_it(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"bob": [toy(40, seed=2, release=[PLAIN], validation=0.5)]})
    with pytest.raises(fp.RoundAbandoned, match="asked for its update and, with it, loss: without loss in worker_m"):
        fleet.federation.fit(
            network(), dataset="toy", loss=LOSS, local=local(), rounds=1, worker_metrics=("loss", "accuracy")
        )
