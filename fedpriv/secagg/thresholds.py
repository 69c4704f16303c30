"""How many shares reconstruct, and how few workers may be left: the numbers that no coordinator may lower.

With n workers of which c collude, t shares and `2t > n + c`, no two different stories about who is alive can both
find t believers (A.2 of the specification; Bonawitz et al. 2017, section 6). A worker computes the least t itself.
"""

from __future__ import annotations

import math
from fractions import Fraction

from fedpriv.errors import counted

LEAST_WORKERS = 3
HONEST = 2
"""Workers of a sum who do not collude, at least: with one alone, the others know what it put in."""
ADVISED_WORKERS = 5
DEFAULT_COLLUDING = Fraction(1, 3)


def colluding(workers: int, share: Fraction = DEFAULT_COLLUDING) -> int:
    """Return c, the most workers that may collude with the coordinator: fewer than `share` of them."""
    return max(0, math.ceil(share * workers) - 1)


def least_threshold(workers: int, hostile: int) -> int:
    """Return the least t with `2t > n + c`, for n `workers` invited of whom c may be `hostile`: `floor((n + c)/2) + 1`.

    c is that of the whole roster (`colluding`): a coordinator may invite everybody who works with it, and few others.
    """
    return (workers + hostile) // 2 + 1


def advice(workers: int) -> str:
    """Return what to tell an owner about a cohort of this size, "" where there is nothing to say."""
    if workers < LEAST_WORKERS:
        few = f"a sum over {counted(workers, 'worker')} hides nobody"
        return f"{few}: each could work out the others' part; use {LEAST_WORKERS} or more"
    if workers < ADVISED_WORKERS:
        return (
            f"with {workers} workers the round survives the loss of one, and only after its vector arrived; "
            f"use {ADVISED_WORKERS} or more"
        )
    return ""
