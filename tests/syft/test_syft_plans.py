"""Functions and modules that run at a worker in one message, over both transports."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fedpriv.syft as sy
from fedpriv.errors import TraceError, UsageError
from fedpriv.syft.exceptions import ObjectNotFoundError, TensorsNotCollocatedException


@sy.func2plan(args_shape=[(1,)])
def doubled(x: Tensor) -> Tensor:
    return x * 2


class Net(sy.Plan):
    """A plan that is a module, with parameters and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 1)
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x))) + self.shift
        return found


def test_a_plan_that_was_built_at_one_length_runs_at_another_here_and_there(bob: sy.BaseWorker) -> None:
    assert doubled.is_built
    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))
    there = doubled.send(bob)
    for length in (1, 4):
        result = there(torch.ones(length).send(bob))
        assert isinstance(result, sy.PointerTensor)
        assert torch.equal(result.get(), torch.full((length,), 2.0))
    assert there.location == bob
    assert doubled.get_pointers() == {"bob": there}
    assert doubled.get() is doubled
    assert doubled.get_pointers() == {}


def test_a_plan_waits_for_no_answer_once_it_is_known(bob: sy.BaseWorker) -> None:
    there, p = doubled.send(bob), torch.ones(3).send(bob)
    there(p)
    trips = bob.holder.values.round_trips
    for _ in range(20):
        p = there(p)
    assert bob.holder.values.round_trips == trips


def test_a_plan_that_was_sent_is_fetched_by_its_id(bob: sy.BaseWorker) -> None:
    there = doubled.send(bob)
    fetched = bob.fetch_plan(doubled.id)
    assert fetched is not doubled
    assert (fetched.id, fetched.is_built) == (doubled.id, True)
    assert torch.equal(fetched(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(fetched(torch.ones(2).send(bob)).get(), torch.full((2,), 2.0))
    assert there.id_at_location == doubled.id
    assert there.get() is doubled
    with pytest.raises(ObjectNotFoundError, match="send it there"):
        bob.fetch_plan(doubled.id)


def test_a_plan_is_built_by_hand_before_it_is_sent(bob: sy.BaseWorker) -> None:
    @sy.func2plan()
    def added(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    assert not added.is_built
    with pytest.raises(UsageError, match="not built"):
        added.send(bob)
    added.build(torch.ones(1), torch.ones(1))
    p = torch.ones(2).send(bob)
    assert torch.equal(added.send(bob)(p, p).get(), torch.full((2,), 2.0))


def test_a_function_keeps_a_state_that_goes_along(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    @sy.func2plan(args_shape=[(1,)], state=(torch.tensor([1.0]), torch.tensor([10.0])))
    def shifted(x: Tensor, state: sy.State) -> Tensor:
        bias, scale = state.read()
        return x * scale + bias

    assert torch.equal(shifted(torch.ones(2)), torch.full((2,), 11.0))
    for pointer in shifted.send(bob, alice):
        assert torch.equal(pointer(torch.ones(3).send(pointer.location)).get(), torch.full((3,), 11.0))


def test_a_module_is_a_plan_with_its_weights(bob: sy.BaseWorker) -> None:
    net, x = Net(), torch.randn(4, 2)
    expected = net(x).detach()
    net.build(torch.zeros(1, 2))
    assert torch.allclose(net(x.send(bob)).get(), expected, atol=1e-6)  # it need not be sent before
    net.send(bob)
    held = bob.tensors_count()
    assert torch.allclose(net(x.send(bob)).get(), expected, atol=1e-6)
    assert bob.tensors_count() == held
    fetched = bob.fetch_plan(net.id)
    with torch.no_grad():
        fetched.first.weight.zero_()
    assert torch.allclose(net(x).detach(), expected)
    assert not torch.allclose(fetched(x).detach(), expected)


def test_what_is_no_plan_says_so_where_it_is_built() -> None:
    @sy.func2plan()
    def branching(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(TraceError, match=r"test_syft_plans\.py"):
        branching.build(torch.ones(2))
    with pytest.raises(UsageError, match="nothing to run"):
        sy.Plan()(torch.ones(1))


def test_a_plan_has_its_operands_in_one_place(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    there = doubled.send(bob)
    with pytest.raises(TensorsNotCollocatedException, match="alice and bob"):
        sy.func2plan(args_shape=[(1,), (1,)])(torch.add)(torch.ones(1).send(bob), torch.ones(1).send(alice))
    assert there.location == bob
