"""What a worker keeps for strategies: for one peer, job, data set and plan alone, in order of rounds, and bounded."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Evaluate, Train
from fedpriv_worker import keeping
from fedpriv_worker.keeping import Keeping

ORDER = Train(
    request=1, job=JobId("job"), round=1, dataset=DatasetName("toy"), plan=PlanDigest(bytes(32)), epochs=1,
    batch_size=1, shuffle=False, drop_last=False, seed=0, hyperparameters={}, metrics=(), purpose="", model=TensorSet(),
)  # fmt: skip
STATE = {"w/control": torch.ones(4)}


def at(number, **changes):
    return replace(ORDER, round=number, **changes)


def test_the_next_round_finds_what_the_last_one_left():
    kept = Keeping()
    kept.after("me", at(1), STATE)
    assert kept.before("me", at(2)) is STATE
    assert kept.before("me", at(5)) is STATE  # rounds in which this worker was not asked


def measuring(number, **changes):
    given = {each: getattr(ORDER, each) for each in ("request", "job", "dataset", "purpose", "model", "batch_size")}
    return Evaluate(**{**given, "round": number, "plan": PlanDigest(bytes(31) + b"e"), "metrics": ("loss",), **changes})


def test_a_measurement_finds_what_the_jobs_last_round_left_whatever_its_plan():
    kept = Keeping()
    kept.after("me", at(2), STATE)
    assert kept.beside("me", measuring(2)) is STATE
    assert kept.beside("me", measuring(1)) == {}
    assert kept.beside("mallory", measuring(2)) == {}
    assert kept.beside("me", measuring(2, job=JobId("other"))) == {}
    assert kept.beside("me", measuring(2, dataset=DatasetName("other"))) == {}


@pytest.mark.parametrize(
    ("peer", "changes"),
    [
        ("mallory", {}),
        ("me", {"job": JobId("other")}),
        ("me", {"dataset": DatasetName("other")}),
        ("me", {"plan": PlanDigest(b"x" * 32)}),
    ],
)
def test_nobody_else_and_no_other_job_computes_with_it(peer, changes, caplog):
    kept = Keeping()
    kept.after("me", at(1), STATE)
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        assert kept.before(peer, at(2, **changes)) == {}
    assert "it begins anew in round 2" in caplog.text


def test_a_first_round_begins_anew_without_a_word(caplog):
    kept = Keeping()
    kept.after("me", at(3), STATE)
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        assert kept.before("me", at(1)) == {}
    assert caplog.text == ""


def test_a_round_that_is_not_later_finds_nothing():
    kept = Keeping()
    kept.after("me", at(3), STATE)
    assert kept.before("me", at(3)) == kept.before("me", at(2)) == {}


def test_a_round_that_is_run_again_begins_with_what_it_began_with(caplog):
    kept, later = Keeping(), {"w/control": torch.zeros(4)}
    kept.after("me", at(1), STATE)
    kept.after("me", at(2), later)
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        for _ in range(2):
            assert kept.before("me", at(2)) is STATE
            kept.after("me", at(2), later)
        assert kept.before("me", at(3)) is later
    assert caplog.text == ""
    kept.after("me", at(1), later)  # the job begins anew, and nothing of its first run is left
    assert kept.before("me", at(1)) == {}
    assert kept.before("me", at(2)) is later


def test_a_peer_that_fills_the_room_pushes_out_its_own(monkeypatch):
    """A coordinator could else make what others keep begin anew, or hear by its own loss that they keep something."""
    kept = Keeping(maximum_bytes=100)
    kept.after("honest", at(1), STATE)
    for number in range(9):
        kept.after("greedy", at(1, job=JobId(f"job-{number}")), STATE)
        assert kept.before("honest", at(2)) is STATE
    assert kept.before("greedy", at(2, job=JobId("job-8"))) is STATE
    monkeypatch.setattr(keeping, "MAXIMUM_JOBS", 2)
    kept.after("greedy", at(1, job=JobId("job-9")), {"w/control": torch.ones(1)})
    assert kept.before("honest", at(2)) is STATE


def test_what_was_used_longest_ago_goes_first(monkeypatch):
    kept = Keeping(maximum_bytes=40)
    for name in ("a", "b", "c"):
        kept.after(name, at(1), STATE)  # 16 bytes each
    assert kept.before("a", at(2)) == {}
    assert kept.before("b", at(2)) is kept.before("c", at(2)) is STATE
    monkeypatch.setattr(keeping, "MAXIMUM_JOBS", 1)
    kept.after("d", at(1), STATE)
    assert kept.before("c", at(2)) == {}
    kept.after("e", at(1), {"w": torch.ones(100)})  # more than may ever be kept
    assert kept.before("e", at(2)) == {}


def test_nothing_to_keep_is_not_kept():
    kept = Keeping()
    kept.after("me", at(1), {})
    assert kept.before("me", at(2)) == {}


def test_values_do_not_print():
    kept = Keeping()
    kept.after("me", at(1), STATE)
    assert "tensor" not in repr(next(iter(kept._kept.values())))


def test_an_owner_is_told_what_a_plan_keeps_here():
    from torch import nn

    from fedpriv.learning.local import SGD, LocalTraining
    from fedpriv.learning.terms import Dual
    from fedpriv.plans.layout import TensorExample
    from fedpriv.plans.tracing import trace_training
    from fedpriv_worker.wording import _plan

    rule = LocalTraining(optimizer=SGD(0.1), term=Dual(0.1)).rule
    model, row = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), TensorExample("float32", (2,))
    plan = trace_training(model, nn.functional.mse_loss, rule, row, TensorExample("float32"))
    assert "  This worker keeps 3 numbers of its own for the job's next round; they do not leave." in _plan(plan)


def test_a_private_order_keeps_nothing_whatever_its_plan_asks_for():
    """What is kept is made of rows, and no bill counts it."""
    from concurrent.futures import ThreadPoolExecutor

    from torch import nn

    import fedpriv as fp
    from fedpriv.learning.local import SGD, LocalTraining
    from fedpriv.learning.terms import Dual, Proximal
    from fedpriv.plans.layout import TensorExample
    from fedpriv.plans.tracing import trace_training
    from fedpriv.wire.messages import ErrorCode
    from fedpriv.wire.private import Private
    from fedpriv_worker.executor import InProcessExecutor
    from fedpriv_worker.pricing import Price

    model, row = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), TensorExample("float32", (2,))
    executor = InProcessExecutor([fp.Dataset("toy", torch.ones(4, 2), torch.ones(4))])
    weights = TensorSet({name: value.detach() for name, value in model.state_dict().items()})
    mode = fp.LocalDP(noise_multiplier=1.0)
    price = Price(mode.noise(rounds=1), "")
    for term in (Proximal(0.1), Dual(0.1)):
        rule = LocalTraining(optimizer=SGD(0.1), term=term).rule
        plan = trace_training(model, nn.functional.mse_loss, rule, row, TensorExample("float32"))
        order = replace(ORDER, plan=plan.digest, hyperparameters=rule.hyperparameters, model=weights)
        private = replace(order, privacy=Private(mode, 1, 3))
        with ThreadPoolExecutor(1) as pool:  # as at a worker: the thread takes denormals for zero from there on
            outcome = pool.submit(executor.train_privately, private, plan, price, bool).result()
        assert getattr(outcome, "code", None) == (ErrorCode.BAD_REQUEST if isinstance(term, Dual) else None)
    assert not executor._keeping._kept
