"""Sampling: which of the connected workers a round asks.

A sampling is one pure function of round, workers and seed, so that a run asks the same workers at every replay. The
seed is the job's; workers can know who was asked only if they are told. It knows nothing of links: who answers is the
round's to find out. Sampling here is for cost and speed; it amplifies no promise of privacy, whose sampling is the
worker's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName


@dataclass(frozen=True, slots=True)
class Chosen:
    """The workers that a round asks, in order of name, and by what factor an update counts more than its weight."""

    workers: tuple[WorkerName, ...]
    factors: Mapping[WorkerName, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a round's workers are drawn from those that are connected.

    `least` returns how many of so many there will be at least, which bounds the quorum. With `enough`, a round is over
    once so many updates are there, whoever else was asked: a replay then depends on who was fast. `reweights` says that
    updates count by factors, which a sum of masked updates cannot.
    """

    name: str
    draw: Callable[[Sequence[WorkerName], np.random.Generator, int], Chosen]
    least: Callable[[int], int]
    enough: int | None = None
    reweights: bool = False

    def choose(self, workers: Sequence[WorkerName], *, seed: int, round_number: int) -> Chosen:
        """Return the workers that round `round_number` asks, the same at every replay."""
        digest = canonical.digest("fedpriv/sampling/v1", seed, round_number)
        ordered = workers if isinstance(workers, Numbered) else sorted(workers)
        return self.draw(ordered, np.random.default_rng(int.from_bytes(digest[:8], "big")), round_number)


_FEW = 10_000


class Numbered(Sequence[WorkerName]):
    """The names of `size` workers that differ in their number alone, in order, made as they are read; few are kept.

    All numbers have as many digits as the last one, so that names are in the order of numbers.
    """

    def __init__(self, prefix: str, size: int) -> None:
        self._prefix, self._size = f"{prefix}-", size
        self._digits = len(str(max(size - 1, 0)))
        self._made: list[WorkerName] | None = None

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> WorkerName: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[WorkerName]: ...
    def __getitem__(self, at: int | slice) -> WorkerName | Sequence[WorkerName]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self._size))]
        if not -self._size <= at < self._size:
            raise IndexError(at)
        return WorkerName(f"{self._prefix}{at % self._size:0{self._digits}d}")

    def __iter__(self) -> Iterator[WorkerName]:
        prefix, digits = self._prefix, self._digits
        names = (WorkerName(f"{prefix}{at:0{digits}d}") for at in range(self._size))
        if self._size > _FEW:
            return names
        if self._made is None:
            self._made = list(names)
        return iter(self._made)

    def number(self, name: WorkerName) -> int:
        """Return the number of a name that this sequence has."""
        return int(name[len(self._prefix) :])


def Everybody() -> Sampling:  # noqa: N802 - a public name that stands beside those of strategies
    """Return the sampling that asks all."""
    return Sampling("everybody", lambda workers, _, __: Chosen(tuple(workers)), least=lambda count: count)


def Fraction(fraction: float, minimum: int = 1) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of so large a share of the workers, `minimum` at least. McMahan et al. 2017, algorithm 1."""
    if not 0 < fraction <= 1 or minimum < 1:
        raise UsageError(f"fraction is {fraction} and minimum {minimum}; use a share above 0 up to 1, and 1 or more")

    def count(workers: int) -> int:
        return min(workers, max(minimum, round(fraction * workers)))

    def draw(workers: Sequence[WorkerName], generator: np.random.Generator, _: int) -> Chosen:
        return _uniform(workers, count(len(workers)), generator)

    return Sampling("fraction", draw, least=count)


def Fixed(count: int, over: float = 1.0) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of `count` workers a round, or of all where there are fewer.

    `over` above 1 asks so many times more, and the round ends with the first `count` updates: slow workers cost no
    time, and are heard less often. Bonawitz et al. 2019, arXiv 1902.01046, section 2.2.
    """
    if count < 1 or not 1.0 <= over <= 10.0:
        raise UsageError(f"count is {count} and over {over}; ask 1 worker or more, and 1 to 10 times as many as needed")

    def draw(workers: Sequence[WorkerName], generator: np.random.Generator, _: int) -> Chosen:
        return _uniform(workers, math.ceil(over * count), generator)

    return Sampling("fixed", draw, least=lambda workers: min(workers, count), enough=count if over > 1 else None)


