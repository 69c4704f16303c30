"""What all strategies keep, and averaging itself, on numbers worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from rounds_by_hand import once, row, setting, start

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.catalogue import STRATEGIES
from fedpriv.learning.strategies import FedAvg
from fedpriv.updates import TensorSet

NEEDS = {"trimmed-mean": {"attackers": 1}, "krum": {"attackers": 1}, "multi-krum": {"attackers": 1}}
NEEDS |= {"fedper": {"layers": ("w",)}}
NEEDS |= {"bulyan": {"attackers": 1}, "norm-bound": {"limit": 1.0}}
EVERY = [pytest.param(make(**NEEDS.get(name, {})), id=name) for name, make in STRATEGIES.items()]
PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


def test_fedavg_moves_the_model_by_the_weighted_mean_update():
    moved = once(FedAvg(), {"w": row(1.0, 2.0)}, [(row(1.0, 0.0), 30.0), (row(0.0, 4.0), 10.0)])
    assert torch.allclose(moved["w"], row(1.75, 3.0))


def test_low_precision_tensors_are_summed_in_float32_and_keep_their_dtype():
    small = torch.full((4,), 1 / 256, dtype=torch.bfloat16)
    moved = once(FedAvg(), {"w": torch.zeros(4, dtype=torch.bfloat16)}, [(small, 1.0)] * 1000)["w"]
    assert moved.dtype is torch.bfloat16
    assert torch.allclose(moved.float(), torch.full((4,), 1 / 256))


def seven(model):
    """Return seven updates of `model`, all alike."""
    step = {name: torch.ones_like(tensor) for name, tensor in model.items()}
    return [(step, 10.0, 0.5)] * 7


@pytest.mark.parametrize("strategy", EVERY)
def test_whole_numbers_keep_their_dtype_and_move_by_what_is_rounded(strategy):
    model = {"w": torch.zeros(2), "batches": torch.tensor(5), "seen": torch.tensor([True, False])}
    updates = [({**step, "seen": torch.zeros(2, dtype=torch.bool)}, *more) for step, *more in seven(model)]
    moved = once(strategy, model, updates, setting(7))
    assert moved["batches"].dtype is torch.int64
    assert int(moved["batches"]) == 6
    assert torch.equal(moved["seen"], model["seen"])


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_parameters_keep_their_dtype_and_inputs_are_left_as_they_were(strategy, dtype):
    model = {"w": torch.zeros(3, dtype=dtype), "frozen": torch.ones(2)}
    updates = seven({"w": model["w"]})
    moved = once(strategy, model, updates, setting(7))
    assert moved["w"].dtype is dtype
    assert bool((moved["w"] > 0).all())
    assert torch.equal(moved["frozen"], torch.ones(2))
    assert torch.equal(model["w"], torch.zeros(3, dtype=dtype))
    assert all(torch.equal(update[0]["w"], torch.ones(3, dtype=dtype)) for update in updates)


@pytest.mark.parametrize("strategy", EVERY)
def test_buffers_move_by_their_mean_or_robust_middle_and_never_by_an_optimiser(strategy):
    model = {"w": torch.zeros(3), "running_mean": torch.zeros(2)}
    updates = [({**step, "running_mean": row(0.5, -0.5)}, *more) for step, *more in seven(model)]
    standing = start(strategy, model, setting(7))
    assert not any("running_mean" in name for name, _ in standing.memory)
    moved = once(strategy, model, updates, setting(7))["running_mean"]
    scale = 1 / 3**0.5 if strategy.name == "norm-bound" else 1.0  # the whole update is shortened to norm 1
    assert torch.allclose(moved, scale * row(0.5, -0.5))


@pytest.mark.parametrize("strategy", EVERY)
def test_of_sums_means_that_the_mean_alone_gives_the_same_model(strategy):
    model = {"w": row(0.3, -0.2, 0.1)}
    updates = [(row(0.1, 0.2, -0.3), 2.0, 1.0), (row(-0.5, 0.1, 0.2), 1.0, 2.0)] + [(row(0, 0, 0.1), 1.0, 1.0)] * 5
    weight = sum(each[1] for each in updates)
    mean = sum(each[0] * each[1] for each in updates) / weight
    one = once(strategy, model, [(mean, weight, 1.0)], setting(7)) if strategy.of_sums else None
    several = once(strategy, model, updates, setting(7))
    assert one is None or torch.allclose(one["w"], several["w"], atol=1e-6)


def test_every_strategy_is_in_the_page_with_whether_it_works_under_sums():
    rows = dict(re.findall(r"^\| `([a-z-]+)` .*\| (yes|no)[^|]*\|$", PAGE.read_text(), flags=re.MULTILINE))
    assert rows == {
        name: "yes" if each.values[0].of_sums else "no" for name, each in zip(STRATEGIES, EVERY, strict=True)
    }


def test_every_strategy_is_public_under_its_papers_name():
    for make in STRATEGIES.values():
        assert getattr(fp, make.__name__) is make


def test_memory_is_named_tensors_that_can_be_saved():
    assert isinstance(start(fp.FedAdam(), {"w": row(1.0)}).memory, TensorSet)
    assert len(start(FedAvg(), {"w": row(1.0)}).memory) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fp.TrimmedMean(-1), "attackers is -1"),
        (lambda: fp.MultiKrum(1, kept=0), "kept is 0"),
        (lambda: fp.NormBound(0.0), "limit is 0"),
        (lambda: fp.NormBound(float("nan")), "limit is nan"),
        (lambda: fp.GeometricMedian(0.0), "smoothing is 0"),
        (lambda: fp.QFedAvg(-1.0), "q is -1"),
        (lambda: fp.FedAdam(lr=0.0), "fedadam has lr 0.0"),
        (lambda: fp.FedYogi(betas=(0.9, 1.0)), "betas from 0 to below 1"),
        (lambda: fp.FedAdagrad(eps=0.0), "eps must be above 0|eps 0.0"),
        (lambda: fp.FedAvgM(momentum=-0.1), "momentum is -0.1"),
        (lambda: fp.FedSGD(server="rmsprop"), "use 'sgd' or 'adam'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_value(make, says):
    with pytest.raises(UsageError, match=says):
        make()
