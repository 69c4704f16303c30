"""No value makes a kernel over grids or integers fail or reach beyond a tensor, and no shape gets it there."""

from __future__ import annotations

import math

import pytest
import torch

from fedpriv.errors import PlanRefused
from fedpriv.plans.calls import Call, Layout, Ready, check
from fedpriv.plans.inference import Quota
from fedpriv.plans.plan import Slot, Step

LOWEST = -(2**63)
WILD = torch.tensor([-(2**40), -1, 0, 7, 2**62])
STRANGE = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 0.5])


def _carried_out(name: str, *arguments: object, results: int = 1, **keywords: object) -> list[torch.Tensor]:
    """Carry out one operation as a worker does."""
    operands: list[torch.Tensor] = []

    def placed(value: object) -> object:
        if isinstance(value, torch.Tensor):
            operands.append(value)
            return Slot(len(operands) - 1)
        return tuple(map(placed, value)) if isinstance(value, tuple) else value

    step = Step(f"aten.{name}", tuple(map(placed, arguments)), tuple(sorted(keywords.items())), results)
    call = Call(step, tuple(map(Layout.of, operands)))
    return list(Ready(check(call, Quota()), torch.Generator(), torch.device("cpu")).run(operands))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("div.Tensor_mode", "floor"), ("div.Tensor_mode", "trunc"), ("fmod.Tensor", ""), ("remainder.Tensor", "")],
)
def test_an_integer_divided_by_nothing_is_divided_by_one_and_the_lowest_does_not_trap(name, mode, dtype):
    lowest = torch.iinfo(dtype).min
    left = torch.tensor([[lowest], [7], [-7 if dtype.is_signed else 9]], dtype=dtype)
    right = torch.tensor([0, -1 if dtype.is_signed else 255, 3], dtype=dtype)
    keywords = {"rounding_mode": mode} if mode else {}
    (found,) = _carried_out(name, left, right, **keywords)
    packet = getattr(torch.ops.aten, name.split(".")[0])
    by_one = packet(left, torch.ones_like(right[:1]), **keywords)
    assert torch.equal(found[:, :1], by_one)
    assert torch.equal(found[:, 2:], packet(left, right[2:], **keywords))
    opposite = torch.neg(left) if "div" in name else torch.zeros_like(left)
    assert torch.equal(found[:, 1:2], opposite if dtype.is_signed else packet(left, right[1:2], **keywords))


@pytest.mark.parametrize(
    ("name", "expected"), [("remainder.Scalar", 0), ("fmod.Scalar", 0), ("div.Scalar_mode", LOWEST)]
)
def test_the_lowest_integer_and_minus_one(name, expected):
    keywords = {"rounding_mode": "trunc"} if "div" in name else {}
    (found,) = _carried_out(name, torch.tensor([LOWEST]), -1, **keywords)
    assert found.tolist() == [expected]
    with pytest.raises(PlanRefused, match="divisor is zero"):
        _carried_out(name, torch.tensor([LOWEST]), 0, **keywords)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_place_far_outside_or_nowhere_is_sampled_all_the_same(mode, padding):
    source = torch.rand(1, 2, 3, 3)
    grid = STRANGE.repeat(2)[: 3 * 2 * 2].reshape(1, 3, 2, 2)
    (found,) = _carried_out("grid_sampler_2d.default", source, grid, mode, padding, False)
    assert found.shape == (1, 2, 3, 2)
    given = _carried_out(
        "grid_sampler_2d_backward.default", found, source, grid, mode, padding, False, (True, True), results=2
    )
    assert [each.shape for each in given] == [source.shape, grid.shape]


