"""Workers, what they hold and find, and several of them at once."""

from __future__ import annotations

import time

import pytest
import torch
from places import MakeWorker, listening, websocket_worker
from sites import rows

import fedpriv as fp
import fedpriv.syft as sy
from fedpriv.errors import UsageError
from fedpriv.syft.exceptions import (
    GetNotPermittedError,
    ObjectNotFoundError,
    RemoteObjectFoundError,
    TensorsNotCollocatedException,
    WorkerNotFoundException,
)


def test_what_is_found_has_every_tag_or_the_id_or_a_word(bob: sy.BaseWorker, me: sy.LocalWorker) -> None:
    x, y = torch.ones(2).tag("#a", "#b").describe("ones of two"), torch.zeros(2).tag("#a")
    p, q = x.send(bob), y.send(bob)
    assert {each.id_at_location for each in bob.search("#a")} == {x.id, y.id}
    assert [each.id_at_location for each in bob.search("#a", "#b")] == [x.id]
    assert [each.id_at_location for each in bob.search(["#a", "#b"])] == [x.id]
    assert [each.id_at_location for each in me.request_search(["#a", "#b"], location=bob)] == [x.id]
    assert [each.id_at_location for each in bob.search(y.id)] == [y.id]
    assert [each.id_at_location for each in bob.search("ones of")] == [x.id]
    assert bob.search("#c") == []
    q.tag("#later")
    assert bob.search("#later")[0].location == bob
    assert bob.object_store.find_by_tag("#b")[0].id_at_location == p.id_at_location


