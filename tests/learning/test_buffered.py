"""FedBuff on numbers worked out by hand, and what it cannot be."""

from __future__ import annotations

import pytest
import torch
from rounds_by_hand import once, row, setting

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.buffered import staleness_weight


def test_the_step_is_the_sum_of_updates_by_staleness_over_the_size_of_the_buffer():
    fresh, stale = (row(3.0, 0.0), 500.0, None, 0), (row(0.0, 6.0), 7.0, None, 3)
    moved = once(fp.FedBuff(2), {"w": row(1.0, 1.0)}, [fresh, stale])["w"]
    assert torch.allclose(moved, row(1.0 + 3.0 / 2, 1.0 + 6.0 * 0.5 / 2))  # 1 / sqrt(1 + 3) = 0.5; rows do not weigh
    twice = once(fp.FedBuff(2, lr=2.0), {"w": row(1.0, 1.0)}, [fresh, stale])["w"]
    assert torch.allclose(twice, row(1.0 + 3.0, 1.0 + 3.0))


def test_buffers_move_by_the_weighted_mean_whatever_the_rate():
    updates = [({"w": row(1.0), "mean": row(0.2)}, 1.0, None, 0), ({"w": row(1.0), "mean": row(0.8)}, 1.0, None, 3)]
    moved = once(fp.FedBuff(2, lr=5.0), {"w": row(0.0), "mean": row(0.0)}, updates)["mean"]
    assert torch.allclose(moved, row((0.2 + 0.8 * 0.5) / 1.5))


def test_staleness_weighs_by_its_inverse_root():
    assert [staleness_weight(each) for each in (0, 3, 8)] == pytest.approx([1.0, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fp.FedBuff(0), "buffer is 0"),
        (lambda: fp.FedBuff(True), "buffer is True"),
        (lambda: fp.FedBuff(2, lr=float("inf")), "lr is inf"),
        (lambda: fp.FedBuff(3, arrivals=(("a", "b"),)), "a step of 2 workers and the buffer holds 3"),
        (lambda: fp.FedBuff(4).check(setting(3)), "there are 3 workers; use a buffer of 3 or fewer"),
        (lambda: fp.FedBuff(2).check(setting(3, quorum=3)), "the quorum is 3; leave quorum out"),
    ],
)
def test_what_it_cannot_be_is_said(make, says):
    with pytest.raises(UsageError, match=says):
        make()
