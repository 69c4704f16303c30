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
from fedpriv.simulation.engines import Orders, Part, pool_of
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
    """One worker of a stack: its place in the round, its rows, and the order in which each epoch takes them."""

    place: int
    features: torch.Tensor
    target: torch.Tensor
    count: int
    orders: Sequence[torch.Tensor]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's features."""
        return max(1, self.features.nbytes // self.count)


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
        order, found, draws = orders.order, list[_Own](), torch.Generator()
        for place, worker in enumerate(orders.workers):
            rows = orders.rows_of(worker)
            if count := rows.target.shape[0]:
                # nothing else of a plan that can be stacked draws, so that all orders can be drawn beforehand
                draws.manual_seed(orders.seeds[place])
                taken = [torch.randperm(count, generator=draws) for _ in range(order.epochs)] if order.shuffle else []
                found.append(_Own(place, rows.features, rows.target, count, taken))
        found.sort(key=lambda each: -each.count)
        total = sum(each.features.numel() for each in found) + self._values * len(found)
        if self._pool is None or total < SMALL:
            if torch.get_num_threads() > 1:
                # to the end of the run: setting it there and back takes longer than such a round
                torch.set_num_threads(1)
            width = MOST_WORKERS if total < SMALL else self._width(len(found))
            yield from (self._part(orders, found[at : at + width]) for at in range(0, len(found), width))
        else:  # one stack too: this thread may use several of torch's, and a stack is slower on them
            width = self._width(len(found))
            chunks = [found[at : at + width] for at in range(0, len(found), width)]
            yield from self._pool.map(lambda chunk: self._part(orders, chunk), chunks)

    def _width(self, workers: int) -> int:
        """Return how many of so many workers are in one stack: stacks of one size, equally many for each thread."""
        fits = max(1, min(MOST_WORKERS, STACK_BYTES // (4 * max(self._values, 1))))
        share = -(-workers // self._threads)
        return -(-share // -(-share // min(fits, share)))

    def _part(self, orders: Orders, own: Sequence[_Own]) -> Part:
        order = orders.order
        kept = [orders.kept.get(orders.workers[each.place], {}) for each in own]
        with denormals_are_zero(), torch.no_grad():
            stack = Stack(self._stacked, len(own), order.model.tensors, order.hyperparameters, kept, order.metrics)
            passes = [_epoch(stack, own, order, number) for number in range(order.epochs)]
            said = [each for each in passes if each is not None]
            return self._gathered(orders, stack, own, torch.stack(said).mean(0).tolist() if said else [])

    def _gathered(self, orders: Orders, stack: Stack, own: Sequence[_Own], said: Sequence[float]) -> Part:
        order = orders.order
        workers = [orders.workers[each.place] for each in own]
        counts = [float(each.count) for each in own]
        for kept in (stack.tensors(InputRole.KEPT),) if self._program.plan.inputs_of(InputRole.KEPT) else ():
            for at, worker in enumerate(workers):
                orders.kept[worker] = {name: value[at].clone() for name, value in kept.items()}
        trained = stack.tensors(InputRole.PARAMETER, InputRole.STATE)
        names = [name for name in order.model.tensors if name in self._changed]
        if orders.of_sums:
            factors = orders.factors
            shares = [count * factors.get(worker, 1.0) for count, worker in zip(counts, workers, strict=True)]
            by, weight = torch.tensor(shares, dtype=torch.float64), sum(shares)
            total = {name: _weighed(trained[name], order.model[name], by, weight) for name in names}
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


def _epoch(stack: Stack, own: Sequence[_Own], order: Train, number: int) -> torch.Tensor | None:
    """Run pass `number` of every worker over its rows; return the mean loss of each, if that is asked for."""
    batch, drop_last = order.batch_size, order.drop_last
    orders = [each.orders[number] if each.orders else torch.arange(each.count) for each in own]
    counts = [each.count for each in own]
    whole = [each // batch for each in counts]
    losses = torch.zeros(len(own), dtype=torch.float64) if order.metrics else None
    start = 0
    for steps in sorted(set(whole) - {0}):  # rows fall, so those that go on are the first ones
        members = sum(each >= steps for each in whole)
        most = max(1, CHUNK_BYTES // (members * batch * own[0].row_bytes))
        for first in range(start, steps, most):
            count = min(most, steps - first)
            rows = _gathered(own[:members], orders, first * batch, count, batch)
            _run(stack, slice(0, members), rows, losses, (count, batch))
        start = steps
    if not drop_last:
        for left in sorted({each % batch for each in counts} - {0}):
            places = [at for at, each in enumerate(counts) if each % batch == left]
            rows = _batch([own[at] for at in places], [orders[at][-left:] for at in places])
            chosen = slice(0, len(own)) if len(places) == len(own) else torch.tensor(places)
            _run(stack, chosen, rows, losses, (1, left))
    seen = [steps * batch for steps in whole] if drop_last else counts
    return None if losses is None else losses / torch.tensor([max(each, 1) for each in seen], dtype=torch.float64)


def _run(
    stack: Stack,
    members: slice | torch.Tensor,
    rows: tuple[torch.Tensor, torch.Tensor],
    losses: torch.Tensor | None,
    steps: tuple[int, int],
) -> None:
    """Run so many steps of so many rows, and add the losses of their rows to `losses`."""
    found = stack.run(members, *rows, steps[0])
    if losses is not None:
        losses[members] += found["loss"] * steps[1]


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


def _weighed(trained: torch.Tensor, model: torch.Tensor, weights: torch.Tensor, total: float) -> torch.Tensor:
    """Return the sum of weight times update, float32 or wider."""
    wide = torch.float32 if trained.dtype in {torch.float32, torch.float16, torch.bfloat16} else torch.float64
    flat = trained.reshape(len(trained), -1).to(wide)
    return torch.mv(flat.t(), weights.to(wide)).view(model.shape).sub_(model.to(wide), alpha=total)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= max(size, 1)
    return count
