"""Which workers a round leaves in peace because they come and go: asking them costs everybody the wait for them.

It follows from the history alone, so that a run that is resumed rests the same workers. A worker that was lost in
three rounds in a row that it was part of rests for two rounds, then for four, then for eight, until it sees one
through. Nobody rests whom a round needs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from fedpriv.ids import WorkerName
from fedpriv_coordinator.experiment import RoundRecord

IN_A_ROW = 3
FIRST_REST, LONGEST_REST = 2, 8
"""Rounds of rest."""


def resting(
    history: Sequence[RoundRecord], connected: Sequence[WorkerName], suffices: Callable[[int], bool]
) -> frozenset[WorkerName]:
    """Return which of `connected` the next round does not ask; none where too few would be left.

    `suffices` says of a number of workers whether a round can be with so many.
    """
    number, recent = len(history) + 1, history[-LONGEST_REST:]
    lately = {each.worker for record in recent for each in record.workers if each.lost}
    lately &= set(connected)  # nobody else can be resting
    until = _rest_until(history, lately) if lately else {}
    flapping = frozenset(worker for worker in connected if until.get(worker, 0) >= number)
    return flapping if suffices(len(connected) - len(flapping)) else frozenset()


def _rest_until(history: Sequence[RoundRecord], workers: Container[str]) -> dict[str, int]:
    """Return the last round in which each of `workers` rests, of those that ever did."""
    lost: dict[str, int] = {}
    rest: dict[str, int] = {}
    until: dict[str, int] = {}
    for record in history:
        for part in record.workers:
            worker = part.worker
            if worker not in workers:
                continue
            if not part.lost:
                lost[worker], rest[worker] = 0, FIRST_REST
                continue
            lost[worker] = lost.get(worker, 0) + 1
            if lost[worker] >= IN_A_ROW:
                until[worker] = record.number + rest.get(worker, FIRST_REST)
                rest[worker] = min(2 * rest.get(worker, FIRST_REST), LONGEST_REST)
                lost[worker] = IN_A_ROW - 1
    return until
