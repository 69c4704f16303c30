"""Simulated workers as a description: how many there are, and how to get the rows of one when it is asked.

A million workers take no more memory than the few that a round asks. Rows come from a function of a worker's number,
from shares of one table, or from one file a worker. Nothing here is anybody's data behind anybody's rules: who
simulates has all rows, and every name says that its worker is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedpriv.errors import DataError, UsageError
from fedpriv.ids import WorkerName, checked_name
from fedpriv.learning.partition import Share
from fedpriv.learning.sampling import Numbered
from fedpriv_worker.datasets import Array, Dataset, Rows

RowsOf: TypeAlias = "Callable[[int], tuple[Array, Array]]"
"""Features of shape (rows, ...) and target of shape (rows,) of the worker with a number."""
PREFIX = "simulated"


@dataclass(frozen=True, slots=True)
class Population:
    """So many simulated workers, and `rows_of` one of them: asked for when a round needs them, and not kept.

    `rows_of` gives the same rows whenever it is asked for the same worker, on whatever thread. `counts` is how many
    rows each has, where that is known beforehand. A worker holds out the `validation` share of its rows.
    """

    size: int
    rows_of: RowsOf = field(repr=False)
    validation: float = 0.0
    names: Sequence[WorkerName] = field(default=(), repr=False)
    counts: Sequence[int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise UsageError(f"size is {self.size!r}; describe 1 worker or more")
        if not callable(self.rows_of):
            raise UsageError(f"rows_of is a {type(self.rows_of).__name__}; pass a function of a worker's number")
        if not 0.0 <= self.validation < 1.0:
            raise UsageError(f"validation is {self.validation}; use a share from 0 up to but not including 1")
        if not self.names:
            object.__setattr__(self, "names", Numbered(PREFIX, self.size))
        if len(self.names) != self.size:
            raise UsageError(f"there are {len(self.names)} names for {self.size} workers; give each one")

    @classmethod
    def of_table(
        cls, features: Array, target: Array, shares: Sequence[Share], *, validation: float = 0.0
    ) -> Population:
        """Return one worker a share of a table's rows, such as `fedpriv.learning.partition` makes."""
        held = Dataset("table", features, target)
        counts = [len(share) for share in shares]

        def rows_of(number: int) -> tuple[torch.Tensor, torch.Tensor]:
            share = torch.as_tensor(np.asarray(shares[number], dtype=np.int64))
            return held.features[share], held.target[share]

        return cls(len(shares), rows_of, validation=validation, counts=counts)

    @classmethod
    def of_files(cls, folder: str | Path, *, validation: float = 0.0) -> Population:
        """Return one worker a file NAME.npz in `folder`, each with the arrays "features" and "target".

        A worker is called "simulated-NAME". Raise `UsageError` where there is no such file.
        """
        paths = sorted(Path(folder).glob("*.npz"), key=lambda path: path.stem)
        if not paths:
            raise UsageError(f"{folder} has no file that ends in .npz; write one a worker, with features and target")
        names = [WorkerName(checked_name("worker", f"{PREFIX}-{path.stem.lower()}")) for path in paths]

        def rows_of(number: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
            with np.load(paths[number], allow_pickle=False) as arrays:
                for wanted in ("features", "target"):
                    if wanted not in arrays:
                        raise DataError(
                            f"{paths[number]} has no array {wanted!r}; it has {', '.join(arrays) or 'none'}"
                        )
                return arrays["features"], arrays["target"]

        return cls(len(paths), rows_of, validation=validation, names=names)


class Source:
    """The rows of a population's workers in the dtypes and shapes of its first worker, checked as they are drawn."""

    def __init__(self, population: Population, dataset: str) -> None:
        """Draw the first worker's rows; raise `DataError` where they are none that a data set can have."""
        self.population, self._dataset = population, dataset
        first = Dataset(dataset, *self._drawn(0), rows="exact")
        self.schema = first.describe()
        self._features, self._target = first.features[:0], first.target[:0]
        self._shape = self._features.shape[1:]
        self._places = None if isinstance(population.names, Numbered) else _places(population.names)

    def number(self, worker: WorkerName) -> int:
        """Return the number of a worker."""
        names = self.population.names
        return names.number(worker) if isinstance(names, Numbered) else (self._places or {})[worker]

    def training(self, worker: WorkerName) -> Rows:
        """Return the rows that a worker trains on, without copying them where they are as they have to be."""
        return self.split(worker)[0] if self.population.validation else self._whole(worker)

    def split(self, worker: WorkerName) -> tuple[Rows, Rows]:
        """Return what a worker trains on and what it holds out: those that a worker with these rows would."""
        whole = self._whole(worker)
        if not self.population.validation or not len(whole):
            return whole, Rows(whole.features[:0], whole.target[:0])
        held = Dataset(self._dataset, whole.features, whole.target, validation=self.population.validation)
        return held.training, held.evaluation

    def _whole(self, worker: WorkerName) -> Rows:
        made = self._drawn(self.number(worker))
        features, target = _as_tensor(made[0], self._features.dtype), _as_tensor(made[1], self._target.dtype)
        if features.shape[1:] != self._shape or target.shape != features.shape[:1]:
            raise DataError(
                f"worker {worker!r} has features of shape {tuple(features.shape)} and a target of shape "
                f"{tuple(target.shape)}, the first worker features of (rows, {tuple(self._shape)}); "
                "give all workers one schema"
            )
        return Rows(features, target)

    def _drawn(self, number: int) -> tuple[Array, Array]:
        made = self.population.rows_of(number)
        if not isinstance(made, tuple) or len(made) != 2:
            raise DataError(f"rows_of({number}) gave a {type(made).__name__}; return (features, target)")
        return made


def _as_tensor(values: Array, dtype: torch.dtype) -> torch.Tensor:
    """Return `values` as a tensor of `dtype`, which shares their memory where it can."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values if values.flags.writeable else values.copy())
    if not isinstance(values, torch.Tensor):
        raise DataError(f"rows_of gave a {type(values).__name__}; return torch tensors or NumPy arrays")
    values = values.detach() if values.requires_grad else values
    return values if values.dtype is dtype else values.to(dtype)


def _places(names: Sequence[WorkerName]) -> dict[WorkerName, int]:
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names) or list(names) != sorted(names):
        raise UsageError("the names of a population are sorted, each once; order the workers by name")
    return places
