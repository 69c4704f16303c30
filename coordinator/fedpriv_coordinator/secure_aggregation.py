"""How a run aggregates securely: what the researcher asks for, and the descriptor of a round that follows from it.

Every worker holds the descriptor to what it knows and to its owner's terms, and the stricter wins: what is asked for
here can only be more than an owner insists on. It sends nothing; `summing` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fedpriv.clock import Clock
from fedpriv.errors import UsageError, counted
from fedpriv.secagg import harary
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import COMPLETE, DEFAULT_LOST, GraphKind, GraphSpec
from fedpriv.secagg.ring import ring_for
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING, HONEST, LEAST_WORKERS, colluding, least_threshold
from fedpriv.secagg.vector import VectorSpec
from fedpriv.storage.rosters import SignedRoster, load_roster

Weights: TypeAlias = Literal["rows", "uniform"]
ROUNDING = 10
"""Announced row counts are rounded down to tens."""
_DENOMINATOR = 1_000_000
_MESSAGES_SECONDS = 60.0
_SHARE = "a share of at least 0 and below 1"
_OPTIONS: tuple[tuple[str, tuple[type, ...], Callable[[Any], bool], str], ...] = (
    (
        "minimum_workers",
        (int,),
        lambda value: value >= LEAST_WORKERS,
        f"a whole number, {LEAST_WORKERS} or more: in a sum of two, each can subtract its own",
    ),
    (
        "maximum_weight",
        (int, type(None)),
        lambda value: value is None or value >= 1,
        "a whole number, 1 or more, or leave it out",
    ),
    ("fraction_bits", (int,), lambda value: 1 <= value <= 32, "a whole number, 1 to 32"),
    ("clip", (int, float), lambda value: 0 < value <= 1 << 20, "a number above 0, up to 2**20"),
    ("colluding", (int, float, Fraction), lambda value: 0 <= value < 1, _SHARE),
    ("lost", (int, float, Fraction), lambda value: 0 <= value < 1, _SHARE),
    ("roster", (str, Path, SignedRoster, type(None)), lambda _: True, "the file that the administrator signed"),
)
"""Name, types, bounds and what is possible in words, of each option that is no choice of words."""


@dataclass(frozen=True, slots=True)
class SecureAggregation:
    """Only sums over at least `minimum_workers` workers are seen, never what one of them contributed.

    Updates are clipped to [-clip, clip] in each number and rounded to multiples of 2**-fraction_bits. With `weights`
    "rows" a worker weighs as many rows as it has, up to `maximum_weight` (None: the most that any announces).
    `colluding` is the share of workers that may work with the coordinator and `lost` the share that a Harary graph can
    lose. `roster` is the administrator's file, or None among virtual workers, whose process makes one.
    """

    minimum_workers: int = LEAST_WORKERS
    graph: Literal["complete", "harary"] = "complete"
    weights: Weights = "rows"
    maximum_weight: int | None = None
    clip: float = 16.0
    fraction_bits: int = 16
    colluding: float = float(DEFAULT_COLLUDING)
    lost: float = float(DEFAULT_LOST)
    roster: str | Path | SignedRoster | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, kinds, fits, what in _OPTIONS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise UsageError(f"{name} is {value!r}, a {type(value).__name__}; use {what}")
            if not fits(value):
                raise UsageError(f"{name} is {value:g}; use {what}")
        if self.graph not in tuple(GraphKind):
            raise UsageError(f"graph is {self.graph!r}; use 'complete' or 'harary'")
        if self.weights not in ("rows", "uniform"):
            raise UsageError(f"weights is {self.weights!r}; use 'rows' or 'uniform'")
        if self.clip < (step := 2.0**-self.fraction_bits):
            raise UsageError(
                f"clip is {self.clip:g}, less than the smallest number of fraction_bits={self.fraction_bits}, "
                f"{step:g}: updates would be rounded away; raise clip or fraction_bits"
            )

    @property
    def colluding_share(self) -> Fraction:
        """The colluding share as an exact fraction, 1/3 for 0.333333."""
        return Fraction(self.colluding).limit_denominator(_DENOMINATOR)

    @property
    def terms(self) -> Terms:
        """What the coordinator itself insists on."""
        return Terms(self.minimum_workers, self.colluding_share)

    def signed_roster(self) -> SignedRoster | None:
        """Return the roster that was given, read from its file if it is one."""
        return load_roster(Path(self.roster)) if isinstance(self.roster, str | Path) else self.roster

    def enrolled(self, here: int) -> int:
        """Return how many workers are on the roster, `here` for that of the workers in this process."""
        given = self.signed_roster()
        return here if given is None else len(given.roster.keys)

    def weight_limit(self, announced: Iterable[int | None]) -> int:
        """Return the largest weight of a round, given the rows that its workers announced (None: hidden, weighs 1)."""
        if self.weights == "uniform":
            return 1
        most = max((rows for rows in announced if rows is not None), default=1)
        return most + ROUNDING if self.maximum_weight is None else self.maximum_weight


@dataclass(frozen=True, slots=True)
class Subject:
    """What one round sums: the digests of model and computation, the vector, and how long an answer may take.

    `privacy` says the parameters of its noise, "" without.
    """

    model: bytes
    computation: bytes
    vector: VectorSpec
    deadline_seconds: float
    privacy: str = ""


class Numbering:
    """Numbers of rounds that never come again in a federation: milliseconds since 1970, or one more than the last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = -1

    def next(self) -> int:
        """Return a number above every one before, of this process and of earlier ones whose clock was not ahead."""
        self._last = max(self._last + 1, int(self._clock.now() * 1000))
        return self._last


