"""Batches of rows that stay at their workers: pointers, of which making one waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.remote.dataset import batches_of

if TYPE_CHECKING:
    from fedpriv.syft.datasets import FederatedDataset
    from fedpriv.syft.workers import BaseWorker

Batch: TypeAlias = tuple[Tensor, Tensor]
Batches: TypeAlias = dict["BaseWorker", Batch]


@dataclass
class _Reader:
    """Reads one worker after another, each to its end; `waiting` are those that no reader has begun."""

    waiting: list[Iterator[Batch]]
    current: Iterator[Batch] = field(default_factory=lambda: iter(()))

    def next(self) -> Batch | None:
        """Return the next batch, or None when nothing is left to begin."""
        while True:
            batch = next(self.current, None)
            if batch is not None or not self.waiting:
                return batch
            self.current = self.waiting.pop(0)


class FederatedDataLoader:
    """Batches of a federated data set, one worker after another, or of several workers at a time.

    With `num_iterators` above one, or `iter_per_worker`, each step gives a batch of each of so many workers, or of all
    that have any left, by worker. Other options of a loader are for rows that are here, and change nothing.
    """

    def __init__(
        self,
        federated_dataset: FederatedDataset,
        batch_size: int = 8,
        shuffle: bool = False,  # noqa: FBT001, FBT002  the order that programs use
        num_iterators: int = 1,
        drop_last: bool = False,  # noqa: FBT001, FBT002  as above
        *,
        iter_per_worker: bool = False,
        **_: object,
    ) -> None:
        if batch_size < 1 or num_iterators < 1:
            raise UsageError(f"batch_size is {batch_size} and num_iterators {num_iterators}; use at least 1")
        self.federated_dataset = federated_dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.iter_per_worker = iter_per_worker
        self.num_iterators = len(self.workers) if iter_per_worker else min(num_iterators, len(self.workers))

    @property
    def workers(self) -> list[str]:
        """The ids of the workers, in order."""
        return self.federated_dataset.workers

    def __iter__(self) -> Iterator[Batch | Batches]:
        steps = _steps([self._batches(each) for each in self.workers], self.num_iterators)
        for step in steps:
            if self.iter_per_worker or self.num_iterators > 1:
                yield {data.location: (data, targets) for data, targets in step}  # type: ignore[attr-defined]  # a pointer
            else:
                yield step[0]

    def __len__(self) -> int:
        counts = [self._count(len(self.federated_dataset[each])) for each in self.workers]
        nothing: Batch = (torch.empty(0), torch.empty(0))
        return sum(1 for _ in _steps([iter([nothing] * count) for count in counts], self.num_iterators))

    def _batches(self, worker: str) -> Iterator[Batch]:
        held = self.federated_dataset[worker]
        order = torch.Generator().manual_seed(int(torch.randint(1 << 62, ()))) if self.shuffle else None
        return batches_of(held.data, held.targets, self.batch_size, shuffle=order, drop_last=self.drop_last)

    def _count(self, rows: int) -> int:
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)


def _steps(batches: Sequence[Iterator[Batch]], readers: int) -> Iterator[list[Batch]]:
    """Yield what each of so many readers reads at a time, until all have read all."""
    waiting = list(batches)
    reading = [_Reader(waiting) for _ in range(readers)]
    while True:
        step = [batch for each in reading if (batch := each.next()) is not None]
        if not step:
            return
        yield step
