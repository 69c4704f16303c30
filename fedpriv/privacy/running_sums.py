"""Noisy running sums, round by round: DP-FTRL as a pure state machine over sums of clipped updates.

What is released is C x + noise on a lattice, C the design; everything else here is arithmetic on what was released, and
costs nothing more. The sums themselves stay in the object: whoever holds it sees them, which is why this mode rests on
trust in the coordinator. Each round draws fresh noise once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.privacy.designs import Banded, Design, Tree, lowest_bit
from fedpriv.privacy.lattice import LatticeGaussian, Reals

Noisy: TypeAlias = Callable[[Reals], Reals]


class RunningSums:
    """Noisy sums of `design.rounds` vectors; `add` takes one and returns what to apply for it.

    `noise` has the sensitivity of the whole design and covers all its values: rounds times dimension.
    """

    __slots__ = ("_design", "_machine", "_noise", "_rounds")

    def __init__(self, design: Design, noise: LatticeGaussian) -> None:
        self._design = design
        self._noise = noise
        self._rounds = 0
        self._machine: _Trees | _Bands = _Trees() if isinstance(design, Tree) else _Bands(design)

    @property
    def rounds(self) -> int:
        """How many vectors were added."""
        return self._rounds

    def add(self, total: Reals, entropy: Entropy) -> Reals:
        """Return the noisy stand-in for `total`, shape (d,), the sum of this round's clipped updates.

        The stand-ins of all rounds add up to the noisy running sum. Raise `UsageError` after the last round, and for a
        vector that is not finite; neither changes anything.
        """
        if self._rounds == self._design.rounds:
            raise UsageError(f"the noise was sized for {self._rounds} rounds, which are over; start another run")
        if not np.isfinite(total).all():
            raise UsageError("the sum of a round holds values that are no numbers; leave the round out")
        self._rounds += 1

        def noisy(sums: Reals) -> Reals:
            return self._noise.noisy(sums, entropy).astype(np.float64)

        return self._machine.add(self._rounds, total.astype(np.float64), noisy)


class _Trees:
    """Sums and noisy running sums at the ends of the subtrees that the current round still needs."""

    __slots__ = ("_before", "_noisy", "_sums")

    def __init__(self) -> None:
        self._sums: dict[int, Reals] = {}
        self._noisy: dict[int, Reals] = {}
        self._before: Reals | float = 0.0

    def add(self, number: int, total: Reals, noisy: Noisy) -> Reals:
        size = lowest_bit(number)
        level = 1
        while level < size:
            total = total + self._sums.pop(level)
            level *= 2
        self._sums[size] = total
        start = number - size
        running = noisy(total) + (self._noisy[start] if start else 0.0)
        self._noisy = {at: held for at, held in self._noisy.items() if at <= start} | {number: running}
        step = running - self._before
        self._before = running
        return step


class _Bands:
    """The last sums and their stand-ins, as many as the design has bands less one."""

    __slots__ = ("_coefficients", "_stood", "_sums")

    def __init__(self, design: Banded) -> None:
        first, *self._coefficients = design.coefficients()
        assert first == 1.0
        self._sums: deque[Reals] = deque(maxlen=len(self._coefficients))
        self._stood: deque[Reals] = deque(maxlen=len(self._coefficients))

    def add(self, number: int, total: Reals, noisy: Noisy) -> Reals:  # noqa: ARG002  a tree needs the number
        mixed = total.copy()
        for share, earlier in zip(self._coefficients, self._sums, strict=False):
            mixed += share * earlier
        stand_in = noisy(mixed)
        for share, earlier in zip(self._coefficients, self._stood, strict=False):
            stand_in -= share * earlier
        self._sums.appendleft(total)
        self._stood.appendleft(stand_in)
        return stand_in
