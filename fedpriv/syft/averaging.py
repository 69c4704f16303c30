"""Averages of models, and what else a training program of 0.2 takes from `frameworks.torch.fl.utils`.

The mean is taken where the models are. Nobody hides what one of them learned from whoever averages; federated training
that does is `fedpriv.Federation`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedpriv.errors import UsageError
from fedpriv.syft.loaders import Batch, FederatedDataLoader


def federated_avg(models: Mapping[object, nn.Module]) -> nn.Module:
    """Return a model whose values are the mean of those of `models`; raise `UsageError` for none."""
    if not models:
        raise UsageError("there is no model to average")
    first, *others = models.values()
    total = copy.deepcopy(first)
    for each in others:
        total = add_model(total, each)
    return scale_model(total, 1 / len(models))


def add_model(dst_model: nn.Module, src_model: nn.Module) -> nn.Module:
    """Add the values of the second model to the first, in place, and return that."""
    with torch.no_grad():
        for mine, other in zip(_averaged(dst_model), _averaged(src_model), strict=True):
            mine.add_(other)
    return dst_model


def scale_model(model: nn.Module, scale: float) -> nn.Module:
    """Multiply the values of a model by a number, in place, and return it."""
    with torch.no_grad():
        for each in _averaged(model):
            each.mul_(scale)
    return model


def _averaged(model: nn.Module) -> list[Tensor]:
    """Return what has a mean: parameters and buffers of floating point; a count of batches has none."""
    return [each for each in (*model.parameters(), *model.buffers()) if each.is_floating_point()]


def accuracy(pred_softmax: Tensor, target: Tensor) -> float:
    """Return the share of rows whose largest prediction is the target."""
    prediction = pred_softmax.argmax(1)
    return float((prediction == target.view(prediction.shape)).sum()) / len(target)


def extract_batches_per_worker(loader: FederatedDataLoader) -> dict[object, list[Batch]]:
    """Return every batch of one pass, by worker."""
    found: dict[object, list[Batch]] = {}
    for step in loader:
        for worker, batch in step.items() if isinstance(step, dict) else [(step[0].location, step)]:  # type: ignore[attr-defined]  # a pointer
            found.setdefault(worker, []).append(batch)
    return found
