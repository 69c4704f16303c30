"""How a cohort of simulated workers is trained: one after the other, on each core one, or stacked.

An engine takes the orders of one round and yields what came of them, in parts. `one_by_one` runs what a real worker
runs, `fedpriv_worker.training`, so its results are a real worker's to the last bit; `stacked` runs the same plan over
many workers at once and agrees to the rounding of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch

from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import Contribution
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import InputRole
from fedpriv.wire.messages import Train
from fedpriv_worker import training
from fedpriv_worker.bench import denormals_are_zero
from fedpriv_worker.datasets import Rows

ENGINES = ("auto", "sequential", "threads", "stacked")


@dataclass(frozen=True, slots=True)
class Orders:
    """What a round asks of its workers: `order` of all, with the seed of each one; `kept` is what each one keeps.

    Where `of_sums` says that sums are enough, a worker counts in them by its rows times its factor, 1 without one.
    """

    order: Train
    workers: Sequence[WorkerName]
    seeds: Sequence[int] = field(repr=False)
    rows_of: Callable[[WorkerName], Rows] = field(repr=False)
    kept: dict[WorkerName, Mapping[str, torch.Tensor]] = field(repr=False)
    factors: Mapping[WorkerName, float] = field(default_factory=dict)
    of_sums: bool = True


@dataclass(slots=True)
class Part:
    """What came of the training of some workers of a round: their updates, or where that is enough their sum.

    `weights` are rows, `losses` means over the training steps. A worker without rows is in no part.
    """

    workers: Sequence[WorkerName]
    weights: Sequence[float] = field(repr=False)
    losses: Sequence[float] = field(repr=False)
    updates: Sequence[Contribution] = field(default=(), repr=False)
    total: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)


class Engine(Protocol):
    """Trains the workers of a round; yields every worker with rows once, in any order."""

    @property
    def name(self) -> str:
        """What `engine=` calls it."""
        ...

    def train(self, orders: Orders) -> Iterator[Part]:
        """Yield the parts of a round."""
        ...


class OneByOne:
    """The workers of a round one after the other, or one on each of `threads`: a plan's loop needs no interpreter."""

    def __init__(self, program: Program, threads: int = 1) -> None:
        self.name = "threads" if threads > 1 else "sequential"
        self._program = program
        self._pool = pool_of(threads) if threads > 1 else None

    def train(self, orders: Orders) -> Iterator[Part]:
        """Yield one part for each worker, in order of name."""
        chunks = range(len(orders.workers))
        work: Iterator[Part | None] = (
            (self._one(orders, each) for each in chunks)
            if self._pool is None
            else self._pool.map(lambda each: self._one(orders, each), chunks)
        )
        yield from (part for part in work if part is not None)

    def _one(self, orders: Orders, place: int) -> Part | None:
        worker = orders.workers[place]
        rows = orders.rows_of(worker)
        if not len(rows):
            return None
        with denormals_are_zero():
            made, left = training.train(
                self._program, rows, orders.order, orders.seeds[place], _never, orders.kept.get(worker, {})
            )
        if self._program.plan.inputs_of(InputRole.KEPT):
            orders.kept[worker] = left
        loss = made.metrics.get("loss")
        update = Contribution(made.delta, float(made.rows), loss)
        return Part((worker,), (float(made.rows),), () if loss is None else (loss,), (update,))


def pool_of(threads: int) -> ThreadPoolExecutor:
    """Return threads that each use one of torch's own: a cohort has parts enough for all cores."""
    return ThreadPoolExecutor(threads, "fedpriv-simulated", initializer=lambda: torch.set_num_threads(1))


def _never() -> bool:
    return False
