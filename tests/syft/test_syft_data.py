"""Data sets of pointers, over both transports."""

from __future__ import annotations

import pytest
import torch
from places import MakeWorker
from torch import nn
from torch.utils.data import TensorDataset

import fedpriv.syft as sy
from fedpriv.errors import UsageError
from fedpriv.syft import utils
from fedpriv.syft.exceptions import ObjectNotFoundError
from fedpriv.syft.frameworks.torch import fl

DATA, TARGETS = torch.arange(14.0).reshape(7, 2), torch.arange(7)


@pytest.fixture
def federated(bob: sy.BaseWorker, alice: sy.BaseWorker) -> sy.FederatedDataset:
    return sy.BaseDataset(DATA, TARGETS).federate((bob, alice))


def fetched(loader: sy.FederatedDataLoader) -> list[tuple[str, list[int]]]:
    return [(data.location.id, target.get().tolist()) for data, target in loader]


def test_a_data_set_is_sent_and_comes_back_in_place(bob: sy.BaseWorker) -> None:
    held = sy.BaseDataset(DATA, TARGETS).tag("#rows").describe("seven")
    assert held[2][1] == 2
    assert held.location is None
    assert held.send(bob) is held
    assert held.location == held.data.location == held.targets.location == bob
    assert len(held) == 7
    (found,) = bob.search("#rows")
    assert isinstance(found, sy.PointerDataset)
    assert (len(found), found.description, found.id_at_location) == (7, "seven", held.id)
    assert torch.equal(found.get_data()[1].get(), DATA[1])
    assert torch.equal(found[2:3][1].get(), TARGETS[2:3])
    assert found.get_targets().location == bob
    assert held.get() is held
    assert torch.equal(held.data, DATA)
    assert bob.search("#rows") == []


def test_a_found_data_set_is_fetched_whole(bob: sy.BaseWorker) -> None:
    held = sy.BaseDataset(DATA, TARGETS).tag("#rows").send(bob)
    back = bob.search("#rows")[0].get()
    assert torch.equal(back.data, DATA)
    assert torch.equal(back.targets, TARGETS)
    assert bob.search("#rows") == []
    with pytest.raises(ObjectNotFoundError):
        held.get()


def test_rows_are_divided_in_order_and_read_worker_by_worker(federated: sy.FederatedDataset) -> None:
    assert federated.workers == ["bob", "alice"]
    assert len(federated) == 7
    assert [len(federated[each]) for each in federated.workers] == [4, 3]
    loader = sy.FederatedDataLoader(federated, batch_size=2)
    assert len(loader) == 4
    assert fetched(loader) == [("bob", [0, 1]), ("bob", [2, 3]), ("alice", [4, 5]), ("alice", [6])]
    dropping = sy.FederatedDataLoader(federated, batch_size=2, drop_last=True)
    assert len(dropping) == len(fetched(dropping)) == 3


def test_any_data_set_of_torch_can_be_divided(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    loader = sy.FederatedDataLoader(TensorDataset(DATA, TARGETS).federate((bob, alice)), batch_size=4, num_workers=1)
    assert fetched(loader) == [("bob", [0, 1, 2, 3]), ("alice", [4, 5, 6])]
    changed = sy.BaseDataset(DATA, TARGETS, transform=lambda row: row + 1).federate((bob, alice))
    assert torch.equal(changed["bob"].get().data, DATA[:4] + 1)


def test_a_shuffled_pass_has_every_row_once_in_an_order_that_a_seed_gives(federated: sy.FederatedDataset) -> None:
    loader = sy.FederatedDataLoader(federated, batch_size=3, shuffle=True)
    torch.manual_seed(3)
    first = fetched(loader)
    torch.manual_seed(3)
    assert fetched(loader) == first
    assert sorted(row for _, rows in first for row in rows) == list(range(7))
    assert [rows for _, rows in first] != [[0, 1, 2], [3], [4, 5, 6]]


def test_a_pass_over_many_rows_waits_for_nothing(bob: sy.BaseWorker, alice: sy.BaseWorker) -> None:
    rows = torch.randn(500, 2)
    federated = sy.BaseDataset(rows, rows[:, 0]).federate((bob, alice))
    trips = [each.holder.values.round_trips for each in (bob, alice)]
    model = nn.Linear(2, 1)
    for shuffle in (False, True):
        for data, target in sy.FederatedDataLoader(federated, batch_size=1, shuffle=shuffle):
            assert (data.shape, target.shape) == ((1, 2), (1,))
    assert [each.holder.values.round_trips for each in (bob, alice)] == trips
    data, _ = next(iter(sy.FederatedDataLoader(federated, batch_size=10)))
    model.send(data.location)
    assert model(data).shape == (10, 1)


def test_several_workers_are_read_at_a_time(federated: sy.FederatedDataset, bob, alice) -> None:
    together = sy.FederatedDataLoader(federated, batch_size=2, iter_per_worker=True)
    steps = list(together)
    assert len(together) == len(steps) == 2
    assert [batch[1].get().tolist() for batch in steps[0].values()] == [[0, 1], [4, 5]]
    assert steps[1][alice][1].get().tolist() == [6]
    two = sy.FederatedDataLoader(federated, batch_size=4, num_iterators=2)
    (step,) = two
    assert list(step) == [bob, alice]
    one = sy.FederatedDataLoader(federated, batch_size=3, num_iterators=1)
    assert len(one) == 3


def test_batches_are_gathered_by_worker(federated: sy.FederatedDataset, bob, alice) -> None:
    for options in ({}, {"iter_per_worker": True}):
        found = utils.extract_batches_per_worker(sy.FederatedDataLoader(federated, batch_size=2, **options))
        assert {worker.id: len(batches) for worker, batches in found.items()} == {"bob": 2, "alice": 2}


def test_one_part_is_taken_back(federated: sy.FederatedDataset) -> None:
    back = federated.get_dataset("alice")
    assert torch.equal(back.targets, TARGETS[4:])
    assert federated.workers == ["bob"]
    with pytest.raises(ObjectNotFoundError, match="there are bob"):
        federated.get_dataset("alice")


def test_what_is_no_data_set_says_why(bob: sy.BaseWorker) -> None:
    with pytest.raises(UsageError, match="7 rows of data and 2 targets"):
        sy.BaseDataset(DATA, TARGETS[:2])
    with pytest.raises(UsageError, match="send it first"):
        sy.FederatedDataset([sy.BaseDataset(DATA, TARGETS)])
    sent = sy.BaseDataset(DATA, TARGETS).send(bob)
    with pytest.raises(UsageError, match="two data sets"):
        sy.FederatedDataset([sent, sent])
    with pytest.raises(TypeError, match="transform before"):
        sy.BaseDataset(sent.data, sent.targets, transform=torch.neg)
    with pytest.raises(UsageError, match="at least 1"):
        sy.FederatedDataLoader(sy.FederatedDataset([sent]), batch_size=0)
    assert "7 rows at bob" in repr(sy.FederatedDataset([sent]))


def test_accuracy_is_the_share_that_is_right(make_worker: MakeWorker) -> None:
    prediction = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert fl.utils.accuracy(prediction, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
