"""How much of torch works on pointers, by torch's own samples, and why the rest does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from opinfo_samples import REASONS, committed, entries, outcome, rows
from sites import virtual_site

from fedpriv.plans.operations import denied, table
from fedpriv.remote.holder import Holder

LIMIT = 8
"""Samples of each dtype and entry in the complete run."""
QUICK = (
    "abs", "add", "addmm", "all", "amax", "argmax", "bmm", "cat", "clamp", "clone", "cumsum", "diag",
    "div.no_rounding_mode", "eq", "exp", "expand", "floor_divide", "gather", "index_put",
    "index_select", "isin", "log_softmax", "logsumexp",
    "masked_fill", "masked_scatter", "matmul", "max.reduction_with_dim", "mean", "median", "mul", "new_empty_strided",
    "nn.functional.avg_pool2d", "nn.functional.batch_norm", "nn.functional.conv2d", "nn.functional.cross_entropy",
    "nn.functional.dropout", "nn.functional.embedding", "nn.functional.gelu", "nn.functional.huber_loss",
    "nn.functional.layer_norm", "nn.functional.linear", "nn.functional.max_pool2d", "nn.functional.mse_loss",
    "nn.functional.nll_loss", "nn.functional.pad.circular", "nn.functional.relu", "nonzero", "permute", "pow",
    "remainder", "repeat", "reshape", "roll", "scatter_add", "sort", "split", "sub", "sum", "take", "tril", "unbind",
    "var", "where",
)  # fmt: skip


@pytest.fixture(scope="module")
def bob() -> Iterator[Holder]:
    site = virtual_site((), "bob")
    yield site.pointed
    site.close()


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_most_programs_use_is_what_local_torch_gives(bob: Holder, direction: str) -> None:
    refused = {(row["entry"], row["direction"]) for row in committed("refused.csv")}
    for name in QUICK:
        found = outcome(entries()[name], direction, bob, 2, {torch.float64, torch.bool})
        assert not found.wrong, f"{name}: {found.wrong[0]}"
        assert not found.refused or (name, direction) in refused, f"{name}: {found.refused[0]}"


@pytest.mark.slow
def test_of_all_that_torch_has_samples_for_most_works_and_the_rest_is_refused_for_a_reason(bob: Holder) -> None:
    passed, seen = {"forward": 0, "backward": 0}, []
    for name, entry in entries().items():
        for direction in passed:
            found = outcome(entry, direction, bob, LIMIT)
            assert not found.wrong, f"{name}, {direction}: {found.wrong[0]}"
            passed[direction] += found.passes
            seen.extend(rows(name, direction, found))
    expected = committed("refused.csv")
    assert sorted(map(str, seen)) == sorted(map(str, expected))
    assert {row["reason"] for row in expected} <= REASONS
    assert passed["forward"] >= 500
    assert passed["backward"] >= 350


def _core() -> set[str]:
    """Return the operations that torch calls its core."""
    names = [each.removeprefix("aten::") for each in torch._C._dispatch_get_all_op_names() if each.startswith("aten::")]
    parts = [each.partition(".") for each in names]
    found = [getattr(getattr(torch.ops.aten, packet), overload or "default") for packet, _, overload in parts]
    return {str(overload) for overload in found if torch.Tag.core in overload.tags}


def test_core_aten_is_supported_or_refused_for_a_reason() -> None:
    found = {row["operation"]: (row["how"], row["reason"]) for row in committed("core_aten.csv")}
    assert set(found) == _core()
    for name, (how, reason) in found.items():
        assert (how == "one") == (name in table()), name
        assert (how == "several") == (name in SEVERAL), name
        assert how != "refused" or reason == denied()[name], name
        assert how in {"one", "several", "refused"} or (how == "here" and reason), name


def _given(*shape: int) -> torch.Tensor:
    return torch.linspace(-2.0, 2.0, torch.Size(shape).numel()).reshape(shape)


aten = torch.ops.aten
SEVERAL: dict[str, Callable[[Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]] = {
    "aten._native_batch_norm_legit.default": lambda to: aten._native_batch_norm_legit.default(
        to(_given(4, 3)), None, None, to(_given(3)), to(_given(3) + 3), True, 0.1, 1e-5
    )[0],
    "aten.adaptive_avg_pool1d.default": lambda to: aten.adaptive_avg_pool1d.default(to(_given(2, 3, 8)), [4]),
    "aten.any.dims": lambda to: aten.any.dims(to(_given(2, 3, 4) > 1), [0, 2]),
    "aten.atan2.out": lambda to: aten.atan2.out(to(_given(3)), to(_given(3)), out=to(_given(3))),
    "aten.avg_pool1d.default": lambda to: aten.avg_pool1d.default(to(_given(2, 3, 8)), [2]),
    "aten.col2im.default": lambda to: aten.col2im.default(to(_given(1, 12, 9)), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
    "aten.masked_scatter.default": lambda to: aten.masked_scatter.default(
        to(_given(6)), to(_given(6) > 0), to(_given(6))
    ),
    "aten.reflection_pad3d.default": lambda to: aten.reflection_pad3d.default(to(_given(2, 3, 3, 3)), [1] * 6),
    "aten.select_scatter.default": lambda to: aten.select_scatter.default(to(_given(3, 4)), to(_given(4)), 0, 1),
    "aten.slice_scatter.default": lambda to: aten.slice_scatter.default(to(_given(3, 4)), to(_given(1, 4)), 0, 1, 2),
    "aten.upsample_bilinear2d.vec": lambda to: aten.upsample_bilinear2d.vec(
        to(_given(1, 2, 3, 3)), None, False, [2.0, 2.0]
    ),
    "aten.upsample_nearest2d.vec": lambda to: aten.upsample_nearest2d.vec(to(_given(1, 2, 3, 3)), None, [2.0, 2.0]),
    "aten.var.dim": lambda to: aten.var.dim(to(_given(3, 4)), [0]),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_core_operation_that_is_carried_out_as_several_gives_what_local_torch_gives(bob: Holder, name: str) -> None:
    torch.testing.assert_close(SEVERAL[name](bob.send).get(), SEVERAL[name](lambda given: given))
