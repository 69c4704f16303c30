"""Samples of protecting noise a second on one core: discrete Gaussian and Skellam, and Gaussian noise on a lattice.

Prints one JSON line: millions of values a second, the best of some runs, by standard deviation in integer units; and
the same for `LatticeGaussian` by dimension. Key, stream and table look-ups are all in it, making the table is not: the
seconds for that stand beside. Only figures of one run compare.

    python benchmarks/noise.py --json [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from fedpriv.entropy import SystemEntropy
from fedpriv.privacy.lattice import LatticeGaussian
from fedpriv.privacy.samplers import SAMPLERS, IntegerNoise

DEVIATIONS = (1, 10, 100, 1000, 10_000)
DIMENSIONS = (10_000, 100_000, 1_000_000)
MILLION = 1e6


def seconds(work: Callable[[], object], runs: int) -> float:
    """Return the least time of `runs` runs."""
    best = float("inf")
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def integers(make: Callable[[float], IntegerNoise], count: int, runs: int) -> dict[str, dict[str, float]]:
    """Return, for each deviation, millions of values a second and the seconds that its table takes."""
    found = {}
    for deviation in DEVIATIONS:
        begun = time.perf_counter()
        noise = make(float(deviation) ** 2)
        built = time.perf_counter() - begun
        taken = seconds(lambda noise=noise: noise.sample(count, SystemEntropy()), runs)
        found[str(deviation)] = {"million_per_second": count / taken / MILLION, "table_seconds": built}
    return found


def lattices(runs: int) -> dict[str, float]:
    """Return millions of values a second of noisy sums, for each dimension, at noise multiplier 1."""
    found = {}
    for dimension in DIMENSIONS:
        noise = LatticeGaussian(1.0, 1.0, dimension)
        total = np.linspace(-1, 1, dimension).astype(np.float32)
        taken = seconds(lambda noise=noise, total=total: noise.noisy(total, SystemEntropy()), runs)
        found[str(dimension)] = dimension / taken / MILLION
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line, which is all it prints anyway")
    parser.add_argument("--quick", action="store_true", help="fewer values and runs")
    options = parser.parse_args()
    count, runs = (500_000, 2) if options.quick else (8_000_000, 5)
    measured = {name: integers(make, count, runs) for name, make in sorted(SAMPLERS.items())}
    print(json.dumps({"benchmark": "noise", **measured, "lattice_million_per_second": lattices(2 * runs)}))


if __name__ == "__main__":
    main()
