"""Somebody's rows as pointers, and the stand-in that anybody may read, behind the same few names.

A program that is written on the mock runs on the real rows with one word changed. Which rows a batch holds is chosen
here, from a seed; the rows themselves stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property
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


class RowSet:
    """Features, shape (rows, ...), and target, shape (rows,): pointers of a data set, or tensors of its mock."""

    def __init__(
        self, name: DatasetName, schema: DatasetDescription, rows: Callable[[], tuple[Tensor, Tensor]]
    ) -> None:
        self.name = name
        self.schema = schema
        self._rows = cache(rows)

    @property
    def features(self) -> Tensor:
        """The features, one row each."""
        return self._rows()[0]

    @property
    def target(self) -> Tensor:
        """The target of each row."""
        return self._rows()[1]

    def __len__(self) -> int:
        return len(self.target)

    def batches(
        self, batch_size: int, *, shuffle: bool = False, seed: int = 0, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and target of each batch of one pass, in an order that `seed` gives; waits for nothing."""
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        yield from batches_of(self.features, self.target, batch_size, shuffle=generator, drop_last=drop_last)

    def __repr__(self) -> str:
        return f"<RowSet {self.name}, {len(self)} rows>"


class RemoteDataset(RowSet):
    """The rows of one data set at one worker; as many as the worker announces."""

    def __init__(self, schema: DatasetDescription, count: int, worker: Holder) -> None:
        super().__init__(schema.name, schema, lambda: _pointers(schema, count, worker))
        self.worker = worker
        self._count = count

    @cached_property
    def mock(self) -> RowSet:
        """The stand-in that the owner wrote, as tensors of this process; raise `ReleaseDenied` where there is none."""
        try:
            reply = self.worker.ask(AskMock(0, self.name))
        except WorkerRefused:
            raise ReleaseDenied(
                f"{self.worker.name} lets no stand-in of {self.name!r} out; its owner can write one and allow it"
            ) from None
        assert isinstance(reply, Mock)
        features, target = (reply.values[each].clone() for each in ("features", "target"))
        return RowSet(self.name, self.schema, lambda: (features, target))

    @property
    def tags(self) -> tuple[str, ...]:
        """What the owner calls it."""
        return self.schema.tags

    def __len__(self) -> int:
        return self._count

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
    return RemoteDataset(schema, schema.rows, worker)


def _pointers(schema: DatasetDescription, count: int, worker: Holder) -> tuple[Tensor, Tensor]:
    """Return pointers to features and target, which it takes a message without an answer to have."""
    values = worker.values
    first = values.open(schema.name)
    label = private(schema.name, PeerName(worker.name))
    features = Layout.dense(schema.feature_dtype, (count, *schema.feature_shape))
    target = Layout.dense(schema.target_dtype, (count,))
    return at(values, first, features, label), at(values, first + 1, target, label)


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


def search(workers: Iterable[Holder], *tags: str) -> list[RemoteDataset]:
    """Return every data set of `workers` that has all of `tags`, such as "#cancer"."""
    if not isinstance(workers, Iterable):
        raise UsageError(f"{workers!r} is no list of workers; give [worker], or all that there are")
    return [
        worker.dataset(each.name)
        for worker in workers
        for each in worker.announced().datasets
        if set(tags) <= set(each.tags) and each.rows is not None
    ]
