"""Tensors that are sent, fetched, called and computed with, over both transports."""

from __future__ import annotations

import gc

import pytest
import torch
from places import listening, websocket_worker

import fedpriv as fp
import fedpriv.syft as sy
from fedpriv.errors import ReleaseDenied, UsageError
from fedpriv.syft import registry
from fedpriv.syft.exceptions import (
    GetNotPermittedError,
    InvalidTensorForRemoteGet,
    ObjectNotFoundError,
    SendNotPermittedError,
    TensorsNotCollocatedException,
)


def test_what_is_sent_has_its_id_there_and_comes_back_with_all_it_had(bob: sy.BaseWorker) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True).tag("#a", "#b").describe("two")
    x.grad = torch.tensor([0.5, 0.25])
    p = x.send(bob)
    assert (p.id_at_location, p.shape, p.tags, p.description) == (x.id, x.shape, {"#a", "#b"}, "two")
    assert torch.equal(p.grad.copy().get(), x.grad)
    back = p.get()
    assert torch.equal(back, x)
    assert torch.equal(back.grad, x.grad)
    assert (back.id, back.tags, back.description, back.requires_grad) == (x.id, {"#a", "#b"}, "two", True)


def test_get_takes_it_away(bob: sy.BaseWorker) -> None:
    x = torch.ones(2)
    p, other = x.send(bob), torch.ones(3).send(bob)
    again = x.create_pointer(bob)
    assert x.id in bob.object_store
    p.get()
    assert x.id not in bob.object_store
    assert bob.tensors_count() == 1
    for gone in (p, again):
        with pytest.raises(ObjectNotFoundError):
            gone.get()
    with pytest.raises(ObjectNotFoundError, match="taken away"):
        p + 1
    assert repr(p) == f"(Wrapper)>[PointerTensor | me:{p.id} -> bob:{x.id}]"
    assert torch.equal(other.get(), torch.ones(3))


def test_a_view_of_what_was_taken_away_stays(bob: sy.BaseWorker) -> None:
    p = torch.arange(4.0).send(bob)
    row = p[1:3]
    p.get()
    assert torch.equal(row.get(), torch.tensor([1.0, 2.0]))


def test_what_a_value_was_read_from_stays_too(bob: sy.BaseWorker) -> None:
    loss = torch.ones(2, requires_grad=True).send(bob).sum()
    assert repr(loss)
    assert torch.equal(loss.data.get(), torch.tensor(2.0))
    loss.backward()
    number = loss.id_at_location
    assert torch.equal(loss.get(), torch.tensor(2.0))
    assert f"bob:{number}]" in repr(loss)


def test_arithmetic_and_autograd_give_pointers_of_the_same_kind(bob: sy.BaseWorker) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    p = x.send(bob)
    loss = (p * p + 3 * p).sum()
    loss.backward()
    assert type(loss) is type(p.grad) is sy.PointerTensor
    assert torch.equal(p.grad.get(), torch.tensor([5.0, 7.0]))
    assert torch.equal(loss.get(), torch.tensor(14.0))


def test_a_pointer_says_where_and_what(bob: sy.BaseWorker, me: sy.LocalWorker) -> None:
    p = torch.zeros(2, 3).send(bob)
    assert p.location == bob
    assert p.owner == me
    assert p.child is p
    assert p.is_wrapper
    assert not torch.ones(1).is_wrapper
    assert p.id != p.id_at_location
    assert p.grad is None
    assert p.gc
    assert p.garbage_collection


def test_a_value_goes_with_its_last_pointer_unless_it_is_kept(bob: sy.BaseWorker) -> None:
    x, y, z = torch.ones(1), torch.ones(2), torch.ones(3)
    p, q, r = x.send(bob), y.send(bob, garbage_collect_data=False), z.send(bob).disable_gc
    assert not q.gc
    assert not r.gc
    numbers = [each.id_at_location for each in (p, q, r)]
    del p, q, r
    gc.collect()
    assert [each in bob.object_store for each in numbers] == [False, True, True]
    again = sy.PointerTensor(id=y.id, location=bob)
    again.gc = True
    del again
    gc.collect()
    assert y.id not in bob.object_store
    assert torch.equal(bob.search(z.id)[0].get(), z)


