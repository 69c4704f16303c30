"""Rows in pairs, data and targets, here or at workers.

A data set is sent whole; its samples are never fetched one by one. A federated data set is one data set at each worker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedpriv.errors import UsageError
from fedpriv.syft import registry
from fedpriv.syft.exceptions import ObjectNotFoundError
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.sending import create_pointer, send
from fedpriv.syft.traits import Traits, new_id

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker


class BaseDataset:
    """Data and targets, as many of one as of the other, in one place."""

    def __init__(self, data: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        if len(data) != len(targets):
            raise UsageError(f"{len(data)} rows of data and {len(targets)} targets; each row needs one")
        if transform is not None and isinstance(data, PointerTensor):
            raise TypeError("a transform is a function of values, and these are at a worker; transform before sending")
        self.data = data
        self.targets = targets
        self.traits = Traits(new_id())
        self._transform = transform

    @property
    def id(self) -> int:
        """The id under which a worker holds it."""
        return self.traits.id

    @property
    def location(self) -> BaseWorker | None:
        """Where it is, None for here."""
        return self.data.location if isinstance(self.data, PointerTensor) else None

    @property
    def is_transformed(self) -> bool:
        """Whether each row is changed when it is read."""
        return self._transform is not None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401  any index of a tensor
        row = self.data[index]
        return row if self._transform is None else self._transform(row), self.targets[index]

    def called(self, traits: Traits) -> BaseDataset:
        """Call it by `traits`; return it."""
        self.traits = traits
        return self

    def tag(self, *tags: str) -> BaseDataset:
        """Add tags; return it."""
        return self.called(replace(self.traits, tags=self.traits.tags | set(tags)))

    def describe(self, description: str) -> BaseDataset:
        """Say what it is; return it."""
        return self.called(replace(self.traits, description=description))

    def send(self, worker: BaseWorker | str, *, garbage_collect_data: bool = True) -> BaseDataset:
        """Move data and targets to a worker, in place; return the data set itself."""
        location = registry.worker(worker)
        self.data, self.targets = (
            send(part, location, garbage_collect_data=garbage_collect_data) for part in (self.data, self.targets)
        )
        location.site.datasets[self.id] = self
        return self

    def get(self) -> BaseDataset:
        """Bring data and targets back, in place; return the data set itself."""
        if self.location is not None:
            self.location.site.datasets.pop(self.id, None)
            self.data, self.targets = self.data.get(), self.targets.get()  # type: ignore[attr-defined]  # both are pointers
        return self

    def create_pointer(self) -> PointerDataset:
        """Return what a search finds of it."""
        return PointerDataset(self)

    def federate(self, workers: Sequence[BaseWorker]) -> FederatedDataset:
        """Divide the rows among `workers`, in order, and send each its own."""
        return federate(self, workers)

    def __repr__(self) -> str:
        where = "here" if self.location is None else f"at {self.location.id}"
        return f"<{type(self).__name__} of {len(self)} rows {where}>"


class PointerDataset:
    """A pointer to a data set at a worker."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.data, self.targets = (create_pointer(part) for part in (dataset.data, dataset.targets))
        self.id = new_id()
        self.id_at_location = dataset.id
        self.location = self.data.location
        self.tags = set(dataset.traits.tags)
        self.description = dataset.traits.description

    def get_data(self) -> PointerTensor:
        """Return a pointer to the data."""
        return self.data

    def get_targets(self) -> PointerTensor:
        """Return a pointer to the targets."""
        return self.targets

    def get(self, *, user: str | None = None) -> BaseDataset:
        """Return the data set and take it away from its worker."""
        self.location.site.datasets.pop(self.id_at_location, None)
        return BaseDataset(self.data.get(user=user), self.targets.get(user=user))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401  any index of a tensor
        return self.data[index], self.targets[index]

    def __repr__(self) -> str:
        return f"(Wrapper)>[PointerDataset | me:{self.id} -> {self.location.id}:{self.id_at_location}]"


class FederatedDataset:
    """One data set at each of several workers, by the worker's id."""

    def __init__(self, datasets: Iterable[BaseDataset | PointerDataset]) -> None:
        self.datasets: dict[str, BaseDataset | PointerDataset] = {}
        for each in datasets:
            if each.location is None:
                raise UsageError(f"{each!r} is not at a worker; send it first")
            if each.location.id in self.datasets:
                raise UsageError(f"two data sets are at {each.location.id}; send them as one, or to another worker")
            self.datasets[each.location.id] = each

    @property
    def workers(self) -> list[str]:
        """The ids of the workers, in order."""
        return list(self.datasets)

    def __getitem__(self, worker_id: str) -> BaseDataset | PointerDataset:
        if worker_id not in self.datasets:
            raise ObjectNotFoundError(f"no data set of these is at {worker_id!r}; there are {', '.join(self.datasets)}")
        return self.datasets[worker_id]

    def get_dataset(self, worker_id: str) -> BaseDataset:
        """Return the data set of one worker, which has it no more."""
        found = self[worker_id].get()
        del self.datasets[worker_id]
        return found

    def __len__(self) -> int:
        return sum(map(len, self.datasets.values()))

    def __repr__(self) -> str:
        return "\n".join(["FederatedDataset", *(f"  {name}: {each!r}" for name, each in self.datasets.items())])


def federate(dataset: Any, workers: Sequence[BaseWorker]) -> FederatedDataset:  # noqa: ANN401  any torch data set
    """Return the rows of a data set divided among `workers`, in order, each part at its worker."""
    assert isinstance(dataset, Sized)
    share = max(1, math.ceil(len(dataset) / len(workers)))
    parts: Iterator[Sequence[Any]]
    if isinstance(dataset, BaseDataset) and not dataset.is_transformed:
        parts = (dataset[start : start + share] for start in range(0, len(dataset), share))
    else:
        parts = iter(DataLoader(dataset, batch_size=share))  # type: ignore[arg-type]  # whatever torch loads from
    return FederatedDataset(
        BaseDataset(data, _tensor(targets)).send(worker)
        for worker, (data, targets) in zip(workers, parts, strict=False)
    )


def _tensor(value: Any) -> Tensor:  # noqa: ANN401  what a loader yields
    return value if isinstance(value, Tensor) else torch.as_tensor(value)
