"""Whoever holds a virtual worker is its owner too: what is asked of it can be read and answered in the same program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import fedpriv as fp
from fedpriv.errors import ReleaseDenied, UsageError


@pytest.fixture
def bob() -> Iterator[fp.VirtualWorker]:
    data = fp.Dataset("toy", torch.arange(40.0).reshape(20, 2), torch.ones(20) > 0.5, release=[fp.Approval()])
    worker = fp.VirtualWorker("bob", [data])
    yield worker
    worker.close()


def asked(bob: fp.VirtualWorker) -> fp.Ticket:
    return bob.dataset("toy").features.mean(0).request("mean per column")


def test_a_ticket_is_listed_explained_approved_and_let_out(bob):
    ticket = asked(bob)
    with pytest.raises(ReleaseDenied, match=r"approve\(ticket\)"):
        ticket.get()
    (waiting,) = bob.requests()
    assert (waiting["id"], waiting["standing"], waiting["purpose"]) == (ticket.id, "waiting", "mean per column")
    assert "mean(" in bob.explain(ticket)
    assert f"To let it out once, for a week:\n    fedpriv worker approve {ticket.id} --releases 1" in bob.explain(
        ticket
    )
    assert bob.approve(ticket)["releases"] == 1
    assert torch.equal(ticket.get(), torch.tensor([19.0, 20.0]))
    assert [entry.draft.approval != "" for entry in bob.entries() if entry.draft.kind == "value"] == [True]


def test_a_whole_id_does_for_a_ticket(bob):
    ticket = asked(bob)
    bob.approve(bob.requests()[0]["id"], releases=1, expires_seconds=60.0)
    assert ticket.get().shape == (2,)
    with pytest.raises(UsageError, match="whole id"):
        bob.approve(ticket.id[:8])


def test_a_denied_ticket_stays(bob):
    ticket = asked(bob)
    assert bob.deny(ticket, why="too few rows")["standing"] == "denied"
    with pytest.raises(ReleaseDenied, match=f"denied request {ticket.id}") as refused:
        ticket.get()
    assert "too few rows" not in str(refused.value)
    with pytest.raises(UsageError, match="again=True"):
        bob.approve(ticket)
    assert not [entry for entry in bob.entries() if entry.draft.kind == "value"]


def test_a_request_can_be_answered_after_the_program_that_asked_is_over(tmp_path):
    data = fp.Dataset("toy", torch.zeros(6, 2), torch.ones(6) > 0.5, release=[fp.Approval()])
    first = fp.VirtualWorker("bob", [data], state=tmp_path / "state")
    ticket = asked(first)
    first.close()
    again = fp.VirtualWorker("bob", [data], state=tmp_path / "state")
    assert again.deny(ticket.id, why="nobody waits")["standing"] == "denied"
    again.close()
