"""What a simulation of a Flower program returns: (round, value) by kind, round 0 being the initial model."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedpriv.flower.common import Metrics, Scalar


@dataclass(slots=True)
class History:
    """Losses and metrics of each round: distributed as clients measured them, centralized as `evaluate_fn` did."""

    losses_distributed: list[tuple[int, float]] = field(default_factory=list)
    losses_centralized: list[tuple[int, float]] = field(default_factory=list)
    metrics_distributed_fit: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)
    metrics_distributed: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)
    metrics_centralized: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)


def add(kept: dict[str, list[tuple[int, Scalar]]], server_round: int, metrics: Metrics) -> None:
    """Add the metrics of a round."""
    for name, value in metrics.items():
        kept.setdefault(name, []).append((server_round, value))
