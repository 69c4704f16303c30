"""Somebody's rows as pointers, and the stand-in that anybody may read, behind the same few names.

A program that is written on the mock runs on the real rows with one word changed. Which rows a batch holds is chosen
here, from a seed; the rows themselves stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedpriv.errors import ReleaseDenied, UsageError, WorkerRefused, nearest
from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import private
from fedpriv.plans.calls import Layout
from fedpriv.remote.pointer import RemoteTensor, at, sent
from fedpriv.wire.messages import AskMock, DatasetDescription, Mock

if TYPE_CHECKING:
    from fedpriv.remote.holder import Holder


@dataclass(frozen=True, slots=True)
class RowSet:
    """Features, shape (rows, ...), and target, shape (rows,): pointers of a data set, or tensors of its mock."""

    name: DatasetName
    schema: DatasetDescription
    features: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def batches(
        self, batch_size: int, *, shuffle: bool = False, seed: int = 0, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and target of each batch of one pass, in an order that `seed` gives; waits for nothing."""
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        yield from batches_of(self.features, self.target, batch_size, shuffle=generator, drop_last=drop_last)


@dataclass(frozen=True, slots=True)
class RemoteDataset(RowSet):
    """The rows of one data set at one worker; as many as the worker announces."""

    worker: Holder

    @property
    def mock(self) -> RowSet:
        """The stand-in that the owner wrote, as tensors of this process; raise `ReleaseDenied` where there is none."""
        try:
            reply = self.worker.values.ask(AskMock(0, self.name))
        except WorkerRefused:
            raise ReleaseDenied(
                f"{self.worker.name} lets no stand-in of {self.name!r} out; its owner can write one and allow it"
            ) from None
        assert isinstance(reply, Mock)
        features, target = (reply.values[each].clone() for each in ("features", "target"))
        return RowSet(self.name, self.schema, features, target)

    @property
    def tags(self) -> tuple[str, ...]:
        """What the owner calls it."""
        return self.schema.tags

    def __repr__(self) -> str:
        return f"<RemoteDataset {self.name} on {self.worker.name}, {len(self)} rows>"


def opened(worker: Holder, name: DatasetName) -> RemoteDataset:
    """Return the data set `name` of `worker`; raise `UsageError` where there is none, or its rows are hidden."""
    known = {each.name: each for each in worker.announced().datasets}
    if name not in known:
        raise UsageError(
            f"{worker.name} announces no data set {name!r}{nearest(name, known)}; it has {', '.join(known) or 'none'}"
        )
    schema = known[name]
    if schema.rows is None:
        raise UsageError(
            f"the owner of {name!r} hides how many rows it has, so there is no pointer to them; train on it with "
            "Federation.fit, whose plans need no row count"
        )
    values = worker.values
    first = values.open(name)
    label = private(name, PeerName(worker.name))
    features = Layout.dense(schema.feature_dtype, (schema.rows, *schema.feature_shape))
    target = Layout.dense(schema.target_dtype, (schema.rows,))
    return RemoteDataset(name, schema, at(values, first, features, label), at(values, first + 1, target, label), worker)


def batches_of(
    features: Tensor, target: Tensor, batch_size: int, *, shuffle: torch.Generator | None, drop_last: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of two tensors, or of two pointers, by the batch, in an order that `shuffle` gives if it is there.

    Only the order of the rows is sent, once.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; use at least 1")
    count = len(target)
    order = None if shuffle is None else torch.randperm(count, generator=shuffle)
    if order is not None and isinstance(features, RemoteTensor):
        order = sent(features._handle.values, order)  # noqa: SLF001  of this package
    for start in range(0, count - batch_size + 1 if drop_last else count, batch_size):
        stop = min(start + batch_size, count)
        if order is None:
            yield features[start:stop], target[start:stop]
        else:
            rows = order[start:stop]
            yield features.index_select(0, rows), target.index_select(0, rows)


def search(workers: Sequence[Holder], *tags: str) -> list[RemoteDataset]:
    """Return every data set of `workers` that has all of `tags`, such as "#cancer"."""
    return [
        worker.dataset(each.name)
        for worker in workers
        for each in worker.announced().datasets
        if set(tags) <= set(each.tags) and each.rows is not None
    ]
