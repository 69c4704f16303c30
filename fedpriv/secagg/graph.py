"""Who masks with whom, and who holds whose shares: everybody with everybody, or neighbours on a Harary graph.

Every worker and the coordinator compute the same graph from the sorted members and `h1`. In a complete graph a worker
also holds a share of itself, as in Bonawitz et al. 2017; on a Harary graph (Bell et al. 2020) only its neighbours do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedpriv import canonical
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.secagg.harary import Population

DEFAULT_LOST = Fraction(1, 20)
_DRAW_BYTES = 16


class GraphKind(StrEnum):
    """The two shapes of a round."""

    COMPLETE = "complete"
    HARARY = "harary"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The graph of a descriptor; `degree` and `lost`, the most workers that may be lost in all, are 0 if complete."""

    kind: GraphKind = GraphKind.COMPLETE
    degree: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        if self.kind is GraphKind.COMPLETE and (self.degree or self.lost):
            raise UsageError("a complete graph has neither a degree nor a bound on lost workers; leave both out")
        if self.kind is GraphKind.HARARY and (self.degree < 2 or self.degree % 2 or self.lost < 0):
            raise UsageError(
                f"a Harary graph of degree {self.degree} and {self.lost} lost; use an even degree from 2 on"
            )

    def population(self, invited: int, members: int, hostile: int) -> Population:
        """Return what a graph over `members` of `invited` must stand: every hostile one came, absent ones are lost."""
        return Population(members, min(members, hostile), max(0, self.lost - (invited - members)))


COMPLETE = GraphSpec()


@dataclass(frozen=True, slots=True)
class Topology:
    """The graph over the sorted `members`: the point of each, its neighbours, and the holders of its shares."""

    members: tuple[WorkerName, ...]
    points: Mapping[WorkerName, int] = field(repr=False)
    cycle: tuple[WorkerName, ...] = field(repr=False)  # empty where everybody is a neighbour
    places: Mapping[WorkerName, int] = field(repr=False)
    reach: int

    def neighbours(self, worker: WorkerName) -> tuple[WorkerName, ...]:
        """Return with whom `worker` shares masks, sorted; never itself."""
        if not self.cycle:
            point = self.points[worker]
            return self.members[: point - 1] + self.members[point:]
        place, size = self.places[worker], len(self.cycle)
        steps = [step for step in range(-self.reach, self.reach + 1) if step]
        return tuple(sorted({self.cycle[(place + step) % size] for step in steps} - {worker}))

    def holders(self, worker: WorkerName) -> tuple[WorkerName, ...]:
        """Return who holds shares of `worker`, sorted: also those whose shares it holds, and who must agree with it."""
        return self.neighbours(worker) if self.cycle else self.members

    def around(self, worker: WorkerName) -> Neighbourhood:
        """Return what `worker` needs of the graph."""
        neighbours, holders = self.neighbours(worker), self.holders(worker)
        points = {each: self.points[each] for each in (*holders, worker)}
        return Neighbourhood(neighbours, holders, points)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The graph around one worker: its neighbours, the holders of its shares, the point of each and its own."""

    neighbours: tuple[WorkerName, ...]
    holders: tuple[WorkerName, ...]
    points: Mapping[WorkerName, int] = field(repr=False)


def topology(spec: GraphSpec, members: Iterable[WorkerName], h1: bytes) -> Topology:
    """Return the graph of `spec` over `members`; the order on a Harary cycle is drawn from `h1`."""
    ordered = tuple(sorted(members))
    points = {worker: place for place, worker in enumerate(ordered, start=1)}
    if spec.kind is GraphKind.COMPLETE:
        return Topology(ordered, points, (), {}, 0)
    cycle = permuted(ordered, _seed(h1))
    return Topology(ordered, points, cycle, {worker: place for place, worker in enumerate(cycle)}, spec.degree // 2)


def neighbourhood(spec: GraphSpec, ordered: Sequence[WorkerName], h1: bytes, worker: WorkerName) -> Neighbourhood:
    """Return what the topology is around one of the sorted workers, without making all of it."""
    if spec.kind is GraphKind.COMPLETE:
        return topology(spec, ordered, h1).around(worker)
    cycle, own = _cycle(len(ordered), _seed(h1)), bisect_left(ordered, worker)
    (place,) = np.flatnonzero(cycle == own)
    steps = np.arange(-(spec.degree // 2), spec.degree // 2 + 1)
    near = sorted(set(cycle[(place + steps) % len(ordered)].tolist()) - {own})
    neighbours = tuple(ordered[at] for at in near)
    return Neighbourhood(neighbours, neighbours, {ordered[at]: at + 1 for at in (*near, own)})


def permuted(items: Sequence[WorkerName], seed: bytes) -> tuple[WorkerName, ...]:
    """Return `items` in the order of the 16 bytes that each draws from `seed`: equal ones are rarer than 2**-100."""
    return tuple(items[place] for place in _cycle(len(items), seed).tolist())


def _cycle(count: int, seed: bytes) -> NDArray[np.intp]:
    """Return the places of `count` items in the order of what they draw, shape (count,)."""
    drawn = SeededEntropy(seed).random_bytes(_DRAW_BYTES * count)
    high, low = np.frombuffer(drawn, ">u8").reshape(-1, 2).T
    return np.lexsort((low, high))


def _seed(h1: bytes) -> bytes:
    return canonical.digest("fedpriv/graph/v1", h1)
