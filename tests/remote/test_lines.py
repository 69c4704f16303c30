"""Links that break: everything happens exactly once, and what a vanished caller left is freed."""

from __future__ import annotations

import pytest
import torch
from sites import Site

import fedpriv as fp
from fedpriv.errors import PeerLost, UsageError
from fedpriv.remote import line as lines
from fedpriv.transport.runtime import runtime
from fedpriv.wire.values import AskObjects


def cut(site: Site) -> None:
    """Break the link as a network does, without a word."""

    async def break_it() -> None:
        connection = site.pointed.values.line._connection
        if connection is not None:
            await connection._link.close()

    runtime.run(break_it())


def test_a_link_that_broke_between_two_operations_costs_nothing(site: Site) -> None:
    pointer = site.pointed.send(torch.zeros(2))
    for at in range(6):
        pointer += 1
        if at % 2:
            site.pointed.values.flush()
        if at % 3 == 1:
            cut(site)
    assert torch.equal(pointer.get(), torch.full((2,), 6.0))


def test_what_was_taken_before_the_link_broke_is_not_done_twice(site: Site) -> None:
    pointer = site.pointed.send(torch.zeros(1))
    pointer += 1
    site.pointed.values.flush()
    pointer.get()
    pointer += 1
    site.pointed.values.flush()
    cut(site)
    pointer += 1
    assert pointer.get().item() == 3.0


def test_how_much_is_kept_for_a_broken_link_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "KEPT_BYTES", 10_000)
    pointer = site.pointed.send(torch.zeros(1))
    for _ in range(3000):
        pointer += 1
    site.pointed.values.flush()
    assert pointer.get().item() == 3000.0
    line = site.pointed.values.line
    for _ in range(3000):
        pointer += 1
    assert line._kept_bytes <= 20_000
    assert pointer.get().item() == 6000.0


def test_a_worker_that_lost_the_session_says_so_once_and_for_all(site: Site) -> None:
    pointer = site.pointed.send(torch.zeros(1))
    pointer.get()
    site.worker.leases._held.clear()
    cut(site)
    for _ in range(2):
        with pytest.raises(PeerLost, match="none of your values any more; send them again"):
            (pointer + 1).get()


def test_values_that_a_worker_lost_can_be_sent_again(site: Site) -> None:
    model, data = fp.send_module(torch.nn.Linear(4, 1), site.pointed), site.pointed.dataset("toy")
    assert not model(data.features).sum().label.is_public
    site.pointed.values.ask(AskObjects(0))
    site.worker.leases._held.clear()
    cut(site)
    with pytest.raises(PeerLost):
        model.weight.get()
    again = site.pointed.send(torch.ones(2))
    assert again.get().tolist() == [1, 1]
    assert not site.pointed.dataset("toy").features.label.is_public
    with pytest.raises(UsageError, match="in two sessions"):
        again @ model.weight[0, :2]


def test_what_a_vanished_caller_left_is_freed_when_its_lease_ends(site: Site) -> None:
    site.pointed.send(torch.zeros(1)).get()
    (pointing,) = site.worker.leases._held.values()
    assert pointing.links == 1
    pointing.links = 0
    site.worker.leases._expire(pointing, pointing.attached + 1)
    assert site.worker.leases._held, "it was attached again meanwhile"
    site.worker.leases._expire(pointing, pointing.attached)
    assert not site.worker.leases._held
    pointing.links = 1
