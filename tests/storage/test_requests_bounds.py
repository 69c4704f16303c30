"""What a peer that chooses its requests at will cannot do to what is kept of them: push out, blind, or confuse."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from fedpriv.errors import QuotaExceeded, StorageFailed
from fedpriv.ids import DatasetName, PeerName
from fedpriv.policy import requests as policy
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.storage import requests as store
from fedpriv.storage.database import Database
from fedpriv.storage.requests import SCHEMA, Requests

NOW = 1_767_225_600.0
RULE = "approval:0123456789abcdef"
UPDATE = ReleaseRequest(
    Recipient(PeerName("me"), "coordinator"), DatasetName("rows"), ("update",), (), "ab" * 32, "a study", 2, 32
)
VALUE = dataclasses.replace(UPDATE, releases=("value",), kinds=("float32",), epochs=0, batch_size=0)


def asked(number: int, recipient: str = "me", like: ReleaseRequest = UPDATE) -> ReleaseRequest:
    return dataclasses.replace(like, recipient=Recipient(PeerName(recipient), "coordinator"), purpose=f"study {number}")


@pytest.fixture
def database():
    database = Database.in_memory(schema=SCHEMA)
    yield database
    database.close()


@pytest.fixture
def requests(database):
    return Requests(database)


def test_a_request_with_the_id_of_another_is_refused_and_changes_nothing(requests, monkeypatch):
    monkeypatch.setattr(policy, "ID_DIGITS", 2)
    benign = asked(0)
    evil = next(each for each in map(asked, itertools.count(1)) if each.id == benign.id)
    before = requests.note(benign, b"plan", permitted_by="", now=NOW)
    for note in (requests.again, lambda *each, **more: requests.note(*each, b"evil", **more)):
        with pytest.raises(QuotaExceeded, match="another request is on record"):
            note(evil, permitted_by="", now=NOW + 1)
    assert requests.all() == (before,)


def test_asking_again_is_counted_and_what_is_not_on_record_is_not(requests):
    assert requests.again(UPDATE, permitted_by="", now=NOW) is False
    assert requests.all() == ()
    requests.note(UPDATE, b"plan", permitted_by="", now=NOW)
    assert requests.again(UPDATE, permitted_by="rule:0", now=NOW + 1) is True
    (found,) = requests.all()
    assert (found.times, found.last, found.state, found.rule, found.plan) == (
        2,
        NOW + 1,
        "permitted",
        "rule:0",
        b"plan",
    )
    assert requests.all(plans=False) == (dataclasses.replace(found, plan=b""),)


def test_counting_waits_for_no_disk_and_a_new_request_does(database, requests, monkeypatch):
    modes = []
    real = database._transaction

    def transaction(*, durable: bool):
        for connection in real(durable=durable):
            yield connection
            modes.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    monkeypatch.setattr(database, "_transaction", transaction)
    full, normal = 2, 1
    requests.again(UPDATE, permitted_by="", now=NOW)
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    requests.again(UPDATE, permitted_by="", now=NOW)
    requests.deny(UPDATE.id, why="no", now=NOW)
    assert modes == [normal, normal, full, normal, full]


def test_counts_are_there_after_a_clean_end(tmp_path):
    for times in range(1, 4):
        database = Database.open(tmp_path / "journal.sqlite", schema=SCHEMA)
        assert Requests(database).note(UPDATE, b"", permitted_by="", now=NOW).times == times
        database.close()


def test_no_number_of_orders_pushes_out_a_denial(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_REQUESTS", 4)
    for number in range(3):
        requests.note(asked(number), b"plan", permitted_by="rule:0", now=NOW)
        requests.deny(asked(number).id, why="no", now=NOW)
    for number in range(3, 20):
        requests.note(asked(number), b"plan", permitted_by="rule:0", now=NOW + number)
    assert requests.refused() == set(map(asked, range(3)))
    assert requests.all()[0].request.purpose == "study 19"
    requests.deny(asked(19).id, why="no", now=NOW)
    with pytest.raises(QuotaExceeded, match="no room"):
        requests.note(asked(20), b"plan", permitted_by="rule:0", now=NOW + 20)
    assert requests.refused() == {asked(0), asked(1), asked(2), asked(19)}


def test_the_plans_of_denied_requests_make_room_before_anything_else(requests, monkeypatch):
    size = len(asked(0).to_json())
    monkeypatch.setattr(store, "MAXIMUM_BYTES", 3 * size + 250)
    for number in range(2):
        requests.note(asked(number), bytes(100), permitted_by="", now=NOW + number)
    requests.deny(asked(0).id, why="", now=NOW)
    requests.note(asked(2), bytes(100), permitted_by="", now=NOW + 2)
    assert [len(each.plan) for each in requests.all()] == [100, 100, 0]
    assert requests.refused() == {asked(0)}


def test_a_peer_that_was_denied_very_often_is_not_listened_to_and_others_are(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_DENIED", 3)
    for number in range(3):
        requests.note(asked(number), b"", permitted_by="", now=NOW)
        requests.deny(asked(number).id, why="no", now=NOW)
    with pytest.raises(QuotaExceeded, match="denied 3 requests of 'me'"):
        requests.note(asked(3), b"", permitted_by="rule:0", now=NOW)
    requests.note(asked(0), b"", permitted_by="", now=NOW)
    requests.note(asked(3, "you"), b"", permitted_by="", now=NOW)
    requests.approve(asked(0).id, rule=RULE, releases=1, expires=NOW + 9, now=NOW)
    requests.note(asked(3), b"", permitted_by="rule:0", now=NOW)


def test_denied_values_make_room_at_last_because_none_is_asked_for_twice(requests, monkeypatch):
    monkeypatch.setattr(store, "MAXIMUM_REQUESTS", 3)
    monkeypatch.setattr(store, "MAXIMUM_DENIED", 1)
    imitation = dataclasses.replace(UPDATE, purpose='"releases":["value"]')
    requests.note(imitation, b"", permitted_by="", now=NOW)
    for number in range(2):
        requests.note(asked(number, "you", VALUE), b"", permitted_by="", now=NOW + number)
        requests.deny(asked(number, "you", VALUE).id, why="no", now=NOW)
    requests.deny(imitation.id, why="no", now=NOW)
    requests.note(asked(2, "you", VALUE), b"", permitted_by="", now=NOW + 2)
    assert requests.refused() == {imitation, asked(1, "you", VALUE)}


def test_denials_are_known_at_once_and_forgotten_with_a_transaction_that_fails(database, requests):
    requests.note(UPDATE, b"", permitted_by="", now=NOW)
    assert requests.refused() == frozenset()

    def failing() -> None:
        with database.writing("try"):
            requests.deny(UPDATE.id, why="no", now=NOW)
            assert requests.refused() == {UPDATE}
            raise StorageFailed("a disk that refuses")

    with pytest.raises(StorageFailed):
        failing()
    assert requests.refused() == frozenset()
    requests.deny(UPDATE.id, why="no", now=NOW)
    assert requests.refused() == {UPDATE}
    requests.approve(UPDATE.id, rule=RULE, releases=1, expires=NOW + 9, now=NOW)
    assert requests.refused() == frozenset()