def test_a_grid_finds_across_workers(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    held = [torch.ones(2).tag("#a").send(bob), torch.zeros(2).tag("#a", "#b").send(alice)]
    grid = sy.PrivateGridNetwork(bob, alice)
    assert torch.equal(grid.search("#a")["bob"][0].get(), torch.ones(2))
    assert list(grid.search("#b")) == ["alice"]
    assert len(held) == 2


def test_a_worker_says_what_it_holds_and_lets_it_go(bob: sy.BaseWorker) -> None:
    x = torch.ones(2)
    p = x.send(bob)
    q = p + 1
    store = bob.object_store
    assert len(store) == 1
    assert list(store) == [x.id]
    assert torch.equal(store._objects[x.id], x)
    assert store.find_by_id(x.id).location == bob
    assert store.find_by_id(1) is None
    assert bob.tensors_count() == 2
    bob.clear_objects()
    assert bob.tensors_count() == len(store) == 0
    for gone in (p, q):
        with pytest.raises(ObjectNotFoundError):
            gone.get()
    with pytest.raises(ObjectNotFoundError, match="nothing under id"):
        store.get_obj(x.id)


def test_two_workers_of_one_id_are_one_and_of_two_kinds_are_refused(hook: sy.TorchHook) -> None:
    bob = sy.VirtualWorker(hook, id="bob")
    x = torch.ones(2)
    p = x.send(bob)
    again = sy.VirtualWorker(hook, id="bob")
    assert again == bob
    assert p.location == again
    assert x.id in again.object_store
    assert sy.VirtualWorker(hook, id="carol") != bob
    site = listening("bob")
    with pytest.raises(RuntimeError, match="VirtualWorker here"):
        websocket_worker(site, hook, "bob")
    site.close()


def test_workers_are_known_by_their_id(bob: sy.BaseWorker, me: sy.LocalWorker, hook: sy.TorchHook) -> None:
    assert me.get_worker("bob") is bob
    assert bob.get_worker(me) is me
    assert torch.ones(1).send("bob").location == bob
    for ask in (lambda: me.get_worker("nobody"), lambda: torch.ones(1).send("nobody")):
        with pytest.raises(WorkerNotFoundException, match="nobody"):
            ask()
    assert bob.add_workers([me]) is bob
    assert (me.is_client_worker, bob.is_client_worker) == (True, False)
    assert (me.registration_enabled(), bob.registration_enabled()) == (False, True)
    assert sy.local_worker is me
    with pytest.raises(AttributeError, match="nobody"):
        sy.nobody  # noqa: B018  asking is enough
    assert sy.VirtualWorker(hook).id != sy.VirtualWorker(hook).id


def test_a_slow_network_can_be_tried_out(hook: sy.TorchHook) -> None:
    bob = sy.VirtualWorker(hook, id="bob")
    torch.ones(1).send(bob).get()
    bob.message_pending_time = 0.01
    before = time.monotonic()
    torch.ones(1).send(bob).get()
    assert time.monotonic() - before >= 0.02


def test_a_worker_that_was_closed_is_not_known_any_more(hook: sy.TorchHook) -> None:
    bob = sy.VirtualWorker(hook, id="Bob Q.")
    p = torch.ones(1).send(bob)
    assert bob.holder.name == "bob-q"
    bob.close()
    with pytest.raises(WorkerNotFoundException, match="closed"):
        p.location  # noqa: B018  asking is enough


def test_a_worker_that_is_another_is_refused(hook: sy.TorchHook) -> None:
    site = listening("carol")
    with pytest.raises(UsageError, match="proves to be 'carol'"):
        websocket_worker(site, hook, "dave")
    site.close()


# --- what a worker loaded by itself ---


def test_a_permissive_virtual_worker_gives_what_it_loaded(hook: sy.TorchHook) -> None:
    x = torch.ones(3).tag("#x")
    bob = sy.VirtualWorker(hook, id="bob", data=[x, sy.BaseDataset(torch.ones(4, 2), torch.zeros(4)).tag("#rows")])
    (found,) = bob.search("#x")
    assert found.id_at_location == x.id
    assert torch.equal(found.get(), x)
    assert len(bob.search("#rows")[0].get()) == 4
    with pytest.raises(RemoteObjectFoundError, match=r"get\(\) it first"):
        bob.load_data([torch.ones(1).send(bob)])


def test_under_its_owners_rules_a_virtual_worker_gives_nothing_that_it_loaded(hook: sy.TorchHook) -> None:
    data = [torch.ones(3).tag("#x"), sy.BaseDataset(torch.ones(4, 2), torch.zeros(4)).tag("#rows")]
    bob = sy.VirtualWorker(hook, id="bob", data=data, policy=sy.Policy.OWNERS_RULES)
    (found,) = bob.search("#x")
    for pointer in (found, found * 2, bob.search("#rows", "#data")[0], bob.search("#rows", "#target")[0].sum()):
        with pytest.raises(GetNotPermittedError):
            pointer.get()
    assert isinstance(bob.object_store.get_obj(found.id_at_location), sy.PointerTensor)
    with pytest.raises(UsageError, match="at least one dimension"):
        sy.VirtualWorker(hook, id="alice", data=[torch.ones(())], policy=sy.Policy.OWNERS_RULES)


def test_no_worker_gives_what_its_owner_holds_whoever_asks(make_worker: MakeWorker) -> None:
    bob = make_worker("bob", rows())
    features, target = bob.search("#toy", "#data")[0], bob.search("#toy", "#target")[0]
    assert (features.shape, target.shape) == ((40, 4), (40,))
    assert features.tags == {"#toy", "#rows", "#data"}
    for ask in (
        features.get,
        lambda: features.mean().get(),
        lambda: features.move("me"),
        (features[0] + torch.ones(4).send(bob)).get,
    ):
        with pytest.raises(GetNotPermittedError, match="toy"):
            ask()
    assert len(bob.search("#toy")) == 2
    assert bob.search("#toy", "#data")[0].id_at_location == features.id_at_location


def test_a_model_trained_on_an_owners_rows_is_not_taken_back(make_worker: MakeWorker) -> None:
    bob = make_worker("bob", rows())
    model = torch.nn.Linear(4, 1).send(bob)
    model(bob.search("#data")[0]).sum().backward()
    with pytest.raises(GetNotPermittedError):
        model.get()
    assert model.location == bob


def test_only_a_virtual_worker_has_a_policy(hook: sy.TorchHook) -> None:
    site = listening("bob", rows())
    bob = websocket_worker(site, hook, "bob")
    assert not hasattr(bob, "load_data")
    assert not hasattr(bob, "policy")
    host, _, port = site.pointed.address.rpartition(":")
    with pytest.raises(TypeError, match="policy"):
        sy.WebsocketClientWorker(
            hook, host, int(port), "bob", credentials=site.pointed._credentials, policy=sy.Policy.PERMISSIVE
        )
    site.close()


# --- pointers to pointers, and for several workers ---


def test_a_pointer_to_a_pointer_is_taken_apart_one_by_one(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    x = torch.tensor([1.0, 2.0])
    chain = x.send(bob).send(alice)
    assert isinstance(chain, sy.PointerChain)
    assert (chain.location, chain.shape) == (alice, x.shape)
    assert torch.equal((chain + chain).get().get(), x + x)
    assert torch.equal(torch.add(chain, 1).sum().get().get(), torch.tensor(5.0))
    assert repr(chain).startswith("(Wrapper)>[PointerTensor | me:")
    assert torch.equal(chain.get().get(), x)


def test_a_chain_collapses(bob: sy.BaseWorker, alice: sy.BaseWorker, me: sy.LocalWorker) -> None:
    x = torch.ones(2)
    there = x.send(bob).send(alice).remote_get()
    assert there.location == alice
    assert torch.equal(there.get(), x)
    assert torch.equal(x.send(bob).send(alice).send(bob).remote_get().get().get(), x)


def test_one_pointer_stands_for_several_workers(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    x = torch.tensor([1.0, 2.0])
    both = x.send(bob, alice)
    assert isinstance(both, sy.MultiPointerTensor)
    assert both.shape == x.shape
    assert [each.id for each in both.location] == ["bob", "alice"]
    for each in (both * 2 + both).get():
        assert torch.equal(each, x * 3)
    assert torch.equal(torch.exp(both).get(sum_results=True), x.exp() * 2)
    assert torch.equal(both.sum().get(sum_results=True), torch.tensor(6.0))
    assert torch.equal(both[0].virtual_get()[1].get(), x[0])


def test_pointers_are_combined(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    p, q = torch.ones(2).send(bob), torch.full((2,), 2.0).send(alice)
    both = sy.combine_pointers(p, q)
    only_bob = sy.combine_pointers(torch.ones(2).send(bob))
    with pytest.raises(TensorsNotCollocatedException, match="alice"):
        both + only_bob
    assert set(both.child) == {"bob", "alice"}
    assert torch.equal(p.combine(q).get(sum_results=True), torch.full((2,), 3.0))
    with pytest.raises(UsageError, match="send it first"):
        sy.combine_pointers(p, torch.ones(2))
    with pytest.raises(UsageError, match="same one"):
        sy.combine_pointers(torch.ones(1).send(bob), torch.ones(1).send(bob))


def test_a_sandbox_has_workers_a_grid_and_toy_data(hook: sy.TorchHook, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    sy.create_sandbox(names)
    assert {"bob", "alice", "grid", "hook", "me", "workers"} <= set(names)
    found = names["grid"].search("#iris", "#data")
    assert sum(len(each[0]) for each in found.values()) == 150
    assert "bob" in capsys.readouterr().out
    sy.create_sandbox(names, verbose=False, download_data=False)
    assert capsys.readouterr().out == ""


def test_a_fedpriv_federation_takes_the_worker_behind(hook: sy.TorchHook) -> None:
    bob = sy.VirtualWorker(hook, id="bob", datasets=[rows()])
    assert isinstance(bob.holder, fp.VirtualWorker)
    assert bob.holder.datasets() == ["toy"]
