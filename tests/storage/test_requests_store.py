"""What is kept of requests and of the owner's answers, in memory and on a disk."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import QuotaExceeded, UsageError
from fedpriv.ids import DatasetName, PeerName
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.storage import requests as store
from fedpriv.storage.database import Database
from fedpriv.storage.requests import SCHEMA, Requests

NOW = 1_767_225_600.0
DAY = 86_400.0
UPDATE = ReleaseRequest(
    Recipient(PeerName("me"), "coordinator"), DatasetName("rows"), ("update",), (), "ab" * 32, "a study", 2, 32
)
RULE = "approval:0123456789abcdef"


def asked(number: int, recipient: str = "me") -> ReleaseRequest:
    return dataclasses.replace(
        UPDATE, recipient=Recipient(PeerName(recipient), "coordinator"), purpose=f"study {number}"
    )


@pytest.fixture(params=["memory", "disk"])
def requests(request, tmp_path):
    if request.param == "memory":
        database = Database.in_memory(schema=SCHEMA)
    else:
        database = Database.open(tmp_path / "journal.sqlite", schema=SCHEMA)
    yield Requests(database)
    database.close()


def test_a_request_is_recorded_once_and_counted(requests):
    first = requests.note(UPDATE, b"plan", permitted_by="", now=NOW)
    again = requests.note(UPDATE, b"plan", permitted_by="", now=NOW + 5)
    assert (first.state, first.times, first.grant) == ("pending", 1, None)
    assert (again.first, again.last, again.times) == (NOW, NOW + 5, 2)
    assert requests.all() == (again,)
    assert again.request == UPDATE
    assert again.plan == b"plan"


def test_what_a_rule_permits_is_recorded_with_the_rule(requests):
    found = requests.note(UPDATE, b"", permitted_by="plain-update:00", now=NOW)
    assert (found.state, found.rule) == ("permitted", "plain-update:00")
    assert requests.note(UPDATE, b"", permitted_by="", now=NOW).state == "pending"
    assert requests.note(UPDATE, b"", permitted_by="plain-update:11", now=NOW).rule == "plain-update:11"


def test_the_latest_comes_first(requests):
    for number in range(3):
        requests.note(asked(number), b"", permitted_by="", now=NOW + number)
    requests.note(asked(0), b"", permitted_by="", now=NOW + 9)
    assert [each.request.purpose for each in requests.all()] == ["study 0", "study 2", "study 1"]


def test_an_approval_is_in_force_until_it_expires(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    grant = requests.approve(UPDATE.id, rule=RULE, releases=5, expires=NOW + DAY, now=NOW)
    assert (grant.request, grant.rule, grant.releases, grant.expires) == (UPDATE, RULE, 5, NOW + DAY)
    assert requests.grants(NOW) == (grant,)
    assert requests.grants(NOW + DAY) == ()
    assert requests.note(UPDATE, b"", permitted_by=RULE, now=NOW + 1).state == "approved"
    assert requests.note(UPDATE, b"", permitted_by="", now=NOW + 2).state == "approved"  # used up, or enough for today
    found = requests.note(UPDATE, b"", permitted_by="", now=NOW + DAY)
    assert (found.state, found.grant) == ("pending", grant)


def test_a_denial_withdraws_an_approval_and_lasts(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    grant = requests.approve(UPDATE.id, rule=RULE, releases=5, expires=NOW + DAY, now=NOW)
    (denied,) = requests.deny(UPDATE.id, why="the study is over", now=NOW + 1)
    assert (denied.state, denied.why, denied.grant) == ("denied", "the study is over", None)
    assert denied.decided == NOW + 1
    assert requests.grants(NOW) == ()
    assert requests.note(UPDATE, b"", permitted_by="", now=NOW + 2).state == "denied"
    assert requests.note(UPDATE, b"", permitted_by="plain-update:00", now=NOW + 2).state == "denied"
    assert requests.refused() == {UPDATE}
    assert requests.approval(grant.digest) == grant


def test_what_was_denied_can_be_approved_after_all(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    requests.deny(UPDATE.id, why="not yet", now=NOW)
    grant = requests.approve(UPDATE.id, rule=RULE, releases=1, expires=NOW + DAY, now=NOW)
    assert requests.grants(NOW) == (grant,)
    assert requests.find(UPDATE.id).why == ""
    assert requests.refused() == frozenset()


def test_a_second_approval_takes_the_place_of_the_first_and_both_can_be_cited(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    first = requests.approve(UPDATE.id, rule=RULE, releases=1, expires=NOW + DAY, now=NOW)
    second = requests.approve(UPDATE.id, rule=RULE, releases=9, expires=NOW + DAY, now=NOW)
    assert requests.grants(NOW) == (second,)
    assert requests.approval(first.digest) == first
    assert requests.approval("00" * 32) is None


def test_the_same_approval_twice_is_one(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    grants = {requests.approve(UPDATE.id, rule=RULE, releases=1, expires=NOW + DAY, now=NOW) for _ in range(2)}
    assert requests.grants(NOW) == tuple(grants)


def test_an_approval_in_the_past_and_one_of_nothing_are_refused(requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    for releases, expires in ((1, NOW), (1, float("nan")), (0, NOW + DAY)):
        with pytest.raises(UsageError):
            requests.approve(UPDATE.id, rule=RULE, releases=releases, expires=expires, now=NOW)
    assert requests.grants(NOW) == ()


def test_a_request_is_found_by_the_beginning_of_its_id(requests):
    for number in range(40):
        requests.note(asked(number, f"r{number}"), b"", permitted_by="", now=NOW)
    identity = asked(7, "r7").id
    assert requests.find(identity).request == asked(7, "r7")
    assert requests.find(identity[:10].upper()).request == asked(7, "r7")


def test_a_wrong_id_names_the_nearest_and_an_ambiguous_one_all(requests):
    with pytest.raises(UsageError, match="nobody has asked"):
        requests.find("abc")
    for number in range(40):
        requests.note(asked(number, f"r{number}"), b"", permitted_by="", now=NOW)
    identity = asked(7, "r7").id
    wrong = identity[:-1] + ("0" if identity[-1] != "0" else "1")
    with pytest.raises(UsageError, match=f"did you mean '{identity}'"):
        requests.find(wrong)
    with pytest.raises(UsageError, match="give more digits"):
        requests.find(
            next(digit for digit in "0123456789abcdef" if sum(a.request.id[0] == digit for a in requests.all()) > 1)
        )
    with pytest.raises(UsageError, match="no request"):
        requests.find("")


def test_of_several_requests_all_are_denied_or_none(requests):
    for number in range(3):
        requests.note(asked(number), b"", permitted_by="", now=NOW)
    with pytest.raises(UsageError, match="there is no request"):
        requests.deny(asked(0).id, "ff" * 16, why="no", now=NOW)
    assert requests.refused() == frozenset()
    denied = requests.deny(asked(0).id, asked(2).id, why="no", now=NOW)
    assert [each.request for each in denied] == [asked(0), asked(2)]
    assert requests.refused() == {asked(0), asked(2)}


def test_an_unknown_request_is_neither_approved_nor_denied(requests):
    with pytest.raises(UsageError):
        requests.approve("ff" * 16, rule=RULE, releases=1, expires=NOW + 1, now=NOW)
    with pytest.raises(UsageError):
        requests.deny("ff" * 16, why="", now=NOW)


def test_a_recipient_has_a_bounded_number_of_requests_waiting(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_PENDING", 3)
    for number in range(3):
        requests.note(asked(number), b"", permitted_by="", now=NOW)
    with pytest.raises(QuotaExceeded, match="waiting"):
        requests.note(asked(3), b"", permitted_by="", now=NOW)
    requests.note(asked(0), b"", permitted_by="", now=NOW)
    requests.note(asked(3, "somebody-else"), b"", permitted_by="", now=NOW)
    requests.note(asked(4), b"", permitted_by="plain-update:00", now=NOW)
    requests.deny(asked(0).id, why="no", now=NOW)
    requests.note(asked(3), b"", permitted_by="", now=NOW)


def test_the_oldest_that_nobody_decided_make_room_the_senders_own_first(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_REQUESTS", 4)
    requests.note(asked(0, "you"), b"", permitted_by="", now=NOW)
    requests.note(asked(1), b"", permitted_by="", now=NOW + 1)
    requests.note(asked(2), b"", permitted_by="rule:0", now=NOW + 2)
    requests.note(asked(3), b"", permitted_by="", now=NOW + 3)
    requests.approve(asked(1).id, rule=RULE, releases=1, expires=NOW + DAY, now=NOW)
    gone = []
    for number in range(4, 8):
        before = {each.request.purpose for each in requests.all()}
        requests.note(asked(number, "her"), b"", permitted_by="", now=NOW + number)
        gone += before - {each.request.purpose for each in requests.all()}
    assert gone == ["study 2", "study 4", "study 5", "study 6"]
    assert {each.request.purpose for each in requests.all()} == {"study 0", "study 1", "study 3", "study 7"}


def test_approvals_in_force_are_never_pushed_out(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_REQUESTS", 2)
    for number, days in enumerate((1, 2)):
        requests.note(asked(number), b"", permitted_by="", now=NOW)
        requests.approve(asked(number).id, rule=RULE, releases=1, expires=NOW + days * DAY, now=NOW)
    with pytest.raises(QuotaExceeded, match="no room"):
        requests.note(asked(2), b"", permitted_by="", now=NOW)
    assert len(requests.grants(NOW)) == 2
    requests.note(asked(2), b"", permitted_by="", now=NOW + DAY)
    assert len(requests.grants(NOW)) == 1


def test_the_bytes_of_all_requests_are_bounded_their_plans_included(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_BYTES", 3 * (len(asked(0).to_json()) + 30) + 10)
    for number in range(9):
        requests.note(asked(number), bytes(30), permitted_by="rule:0", now=NOW + number)
    assert [each.request.purpose for each in requests.all()] == ["study 8", "study 7", "study 6"]
    long = dataclasses.replace(UPDATE, purpose="x" * 41)
    requests.note(long, bytes(30), permitted_by="rule:0", now=NOW + 9)
    assert [each.request.purpose for each in requests.all()] == [long.purpose, "study 8"]
    with pytest.raises(QuotaExceeded):
        requests.note(asked(9), bytes(1000), permitted_by="rule:0", now=NOW)
    assert len(requests.all()) == 2


def test_answers_survive_a_restart(tmp_path):
    database = Database.open(tmp_path / "journal.sqlite", schema=SCHEMA)
    Requests(database).note(UPDATE, b"plan", permitted_by="", now=NOW)
    grant = Requests(database).approve(UPDATE.id, rule=RULE, releases=5, expires=NOW + DAY, now=NOW)
    database.close()
    database = Database.open(tmp_path / "journal.sqlite", schema=SCHEMA)
    assert Requests(database).grants(NOW) == (grant,)
    assert Requests(database).find(UPDATE.id[:6]).plan == b"plan"
    database.close()


def test_a_request_noted_in_a_transaction_that_fails_was_never_there():
    database = Database.in_memory(schema=SCHEMA)

    def failing() -> None:
        with database.writing("try"):
            Requests(database).note(UPDATE, b"", permitted_by="", now=NOW)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert Requests(database).all() == ()
    database.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["note", "permit", "approve", "deny", "wait"]), st.integers(0, 2)), max_size=25)
)
def test_a_grant_is_in_force_exactly_from_an_approval_to_its_end_or_a_denial(events):
    database, now, ends = Database.in_memory(schema=SCHEMA), NOW, {}
    requests = Requests(database)
    for number in range(3):
        requests.note(asked(number), b"", permitted_by="", now=now)
    for event, number in events:
        now += 1
        match event:
            case "note" | "permit":
                requests.note(asked(number), b"", permitted_by="rule:0" if event == "permit" else "", now=now)
            case "approve":
                requests.approve(asked(number).id, rule=RULE, releases=1, expires=now + 5, now=now)
                ends[number] = now + 5
            case "deny":
                requests.deny(asked(number).id, why="", now=now)
                ends.pop(number, None)
            case "wait":
                now += 3
        in_force = {asked(number) for number, end in ends.items() if end > now}
        assert {grant.request for grant in requests.grants(now)} == in_force
    database.close()
