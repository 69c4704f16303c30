"""The engine that runs one plan over many simulated workers at once.

A cohort is cut into stacks that fit a core's cache, and stacks of workers with alike numbers of rows; each core runs
one stack at a time. Rows of a worker come in the very order in which a worker that trains alone takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fedpriv.learning.strategies import Contribution
from fedpriv.plans.interpreter import CHUNK_BYTES, Program
from fedpriv.plans.plan import InputRole, OutputRole
from fedpriv.plans.stacks import Stack, StackedProgram
from fedpriv.simulation.engines import Orders, Part, one_thread, pool_of
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Train
from fedpriv_worker.bench import denormals_are_zero

STACK_BYTES = 8 << 20
"""Parameters of one stack: about what the caches of a core hold."""
MOST_WORKERS = 64
SMALL = 1 << 16
"""Values of all stacks of a round, rows and parameters, below which threads cost more than they gain."""


@dataclass(frozen=True, slots=True)
class _Own:
    """One worker of a stack: its place in the round, its rows, and what draws the order of each epoch."""

    place: int
    features: torch.Tensor
    target: torch.Tensor
    count: int
    generator: torch.Generator


class Stacked:
    """The workers of a round in stacks, on `threads` at a time."""

    name = "stacked"

    def __init__(self, program: Program, threads: int) -> None:
        self._program = program
        self._stacked = StackedProgram(program)
        self._pool = pool_of(threads) if threads > 1 else None
        self._threads = threads
        plan = program.plan
        held = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE, InputRole.OPTIMIZER)
        self._values = sum(_elements(each.shape) for each in held)
        self._changed = {each.name for each in plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)}

    def check(self, batch_size: int) -> None:
        """Raise `NotStackable` with the operation that is why the plan cannot run over several workers at once."""
        self._stacked.loop(2, batch_size, ("loss",))

    def train(self, orders: Orders) -> Iterator[Part]:
        """Yield one part for each stack."""
        found: list[_Own] = []
        for place, worker in enumerate(orders.workers):
            rows = orders.rows_of(worker)
            if count := rows.target.shape[0]:
                draws = torch.Generator().manual_seed(orders.seeds[place])
                found.append(_Own(place, rows.features, rows.target, count, draws))
        found.sort(key=lambda each: -each.count)
        width = self._width(found)
        chunks = [found[at : at + width] for at in range(0, len(found), width)]
        if self._pool is None or len(chunks) < 2:
            with one_thread():
                made = [self._part(orders, chunk) for chunk in chunks]
            yield from made
        else:
            yield from self._pool.map(lambda chunk: self._part(orders, chunk), chunks)

    def _width(self, own: Sequence[_Own]) -> int:
        """Return how many workers are in one stack."""
        fits = max(1, min(MOST_WORKERS, STACK_BYTES // (4 * max(self._values, 1))))
        total = sum(each.features.numel() for each in own) + self._values * len(own)
        if total < SMALL:
            return MOST_WORKERS
        share = -(-len(own) // self._threads)
        return -(-share // -(-share // min(fits, share)))  # stacks of one size, equally many for each thread

    def _part(self, orders: Orders, own: Sequence[_Own]) -> Part:
        order = orders.order
        kept = [orders.kept.get(orders.workers[each.place], {}) for each in own]
        with denormals_are_zero(), torch.no_grad():
            stack = Stack(self._stacked, len(own), order.model.tensors, order.hyperparameters, kept, order.metrics)
            passes = [_epoch(stack, own, order) for _ in range(order.epochs)]
            return self._gathered(orders, stack, own, torch.stack(passes).mean(0))

    def _gathered(self, orders: Orders, stack: Stack, own: Sequence[_Own], losses: torch.Tensor) -> Part:
        order = orders.order
        workers = [orders.workers[each.place] for each in own]
        counts = [float(each.count) for each in own]
        said = losses.tolist() if "loss" in order.metrics else []
        for kept in (stack.tensors(InputRole.KEPT),) if self._program.plan.inputs_of(InputRole.KEPT) else ():
            for at, worker in enumerate(workers):
                orders.kept[worker] = {name: value[at].clone() for name, value in kept.items()}
        trained = stack.tensors(InputRole.PARAMETER, InputRole.STATE)
        names = [name for name in order.model.tensors if name in self._changed]
        if orders.of_sums:
            shares = [count * orders.factors.get(worker, 1.0) for count, worker in zip(counts, workers, strict=True)]
            total = {name: _weighed(trained[name], order.model[name], shares) for name in names}
            if all(bool(torch.isfinite(each).all()) for each in total.values()):
                return Part(workers, counts, said, total=total)
        updates = [
            Contribution(
                TensorSet({name: trained[name][at] - order.model[name] for name in names}),
                counts[at],
                said[at] if said else None,
            )
            for at in range(len(own))
        ]
        return Part(workers, counts, said, updates)


def _epoch(stack: Stack, own: Sequence[_Own], order: Train) -> torch.Tensor:
    """Run one pass of every worker over its rows, and return the mean loss of each, shape (workers,)."""
    batch, drop_last = order.batch_size, order.drop_last
    orders = [
        torch.randperm(each.count, generator=each.generator) if order.shuffle else torch.arange(each.count)
        for each in own
    ]
    counts = [each.count for each in own]
    whole = [each // batch for each in counts]
    losses = torch.zeros(len(own), dtype=torch.float64)
    start = 0
    for steps in sorted({each for each in whole if each}):  # rows fall, so those that go on are the first ones
        members = sum(each >= steps for each in whole)
        most = max(1, CHUNK_BYTES // (members * batch * max(own[0].features[0].nbytes, 1)))
        for first in range(start, steps, most):
            count = min(most, steps - first)
            rows = _gathered(own[:members], orders, first * batch, count, batch)
            for loss in stack.run(slice(0, members), *rows, count).values():
                losses[:members] += loss * batch
        start = steps
    seen = [steps * batch for steps in whole] if drop_last else counts
    if not drop_last:
        for left in sorted({each % batch for each in counts} - {0}):
            places = [at for at, each in enumerate(counts) if each % batch == left]
            rows = _batch([own[at] for at in places], [orders[at][-left:] for at in places])
            members_of = slice(0, len(own)) if len(places) == len(own) else torch.tensor(places)
            for loss in stack.run(members_of, *rows, 1).values():
                losses[members_of] += loss * left
    return losses / torch.tensor([max(each, 1) for each in seen], dtype=torch.float64)


def _gathered(
    own: Sequence[_Own], orders: Sequence[torch.Tensor], start: int, steps: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of `steps` batches from row `start` of each order: (steps * workers, batch, ...), by step."""
    count, stop = len(own), start + steps * batch
    orders = [each if each.shape[0] == stop - start else each[start:stop] for each in orders[:count]]
    if steps == 1:
        return _batch(own, orders)
    made = []
    for tensors in ([each.features for each in own], [each.target for each in own]):
        shape = tensors[0].shape[1:]
        out = torch.empty((steps, count, batch, *shape), dtype=tensors[0].dtype)
        for at, tensor in enumerate(tensors):
            out[:, at] = tensor.index_select(0, orders[at]).view(steps, batch, *shape)
        made.append(out.view(steps * count, batch, *shape))
    return made[0], made[1]


def _batch(own: Sequence[_Own], orders: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one batch of each worker, the rows of its order: (workers, rows, ...)."""
    pairs = list(zip(own, orders, strict=True))
    return (
        torch.stack([each.features.index_select(0, order) for each, order in pairs]),
        torch.stack([each.target.index_select(0, order) for each, order in pairs]),
    )


def _weighed(trained: torch.Tensor, model: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the sum of weight times update, float32 or wider."""
    wide = torch.float32 if trained.dtype in {torch.float32, torch.float16, torch.bfloat16} else torch.float64
    by = torch.tensor(weights, dtype=wide)
    flat = trained.reshape(len(weights), -1).to(wide)
    return torch.mv(flat.t(), by).view(model.shape).sub_(model.to(wide), alpha=sum(weights))


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= max(size, 1)
    return count
