"""Ordinary torch on tensors that lie elsewhere, over both transports."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from sites import MakeSite, Site, rows
from torch import nn

import fedpriv as fp
from fedpriv.errors import OperationNotAllowed, PeerLost, ReleaseDenied, UsageError
from fedpriv.remote.holder import Holder


def test_what_is_sent_comes_back_and_stays(bob: Holder) -> None:
    given = torch.arange(6.0).reshape(2, 3)
    pointer = bob.send(given, tags=("#x",), description="toy")
    assert torch.equal(pointer.get(), given)
    assert torch.equal(pointer.get(), given)
    assert (pointer.shape, pointer.dtype, pointer.worker) == (given.shape, given.dtype, "bob")


def test_a_copy_was_sent_and_a_copy_comes_back(bob: Holder) -> None:
    given = torch.zeros(3)
    pointer = bob.send(given)
    given.add_(1)
    pointer.get().add_(1)
    assert torch.equal(pointer.get(), torch.zeros(3))


def test_only_the_rows_of_a_slice_travel(site: Site) -> None:
    whole = torch.zeros(100_000)
    pointer = site.pointed.send(whole[:2])
    assert pointer.get().untyped_storage().nbytes() == 8
    assert [entry.draft.bytes for entry in site.journal.entries() if entry.draft.kind == "value"][-1] < 200


def test_training_needs_no_answer_and_learns_what_local_training_does(bob: Holder) -> None:
    features, target = torch.randn(32, 4), torch.randint(0, 3, (32,))

    def trained(x: torch.Tensor, y: torch.Tensor, worker: Holder | None) -> tuple[nn.Module, int]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if worker is not None:
            fp.send_module(model, worker)
        trips = bob.values.round_trips
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model, bob.values.round_trips - trips

    local, _ = trained(features, target, None)
    remote, trips = trained(bob.send(features), bob.send(target), bob)
    assert trips == 0
    fp.get_module(remote)
    for (name, ours), (_, theirs) in zip(local.state_dict().items(), remote.state_dict().items(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name


def test_writes_reach_every_view(bob: Holder) -> None:
    pointer = bob.send(torch.zeros(3, 3))
    row, turned = pointer[0], pointer.t()
    row += 1
    turned[2].mul_(5)
    local = torch.zeros(3, 3)
    local[0] += 1
    local[:, 2].mul_(5)
    assert torch.equal(pointer.get(), local)
    assert torch.equal(row.get(), local[0])


def test_numbers_that_change_are_not_another_operation(bob: Holder) -> None:
    pointer = bob.send(torch.ones(2))
    for rate in (0.5, -0.0, 0.25):
        pointer.add_(pointer, alpha=rate)
    assert len(bob.values._known) == 1
    assert torch.equal(pointer.get(), torch.full((2,), 1.875))


@pytest.mark.parametrize(
    ("do", "kind"),
    [
        (lambda x: x + x.new_ones(4), RuntimeError),
        (lambda x: x.view(5), RuntimeError),
        (lambda x: x[7], IndexError),
        (torch.bitwise_not, RuntimeError),
        (lambda x: x.nonzero(), OperationNotAllowed),
        (lambda x: torch.linalg.eigh(x.outer(x)), OperationNotAllowed),
        (lambda x: x.as_strided((2,), (1,)), OperationNotAllowed),
    ],
)
def test_what_cannot_be_done_raises_at_the_line_and_costs_nothing(bob: Holder, do, kind) -> None:
    pointer = bob.send(torch.ones(3))
    with pytest.raises(kind):
        do(pointer)
    assert torch.equal((pointer + 1).get(), torch.full((3,), 2.0))


def test_an_operation_that_no_worker_runs_is_named_with_the_reason(bob: Holder) -> None:
    with pytest.raises(OperationNotAllowed, match=r"nonzero.*output shape depends on values"):
        bob.send(torch.ones(3)).nonzero()


def test_operands_on_two_workers_are_refused_with_the_mend(make_site: MakeSite) -> None:
    bob, alice = make_site().pointed, make_site(name="alice").pointed
    left, right = bob.send(torch.ones(2)), alice.send(torch.ones(2))
    with pytest.raises(UsageError, match=r"alice and bob; move one: pointer.move\(worker\)"):
        left + right
    assert torch.equal((left.move(alice) + right).get(), torch.full((2,), 2.0))


def test_a_large_tensor_of_this_process_is_not_sent_along_unasked(bob: Holder) -> None:
    pointer = bob.send(torch.ones(1))
    assert torch.equal((pointer + torch.ones(3)).get(), torch.full((3,), 2.0))
    with pytest.raises(UsageError, match="send it first"):
        pointer + torch.ones(1 << 19)


def test_values_are_freed_with_their_last_pointer(bob: Holder) -> None:
    kept = bob.send(torch.ones(3))
    for _ in range(2000):
        kept = kept + 1
    view = kept[1:]
    del kept
    gc.collect()
    assert [each.layout.shape for each in bob.objects()] == [(3,), (2,)]  # a view keeps what it is a view of
    assert torch.equal(view.get(), torch.full((2,), 2001.0))


def test_objects_are_the_callers_own(make_site: MakeSite) -> None:
    site = make_site(rows())
    held = site.pointed.send(torch.ones(2), tags=("#mine",), description="toy")
    (mine,) = site.pointed.objects()
    assert (mine.id, mine.tags, mine.description, mine.layout.shape) == (held._handle.id, ("#mine",), "toy", (2,))


def test_a_copied_model_is_another_one(bob: Holder) -> None:
    model = fp.send_module(nn.Linear(2, 1), bob)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.weight.zero_()
    assert torch.equal(other.weight.get(), torch.zeros(1, 2))
    assert not torch.equal(model.weight.get(), torch.zeros(1, 2))


def test_a_worker_that_is_gone_is_one_clear_error_and_the_local_model_still_works(make_site: MakeSite) -> None:
    site = make_site(rows())
    model, pointer = nn.Linear(2, 1), site.pointed.send(torch.ones(2))
    pointer.get()
    site.close()
    site.closing.clear()
    with pytest.raises(PeerLost):
        (pointer + 1).get()
    assert model(torch.ones(2)).shape == (1,)


def test_repr_says_where_and_never_what(bob: Holder) -> None:
    pointer = bob.send(torch.full((2,), 42.5))
    assert repr(pointer) == f"<RemoteTensor float32 [2] on bob, id {pointer._handle.id}>"
    assert "42" not in str(bob.dataset("toy").features)


@pytest.mark.parametrize(
    "reach",
    [
        lambda x: x.tolist(), lambda x: x.numpy(), lambda x: x.storage(), lambda x: x.untyped_storage(),
        lambda x: x.data_ptr(), lambda x: x.__array__(), lambda x: x.__reduce_ex__(2),
    ],
)  # fmt: skip  # one line of cases
def test_what_needs_the_values_here_says_what_to_do_instead(bob: Holder, reach) -> None:
    with pytest.raises(ReleaseDenied, match="request"):
        reach(bob.send(torch.ones(2)))
