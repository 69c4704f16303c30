"""Whose each row is, where one person may have several: a private step takes one row of a person, whichever comes up.

Each unit enters a step by a coin of its own, and then one of its rows is drawn, all alike. Whatever row that is, the
unit moves the sum by one clipped gradient, as a single row would; so a step costs a unit what it costs a row, however
many rows it has, and somebody with many counts no more than somebody with one. Identities are numbered and never leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpriv.entropy import Entropy
from fedpriv.errors import DataError, UsageError
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.poisson import poisson_sample
from fedpriv.privacy.samplers import stream_of


@dataclass(frozen=True, slots=True)
class Units:
    """Rows by unit: those of unit u are `rows[starts[u] : starts[u + 1]]`; no unit is empty."""

    rows: NDArray[np.int64] = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def sample(self, rate: float, entropy: Entropy) -> NDArray[np.int64]:
        """Return one row of each unit that enters a Poisson sample at `rate`, drawn alike to within 2^-32 a row."""
        chosen = poisson_sample(len(self), rate, entropy)
        sizes = (self.starts[1:] - self.starts[:-1])[chosen]
        drawn = np.frombuffer(stream_of(entropy).random_bytes(8 * len(chosen)), np.uint64) >> np.uint64(32)
        offsets = (drawn * sizes.astype(np.uint64)) >> np.uint64(32)
        found: NDArray[np.int64] = self.rows[self.starts[:-1][chosen] + offsets.astype(np.int64)]
        return found


def numbered_units(
    name: str, budget: Budget | None, units: Sequence[object] | None, rows: int
) -> NDArray[np.int64] | None:
    """Return the number of each row's unit; raise `UsageError` where the budget needs units and has none, or none."""
    grouped = budget is not None and budget.grouped
    if units is None:
        if grouped:
            assert budget is not None
            raise UsageError(
                f"data set {name!r}: its budget is for each {budget.unit}, and nothing says whose rows they are; name "
                "the column with unit_column, or pass units"
            )
        return None
    if not grouped:
        raise UsageError(
            f"data set {name!r}: units say whose rows they are, and no budget is for that; give it one, as in "
            'Budget(8.0, 1e-5, unit="patient")'
        )
    listed = np.asarray(units)
    if listed.shape != (rows,) or listed.dtype.kind not in "biuUS":
        raise DataError(
            f"data set {name!r}: units have shape {listed.shape} and type {listed.dtype}; give one text or whole "
            f"number for each of {rows} rows"
        )
    return np.unique(listed, return_inverse=True)[1].reshape(-1).astype(np.int64)


def units_of(whose: NDArray[np.int64] | None) -> Units | None:
    """Return the rows of each unit, given the number of each row's."""
    if whose is None:
        return None
    order = np.argsort(whose, kind="stable").astype(np.int64)
    first = np.flatnonzero(np.diff(whose[order], prepend=-1))
    return Units(order, np.append(first, len(order)).astype(np.int64))
