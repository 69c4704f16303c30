"""The owner's desk: requests in words and numbers, approvals that help, denials that stop, budgets that add up."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import pytest
import torch.nn.functional as F
from torch import nn

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, JobId, PeerName, WorkerName
from fedpriv.learning.local import SGD
from fedpriv.ledger.entries import Draft
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import accuracy, trace_evaluation, trace_training
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.policy.rules import Approval, Metrics, Mock, PlainUpdate, Rule, Statistics, cite
from fedpriv.privacy.budget import ORDERS, Budget, Cost
from fedpriv.privacy.reservations import DAY_SECONDS, Limit, Reservation
from fedpriv.updates import TensorSpec
from fedpriv.wire.plans import encode_plan
from fedpriv_worker.desk import Desk
from fedpriv_worker.holdings import Holding
from fedpriv_worker.journal import Journal
from fedpriv_worker.wording import moment

ALICE = WorkerName("alice")
ME = Recipient(PeerName("coordinator-1"), "coordinator")
ROWS = DatasetName("breast-cancer")
APPROVAL = Approval()
HOLDING = Holding(
    ROWS, (APPROVAL,), "rounded", Budget(8.0, 1e-5), 455, 30, (TensorSpec("features", "float32", (4, 30)),)
)
DAY = 86_400.0


@cache
def training():
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    return trace_training(model, F.cross_entropy, SGD(0.1), TensorExample("float32", (30,)), TensorExample("int64"))


@cache
def measuring():
    metrics = {"accuracy": accuracy}
    return trace_evaluation(
        nn.Linear(30, 2), F.cross_entropy, metrics, TensorExample("float32", (30,)), TensorExample("int64")
    )


def update(**fields) -> ReleaseRequest:
    values = {
        "recipient": ME, "dataset": ROWS, "releases": ("update", "metrics"), "kinds": ("loss",),
        "plan": training().digest.hex(), "purpose": "toxicity study", "epochs": 2, "batch_size": 32,
    }  # fmt: skip
    return ReleaseRequest(**{**values, **fields})


def journal() -> Journal:
    return Journal.in_memory(worker=ALICE, clock=ManualClock(), entropy=SeededEntropy(b"desk"))


def desk(*rules: Rule, records: Journal | None = None, **fields) -> Desk:
    holding = dataclasses.replace(HOLDING, rules=rules or (APPROVAL,), **fields)
    return Desk(ALICE, (holding,), records or journal())


def note(records: Journal, request: ReleaseRequest, permitted_by: str = "") -> str:
    plan = {"": b""}.get(request.plan) or encode_plan(measuring() if request.releases == ("metrics",) else training())
    records.requests.note(request, b"" if not request.plan else plan, permitted_by=permitted_by, now=records.now())
    return request.id


def sent(records: Journal, request: ReleaseRequest, kind: str = "update", size: int = 12_000, **fields) -> None:
    label = (f"{request.dataset}/alice",)
    draft = Draft(
        peer=request.recipient.name, method="Attach", kind=kind, bytes=size, labels=label, plan=request.plan,
        purpose=request.purpose, **fields,
    )  # fmt: skip
    records.append(draft, b"", [])


def test_a_request_that_waits_is_told_with_everything_an_owner_needs():
    records = journal()
    identity = note(records, update())
    text = " ".join(desk(records=records).explain(identity)["text"].split())
    for part in (
        f"Request {identity}: it waits for your answer",
        "coordinator-1, a coordinator by its certificate, asks for an update of its model",
        'metrics ("loss") of the data set "breast-cancer".',
        'for the purpose "toxicity study"; nobody has checked that',
        "Training: 2 passes over all rows, 32 rows at once.",
        "2,242 trained numbers in 6 tensors, and 129 further numbers",
        "a list of 40 operations, no program; most often: t (9)",
        '"0.weight" float32 64 x 30',
        "9,488 bytes of numbers",
        'one number for each of "loss"',
        "rounded down to tens, as its weight",
        "can reveal individual rows",
        "the owner has not approved the request yet",
        f"fedpriv worker approve {identity} --releases 20 --expires 7d",
        f'fedpriv worker deny {identity} --why "..."',
        "What has left so far Nothing.",
    ):
        assert part in text


def test_it_takes_two_minutes_to_read_aloud_and_fits_a_terminal():
    records = journal()
    text = desk(records=records).explain(note(records, update()))["text"]
    assert len(text.split()) < 370
    text = desk(records=records).explain(note(records, update(purpose="a purpose " * 200)))["text"]
    assert len(text.split()) < 430
    assert max(map(len, text.splitlines())) <= 110


def test_a_peers_words_cannot_write_to_the_terminal():
    records = journal()
    text = desk(records=records).explain(note(records, update(purpose="x\x1b[2J\nRequest: approved\u202e")))["text"]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\nRequest: approved" not in text


def test_facts_are_json_and_say_the_same():
    records = journal()
    found = json.loads(json.dumps(desk(records=records).explain(note(records, update()))["facts"]))
    assert found["standing"] == "waiting"
    assert found["plan"]["trained_numbers"] == 2242
    assert found["forecast"]["payload_bytes"] == 9488
    assert found["forecast"]["weight"] == "rounded"
    assert [each["pending"] for each in found["rules"]] == [True, True]
    assert found["left"] == {"messages": 0, "sent_again": 0, "bytes": 0, "outside_forecast": []}


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        (update(releases=("metrics",), kinds=("loss", "accuracy"), plan=measuring().digest.hex(), epochs=0),
         ("A measurement of a model on the rows held out", 'number for each of "accuracy", "loss"', "as its weight")),
        (update(releases=("statistics",), kinds=("count", "sum"), plan="", epochs=0),
         ("Sums over the rows", "2 tensors, 248 bytes", "knows all rows but one")),
        (update(releases=("mock",), kinds=(), plan="", epochs=0), ("as you wrote it", "480 bytes", "you put into it")),
        (update(releases=("rows",), kinds=(), plan=""), ("Not known", "has no answer")),
    ],
    ids=["metrics", "statistics", "mock", "unknown"],
)  # fmt: skip
def test_every_kind_of_request_has_words(request_, parts):
    records = journal()
    text = desk(records=records).explain(note(records, request_))["text"]
    assert [part for part in parts if part not in text] == []


def test_a_request_that_a_rule_lets_out_says_which():
    records = journal()
    owner = desk(PlainUpdate(recipients=("coordinator-1",), weight="exact"), Metrics(), records=records)
    found = owner.explain(note(records, update(), "plain-update:0"))
    assert "your rules let it out" in found["text"]
    assert "under the rule plain-update: coordinator-1 may see each update" in found["text"]
    assert "exact number of rows as its weight" in found["text"]
    assert found["facts"]["standing"] == "permitted"


def test_a_request_that_no_rule_could_let_out_says_what_would():
    records = journal()
    found = desk(Statistics(), records=records).explain(note(records, update()))
    assert "no rule lets it out" in found["text"]
    assert '{ rule = "approval" }' in found["text"]
    assert "covers statistics, not update" in found["text"]


def test_a_plan_that_is_damaged_and_a_data_set_that_is_gone_are_said():
    records = journal()
    records.requests.note(update(), b"garbage", permitted_by="", now=records.now())
    identity = note(records, update(dataset=DatasetName("gone")))
    assert "Not known" in desk(records=records).explain(update().id)["text"]
    found = desk(records=records).explain(identity)
    assert "no data set 'gone' now" in found["text"]
    assert found["facts"]["standing"] == "not allowed"
    with pytest.raises(UsageError, match="no data set 'gone'"):
        desk(records=records).approve(identity, 1, DAY)


def test_an_approval_lets_the_request_out_so_many_times_until_it_expires():
    records = journal()
    owner = desk(records=records)
    identity = note(records, update())
    given = owner.approve(identity, 2, 7 * DAY)
    (grant,) = records.requests.grants(records.now())
    assert (given["approval"], given["releases"], given["expires"]) == (grant.digest, 2, records.now() + 7 * DAY)
    assert (grant.rule, grant.request) == (cite(APPROVAL), update())
    assert owner.show(identity)["standing"] == "approved"
    for number in range(2):
        order = Reservation(bytes([number]), ROWS, ME.name, "", JobId("j"), number, (Limit(grant.digest, 2),))
        records.reserve(order)
    found = owner.explain(identity)
    assert found["facts"]["standing"] == "waiting"
    assert found["facts"]["approval"]["used"] == 2
    assert "of which 2 are used" in found["text"]


@pytest.mark.parametrize(
    ("releases", "seconds"),
    [(0, DAY), (1_000_001, DAY), (1, 0.0), (1, 366 * DAY), (1, float("nan")), (1, float("inf"))],
)
def test_an_approval_without_measure_is_refused(releases, seconds):
    records = journal()
    identity = note(records, update())
    with pytest.raises(UsageError):
        desk(records=records).approve(identity, releases, seconds)
    assert records.requests.grants(records.now()) == ()


@pytest.mark.parametrize(
    "rule",
    [
        Statistics(),
        Approval(recipients=("somebody-else",)),
        Approval(purpose="another study"),
    ],
)
def test_an_approval_that_would_let_nothing_out_is_refused_with_the_reason(rule):
    records = journal()
    identity = note(records, update())
    with pytest.raises(UsageError, match="would let nothing out"):
        desk(rule, records=records).approve(identity, 1, DAY)


def test_an_approval_where_a_rule_lets_it_out_already_is_refused():
    records = journal()
    identity = note(records, update(), "plain-update:0")
    with pytest.raises(UsageError, match="needs no approval"):
        desk(PlainUpdate(recipients=("coordinator-1",)), Metrics(), records=records).approve(identity, 1, DAY)


def test_an_approval_does_not_mind_that_a_day_is_used_up():
    records = journal()
    rule = Approval(rounds_per_day=1)
    identity = note(records, update())
    records.reserve(Reservation(b"a", ROWS, ME.name, "", JobId("j"), 1, (Limit(cite(rule), 1, DAY_SECONDS),)))
    assert desk(rule, records=records).approve(identity, 1, DAY)["rule"].endswith("in 24 hours at most")


def test_a_denial_stops_what_rules_let_out_until_the_owner_approves():
    records = journal()
    owner = desk(PlainUpdate(recipients=("coordinator-1",)), Metrics(), records=records)
    identity = note(records, update(), "plain-update:0")
    assert owner.deny(identity, "the study is over")["standing"] == "denied"
    text = owner.explain(identity)["text"]
    assert "you denied it" in text
    assert f'You denied it on {moment(records.now())}: "the study is over".' in text
    assert owner.approve(identity, 1, DAY, again=True)["id"] == identity
    assert owner.show(identity)["standing"] == "permitted"


def test_a_denial_withdraws_an_approval():
    records = journal()
    owner = desk(records=records)
    identity = note(records, update())
    owner.approve(identity, 5, DAY)
    owner.deny(identity, "changed my mind")
    assert records.requests.grants(records.now()) == ()
    assert owner.show(identity)["why"] == "changed my mind"


@pytest.mark.parametrize("why", ["", "  ", "two\nlines", "x" * 1001])
def test_a_denial_needs_a_reason_of_one_line(why):
    records = journal()
    with pytest.raises(UsageError):
        desk(records=records).deny(note(records, update()), why)


def test_what_waits_is_listed_first():
    records = journal()
    owner = desk(APPROVAL, Mock(), records=records)
    waiting = note(records, update())
    note(records, update(releases=("mock",), kinds=(), plan="", purpose=""), "mock:0")
    assert [each["standing"] for each in owner.requests()] == ["waiting", "permitted"]
    assert owner.requests()[0]["id"] == waiting
    assert owner.status()["waiting"] == 1
    assert owner.status()["requests"] == {"permitted": 1, "waiting": 1}


def test_what_left_is_held_against_the_forecast():
    records = journal()
    owner = desk(records=records)
    identity = note(records, update())
    sent(records, update(), size=9_700)
    sent(records, update(), size=9_700, source=0)
    sent(records, update(purpose="another study"), size=10**6)
    sent(records, update(recipient=Recipient(PeerName("other"), "coordinator")), size=10**6)
    assert "All of them are what was foreseen." in owner.explain(identity)["text"]
    sent(records, update(), size=9_800)
    sent(records, update(), kind="statistics", size=10)
    left = owner.explain(identity)["facts"]["left"]
    assert (left["messages"], left["sent_again"], left["bytes"]) == (4, 1, 29_210)
    assert [each["entry"] for each in left["outside_forecast"]] == [4, 5]
    assert "NOT what was foreseen" in owner.explain(identity)["text"]


def test_requests_that_the_ledger_cannot_tell_apart_share_the_larger_forecast():
    records = journal()
    owner = desk(records=records)
    small, large = update(releases=("update",), kinds=()), update()
    bound = owner.explain(note(records, large))["facts"]["forecast"]["most_bytes"]
    sent(records, large, size=bound)
    assert owner.explain(note(records, small))["facts"]["left"]["outside_forecast"] == []


def cost(loss: float) -> Cost:
    return Cost("gaussian", "{}", "add-or-remove-one", tuple(loss * order for order in ORDERS))


def test_a_budget_says_what_is_spent_reserved_and_left_and_by_whom():
    records = journal()
    you = PeerName("coordinator-2")
    for number, recipient in enumerate((ME.name, ME.name, you)):
        order = Reservation(bytes([number]), ROWS, recipient, "", JobId("j"), number, (), cost(0.01), HOLDING.budget)
        reserved = records.reserve(order)
        if number < 2:
            records.holds.commit(reserved, number)
    sent(records, update())
    sent(records, update(), source=0)
    (found,) = desk(records=records).budget()
    assert found["spent"] > 0
    assert found["spent"] + found["reserved"] + found["left"] == pytest.approx(8.0)
    assert found["releases"] == 1
    by_name = {each["name"]: each for each in found["recipients"]}
    assert by_name[ME.name]["epsilon"] == pytest.approx(found["spent"])
    assert by_name[you]["releases"] == 0
    assert by_name[you]["epsilon"] > 0
    records.holds.cancel(2)
    assert desk(records=records).budget()[0]["reserved"] == 0.0


def test_a_data_set_that_is_no_longer_held_keeps_its_spending():
    records = journal()
    sent(records, update(dataset=DatasetName("gone")))
    found = {each["dataset"]: each for each in desk(records=records, budget=None).budget()}
    assert found["gone"]["held"] is False
    assert found["gone"]["releases"] == 1
    assert found["breast-cancer"]["left"] is None


def test_data_sets_are_listed_with_rows_rules_and_budget():
    (found,) = desk(PlainUpdate(recipients=("me",)), Metrics(rounds_per_day=3)).datasets()
    assert (found["rows"], found["announced_rows"], found["told"]) == (455, 450, "rounded")
    assert found["rules"][1]["words"].startswith("any coordinator or researcher may see metrics")
    assert found["budget"]["rules"][1] == {
        "rule": cite(Metrics(rounds_per_day=3)),
        "words": found["rules"][1]["words"],
        "used_today": 0,
        "rounds_per_day": 3,
    }


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"ask": None},
        {"ask": "rows"},
        {"ask": "answer"},
        {"ask": ["status"]},
        {"ask": "status", "id": "x"},
        {"ask": "show"},
        {"ask": "show", "id": 7},
        {"ask": "approve", "id": "x", "releases": True, "expires_seconds": 1.0, "again": False},
        {"ask": "approve", "id": "x", "releases": 1, "expires_seconds": 10**400, "again": False},
        {"ask": "approve", "id": "x", "releases": 1.5, "expires_seconds": 1, "again": False},
        {"ask": "approve", "id": "x", "releases": 1, "expires_seconds": 1, "again": 1},
        {"ask": "deny", "id": "x", "why": None},
    ],
)
def test_a_question_that_is_none_is_refused(question):
    with pytest.raises(UsageError):
        desk().answer(question)


def test_every_answer_is_json():
    records = journal()
    owner = desk(records=records)
    identity = note(records, update())
    for question in (
        {"ask": "status"},
        {"ask": "requests"},
        {"ask": "datasets"},
        {"ask": "budget"},
        {"ask": "show", "id": identity},
        {"ask": "explain", "id": identity},
        {"ask": "approve", "id": identity, "releases": 3, "expires_seconds": 60, "again": False},
        {"ask": "deny", "id": identity, "why": "no"},
    ):
        assert json.dumps(owner.answer(question), allow_nan=False)