def least_in_sum(asked: SecureAggregation, count: int, enrolled: int, quorum: int) -> int:
    """Return the least number of `count` workers, of those `enrolled`, in a sum (`Descriptor.least`)."""
    graph, threshold = _graph(asked, count, enrolled)
    connected = count - graph.lost if graph.kind is GraphKind.HARARY else 0
    return max(threshold, asked.minimum_workers, quorum, connected)


def majority(count: int) -> int:
    """Return how many of `count` workers are more than half: the quorum where none is stated."""
    return count // 2 + 1


def asked_for(given: object) -> SecureAggregation | None:
    """Return how sums are asked for, None where they are not; raise `UsageError` for anything else."""
    if given is None or isinstance(given, SecureAggregation):
        return given
    raise UsageError(
        f"secure_aggregation is {given!r}; use fp.SecureAggregation(), whose options say how, or leave it out"
    )


def check_reach(asked: SecureAggregation, count: int, enrolled: int, quorum: int) -> None:
    """Raise `UsageError` where not even a round that loses none of its `count` workers could have a sum."""
    least = max(asked.minimum_workers, quorum)
    if count < least:
        name, value = (
            ("minimum_workers", asked.minimum_workers) if asked.minimum_workers >= quorum else ("quorum", quorum)
        )
        raise UsageError(
            f"{name} is {value}, and a round asks at most {counted(count, 'worker')} that are on the roster, so no "
            f"sum could be; {_lower(name, count)}have more workers take part"
        )
    hostile = colluding(enrolled, asked.colluding_share)
    if count < hostile + HONEST:
        raise UsageError(
            f"colluding is {asked.colluding:g}: of {enrolled} workers on the roster {hostile} may then work with the "
            f"coordinator, and a round of {counted(count, 'worker')} has fewer than {HONEST} besides them; "
            f"{_less_colluding(count, enrolled)}have more workers take part"
        )
    if (summed := least_in_sum(asked, count, enrolled, quorum)) < hostile + HONEST:
        raise UsageError(
            f"a sum of {summed} could be of {hostile} workers that collude and fewer than {HONEST} others (colluding "
            f"is {asked.colluding:g}, lost is {asked.lost:g}); use minimum_workers={hostile + HONEST}"
        )


def _lower(name: str, count: int) -> str:
    """Return what to lower `name` to, where that is possible, as the beginning of a remedy."""
    return f"use {name}={count} or less, or " if count >= LEAST_WORKERS else ""


def _less_colluding(count: int, enrolled: int) -> str:
    """Return which share may collude in a round of `count`, where one may, as the beginning of a remedy."""
    share = math.floor((count - 1) / enrolled * 1000) / 1000
    return f"use colluding={share:g} or less, or " if count >= LEAST_WORKERS else ""


def describe(
    asked: SecureAggregation, roster: Roster, workers: Sequence[str], number: int, quorum: int, subject: Subject
) -> Descriptor:
    """Return the descriptor of round `number` among `workers`, of whom `quorum` must be in the sum.

    Raise `UsageError` where no ring or graph of ours does, saying how many bits or what share would.
    """
    count, whole = len(workers), subject.deadline_seconds
    patience = min(whole, _MESSAGES_SECONDS)
    graph, threshold = _graph(asked, count, len(roster.keys))
    return Descriptor(
        federation=roster.federation,
        roster=roster.digest,
        round=number,
        model=subject.model,
        plan=subject.computation,
        vector=subject.vector,
        modulus_bits=ring_for(subject.vector.bits_needed(count)).bits,
        workers=count,
        threshold=threshold,
        minimum_cohort=max(asked.minimum_workers, quorum),
        graph=graph,
        privacy=subject.privacy,
        deadlines_seconds=(whole, patience, whole, patience, patience),
    )


def _graph(asked: SecureAggregation, count: int, enrolled: int) -> tuple[GraphSpec, int]:
    """Return the graph over `count` workers and its threshold, when any of the `enrolled` ones may be hostile."""
    if asked.graph == "complete":
        return COMPLETE, least_threshold(count, colluding(enrolled, asked.colluding_share))
    lost = Fraction(asked.lost).limit_denominator(_DENOMINATOR)
    population, choice = harary.advised(count, asked.colluding_share, lost, enrolled)
    return GraphSpec(GraphKind.HARARY, choice.degree, population.lost), choice.threshold
