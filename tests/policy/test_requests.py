"""Requests and approvals as values: equal ones are the same, and storage gives back exactly what it was given."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, PeerName
from fedpriv.policy.requests import Grant, Recipient, ReleaseRequest
from fedpriv.policy.rules import Approval, cite

REQUEST = ReleaseRequest(
    recipient=Recipient(PeerName("ann"), "coordinator"),
    dataset=DatasetName("rows"),
    releases=("update", "metrics"),
    kinds=("loss", "accuracy"),
    plan="ab" * 32,
    purpose="sepsis study",
    epochs=2,
    batch_size=32,
)
GRANT = Grant(REQUEST, cite(Approval()), releases=5, expires=1.7e9)
OTHERS = (
    {"recipient": Recipient(PeerName("bo"), "coordinator")},
    {"recipient": Recipient(PeerName("ann"), "researcher")},
    {"dataset": DatasetName("more")},
    {"releases": ("update",)},
    {"kinds": ("loss",)},
    {"plan": "cd" * 32},
    {"purpose": "Sepsis study"},
    {"epochs": 3},
    {"batch_size": 2},
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
REQUESTS = st.builds(
    ReleaseRequest,
    recipient=st.builds(Recipient, TEXT, TEXT),
    dataset=TEXT,
    releases=st.lists(TEXT, max_size=3).map(tuple),
    kinds=st.lists(TEXT, max_size=3).map(tuple),
    plan=TEXT,
    purpose=TEXT,
    epochs=st.integers(-(2**70), 2**70),
    batch_size=st.integers(0, 2**32),
)
GRANTS = st.builds(
    Grant,
    request=REQUESTS,
    rule=TEXT,
    releases=st.integers(1, 2**40),
    expires=st.floats(0, 2e11) | st.integers(0, 10**9),
)


def test_the_id_and_the_digest_are_these():
    assert REQUEST.id == "752a34a7e813982a196bcb85d7b81736"
    assert GRANT.digest == "dcf05deeab0542be6dcedbadf5578b809deca0d67d18c2fb2d08cd0d2ebce017"


def test_the_order_in_which_kinds_are_named_does_not_make_another_request():
    same = replace(REQUEST, releases=("metrics", "update", "update"), kinds=("accuracy", "loss"))
    assert same == REQUEST
    assert (same.id, same.to_json()) == (REQUEST.id, REQUEST.to_json())


@pytest.mark.parametrize("changed", OTHERS)
def test_every_field_makes_another_request_and_another_approval(changed):
    other = replace(REQUEST, **changed)
    assert other.id != REQUEST.id
    assert replace(GRANT, request=other).digest != GRANT.digest


@pytest.mark.parametrize("changed", [{"rule": cite(Approval(weight="exact"))}, {"releases": 6}, {"expires": 1.7e9 + 1}])
def test_every_term_makes_another_approval(changed):
    assert replace(GRANT, **changed).digest != GRANT.digest


def test_an_approval_until_a_whole_second_is_the_same_approval():
    assert replace(GRANT, expires=1_700_000_000).digest == GRANT.digest


@given(REQUESTS)
def test_a_request_comes_back_from_storage_exactly(request):
    text = request.to_json()
    again = ReleaseRequest.from_json(text)
    assert (again, again.id, again.to_json()) == (request, request.id, text)
    assert "\n" not in text


@given(GRANTS)
def test_an_approval_comes_back_from_storage_exactly(grant):
    again = Grant.from_json(grant.to_json())
    assert (again, again.digest) == (grant, grant.digest)


def altered(text, **changed):
    return json.dumps(json.loads(text) | changed, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        REQUEST.to_json() + " ",
        REQUEST.to_json().replace(":", ": "),
        altered(REQUEST.to_json(), more=1),
        altered(REQUEST.to_json(), epochs=2.0),
        altered(REQUEST.to_json(), epochs=True),
        altered(REQUEST.to_json(), epochs="2"),
        altered(REQUEST.to_json(), purpose=None),
        altered(REQUEST.to_json(), releases="update"),
        altered(REQUEST.to_json(), kinds=5),
        altered(REQUEST.to_json(), kinds=[5]),
        altered(REQUEST.to_json(), kinds=["loss", "accuracy"]),
        altered(REQUEST.to_json(), recipient=["ann", "coordinator"]),
        altered(REQUEST.to_json(), recipient={"name": "ann"}),
        altered(REQUEST.to_json(), purpose="\ud800"),
    ],
)
def test_any_other_text_is_no_request(text):
    with pytest.raises(UsageError, match="this is no request as one is written"):
        ReleaseRequest.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        altered(GRANT.to_json(), releases="5"),
        altered(GRANT.to_json(), releases=0),
        altered(GRANT.to_json(), releases=True),
        altered(GRANT.to_json(), expires="soon"),
        altered(GRANT.to_json(), expires=float("nan")),
        altered(GRANT.to_json(), expires=1e300),
        altered(GRANT.to_json(), rule=7),
        altered(GRANT.to_json(), rule="\ud800"),
        altered(GRANT.to_json(), request={}),
        altered(GRANT.to_json(), more=1),
        GRANT.to_json().replace('"rule"', '"role"'),
    ],
)
def test_any_other_text_is_no_approval(text):
    with pytest.raises(UsageError, match="approv"):
        Grant.from_json(text)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"releases": 0}, "an approval of 0 releases approves nothing"),
        ({"releases": True}, "an approval of True releases"),
        ({"releases": 1.5}, "an approval of 1.5 releases"),
        ({"expires": float("inf")}, "cannot expire at inf"),
        ({"expires": float("nan")}, "cannot expire at nan"),
        ({"expires": -1.0}, "cannot expire at -1.0"),
        ({"expires": 253_402_300_800}, "give a time between 1970 and 9999"),
    ],
)
def test_an_approval_of_nothing_or_for_ever_is_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        replace(GRANT, **changed)
