"""What a round of secure aggregation is about, as both its sides work it out from the order that invites to it.

The coordinator makes a descriptor from this, and a worker holds the one that it was sent to what it makes of its own
order: so workers whose orders differ in a learning rate, an epoch or a metric are in different sessions, whose masks do
not cancel. The order of rows is each worker's own, drawn from a seed that no order may bring. Nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.privacy.modes import DistributedDP
from fedpriv.privacy.noises import DistributedNoise
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.vector import Part, Treatment, VectorSpec, with_counts
from fedpriv.updates import DTYPES, TensorSpec
from fedpriv.wire.messages import AskStatistics, Evaluate, Train
from fedpriv.wire.private import Private

Summable: TypeAlias = Train | Evaluate | AskStatistics
"""The orders whose answers can go into a sum."""

NO_MODEL = canonical.digest("fedpriv/model/v1", [], [])
"""The digest of the model of an order that brings none."""
TENSOR, METRIC, STATISTIC = "tensor/", "metric/", "statistic/"
COUNT_BOUND = float(1 << 20)  # of whole numbers in a model, such as how many batches a layer has seen
METRIC_BOUND, METRIC_BITS = 1024.0, 16
STATISTIC_BOUND, STATISTIC_BITS = float(1 << 32), 20


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """How updates become integers: clipped to [-clip, clip], in units of 2**-fraction_bits, times a weight up to W."""

    clip: float
    fraction_bits: int
    maximum_weight: int


def computation(order: Summable) -> bytes:
    """Return a digest, 32 bytes, of all that an order has computed but the model, the request's number and the seed.

    By it workers of a sum agree on what they compute, and a worker knows an order again: the one list of settings.
    """
    asked: list[canonical.Field] = [type(order).__name__, order.dataset, order.purpose]
    match order:
        case Train():
            loop: list[canonical.Field] = [order.epochs, order.batch_size, order.shuffle, order.drop_last]
            numbers: list[canonical.Field] = [[name, value] for name, value in sorted(order.hyperparameters.items())]
            private: list[canonical.Field] = [] if order.privacy is None else order.privacy.fields()
            asked += [order.job, order.round, order.plan, list(order.metrics), loop, numbers, private]
        case Evaluate():
            asked += [order.job, order.round, order.plan, list(order.metrics), order.batch_size]
        case AskStatistics():
            asked += [list(order.kinds)]
    return canonical.digest("fedpriv/computation/v1", asked)


def vector_of(
    order: Summable,
    changed: Sequence[TensorSpec],
    features: int,
    how: FixedPoint,
    shared: DistributedNoise | None = None,
) -> VectorSpec:
    """Return the vector that the answers to `order` are summed in.

    `changed` is what an update of its plan holds, `features` the number of feature columns, `shared` the noise of which
    each worker adds its part. Statistics are sums already and weigh 1, as does every private update. Raise `UsageError`
    for what cannot be summed so.
    """
    match order:
        case Train(privacy=Private(mode=DistributedDP())):
            assert shared is not None  # whoever knows the order knows the noise
            return _noisy(changed, shared)
        case Train(privacy=Private(mode=mode)):
            bound = mode.clip if mode.trusted else how.clip
            return with_counts([_part(spec, FixedPoint(bound, how.fraction_bits, 1)) for spec in changed])
        case Train(metrics=metrics) | Evaluate(metrics=metrics):
            tensors = [_part(spec, how) for spec in changed] if isinstance(order, Train) else []
            measured = [Part(f"{METRIC}{name}", (), METRIC_BOUND, METRIC_BITS, dtype="float64") for name in metrics]
            return with_counts((*tensors, *measured), maximum_weight=how.maximum_weight)
        case AskStatistics(kinds=kinds):
            return with_counts([_statistic(kind, features) for kind in kinds])


def fixed_point_of(descriptor: Descriptor) -> FixedPoint:
    """Return the fixed point that a descriptor's first tensor and its maximum weight speak of."""
    first = next((part for part in descriptor.vector.parts if part.fraction_bits), descriptor.vector.parts[0])
    return FixedPoint(first.bound, first.fraction_bits, descriptor.vector.maximum_weight)


def _noisy(changed: Sequence[TensorSpec], noise: DistributedNoise) -> VectorSpec:
    """Return the vector of integers within the rounded norm, and the noise of all workers; nothing is counted in it."""
    bound = math.ldexp(math.floor(noise.rounding.l2), -noise.scale_bits)
    parts = tuple(
        Part(f"{TENSOR}{spec.name}", spec.shape, bound, noise.scale_bits, Treatment.UNWEIGHTED, spec.dtype)
        for spec in changed
    )
    return VectorSpec(parts, noise_bound=noise.largest)


def _part(spec: TensorSpec, how: FixedPoint) -> Part:
    dtype = DTYPES[spec.dtype]
    if dtype.is_complex:
        raise UsageError(
            f"tensor {spec.name!r} of the model is complex, and no sum of ours holds that; split it into "
            "real and imaginary parts, or train without secure aggregation"
        )
    if dtype.is_floating_point:
        return Part(f"{TENSOR}{spec.name}", spec.shape, how.clip, how.fraction_bits, dtype=spec.dtype)
    return Part(f"{TENSOR}{spec.name}", spec.shape, COUNT_BOUND, 0, dtype=spec.dtype)


def _statistic(kind: str, features: int) -> Part:
    shape = () if kind == "count" else (features,)
    return Part(f"{STATISTIC}{kind}", shape, STATISTIC_BOUND, STATISTIC_BITS, Treatment.UNWEIGHTED, "float64")
