"""Federated statistics: one sum over all workers' training rows, and what follows from it.

In clear every worker must let its own sums out, and they are added here, so that this process sees them; under secure
aggregation it sees the sum over all. Nothing is added to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fedpriv.errors import PeerLost, RoundAbandoned, WireError
from fedpriv.ids import WorkerName
from fedpriv.remote.connection import Connection
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import AskStatistics, DatasetDescription, Statistics
from fedpriv_coordinator.experiment import SumRecord
from fedpriv_coordinator.inspection import why_unusable_statistics
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.round_records import sums_of
from fedpriv_coordinator.secure_aggregation import majority
from fedpriv_coordinator.secure_rounds import Asked, SecureRounds, total_statistics
from fedpriv_coordinator.telling import why_each

KINDS = ("count", "sum", "sum-of-squares")


@dataclass(frozen=True, slots=True)
class FederatedStatistics:
    """Statistics over the training rows of all workers: count, and per column mean and deviation, float64."""

    count: int
    mean: torch.Tensor = field(repr=False)
    deviation: torch.Tensor = field(repr=False)


def combined(parts: list[TensorSet]) -> FederatedStatistics:
    """Return the statistics of all rows from each worker's sums."""
    count = sum(float(values["count"]) for values in parts)
    total = torch.stack([values["sum"] for values in parts]).sum(0)
    squares = torch.stack([values["sum-of-squares"] for values in parts]).sum(0)
    mean = total / count
    return FederatedStatistics(round(count), mean, (squares / count - mean * mean).clamp_min(0.0).sqrt())


async def ask_all(
    members: Membership, schema: DatasetDescription, purpose: str, timeout_seconds: float
) -> list[TensorSet]:
    """Return every worker's sums; raise what the first raised that gave none, `WireError` for unusable ones."""
    ask = AskStatistics(0, schema.name, KINDS, purpose)
    replies = []
    for worker, connection in members.connected.items():
        reply = await connection.ask(ask, timeout_seconds=timeout_seconds)
        assert isinstance(reply, Statistics)  # the connection accepts nothing else as an answer
        unusable = why_unusable_statistics(reply.values, KINDS, len(schema.features))
        if unusable is not None:
            raise WireError(f"the statistics of worker {worker!r} cannot be used: {unusable}; go on without it")
        replies.append(reply.values)
    return replies


async def ask_for_sum(
    secure: SecureRounds, members: Membership, schema: DatasetDescription, purpose: str, timeout_seconds: float
) -> tuple[TensorSet, tuple[SumRecord, ...]]:
    """Return the sums over all workers that answer, and who is in them; raise `RoundAbandoned` where too few do."""

    async def ready(worker: WorkerName) -> Connection:
        connection = members.connected.get(worker)
        if connection is None:
            raise PeerLost(f"worker {worker!r} is not connected")
        return connection

    order = AskStatistics(0, schema.name, KINDS, purpose)
    asked = Asked(order, (), majority(len(members.connected)), timeout_seconds)
    summed = await secure.ask(asked, ready)
    if summed.sum is None:
        reasons = why_each((worker, part.reason) for worker, part in summed.parts.items())
        raise RoundAbandoned("; ".join((f"there are no statistics: {summed.reason}", *reasons)))
    return total_statistics(summed.sum, KINDS), sums_of("statistics", summed)
