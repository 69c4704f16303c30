"""What a peer cannot make an owner believe or do: by its words, by their number, or by what it asks for next."""

from __future__ import annotations

import dataclasses
import json

import pytest
from test_desk import ALICE, DAY, ME, ROWS, desk, journal, note, training, update

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import JobId
from fedpriv.legible import MARK, legible, quoted
from fedpriv.policy.rules import Approval, Metrics, PlainUpdate, Statistics, cite
from fedpriv.privacy.reservations import DAY_SECONDS, Limit, Reservation
from fedpriv.storage import requests as store
from fedpriv.wire.fields import MAXIMUM_KIND, MAXIMUM_KINDS, MAXIMUM_PURPOSE_BYTES
from fedpriv.wire.plans import encode_plan
from fedpriv_worker.control import MAXIMUM_ANSWER_BYTES
from fedpriv_worker.journal import Journal

BLANKS = "\u2800\u3164\u115f\u1160\uffa0\u034f\u17b4\u17b5\u180b\ufe0f\U000e0100\u200b\u2060\ufeff\u00ad\u00a0\u3000"
LONGEST = "\N{GRINNING FACE}"
WIDTH = 110
SUMS = update(releases=("statistics",), kinds=("count",), plan="", purpose="", epochs=0, batch_size=0)


@pytest.mark.parametrize("digits", [6, 16, 31])
def test_an_approval_takes_the_whole_id_so_that_no_other_order_can_stand_for_it(digits):
    records = journal()
    identity = note(records, update())
    with pytest.raises(UsageError, match=f"explain {identity[:digits]}"):
        desk(records=records).approve(identity[:digits], 1, DAY)
    assert records.requests.grants(records.now()) == ()
    assert desk(records=records).approve(identity.upper(), 1, DAY)["id"] == identity


def test_an_explanation_gives_the_whole_id_for_the_beginning_of_one():
    records = journal()
    identity = note(records, update())
    text = desk(records=records).explain(identity[:6])["text"]
    assert len(identity) == 32
    assert f"Request {identity}:" in text
    assert f"fedpriv worker approve {identity} " in text


def test_an_approval_says_again_what_it_is_for():
    records = journal()
    given = desk(records=records).approve(note(records, update()), 2, DAY)
    assert given["recipient"] == ME.name
    assert given["asked"] == {
        "releases": ["metrics", "update"], "kinds": ["loss"], "plan": training().digest.hex(),
        "purpose": "toxicity study", "epochs": 2, "batch_size": 32,
    }  # fmt: skip


def test_a_denied_request_whose_plan_is_gone_is_not_approved_unread(monkeypatch):
    records = journal()
    identity = note(records, update())
    owner = desk(records=records)
    owner.deny(identity, "no")
    monkeypatch.setattr(store, "MAXIMUM_BYTES", len(encode_plan(training())) + 2000)
    note(records, update(purpose="another study"))
    assert "Not known" in owner.explain(identity)["text"]
    with pytest.raises(UsageError, match="nobody could read what you approve"):
        owner.approve(identity, 1, DAY)


def test_a_rule_that_is_used_up_for_today_does_not_stand_in_the_way_of_an_approval():
    records = journal()
    rule = Statistics(kinds=("count",), rounds_per_day=1)
    owner = desk(rule, Approval(), records=records)
    identity = note(records, SUMS)
    with pytest.raises(UsageError, match="needs no approval"):
        owner.approve(identity, 1, DAY)
    records.reserve(Reservation(b"a", ROWS, ME.name, "", JobId("j"), 1, (Limit(cite(rule), 1, DAY_SECONDS),)))
    assert owner.show(identity)["standing"] == "waiting"
    owner.approve(identity, 1, DAY)
    assert owner.show(identity)["standing"] == "approved"
    owner.approve(identity, 2, DAY)
    owner.deny(identity, "changed my mind")
    owner.approve(identity, 1, DAY, again=True)
    assert owner.show(identity)["standing"] == "approved"


def test_a_denial_under_a_rule_that_is_used_up_can_be_taken_back():
    records = journal()
    rule = Statistics(kinds=("count",), rounds_per_day=1)
    owner = desk(rule, records=records)
    identity = note(records, SUMS, cite(rule))
    records.reserve(Reservation(b"a", ROWS, ME.name, "", JobId("j"), 1, (Limit(cite(rule), 1, DAY_SECONDS),)))
    with pytest.raises(UsageError, match="would let nothing out"):
        owner.approve(identity, 1, DAY)
    owner.deny(identity, "no")
    assert owner.approve(identity, 1, DAY, again=True)["id"] == identity
    assert records.requests.refused() == frozenset()


def test_what_an_approval_lets_out_beside_another_rule_can_be_approved_again():
    records = journal()
    owner = desk(PlainUpdate(recipients=(ME.name,)), Approval(), records=records)
    identity = note(records, update())
    owner.approve(identity, 1, DAY)
    assert owner.approve(identity, 5, DAY)["releases"] == 5


def test_metrics_are_said_to_be_whatever_the_plan_computes():
    records = journal()
    text = " ".join(desk(Metrics(), records=records).explain(note(records, update()))["text"].split())
    assert "one number that the sender's plan computes under this name" in text
    assert "it can be the value of one person" in text


def test_a_denial_is_said_to_be_for_this_exact_request():
    records = journal()
    owner = desk(PlainUpdate(recipients=(ME.name,)), Metrics(), records=records)
    identity = note(records, update(), "plain-update:0")
    assert "stop this exact request" in owner.explain(identity)["text"]
    owner.deny(identity, "no")
    assert owner.show(note(records, update(purpose="toxicity study "), "plain-update:0"))["standing"] == "permitted"


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: f"U+{ord(blank):04X}")
def test_what_looks_like_nothing_is_marked(blank):
    assert legible(f"a{blank}b") == f"a{MARK}b"


