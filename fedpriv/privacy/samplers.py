"""Exact integer noise: a table of 128-bit cumulative probabilities, driven by an AES-256-CTR stream.

Each value takes 16 bits of the stream; where they do not decide it, 64 and if need be 128 bits are compared with the
table's thresholds, so that what is sampled has exactly the table's probabilities. Wide noise takes 8 or 16 bits more,
the place in a block of values, and a second table where the block does not give the value. The stream's key is drawn
anew, from the entropy that is given, for every call; outside the tests that is the operating system's. No generator of
numpy or torch has a part in it. How long a call takes depends on the noise that it draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpriv.entropy import Entropy, SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy import tables
from fedpriv.privacy.tables import BITS, Blocks, Table

KEY_BYTES = 32
_HIGH, _LOW = np.uint64(48), np.uint64(16)
_BYTE = 8
BLOCK = 1 << 16
"""Values that are drawn at once: stream, slots and values of a block stay in the cache."""
_LOOKED_UP = 1 << 15
"""Values that are looked up at once; those that 16 bits leave open are decided together."""

Integers = npt.NDArray[np.int32]
Drawn = npt.NDArray[np.int16] | npt.NDArray[np.int32]
Values = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IntegerNoise:
    """Independent integers of one distribution; `total_variation` is for each value drawn."""

    table: Table | Blocks = field(repr=False)
    name: str
    variance: float

    @property
    def total_variation(self) -> float:
        """How far one value is from the named distribution; a release of d values is off by d times as much."""
        return self.table.total_variation

    def sample(self, count: int, entropy: Entropy) -> Integers:
        """Return `count` values, int32."""
        if count < 0:
            raise UsageError(f"{count} values of noise are asked for; use 0 or more")
        values = np.empty(count, np.int32)
        stream = stream_of(entropy)
        for start in range(0, count, BLOCK):
            block = values[start : start + BLOCK]
            block[:] = draw(self.table, len(block), stream)
        return values


def discrete_gaussian(variance: float) -> IntegerNoise:
    """Return noise with P(k) proportional to exp(-k^2 / (2 variance)); `variance` up to 20,000^2 integer units."""
    return IntegerNoise(tables.discrete_gaussian(variance), "discrete-gaussian", variance)


def skellam(variance: float) -> IntegerNoise:
    """Return Skellam noise of mean 0 and this variance, up to 20,000^2 integer units."""
    return IntegerNoise(tables.skellam(variance), "skellam", variance)


SAMPLERS: dict[str, Callable[[float], IntegerNoise]] = {"discrete-gaussian": discrete_gaussian, "skellam": skellam}


def stream_of(entropy: Entropy) -> Entropy:
    """Return an AES-256-CTR stream under a key that `entropy` gives now."""
    return SeededEntropy(entropy.random_bytes(KEY_BYTES))


def draw(table: Table | Blocks, count: int, stream: Entropy) -> Drawn:
    """Return `count` independent values of `table`, in the narrowest integers that hold them all."""
    if isinstance(table, Blocks):
        return _draw_by_blocks(table, count, stream)
    values = np.empty(count, table.direct.dtype)
    open_slots, places = [], []
    for start in range(0, count, _LOOKED_UP):
        block = values[start : start + _LOOKED_UP]
        slots = _looked_up(table, block, stream)
        at = np.flatnonzero(block >= table.open)
        open_slots.append(slots[at])
        places.append(at + start)
    if places and len(at := np.concatenate(places)):
        values[at] = _decided(table, np.concatenate(open_slots), values[at] - table.open, stream)
    return values


def _draw_by_blocks(table: Blocks, count: int, stream: Entropy) -> Integers:
    numbers = np.empty(count, table.numbers.direct.dtype)
    slots = _looked_up(table.numbers, numbers, stream)
    size: Any = np.uint8 if table.shift <= _BYTE else np.uint16
    bits = np.frombuffer(stream.random_bytes(count * size().nbytes), size) & size((1 << table.shift) - 1)
    values: Integers = np.left_shift(numbers, table.shift, dtype=np.int32)
    values |= bits
    places = np.flatnonzero(numbers >= table.last)  # open slots too: their numbers are above every value
    if len(places):
        values[places] = _completed(table, slots[places], numbers[places].astype(np.int32), bits[places], stream)
    return values


def _completed(
    table: Blocks, slots: npt.NDArray[np.uint16], numbers: Integers, bits: npt.NDArray[Any], stream: Entropy
) -> Integers:
    """Return the values where 16 bits decide no number of a block, or where it is the rest that gives the value."""
    places = np.flatnonzero(numbers >= table.numbers.open)
    if len(places):
        numbers[places] = _decided(table.numbers, slots[places], numbers[places] - table.numbers.open, stream)
    values: Integers = (numbers << table.shift) | bits
    places = np.flatnonzero(numbers == table.last)
    if len(places):
        values[places] = draw(table.rest, len(places), stream)
    return values


def _looked_up(table: Table, out: npt.NDArray[Any], stream: Entropy) -> npt.NDArray[np.uint16]:
    """Return as many fresh slots as `out` has values, and write there what the table has in each."""
    slots = np.frombuffer(stream.random_bytes(2 * len(out)), np.uint16)
    table.direct.take(slots, mode="clip", out=out)  # "clip" spares a check; every slot is in range
    return slots


def _decided(table: Table, slots: npt.NDArray[np.uint16], numbers: npt.NDArray[Any], stream: Entropy) -> Integers:
    """Return a value for each of `slots` by 48 more bits, and where these agree with a threshold by 64 more.

    `numbers` are those of the open slots in the table.
    """
    more = np.frombuffer(stream.random_bytes(8 * len(slots)), np.uint64) >> _LOW
    threshold = table.only[numbers]
    values: Integers = table.first[numbers] + (more > threshold)
    crowded = np.flatnonzero((threshold == 0) | (more == threshold))
    if len(crowded):
        drawn = (slots[crowded].astype(np.uint64) << _HIGH) | more[crowded]
        values[crowded] = table.least + _searched(table, drawn, stream)
    return values


def _searched(table: Table, drawn: npt.NDArray[np.uint64], stream: Entropy) -> npt.NDArray[np.intp]:
    """Return how many thresholds are at or below each of `drawn`, once all its 128 bits are there."""
    counts = np.searchsorted(table.leading, drawn, side="right")
    for at in np.flatnonzero(table.leading[np.maximum(counts, 1) - 1] == drawn):
        counts[at] = _by_all_bits(table, int(drawn[at]), int.from_bytes(stream.random_bytes(8), "big"))
    return counts


def _by_all_bits(table: Table, high: int, low: int) -> int:
    """Return how many thresholds are at or below the 128 bits `high`, `low`."""
    drawn = high << (BITS - 64) | low
    start, stop = 0, len(table.thresholds)
    while start < stop:
        middle = (start + stop) // 2
        start, stop = (middle + 1, stop) if table.thresholds[middle] <= drawn else (start, middle)
    return start
