from __future__ import annotations

import math

import pytest
import torch

from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import Evaluation, Update
from fedpriv_coordinator.inspection import why_unusable, why_unusable_evaluation, why_unusable_statistics

EXPECTED = (TensorSpec("w", "float32", (2, 3)), TensorSpec("n", "int64", ()))


def update(**fields: object) -> Update:
    delta = TensorSet({"w": torch.zeros(2, 3), "n": torch.tensor(1)})
    return Update(**{"request": 1, "round": 1, "weight": 50.0, "metrics": {"loss": 0.5}, "delta": delta, **fields})


def test_a_sound_update_is_usable() -> None:
    assert why_unusable(update(), EXPECTED, ("loss",), 50) is None
    assert why_unusable(update(weight=59.0), EXPECTED, ("loss",), 50) is None
    assert why_unusable(update(weight=1.0), EXPECTED, ("loss",), None) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weight": 60.0}, "weight"),
        ({"weight": 0.0}, "weight"),
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"weight": math.inf}, "weight"),
        ({"metrics": {"loss": math.nan}}, "metrics"),
        ({"metrics": {}}, "other metrics"),
        ({"metrics": {"loss": 0.5, "junk": 1.0}}, "other metrics"),
        ({"delta": TensorSet({"w": torch.zeros(2, 3)})}, "1 tensors"),
        ({"delta": TensorSet({"w": torch.zeros(3, 2), "n": torch.tensor(1)})}, "should be float32"),
        ({"delta": TensorSet({"w": torch.zeros(2, 3).double(), "n": torch.tensor(1)})}, "float64"),
        ({"delta": TensorSet({"v": torch.zeros(2, 3), "n": torch.tensor(1)})}, "'v'"),
        ({"delta": TensorSet({"w": torch.full((2, 3), math.nan), "n": torch.tensor(1)})}, "not finite"),
        ({"delta": TensorSet({"w": torch.full((2, 3), -math.inf), "n": torch.tensor(1)})}, "not finite"),
        ({"delta": TensorSet({"w": torch.full((2, 3), 3e38), "n": torch.tensor(1)})}, "too large to sum"),
    ],
)
def test_an_unsound_update_is_left_out_with_a_reason(fields: dict[str, object], reason: str) -> None:
    found = why_unusable(update(**fields), EXPECTED, ("loss",), 50)
    assert found is not None
    assert reason in found


def test_a_worker_that_hides_its_rows_weighs_one() -> None:
    found = why_unusable(update(weight=1e30), EXPECTED, ("loss",), None)
    assert found is not None
    assert "may only weigh 1" in found


@pytest.mark.parametrize(
    ("weight", "metrics", "reason"),
    [
        (1e300, {"loss": 0.0}, "weight"),
        (math.nan, {"loss": 0.0}, "weight"),
        (10.0, {"loss": math.inf}, "not finite"),
        (10.0, {"loss": 0.0, "junk": 1.0}, "other metrics"),
    ],
)
def test_an_evaluation_that_cannot_be_believed_is_left_out(
    weight: float, metrics: dict[str, float], reason: str
) -> None:
    found = why_unusable_evaluation(Evaluation(1, 1, weight, metrics), ("loss",), 50)
    assert found is not None
    assert reason in found
    assert why_unusable_evaluation(Evaluation(1, 1, 12.0, {"loss": 0.5}), ("loss",), 50) is None


KINDS = ("count", "sum")


def statistics(**values: torch.Tensor) -> TensorSet:
    return TensorSet({"count": torch.tensor(5.0).double(), "sum": torch.ones(4).double(), **values})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (statistics(count=torch.ones(2).double()), "count should be float64 []"),
        (statistics(count=torch.tensor(math.nan).double()), "count is not finite"),
        (statistics(count=torch.tensor(0.0).double()), "counts no rows"),
        (statistics(sum=torch.ones(3).double()), "sum should be"),
        (statistics(sum=torch.ones(4, dtype=torch.complex64)), "sum should be"),
        (TensorSet({"sum": torch.ones(4).double()}), "other statistics"),
    ],
)
def test_statistics_of_another_form_are_refused(values: TensorSet, reason: str) -> None:
    found = why_unusable_statistics(values, KINDS, 4)
    assert found is not None
    assert reason in found
    assert why_unusable_statistics(statistics(), KINDS, 4) is None
