"""The flat list of a recorded function: it gives what the function gives, and leaves out what does nothing."""

import pytest
import torch

from fedpriv_worker.flattening import Flat


def shaped(x):
    """Reshape back and forth, and multiply by what depends on the shape alone."""
    turned = x.unsqueeze(1).view(2, 6).unsqueeze(0)
    scale = -torch.ones_like(x.sum()).expand(6)
    return [turned * scale, torch.zeros(3).index_add(0, torch.zeros(2, dtype=torch.int64), x[:, 0])]


def test_a_flat_list_gives_what_its_function_gives_for_other_values():
    flat = Flat(shaped, [torch.zeros(2, 6)])
    for seed in range(2):
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed))
        for one, other in zip(flat.run([x]), shaped(x), strict=True):
            assert torch.equal(one, other)


def test_what_depends_on_shapes_alone_is_made_once_and_what_only_its_shape_came_from_never():
    flat = Flat(lambda x: [x * torch.ones_like(x.exp().log()).neg()], [torch.zeros(4)])
    assert len(flat) == 1
    assert flat.run([torch.arange(4.0)])[0].tolist() == [0.0, -1.0, -2.0, -3.0]


def test_a_constant_that_is_written_to_is_made_anew_in_each_run():
    flat = Flat(lambda x: [torch.zeros_like(x).add_(x)], [torch.zeros(2)])
    assert [flat.run([torch.ones(2)])[0].tolist() for _ in range(2)] == [[1.0, 1.0]] * 2


def test_a_large_constant_is_not_kept():
    flat = Flat(lambda x: [x + torch.ones_like(x)], [torch.zeros(1 << 15)])
    assert len(flat) == 2


@pytest.mark.parametrize(("change", "calls"), [(lambda x: x.view(12).view(3, 4), 0), (lambda x: x.unsqueeze(0), 1)])
def test_reshapes_in_a_row_are_one_or_none(change, calls):
    assert len(Flat(lambda x: [change(x)], [torch.zeros(3, 4)])) == calls
