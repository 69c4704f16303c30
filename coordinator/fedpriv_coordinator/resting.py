"""Which workers a round leaves in peace because they come and go: asking them costs everybody the wait for them.

It follows from the history alone, so that a run that is resumed rests the same workers. A worker that was lost in
three rounds in a row that it was part of rests for two rounds, then for four, then for eight, until it sees one
through. Nobody rests whom a round needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    number = len(history) + 1
    flapping = frozenset(worker for worker in connected if _rests_until(history, worker) >= number)
    return flapping if suffices(len(connected) - len(flapping)) else frozenset()


def _rests_until(history: Sequence[RoundRecord], worker: WorkerName) -> int:
    """Return the last round in which `worker` rests, 0 where it never did."""
    lost, rest, until = 0, FIRST_REST, 0
    for record in history:
        part = next((each for each in record.workers if each.worker == worker), None)
        if part is None:
            continue
        if not part.lost:
            lost, rest = 0, FIRST_REST
            continue
        lost += 1
        if lost >= IN_A_ROW:
            until, rest, lost = record.number + rest, min(2 * rest, LONGEST_REST), IN_A_ROW - 1
    return until
