"""Poisson samples: each row enters independently, so that what is billed as sampling is sampling.

The decision of each row is 64 bits of an AES-256-CTR stream under a key that the entropy gives for each sample. A batch
of fixed size, a shuffle or a loader's order are no Poisson sample, and would have to be billed as ten times as much.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.privacy.mechanisms import is_number
from fedpriv.privacy.samplers import stream_of


def poisson_sample(rows: int, rate: float, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows that enter a sample, ascending; each of `rows` does with probability `rate`.

    The probability is rounded down to a multiple of 2^-64. Often none enters: that is a sample too.
    """
    if rows < 0 or not (is_number(rate) and 0 < rate <= 1) or isinstance(rate, bool):
        raise UsageError(
            f"a sample of {rows} rows at rate {rate!r}; use 0 rows or more, and a rate above 0 and up to 1"
        )
    if rate == 1:
        return np.arange(rows, dtype=np.int64)
    drawn = np.frombuffer(stream_of(entropy).random_bytes(8 * rows), np.uint64)
    chosen: npt.NDArray[np.int64] = np.flatnonzero(drawn < np.uint64(math.floor(math.ldexp(rate, 64))))
    return chosen