def test_a_pointer_can_be_made_from_an_id_also_to_nothing(bob: sy.BaseWorker, me: sy.LocalWorker) -> None:
    x = torch.ones(2)
    held = x.send(bob)
    p = sy.PointerTensor(id=17, location=bob, owner=me, id_at_location=x.id)
    assert p.id == 17
    assert torch.equal((p + held).get(), x + x)
    nothing = sy.PointerTensor(id=1000, location=bob, owner=me)
    assert repr(nothing) == "(Wrapper)>[PointerTensor | me:1000 -> bob:1000]"
    with pytest.raises(ObjectNotFoundError):
        nothing.get()


def test_sending_again_replaces_what_the_same_id_stands_for(bob: sy.BaseWorker) -> None:
    x = torch.ones(2)
    first = x.send(bob)
    x.add_(1)
    second = x.send(bob)
    assert bob.tensors_count() == 1
    assert torch.equal((first + 0).get(), torch.full((2,), 2.0))
    assert torch.equal(second.get(), torch.full((2,), 2.0))
    longer = torch.ones(5)
    longer.id = x.id
    third = x.send(bob)
    fourth = longer.send(bob)
    assert bob.object_store._objects.keys() == {x.id}
    with pytest.raises(ObjectNotFoundError):
        third.get()
    assert torch.equal(fourth.get(), torch.ones(5))


def test_only_the_rows_of_a_slice_travel(bob: sy.BaseWorker) -> None:
    data = torch.zeros(100_000, 2)
    bob.holder.values.objects()
    connection = bob.holder.values.line._connection
    before = connection.bytes_out
    p = data[0:2].send(bob)
    bob.holder.values.objects()
    assert connection.bytes_out - before < 400
    assert p.get().untyped_storage().nbytes() == 16


def test_in_place_it_is_the_same_object_with_the_same_id(bob: sy.BaseWorker) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True).tag("#a")
    number, same = x.id, x
    assert x.send_(bob) is same
    assert isinstance(x, sy.PointerTensor)
    assert (x.id, x.id_at_location, x.tags) == (number, number, {"#a"})
    (x * 2).sum().backward()
    assert x.get_() is same
    assert type(x) is torch.Tensor
    assert (x.id, x.tags) == (number, {"#a"})
    assert torch.equal(x.grad, torch.full((2,), 2.0))
    assert torch.ones(2).send(bob, inplace=True).location == bob


def test_it_moves_is_copied_and_is_read_from_the_next_worker(bob: sy.BaseWorker, alice: sy.BaseWorker, me) -> None:
    x = torch.ones(2)
    p = x.send(bob)
    copy = p.copy()
    there = p.move(alice)
    assert there.location == alice
    assert there.id_at_location == x.id
    assert x.id not in bob.object_store
    assert torch.equal(copy.get(), x)
    assert torch.equal(there.move(me), x)
    assert torch.equal(x.move(alice).move("bob").get(), x)


def test_numbers_of_a_pointer_are_not_here(bob: sy.BaseWorker) -> None:
    p = torch.ones(()).send(bob)
    for ask in (p.item, lambda: bool(p), lambda: float(p), lambda: int(p), lambda: bool(p > 0)):
        with pytest.raises(ReleaseDenied, match="get"):
            ask()
        with pytest.raises(RuntimeError):
            ask()


