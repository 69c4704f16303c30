"""Every strategy by the name that a job file gives it.

Whoever adds one adds its line here, its line in `docs/strategies.md`, and its numbers to the tests, which hold the
three to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedpriv.learning.buffered import FedBuff
from fedpriv.learning.drift import FedDyn, FedPA, FedProx, Scaffold
from fedpriv.learning.personal import Ditto, FedBN, FedPer
from fedpriv.learning.reweighted import FedNova, QFedAvg
from fedpriv.learning.robust import Bulyan, GeometricMedian, Krum, Median, MultiKrum, NormBound, TrimmedMean
from fedpriv.learning.server_optimizers import FedAdagrad, FedAdam, FedAvgM, FedSGD, FedYogi
from fedpriv.learning.strategies import FedAvg, Strategy

STRATEGIES: Mapping[str, Callable[..., Strategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fedpa": FedPA,
    "fedbn": FedBN,
    "fedper": FedPer,
    "ditto": Ditto,
    "fedsgd": FedSGD,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fednova": FedNova,
    "qfedavg": QFedAvg,
    "fedbuff": FedBuff,
    "median": Median,
    "trimmed-mean": TrimmedMean,
    "krum": Krum,
    "multi-krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric-median": GeometricMedian,
    "norm-bound": NormBound,
}