def Between(least: int, most: int) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of a number of workers that is drawn anew each round, from `least` to `most`."""
    if not 1 <= least <= most:
        raise UsageError(f"from {least} to {most} workers cannot be drawn; use 1 or more, the smaller number first")

    def draw(workers: Sequence[WorkerName], generator: np.random.Generator, _: int) -> Chosen:
        return _uniform(workers, int(generator.integers(least, most + 1)), generator)

    return Sampling("between", draw, least=lambda workers: min(workers, least))


def Poisson(rate: float) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of each worker by a coin of its own; a round in which nobody is drawn is abandoned."""
    if not 0 < rate <= 1:
        raise UsageError(f"rate is {rate}; use a probability above 0, up to 1")

    def draw(workers: Sequence[WorkerName], generator: np.random.Generator, _: int) -> Chosen:
        return Chosen(tuple(worker for worker in workers if generator.random() < rate))

    return Sampling("poisson", draw, least=lambda count: count if rate == 1 else 1)


def RoundRobin(count: int) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of `count` workers in turn, in order of name: all are asked equally often."""
    if count < 1:
        raise UsageError(f"count is {count}; ask 1 worker or more")

    def draw(workers: Sequence[WorkerName], _: np.random.Generator, round_number: int) -> Chosen:
        first, most = (round_number - 1) * count, min(count, len(workers))
        return Chosen(tuple(sorted(workers[(first + step) % len(workers)] for step in range(most))))

    return Sampling("round-robin", draw, least=lambda workers: min(workers, count))


def Importance(count: int, weights: Mapping[str, float]) -> Sampling:  # noqa: N802 - as above
    """Return the sampling of `count` workers, each the likelier the larger its weight; who has none stated weighs 1.

    A worker is drawn with probability p = count x weight / sum (1 at most), by one systematic draw, and its update
    counts 1 / p times: the mean stays that of all workers. Chen et al. 2020, arXiv 2010.13723, section 2.
    """
    if count < 1 or not all(math.isfinite(each) and each > 0 for each in weights.values()):
        raise UsageError(f"count is {count}; ask 1 worker or more, and give finite weights above 0")

    def draw(workers: Sequence[WorkerName], generator: np.random.Generator, _: int) -> Chosen:
        shares = np.array([float(weights.get(worker, 1.0)) for worker in workers])
        likely = _inclusion(shares, min(count, len(workers)))
        ticks = np.cumsum(likely) - generator.random()
        taken = np.ceil(ticks) > np.ceil(ticks - likely)
        drawn = [(worker, 1.0 / p) for worker, p, is_in in zip(workers, likely, taken, strict=True) if is_in]
        return Chosen(tuple(worker for worker, _ in drawn), dict(drawn))

    return Sampling("importance", draw, least=lambda workers: max(1, min(workers, count) - 1), reweights=True)


SAMPLINGS: Mapping[str, Callable[..., Sampling]] = {
    "everybody": Everybody,
    "fraction": Fraction,
    "fixed": Fixed,
    "between": Between,
    "poisson": Poisson,
    "round-robin": RoundRobin,
}
"""Those that a job file can name; importance needs a weight per worker."""


def _uniform(workers: Sequence[WorkerName], count: int, generator: np.random.Generator) -> Chosen:
    drawn = generator.permutation(len(workers))[:count]
    return Chosen(tuple(workers[place] for place in sorted(drawn)))


def _inclusion(shares: np.ndarray[Any, np.dtype[np.float64]], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return probabilities that add up to `count`, proportional to `shares` but for those that would exceed 1."""
    certain = np.zeros(len(shares), dtype=bool)
    while True:
        left = count - int(certain.sum())
        likely = np.where(certain, 1.0, shares * left / max(shares[~certain].sum(), 1e-300))
        over = (likely > 1.0) & ~certain
        if not over.any():
            return np.minimum(likely, 1.0)
        certain |= over
