"""A receive buffer is used again only when nobody can see it."""

from __future__ import annotations

import pytest
import torch

from fedpriv.wire.buffers import KEPT_FROM_BYTES, Buffers

SIZE = 2 * KEPT_FROM_BYTES


def address(view: memoryview) -> int:
    return torch.frombuffer(view, dtype=torch.uint8).data_ptr()


def test_a_large_buffer_is_used_again_once_nobody_looks() -> None:
    buffers = Buffers()
    first = buffers.take(SIZE)
    where = address(first)
    del first
    assert address(buffers.take(SIZE - 5)) == where
    assert buffers.take(SIZE - 5).nbytes == SIZE - 5


@pytest.mark.parametrize(
    "looker",
    [
        lambda view: view,
        lambda view: view[5:9],
        lambda view: view[5:9].cast("B").toreadonly(),
        lambda view: torch.frombuffer(view[8:16], dtype=torch.uint8),
        lambda view: torch.frombuffer(view, dtype=torch.uint8)[:4].view(torch.float32).reshape(()),
        lambda view: torch.frombuffer(view, dtype=torch.uint8)[1:].numpy()[3:],
    ],
    ids=["view", "slice", "cast", "tensor", "tensor of a tensor", "array of a tensor"],
)
def test_whoever_looks_keeps_the_buffer(looker: object) -> None:
    buffers = Buffers()
    first = buffers.take(SIZE)
    where = address(first)
    kept = looker(first)  # type: ignore[operator]
    del first
    others = [buffers.take(SIZE) for _ in range(3)]
    assert where not in map(address, others)
    assert len({address(other) for other in others}) == 3
    del kept


def test_a_buffer_of_another_size_class_is_not_kept() -> None:
    buffers = Buffers()
    del_me = buffers.take(4 * SIZE)
    del del_me
    small, large = buffers.take(SIZE), buffers.take(8 * SIZE)
    assert (small.nbytes, large.nbytes) == (SIZE, 8 * SIZE)


def test_small_buffers_are_always_fresh() -> None:
    buffers = Buffers()
    assert [buffers.take(count).nbytes for count in (0, 1, 100)] == [0, 1, 100]
