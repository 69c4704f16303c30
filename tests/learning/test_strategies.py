from __future__ import annotations

import torch

from fedpriv.learning.strategies import FedAvg, RoundSum
from fedpriv.updates import TensorSet


def fold(model: TensorSet, updates: list[tuple[TensorSet, float]]) -> TensorSet:
    strategy, total = FedAvg(), RoundSum()
    for delta, weight in updates:
        strategy.fold(total, delta, weight)
    return strategy.conclude(model, total, strategy.initialise(model))[0]


def test_fedavg_moves_the_model_by_the_weighted_mean_update() -> None:
    model = TensorSet({"w": torch.tensor([1.0, 2.0])})
    after = fold(
        model, [(TensorSet({"w": torch.tensor([1.0, 0.0])}), 30.0), (TensorSet({"w": torch.tensor([0.0, 4.0])}), 10.0)]
    )
    assert torch.allclose(after["w"], torch.tensor([1.75, 3.0]))


def test_updates_and_model_are_left_as_they_were() -> None:
    model, delta = TensorSet({"w": torch.zeros(2)}), TensorSet({"w": torch.ones(2)})
    fold(model, [(delta, 3.0), (delta, 2.0)])
    assert torch.equal(model["w"], torch.zeros(2))
    assert torch.equal(delta["w"], torch.ones(2))


def test_low_precision_tensors_are_summed_in_float32_and_keep_their_dtype() -> None:
    model = TensorSet({"w": torch.zeros(4, dtype=torch.bfloat16)})
    small = TensorSet({"w": torch.full((4,), 1 / 256, dtype=torch.bfloat16)})
    after = fold(model, [(small, 1.0)] * 1000)
    assert after["w"].dtype is torch.bfloat16
    assert torch.allclose(after["w"].float(), torch.full((4,), 1 / 256))


def test_integer_tensors_move_by_the_rounded_mean() -> None:
    model = TensorSet({"n": torch.tensor(5)})
    after = fold(model, [(TensorSet({"n": torch.tensor(3)}), 1.0), (TensorSet({"n": torch.tensor(4)}), 3.0)])
    assert after["n"].dtype is torch.int64
    assert int(after["n"]) == 9


def test_tensors_that_no_update_holds_stay() -> None:
    model = TensorSet({"w": torch.zeros(1), "frozen": torch.ones(1)})
    after = fold(model, [(TensorSet({"w": torch.ones(1)}), 1.0)])
    assert torch.equal(after["frozen"], torch.ones(1))
