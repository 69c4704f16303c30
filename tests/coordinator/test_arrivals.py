from __future__ import annotations

import torch

from fedpriv.ids import WorkerName
from fedpriv.updates import TensorSet
from fedpriv_coordinator.arrivals import Arrivals

A, B, C = WorkerName("a"), WorkerName("b"), WorkerName("c")


def update(value: float, dtype: torch.dtype = torch.float32) -> TensorSet:
    return TensorSet({"w": torch.full((100,), value, dtype=dtype), "n": torch.tensor(int(value))})


def test_what_does_not_fit_into_memory_comes_back_from_files_unchanged() -> None:
    arrivals = Arrivals(memory_bytes=500)
    for worker, value in ((C, 3.0), (A, 1.0), (B, 2.0)):
        arrivals.put(worker, update(value, torch.bfloat16))
    assert len(arrivals._spilled) == 1
    for worker, value in ((A, 1.0), (B, 2.0), (C, 3.0)):
        taken = arrivals.take(worker)
        assert torch.equal(taken["w"], update(value, torch.bfloat16)["w"])
        assert int(taken["n"]) == value
    arrivals.close()


def test_closing_removes_the_files() -> None:
    arrivals = Arrivals(memory_bytes=1)
    arrivals.put(A, update(1.0))
    arrivals.put(B, update(2.0))
    (path,) = arrivals._spilled.values()
    assert path.exists()
    arrivals.close()
    assert not path.parent.exists()


def test_names_of_tensors_and_their_order_survive_a_file() -> None:
    arrivals = Arrivals(memory_bytes=1)
    arrivals.put(A, update(1.0))
    arrivals.put(B, TensorSet({"z/a.b": torch.ones(2), "a": torch.zeros(0)}))
    taken = arrivals.take(B)
    assert sorted(name for name, _ in taken) == ["a", "z/a.b"]
    arrivals.close()


def test_a_file_that_was_taken_makes_no_room_for_another_to_be_overwritten() -> None:
    arrivals = Arrivals(memory_bytes=1)
    for worker, value in ((A, 1.0), (B, 2.0), (C, 3.0)):
        arrivals.put(worker, update(value))
    arrivals.take(B)
    late = WorkerName("d")
    arrivals.put(late, update(4.0))
    assert torch.equal(arrivals.take(C)["w"], update(3.0)["w"])
    assert torch.equal(arrivals.take(late)["w"], update(4.0)["w"])
    arrivals.close()