def test_operands_in_two_places_are_refused(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    x = torch.ones(2)
    p, q = x.send(bob), x.send(alice)
    for mixed in (
        lambda: p + q,
        lambda: torch.cat([p, q]),
        lambda: p + x,
        lambda: x + p,
        lambda: torch.matmul(p, x),
        lambda: torch.nn.Linear(2, 1)(p),
    ):
        with pytest.raises(TensorsNotCollocatedException, match=r"move|send"):
            mixed()
    assert torch.equal((p * 2 + torch.tensor(1.0)).get(), torch.full((2,), 3.0))


def test_positions_may_be_here(bob: sy.BaseWorker) -> None:
    x = torch.arange(5.0)
    p = x.send(bob)
    assert torch.equal(p[[0, 1, 2]].get(), x[:3])
    assert torch.equal(p[torch.tensor([4, 0])].get(), x[[4, 0]])
    assert torch.equal(torch.index_select(p, 0, torch.tensor([3])).get(), x[3:4])


def test_a_private_tensor_is_sent_and_fetched_for_its_users(bob: sy.BaseWorker) -> None:
    x = torch.ones(2).private_tensor(allowed_users=["u"])
    assert x.allow("u")
    assert not x.allow("v")
    with pytest.raises(SendNotPermittedError, match="'v'"):
        x.send(bob, user="v")
    with pytest.raises(SendNotPermittedError):
        x.send(bob)
    p = x.send(bob, user="u")
    for user in ("v", None):
        for pointer in (p, p + 1, (p * p).sum()):
            with pytest.raises(GetNotPermittedError, match="is for u"):
                pointer.get(user=user)
    with pytest.raises(GetNotPermittedError):
        p.move("me")
    shared = torch.ones(2).private_tensor(allowed_users=["u", "v"]).send(bob, user="v")
    with pytest.raises(GetNotPermittedError, match="is for u"):
        (p + shared).get(user="v")
    assert torch.equal((shared + 1).get(user="v"), torch.full((2,), 2.0))
    assert torch.equal(p.move("me", user="u"), x)


def test_what_is_here_has_nothing_to_get(bob: sy.BaseWorker) -> None:
    for ask in (lambda x: x.get(), lambda x: x.get_(), lambda x: x.remote_get(), lambda x: x.send(bob).remote_get()):
        with pytest.raises(InvalidTensorForRemoteGet):
            ask(torch.ones(1))
    with pytest.raises(UsageError, match="needs a worker"):
        torch.ones(1).send()
    with pytest.raises(UsageError, match="points to a worker"):
        sy.PointerTensor(id=1)


def test_a_pointer_to_what_is_here_and_to_what_was_sent(bob: sy.BaseWorker, me: sy.LocalWorker) -> None:
    x = torch.ones(2)
    own = x.create_pointer()
    assert own.location == me
    assert torch.equal(own.get(), x)
    with pytest.raises(ObjectNotFoundError, match="send the tensor first"):
        x.create_pointer(bob)
    p = x.send(bob)
    assert p.create_pointer().id_at_location == x.create_pointer(bob).id_at_location == x.id
    assert x.create_pointer(bob, id_at_location=x.id).location == bob


def test_tensors_are_made_where_they_stay(bob: sy.BaseWorker) -> None:
    remote = bob.remote.torch
    assert torch.equal(remote.tensor([1.0, 2.0]).get(), torch.tensor([1.0, 2.0]))
    assert torch.equal(remote.zeros(2, 3).get(), torch.zeros(2, 3))
    assert torch.equal(remote.ones((2,)).get(), torch.ones(2))
    assert remote.rand(4, requires_grad=True).requires_grad
    assert (remote.rand(100).get() < 1).all()
    assert remote.randn(3, 2).get().std() > 0
    numbers = remote.randint(2, 5, (50,)).get()
    assert numbers.dtype == torch.int64
    assert set(numbers.tolist()) <= {2, 3, 4}
    assert remote.randint(3, size=[4]).location == bob


def test_another_caller_with_the_same_id_replaces_nothing(hook: sy.TorchHook) -> None:
    site, x, y = listening("bob"), torch.ones(2), torch.zeros(2)
    y.id = x.id
    ours = websocket_worker(site, hook, "bob")
    p = x.send(ours)
    registry.KNOWN.clear()  # another process begins without any
    theirs = websocket_worker(site, hook, "bob")
    q = y.send(theirs)
    assert torch.equal(fp.RemoteTensor.get(p), x)
    assert torch.equal(fp.RemoteTensor.get(q), y)
    for each in (ours, theirs):
        each.close()
    site.close()
