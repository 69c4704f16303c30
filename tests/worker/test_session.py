"""The session as a pure function: what a peer may have carried out, and what it gets to hear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedpriv.ids import DatasetName, JobId, PeerName, PlanDigest, WorkerName
from fedpriv.labels import private
from fedpriv.plans.plan import Input, InputRole, Output, OutputRole, Plan
from fedpriv.policy.decision import Recipient, Standing
from fedpriv.policy.requests import Grant
from fedpriv.policy.rules import Approval, Metrics, Mock, PlainUpdate, Rule, Statistics, cite
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import (
    Announcement,
    AskCheckpoint,
    AskMock,
    AskStatistics,
    CloseRound,
    Column,
    Cosigned,
    DatasetDescription,
    ErrorCode,
    Evaluate,
    Failure,
    Goodbye,
    Hello,
    OfferPlan,
    PlanAccepted,
    Request,
    Train,
    Update,
)
from fedpriv.wire.messages import Mock as MockMessage
from fedpriv_worker.actions import (
    Acknowledge,
    Answered,
    Broken,
    Close,
    Execute,
    KeepCosignature,
    Loaded,
    Note,
    Publish,
    Release,
    ShowCheckpoint,
    StoodIn,
    Summed,
    Tell,
    Trained,
    Validate,
)
from fedpriv_worker.orders import request_of
from fedpriv_worker.session import (
    MAXIMUM_PLANS,
    MAXIMUM_RUNNING,
    Facts,
    Session,
    executed,
    handle,
    open_session,
    unlisted,
)

ROWS = DatasetName("rows")
PEER = Recipient(PeerName("coordinator"), "coordinator")
LABEL = private(ROWS, PeerName("alice"))
ALL: tuple[Rule, ...] = (
    PlainUpdate(recipients=("coordinator",)),
    Statistics(recipients=("coordinator",)),
    Metrics(recipients=("coordinator",)),
)


def plan(constant: float = 0.0) -> Plan:
    inputs = (
        Input("x", InputRole.FEATURES, "float32", (-1, 2)),
        Input(f"c{constant}", InputRole.HYPERPARAMETER, "float64", ()),
    )
    return Plan(inputs, (Output("loss", OutputRole.LOSS, 0),), (), (), "2.13")


def facts(rules: tuple[Rule, ...] = ALL) -> Facts:
    column = Column("x0", "float")
    description = DatasetDescription(ROWS, (column,), (2,), "float32", Column("y", "bool"), "float32", (), (), 50)
    return Facts(WorkerName("alice"), "2.13.0", {ROWS: description}, {ROWS: rules})


def session(rules: tuple[Rule, ...] = ALL, *plans: Plan) -> Session:
    return Session(facts(rules), PEER, {each.digest: each for each in plans or (plan(),)})


def train(number: int = 1, **fields: object) -> Train:
    values = {
        "request": number, "job": JobId("j"), "round": 1, "dataset": ROWS, "plan": plan().digest, "epochs": 1,
        "batch_size": 8, "shuffle": True, "drop_last": False, "seed": 0, "hyperparameters": {"lr": 0.1},
        "metrics": (), "purpose": "", "model": TensorSet(),
    }  # fmt: skip
    return Train(**{**values, **fields})


def evaluate(**fields: object) -> Evaluate:
    values = {
        "request": 1, "job": JobId("j"), "round": 1, "dataset": ROWS, "plan": plan().digest, "batch_size": 8,
        "metrics": ("loss",), "purpose": "", "model": TensorSet(),
    }  # fmt: skip
    return Evaluate(**{**values, **fields})


def refusal(actions: tuple[object, ...]) -> ErrorCode:
    (action,) = actions
    assert isinstance(action, Tell)
    assert isinstance(action.message, Failure)
    return action.message.code


def test_a_session_opens_with_the_announcement_alone() -> None:
    _, actions = open_session(facts(()), PEER)
    (action,) = actions
    assert isinstance(action, Tell)
    assert action.message == Announcement("2.13.0", tuple(facts().datasets.values()))


def test_a_permitted_request_is_executed_and_its_result_released_with_the_data_sets_label() -> None:
    order = train(metrics=("loss",))
    running, actions = handle(session(), order)
    note, execute = actions
    assert isinstance(execute, Execute)
    assert (execute.order, execute.plan, execute.forecast.label) == (order, plan(), LABEL)
    assert note == Note(request_of(order, PEER), plan(), f"{cite(ALL[0])} {cite(ALL[2])}")
    delta = TensorSet({"w": torch.ones(1)})
    after, actions = executed(running, 1, Trained(50, {"loss": 0.5}, delta))
    assert actions == (Release(Update(1, 1, 50.0, {"loss": 0.5}, delta), order, execute.forecast),)
    assert not after.running


@pytest.mark.parametrize(
    ("rules", "order"),
    [
        ((), train()),
        (ALL[1:], train()),
        (ALL[:1], train(metrics=("loss",))),
        (ALL[:2], evaluate()),
        ((Metrics(kinds=("loss",), recipients=("coordinator",)),), evaluate(metrics=("loss", "accuracy"))),
        (ALL[:1], AskStatistics(1, ROWS, ("count",), "")),
        ((PlainUpdate(recipients=("somebody",)),), train()),
        ((PlainUpdate(recipients=("coordinator",), purpose="study"),), train(purpose="other")),
    ],
)
def test_what_no_rule_would_let_out_is_not_even_computed(rules: tuple[Rule, ...], order: Request) -> None:
    after, actions = handle(session(rules), order)
    assert refusal(actions) is ErrorCode.RELEASE_DENIED
    assert not after.running


def test_unknown_data_sets_and_plans_are_refused_by_code() -> None:
    assert refusal(handle(session(), train(dataset=DatasetName("other")))[1]) is ErrorCode.UNKNOWN_DATASET
    assert refusal(handle(session(), train(plan=PlanDigest(b"x" * 32)))[1]) is ErrorCode.UNKNOWN_PLAN


def test_a_plan_is_known_only_after_it_was_validated() -> None:
    fresh = session(ALL, plan(1.0))
    offered, actions = handle(fresh, OfferPlan(3, plan()))
    assert actions == (Validate(OfferPlan(3, plan())),)
    assert refusal(handle(offered, train())[1]) is ErrorCode.UNKNOWN_PLAN
    refused, actions = executed(offered, 3, Broken(ErrorCode.OPERATION_NOT_ALLOWED, 2, "aten.item.default"))
    assert actions == (Tell(Failure(3, ErrorCode.OPERATION_NOT_ALLOWED, 2, "aten.item.default")),)
    assert plan().digest not in refused.plans
    accepted, actions = executed(offered, 3, Loaded())
    assert actions == (Tell(PlanAccepted(3, plan().digest)),)
    assert isinstance(handle(accepted, train())[1][-1], Execute)


def test_a_plan_that_is_known_is_accepted_at_once() -> None:
    assert handle(session(), OfferPlan(3, plan()))[1] == (Tell(PlanAccepted(3, plan().digest)),)


def test_plans_and_running_requests_are_bounded() -> None:
    full = session(ALL, *(plan(float(number)) for number in range(MAXIMUM_PLANS)))
    assert refusal(handle(full, OfferPlan(1, plan(-1.0)))[1]) is ErrorCode.OVER_QUOTA
    busy = session()
    for number in range(MAXIMUM_RUNNING):
        busy, _ = handle(busy, train(number))
    assert refusal(handle(busy, train(99))[1][1:]) is ErrorCode.OVER_QUOTA


def test_a_number_in_use_is_not_used_twice() -> None:
    busy, _ = handle(session(), train(1))
    assert refusal(handle(busy, train(1))[1][1:]) is ErrorCode.BAD_REQUEST


def test_a_failure_on_private_values_ends_the_right_to_that_data_set() -> None:
    busy, _ = handle(session(), train())
    after, actions = executed(busy, 1, Broken(ErrorCode.STEP_FAILED, 4, "aten.embedding.default", on_values=True))
    assert actions == (Tell(Failure(1, ErrorCode.STEP_FAILED)),)  # not where: that would say more of the values
    for again in (train(), evaluate(), AskStatistics(1, ROWS, ("count",), "")):
        assert refusal(handle(after, again)[1]) is ErrorCode.RELEASE_DENIED


def test_a_bar_holds_for_what_was_running() -> None:
    busy, _ = handle(session(), train(1))
    busy, _ = handle(busy, train(2))
    barred, _ = executed(busy, 1, Broken(ErrorCode.STEP_FAILED, on_values=True))
    _, actions = executed(barred, 2, Trained(50, {}, TensorSet()))
    assert refusal(actions) is ErrorCode.RELEASE_DENIED
    assert barred.barred == {ROWS}


def test_whom_no_rule_names_cannot_even_load_a_plan() -> None:
    stranger = Session(facts(), Recipient(PeerName("mallory"), "coordinator"))
    assert refusal(handle(stranger, OfferPlan(1, plan()))[1]) is ErrorCode.RELEASE_DENIED


@pytest.mark.parametrize("number", [-1, 1 << 31, 1 << 63])
def test_a_round_that_no_ledger_can_hold_is_refused_before_anything_runs(number: int) -> None:
    assert refusal(handle(session(), train(round=number))[1]) is ErrorCode.BAD_REQUEST


def test_a_failure_before_any_value_was_read_costs_nothing() -> None:
    busy, _ = handle(session(), train())
    after, _ = executed(busy, 1, Broken(ErrorCode.INPUT_MISMATCH))
    assert isinstance(handle(after, train())[1][1], Execute)


def test_statistics_are_released_as_such() -> None:
    order = AskStatistics(1, ROWS, ("count",), "")
    busy, _ = handle(session(), order)
    values = TensorSet({"count": torch.tensor(50.0)})
    (release,) = executed(busy, 1, Summed(values))[1]
    assert isinstance(release, Release)
    assert release.forecast.label == LABEL


def test_the_end_of_a_round_publishes_and_a_goodbye_closes() -> None:
    assert handle(session(), CloseRound(JobId("j"), 1))[1] == (Acknowledge(JobId("j"), 1), Publish())
    assert handle(session(), Goodbye())[1] == (Acknowledge(JobId(""), -1), Publish(), Close())


def test_whom_no_rule_names_causes_no_work_however_often_it_says_so() -> None:
    stranger = Session(facts(), Recipient(PeerName("mallory"), "coordinator"))
    for message in (CloseRound(JobId("j"), 1), Cosigned("vkey", b"line")):
        assert handle(stranger, message) == (stranger, ())
    assert handle(stranger, Goodbye())[1] == (Acknowledge(JobId(""), -1), Close())


APPROVAL = Approval(recipients=("coordinator",))


def test_an_order_that_only_an_approval_lets_out_is_put_before_the_owner_and_not_run() -> None:
    order = train()
    asked, actions = handle(session((APPROVAL,)), order)
    note, tell = actions
    assert note == Note(request_of(order, PEER), plan(), "")
    assert refusal((tell,)) is ErrorCode.APPROVAL_PENDING
    assert not asked.running


def test_an_approved_order_runs_until_the_approval_is_used_up_or_expires() -> None:
    grant = Grant(request_of(train(), PEER), cite(APPROVAL), releases=2, expires=100.0)
    for standing, runs in (
        (Standing(50.0, (grant,)), True),
        (Standing(50.0, (grant,), {grant.digest: 1}), True),
        (Standing(50.0, (grant,), {grant.digest: 2}), False),
        (Standing(100.0, (grant,)), False),
        (Standing(50.0), False),
    ):
        _, actions = handle(session((APPROVAL,)), train(), standing)
        assert isinstance(actions[-1], Execute) is runs


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 2}, {"batch_size": 1}, {"purpose": "other"}, {"metrics": ("loss",)},
    ],
)  # fmt: skip
def test_an_approval_holds_for_the_very_request_it_was_given_for(other: dict[str, object]) -> None:
    grant = Grant(request_of(train(), PEER), cite(APPROVAL), releases=2, expires=100.0)
    _, actions = handle(session((APPROVAL,)), train(**other), Standing(50.0, (grant,)))
    assert refusal(actions[-1:]) is ErrorCode.APPROVAL_PENDING


def test_what_the_owner_denied_does_not_run_under_any_rule() -> None:
    _, actions = handle(session(), train(), Standing(refused=frozenset({request_of(train(), PEER)})))
    assert refusal(actions) is ErrorCode.APPROVAL_DENIED


def test_every_order_is_put_before_the_owner_before_it_is_carried_out() -> None:
    asked, first = handle(session(), train())
    _, second = handle(asked, train(2, round=2))
    assert first[0] == Note(request_of(train(), PEER), plan(), cite(ALL[0]), again=False)
    assert second[0] == Note(request_of(train(), PEER), plan(), cite(ALL[0]), again=True)
    assert [type(action) for action in (*first[1:], *second[1:])] == [Execute, Execute]


def test_an_order_that_cannot_be_put_before_the_owner_is_not_carried_out() -> None:
    busy, _ = handle(session(), train(1))
    asked, (_, execute) = handle(busy, train(2))
    assert set(asked.running) == {1, 2}
    after, actions = unlisted(asked, execute)
    assert (set(after.running), refusal(actions)) == ({1}, ErrorCode.OVER_QUOTA)
    asked, (_, told) = handle(busy, train(1))
    after, actions = unlisted(asked, told)
    assert (set(after.running), refusal(actions)) == ({1}, ErrorCode.OVER_QUOTA)


def test_an_order_that_was_answered_before_gets_no_second_answer_from_the_session() -> None:
    running, _ = handle(session(), train())
    after, actions = executed(running, 1, Answered())
    assert actions == ()
    assert not after.running


def test_a_stand_in_leaves_where_there_is_one_and_a_rule_for_it() -> None:
    stands_in = replace(facts((Mock(),)), stand_ins={ROWS: (TensorSpec("features", "float32", (3, 2)),)})
    running, actions = handle(Session(stands_in, PEER), AskMock(1, ROWS))
    assert isinstance(actions[-1], Execute)
    values = TensorSet({"features": torch.zeros(3, 2)})
    (release,) = executed(running, 1, StoodIn(values))[1]
    assert isinstance(release, Release)
    assert release.message == MockMessage(1, values)
    without_rule = Session(replace(stands_in, rules={ROWS: ALL}), PEER)
    assert refusal(handle(without_rule, AskMock(1, ROWS))[1]) is ErrorCode.RELEASE_DENIED
    assert refusal(handle(session((Mock(),)), AskMock(1, ROWS))[1]) is ErrorCode.RELEASE_DENIED


def test_the_checkpoint_is_shown_only_to_whom_some_rule_names() -> None:
    ask = AskCheckpoint(1, b"")
    assert handle(session(), ask)[1] == (ShowCheckpoint(ask),)
    assert refusal(handle(session(()), ask)[1]) is ErrorCode.RELEASE_DENIED
    assert handle(session(), Cosigned("vkey", b"line"))[1] == (KeepCosignature(Cosigned("vkey", b"line")),)


@pytest.mark.parametrize(
    "message",
    [
        Hello((b"certificate",), b"n" * 32),
        Update(1, 1, 1.0, {}, TensorSet()),
        PlanAccepted(1, PlanDigest(b"x" * 32)),
        Announcement("2.13.0", ()),
        Failure(1, ErrorCode.BAD_REQUEST),
    ],
)
def test_what_only_a_worker_says_closes_the_link(message: object) -> None:
    assert handle(session(), message)[1] == (Close(),)
