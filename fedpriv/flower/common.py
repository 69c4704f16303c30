"""Types that programs for Flower name: arrays, metrics, what a client is told of its run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

NDArrays: TypeAlias = list[Array]
Scalar: TypeAlias = "bool | bytes | float | int | str"
Metrics: TypeAlias = dict[str, Scalar]
Config: TypeAlias = dict[str, Scalar]
MetricsAggregationFn: TypeAlias = Any
"""A function of a list of (number of examples, metrics) that returns metrics."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A model as arrays. Flower's holds bytes; here nothing is serialised, and `tensors` are the arrays."""

    tensors: NDArrays = field(repr=False)
    tensor_type: str = "numpy.ndarray"


@dataclass(slots=True)
class Context:
    """What a client is told: `node_config` has "partition-id" and "num-partitions"; `state` begins empty each time."""

    node_id: int
    node_config: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    run_config: dict[str, Any] = field(default_factory=dict)


def ndarrays_to_parameters(ndarrays: NDArrays) -> Parameters:
    """Return arrays as `Parameters`."""
    return Parameters([np.asarray(each) for each in ndarrays])


def parameters_to_ndarrays(parameters: Parameters) -> NDArrays:
    """Return the arrays of `parameters`."""
    return list(parameters.tensors)