@pytest.mark.parametrize("mark", '"\u201c\u201d\u201f\u2033\u3003\uff02')
def test_only_the_end_of_quoted_words_ends_the_quotation(mark):
    assert quoted(f"a{mark}b", 9) == '"a\'b"'


def test_of_several_spaces_the_first_stays():
    assert quoted("a b   c ", 99) == f'"a b {MARK}{MARK}c "'
    assert quoted("abc", 2) == '"ab..."'


@pytest.mark.parametrize("space", [" ", "\u2800", "\u3164"])
@pytest.mark.parametrize("before", [0, 40, 70, 78, 79, 80, 81, 100])
def test_no_words_of_a_peer_stand_where_ours_do(space, before):
    title, claim = "What would leave, each time", "One number: a mean loss. No row can be read from it."
    pad = 2 * WIDTH
    purpose = f'{"x" * before}" {title}{space * pad}{claim}{space * pad} Request approved'[:300]
    records = journal()
    lines = desk(records=records).explain(note(records, update(purpose=purpose)))["text"].splitlines()
    assert lines.count(title) == 1
    assert not [line for line in lines if line.startswith((f"  {claim[:10]}", "Request approved"))]
    asked = lines[2 : lines.index("What would be computed, here, on rows that stay here")]
    assert [line for line in asked if line and not line.startswith((" ", "coordinator-1", "It asks", "It asked"))] == []
    assert max(map(len, lines)) <= WIDTH


def test_lines_within_a_peers_words_begin_with_a_mark():
    records = journal()
    purpose = " ".join(f"word{number}" for number in range(40))
    lines = desk(records=records).explain(note(records, update(purpose=purpose)))["text"].splitlines()
    first = next(number for number, line in enumerate(lines) if "for the purpose" in line)
    assert [line[:4] for line in lines[first + 1 : first + 3]] == ['  " '] * 2
    assert lines[first + 3].startswith("  that. ") or "nobody has checked" in lines[first + 2]


@pytest.mark.parametrize("longest", [LONGEST, '"', "\\", "x"])
def test_the_list_of_requests_can_be_answered_however_many_and_long_they_are(longest, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_PENDING", 10**6)
    monkeypatch.setattr(store, "MAXIMUM_BYTES", 1 << 40)
    purpose = longest * (MAXIMUM_PURPOSE_BYTES // len(longest.encode()))
    kinds = tuple(f"{number:02}" + longest * (MAXIMUM_KIND - 2) for number in range(MAXIMUM_KINDS))
    records = journal()
    requests = [dataclasses.replace(SUMS, purpose=f"{n:04}{purpose[4:]}", kinds=kinds) for n in range(8)]
    for request in requests:
        note(records, request)
        records.requests.deny(request.id, why=longest * store.MAXIMUM_WHY, now=records.now())
    listed = desk(records=records).answer({"ask": "requests"})
    assert len(listed) == 8
    assert len(json.dumps(listed)) / 8 * store.MAXIMUM_REQUESTS < MAXIMUM_ANSWER_BYTES / 2
    assert {tuple(each["cut"]) for each in listed} == {("purpose", "why", "kinds")}
    shown = desk(records=records).show(requests[0].id)
    assert (shown["purpose"], shown["kinds"]) == (requests[0].purpose, list(requests[0].kinds))


def test_what_was_recorded_under_wider_bounds_is_cut_too():
    records = journal()
    note(
        records, dataclasses.replace(SUMS, purpose="p" * 4096, kinds=tuple(f"{n:04}" + "k" * 4000 for n in range(500)))
    )
    (listed,) = desk(records=records).requests()
    assert len(json.dumps(listed)) < 5000


def test_short_words_are_listed_whole():
    records = journal()
    note(records, update())
    (listed,) = desk(records=records).requests()
    assert (listed["purpose"], listed["kinds"], listed["cut"]) == ("toxicity study", ["loss"], [])


def test_a_denial_is_not_taken_back_by_accident():
    records = journal()
    owner = desk(records=records)
    identity = note(records, update())
    owner.deny(identity, "not in the protocol")
    with pytest.raises(UsageError, match=r'you denied request \w+ on .* UTC: "not in the protocol"; .*--again'):
        owner.approve(identity, 1, DAY)
    assert owner.show(identity)["standing"] == "denied"
    assert f"fedpriv worker approve {identity} --releases 20 --expires 7d --again" in owner.explain(identity)["text"]
    assert "not in the protocol" in owner.approve(identity, 1, DAY, again=True)["reverses"]
    assert owner.approve(identity, 1, DAY)["reverses"] == ""


def test_a_request_whose_approval_is_over_says_so_first():
    clock = ManualClock()
    records = Journal.in_memory(worker=ALICE, clock=clock, entropy=SeededEntropy(b"over"))
    owner = desk(records=records)
    identity = note(records, update())
    given = owner.approve(identity, 1, DAY)["approval"]
    held = Reservation(b"a", ROWS, ME.name, "", JobId("j"), 1, (Limit(given, 1, None),))
    records.reserve(held)
    (headline, *_) = owner.explain(identity)["text"].splitlines()
    assert headline.endswith("your approval is used up (1 release); nothing more leaves.")
    owner.approve(identity, 5, DAY)
    clock.advance(2 * DAY)
    (headline, *_) = owner.explain(identity)["text"].splitlines()
    assert "your approval expired on " in headline
