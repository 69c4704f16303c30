"""What is kept of releases until they are acknowledged, and that nobody pushes out what is another's."""

from __future__ import annotations

import pytest

from fedpriv.ids import JobId, PeerName
from fedpriv_worker import outbox
from fedpriv_worker.outbox import MAXIMUM_KEPT, MAXIMUM_OWN, Kept, Outbox


def kept(recipient: str, number: int, *, size: int = 10, charged: bool = True, round_number: int = 1) -> Kept:
    payload = (memoryview(bytes(size)),)
    return Kept(PeerName(recipient), JobId(f"job {number}"), round_number, number, b"", payload, charged=charged)


def name(recipient: str, number: int) -> bytes:
    return f"{recipient}/{number}".encode()


def filled(box: Outbox, recipient: str, count: int, *, size: int = 10, charged: bool = True) -> list[bytes]:
    """Put so many releases into `box`; return those that it still has, in order."""
    for number in range(count):
        box.put(name(recipient, number), kept(recipient, number, size=size, charged=charged))
    return [name(recipient, number) for number in range(count) if box.find(name(recipient, number))]


def test_a_recipient_that_asks_for_many_pushes_out_its_own_oldest() -> None:
    box = Outbox()
    left = filled(box, "mallory", 200)
    assert left == [name("mallory", number) for number in range(200 - MAXIMUM_OWN, 200)]


@pytest.mark.parametrize("charged", [True, False])
def test_what_another_was_charged_for_stays_whatever_others_ask_for(charged: bool) -> None:
    box = Outbox()
    filled(box, "honest", 1)
    for number in range(MAXIMUM_KEPT):
        filled(box, f"mallory {number}", MAXIMUM_OWN, charged=charged)
    assert box.find(name("honest", 0))


def test_what_costs_nothing_is_kept_in_a_bounded_number() -> None:
    box = Outbox()
    for number in range(10):
        filled(box, f"peer {number}", MAXIMUM_OWN, charged=False)
    assert len(box._kept) == MAXIMUM_KEPT


def test_large_releases_of_one_recipient_take_bounded_memory_and_the_newest_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAXIMUM_OWN_BYTES", 1000)
    box = Outbox()
    assert filled(box, "me", 5, size=400) == [name("me", 3), name("me", 4)]
    box.put(b"huge", kept("me", 9, size=5000))
    assert list(box._kept) == [b"huge"]


def test_the_next_round_of_a_job_replaces_the_round_before() -> None:
    box = Outbox()
    box.put(b"first", kept("me", 1, round_number=1))
    box.put(b"second", kept("me", 1, round_number=2))
    assert (box.find(b"first"), box.find(b"second") is not None) == (None, True)
    box.acknowledge(PeerName("me"), JobId("job 1"), 2)
    assert box.find(b"second") is None
