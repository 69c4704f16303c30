"""Federated averaging with the parameters and defaults of Flower 1.10.

Better only where it is safe: sums are taken in a fixed order in float64, an array of whole numbers stays one, and where
nobody has an example the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpriv.flower.common import Config, Metrics, NDArrays, Parameters


@dataclass(slots=True, kw_only=True)
class FedAvg:
    """The mean of the clients' arrays, weighted by examples. McMahan et al. 2017, algorithm 1."""

    fraction_fit: float = 1.0
    fraction_evaluate: float = 1.0
    min_fit_clients: int = 2
    min_evaluate_clients: int = 2
    min_available_clients: int = 2
    evaluate_fn: Callable[[int, NDArrays, Config], tuple[float, Metrics] | None] | None = None
    on_fit_config_fn: Callable[[int], Config] | None = None
    on_evaluate_config_fn: Callable[[int], Config] | None = None
    accept_failures: bool = True
    initial_parameters: Parameters | None = field(default=None, repr=False)
    fit_metrics_aggregation_fn: Callable[[list[tuple[int, Metrics]]], Metrics] | None = None
    evaluate_metrics_aggregation_fn: Callable[[list[tuple[int, Metrics]]], Metrics] | None = None
    inplace: bool = True

    def num_fit_clients(self, available: int) -> int:
        """Return how many of `available` clients train."""
        return max(int(available * self.fraction_fit), self.min_fit_clients)

    def num_evaluation_clients(self, available: int) -> int:
        """Return how many of `available` clients evaluate; none where the fraction is 0."""
        if self.fraction_evaluate == 0.0:
            return 0
        return max(int(available * self.fraction_evaluate), self.min_evaluate_clients)

    def aggregate_fit(self, results: Sequence[tuple[NDArrays, int, Metrics]]) -> tuple[NDArrays | None, Metrics]:
        """Return the weighted mean of the arrays, None where there is none, and the metrics of all."""
        metrics = _aggregated(self.fit_metrics_aggregation_fn, results)
        total = sum(examples for _, examples, _ in results)
        if total <= 0:
            return None, metrics
        layers = zip(*(arrays for arrays, _, _ in results), strict=True)
        return [_mean(layer, [examples / total for _, examples, _ in results]) for layer in layers], metrics

    def aggregate_evaluate(self, results: Sequence[tuple[float, int, Metrics]]) -> tuple[float | None, Metrics]:
        """Return the loss weighted by examples, None where there is none, and the metrics of all."""
        metrics = _aggregated(self.evaluate_metrics_aggregation_fn, results)
        total = sum(examples for _, examples, _ in results)
        if total <= 0:
            return None, metrics
        return sum(examples * loss for loss, examples, _ in results) / total, metrics


def _aggregated(function: Callable[[Any], Metrics] | None, results: Sequence[tuple[Any, int, Metrics]]) -> Metrics:
    if function is None or not any(examples for _, examples, _ in results):
        return {}
    return function([(examples, metrics) for _, examples, metrics in results])


def _mean(layer: Sequence[Any], shares: Sequence[float]) -> Any:  # noqa: ANN401 - an array
    arrays = [np.asarray(each) for each in layer]
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for array, share in zip(arrays, shares, strict=True):
        total += array.astype(np.float64) * share
    whole = arrays[0].dtype.kind in "biu"
    return (np.rint(total) if whole else total).astype(arrays[0].dtype)
