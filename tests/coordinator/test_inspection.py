from __future__ import annotations

import math

import pytest
import torch

from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import Update
from fedpriv_coordinator.inspection import why_unusable

EXPECTED = (TensorSpec("w", "float32", (2, 3)), TensorSpec("n", "int64", ()))


def update(**fields: object) -> Update:
    delta = TensorSet({"w": torch.zeros(2, 3), "n": torch.tensor(1)})
    return Update(**{"request": 1, "round": 1, "weight": 50.0, "metrics": {"loss": 0.5}, "delta": delta, **fields})


def test_a_sound_update_is_usable() -> None:
    assert why_unusable(update(), EXPECTED, 50) is None
    assert why_unusable(update(weight=59.0), EXPECTED, 50) is None
    assert why_unusable(update(weight=1e6), EXPECTED, None) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weight": 60.0}, "weight"),
        ({"weight": 0.0}, "weight"),
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"weight": math.inf}, "weight"),
        ({"metrics": {"loss": math.nan}}, "metrics"),
        ({"delta": TensorSet({"w": torch.zeros(2, 3)})}, "1 tensors"),
        ({"delta": TensorSet({"w": torch.zeros(3, 2), "n": torch.tensor(1)})}, "should be float32"),
        ({"delta": TensorSet({"w": torch.zeros(2, 3).double(), "n": torch.tensor(1)})}, "float64"),
        ({"delta": TensorSet({"v": torch.zeros(2, 3), "n": torch.tensor(1)})}, "'v'"),
        ({"delta": TensorSet({"w": torch.full((2, 3), math.nan), "n": torch.tensor(1)})}, "not finite"),
        ({"delta": TensorSet({"w": torch.full((2, 3), -math.inf), "n": torch.tensor(1)})}, "not finite"),
    ],
)
def test_an_unsound_update_is_left_out_with_a_reason(fields: dict[str, object], reason: str) -> None:
    found = why_unusable(update(**fields), EXPECTED, 50)
    assert found is not None
    assert reason in found
