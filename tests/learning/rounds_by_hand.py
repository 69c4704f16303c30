"""A round of a strategy from updates that a test wrote down."""

from __future__ import annotations

import torch

from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.strategies import Contribution, Gathering, Setting, Standing, Strategy
from fedpriv.updates import TensorSet

LOCAL = LocalTraining(epochs=1, batch_size=1000, optimizer=SGD(0.5))


def setting(workers=3, *, quorum=None, local=LOCAL, trained=("w",), announced=()):
    return Setting(local, workers, workers if quorum is None else quorum, frozenset(trained), announced)


def start(strategy: Strategy, model, how=None) -> Standing:
    how = how or setting()
    tensors = TensorSet(model)
    return Standing(how, tensors, strategy.initialise(how, tensors))


def after(strategy: Strategy, standing: Standing, updates) -> Standing:
    """Return where a run stands after a round; an update is a tensor ("w") or a dictionary, a weight, maybe a loss."""
    gathering = Gathering()
    for delta, *more in updates:
        tensors = TensorSet({"w": delta} if isinstance(delta, torch.Tensor) else delta)
        strategy.fold(gathering, Contribution(tensors, *more))
    return strategy.conclude(standing, gathering)


def once(strategy: Strategy, model, updates, how=None) -> dict:
    return dict(after(strategy, start(strategy, model, how), updates).model)


def row(*numbers, dtype=torch.float32):
    return torch.tensor(numbers, dtype=dtype)