def test_an_index_beyond_a_volume_stays_inside():
    source, grad = torch.zeros(1, 1, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)
    pool = ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), False)
    wild = WILD.repeat(13)[:64].reshape(grad.shape)
    for name, middle in (("max_pool3d_with_indices", pool), ("adaptive_max_pool3d", ())):
        (found,) = _carried_out(f"{name}_backward.default", grad, source, *middle, wild)
        assert found.sum() == 64


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_an_index_beyond_a_dimension_reduces_into_its_ends(reduce):
    (found,) = _carried_out("scatter_reduce.two", torch.ones(3), 0, WILD, torch.full((5,), 2.0), reduce)
    assert found[1] == 1.0
    if reduce != "sum":
        (found,) = _carried_out("index_reduce.default", torch.ones(3), 0, WILD, torch.full((5,), 2.0), reduce)
        assert found[1] == 1.0


def test_a_search_among_what_is_not_sorted_ends_inside():
    (found,) = _carried_out("searchsorted.Tensor", STRANGE, STRANGE)
    assert 0 <= int(found.min()) <= int(found.max()) <= 6
    with pytest.raises(PlanRefused, match="sorter"):
        _carried_out("searchsorted.Tensor", STRANGE, STRANGE, sorter=torch.arange(6))


@pytest.mark.parametrize(
    ("name", "results"),
    [("cummax.default", 2), ("cummin.default", 2), ("logcumsumexp.default", 1)],
)  # fmt: skip
def test_what_has_no_order_is_ordered_somehow(name, results):
    axis = (0,)
    for given in (STRANGE, torch.full((50,), math.nan)):
        found = _carried_out(name, given, *axis, results=results)
        assert all(0 <= int(each.max()) < len(given) for each in found if each.dtype == torch.int64)


def test_a_shift_by_more_bits_than_there_are_and_a_divisor_of_the_lowest():
    numbers = torch.tensor([1, LOWEST, -1, 0])
    for name in ("bitwise_left_shift.Tensor", "bitwise_right_shift.Tensor"):
        for other in (-1, 0, 64, 2**40, LOWEST):
            (found,) = _carried_out(name, numbers, torch.full((4,), other))
            assert found.shape == (4,)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_fft_c2r.default", (torch.zeros(4, 3, dtype=torch.complex64), (1,), 0, 8)),
        ("_fft_c2r.default", (torch.zeros(4, 3, dtype=torch.complex64), (1,), 0, 2)),
        ("_fft_c2c.default", (torch.zeros(4, 3, dtype=torch.complex64), (1, -1), 0, True)),
        ("_fft_c2c.default", (torch.zeros(4, 3, dtype=torch.complex64), (2,), 0, True)),
        ("_fft_r2c.default", (torch.zeros(4, 3), (), 0, True)),
        ("upsample_nearest1d_backward.default", (torch.zeros(2, 3, 8), (8,), (2, 4, 4))),
        ("upsample_nearest1d_backward.default", (torch.zeros(2, 3, 8), (8,), (2, 3, 4), 1e-30)),
        ("upsample_nearest1d.default", (torch.zeros(2, 3, 8), (8,), -1.0)),
        ("replication_pad1d_backward.default", (torch.zeros(2, 3, 5), torch.zeros(2, 3, 4), (1, 1))),
        ("_adaptive_avg_pool3d_backward.default", (torch.zeros(1, 3, 1, 1, 1), torch.zeros(1, 2, 2, 2, 2))),
        ("grid_sampler_2d.default", (torch.zeros(2, 1, 3, 3), torch.zeros(1, 3, 3, 2), 0, 0, False)),
        ("grid_sampler_2d.default", (torch.zeros(1, 1, 3, 3), torch.zeros(1, 3, 3, 2), 3, 0, False)),
        ("_cdist_backward.default", (torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 4), 2.0, torch.zeros(2, 2))),
        ("index_reduce.default", (torch.zeros(3), 0, torch.zeros(2, dtype=torch.int64), torch.zeros(3), "prod")),
        ("scatter_reduce.two", (torch.zeros(3), 0, torch.zeros(2, dtype=torch.int64), torch.zeros(1), "sum")),
        ("pow.Tensor_Scalar", (torch.zeros(3, dtype=torch.int64), -1)),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_operands_that_a_kernel_would_read_beyond_are_refused(name, arguments):
    with pytest.raises(PlanRefused):
        _carried_out(name, *arguments, results=2 if "kth" in name else 1)
