"""Train on data that never moves: workers hold it, a coordinator learns from it, a ledger proves what left.

The two-minute tour, in one process:

    import torch, fedpriv as fp

    def worker(name, rows):
        features = torch.randn(rows, 4)
        rule = fp.PlainUpdate(recipients=("me",))           # without a rule, nothing leaves
        return fp.VirtualWorker(name, [fp.Dataset("toy", features, features.sum(1) > 0, release=[rule])])

    with fp.Federation([worker("alice", 200), worker("bob", 120)]) as federation:
        result = federation.fit(
            torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0)),
            dataset="toy",
            loss=torch.nn.functional.binary_cross_entropy_with_logits,
            rounds=5,
            local=fp.LocalTraining(epochs=1, batch_size=32, optimizer=fp.SGD(lr=0.5)),
        )
    print(result)                                           # the model, every round, what left each worker

Workers on other hosts run `fedpriv worker start`; `Federation.listen` waits for them. Names are resolved when
first used, so that `import fedpriv` costs nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpriv.errors import (
        BudgetExceeded,
        FedprivError,
        PeerLost,
        PlanRefused,
        ReleaseDenied,
        RoundAbandoned,
        TraceError,
        UsageError,
        VerificationFailed,
        WorkerRefused,
    )
    from fedpriv.learning.buffered import FedBuff
    from fedpriv.learning.drift import FedDyn, FedPA, FedProx, Scaffold
    from fedpriv.learning.local import SGD, Adam, AdamW, LocalTraining
    from fedpriv.learning.personal import Ditto, FedBN, FedPer
    from fedpriv.learning.reweighted import FedNova, QFedAvg
    from fedpriv.learning.robust import Bulyan, GeometricMedian, Krum, Median, MultiKrum, NormBound, TrimmedMean
    from fedpriv.learning.sampling import Between, Everybody, Fixed, Fraction, Importance, Poisson, RoundRobin
    from fedpriv.learning.server_optimizers import FedAdagrad, FedAdam, FedAvgM, FedOpt, FedSGD, FedYogi
    from fedpriv.learning.standardize import Standardize
    from fedpriv.learning.strategies import FedAvg
    from fedpriv.policy.rules import (
        Approval,
        DifferentialPrivacy,
        Metrics,
        Mock,
        PlainUpdate,
        SecureSum,
        Statistics,
    )
    from fedpriv.privacy.budget import Budget
    from fedpriv.privacy.clipping import AdaptiveClip
    from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, TreeDP
    from fedpriv.remote.dataset import RemoteDataset, RowSet, search
    from fedpriv.remote.homecoming import ModuleTicket, request_module
    from fedpriv.remote.modules import get_module, send_module
    from fedpriv.remote.plan import forecast, plan
    from fedpriv.remote.pointer import RemoteTensor
    from fedpriv.remote.ticket import Ticket
    from fedpriv.remote.worker import RemoteWorker, connect
    from fedpriv.simulation.devices import Device, SimulatedDevices
    from fedpriv.simulation.population import Population
    from fedpriv.simulation.simulate import simulate
    from fedpriv.simulation.virtual import VirtualWorker
    from fedpriv.transport.credentials import Credentials
    from fedpriv_coordinator.experiment import History, Result
    from fedpriv_coordinator.federation import Federation
    from fedpriv_coordinator.partition_plots import plot_partitions
    from fedpriv_coordinator.secure_aggregation import SecureAggregation
    from fedpriv_worker.datasets import Dataset
    from fedpriv_worker.enrolment import OwnerTerms

logging.getLogger("fedpriv").addHandler(logging.NullHandler())  # a library speaks only where it is asked to

_HOMES = {
    "fedpriv.errors": (
        "BudgetExceeded",
        "FedprivError",
        "PeerLost",
        "PlanRefused",
        "ReleaseDenied",
        "RoundAbandoned",
        "TraceError",
        "UsageError",
        "VerificationFailed",
        "WorkerRefused",
    ),
    "fedpriv.learning.buffered": ("FedBuff",),
    "fedpriv.learning.drift": ("FedDyn", "FedPA", "FedProx", "Scaffold"),
    "fedpriv.learning.local": ("SGD", "Adam", "AdamW", "LocalTraining"),
    "fedpriv.learning.personal": ("Ditto", "FedBN", "FedPer"),
    "fedpriv.learning.reweighted": ("FedNova", "QFedAvg"),
    "fedpriv.learning.robust": (
        "Bulyan",
        "GeometricMedian",
        "Krum",
        "Median",
        "MultiKrum",
        "NormBound",
        "TrimmedMean",
    ),
    "fedpriv.learning.sampling": (
        "Between",
        "Everybody",
        "Fixed",
        "Fraction",
        "Importance",
        "Poisson",
        "RoundRobin",
    ),
    "fedpriv.learning.server_optimizers": ("FedAdagrad", "FedAdam", "FedAvgM", "FedOpt", "FedSGD", "FedYogi"),
    "fedpriv.learning.standardize": ("Standardize",),
    "fedpriv.learning.strategies": ("FedAvg",),
    "fedpriv.policy.rules": (
        "Approval",
        "DifferentialPrivacy",
        "Metrics",
        "Mock",
        "PlainUpdate",
        "SecureSum",
        "Statistics",
    ),
    "fedpriv.privacy.budget": ("Budget",),
    "fedpriv.privacy.clipping": ("AdaptiveClip",),
    "fedpriv.privacy.modes": ("CentralDP", "DistributedDP", "ExampleDP", "LocalDP", "TreeDP"),
    "fedpriv.remote.dataset": ("RemoteDataset", "RowSet", "search"),
    "fedpriv.remote.homecoming": ("ModuleTicket", "request_module"),
    "fedpriv.remote.modules": ("get_module", "send_module"),
    "fedpriv.remote.plan": ("forecast", "plan"),
    "fedpriv.remote.pointer": ("RemoteTensor",),
    "fedpriv.remote.ticket": ("Ticket",),
    "fedpriv.remote.worker": ("RemoteWorker", "connect"),
    "fedpriv.simulation.devices": ("Device", "SimulatedDevices"),
    "fedpriv.simulation.population": ("Population",),
    "fedpriv.simulation.simulate": ("simulate",),
    "fedpriv.simulation.virtual": ("VirtualWorker",),
    "fedpriv.transport.credentials": ("Credentials",),
    "fedpriv_coordinator.experiment": ("History", "Result"),
    "fedpriv_coordinator.federation": ("Federation",),
    "fedpriv_coordinator.partition_plots": ("plot_partitions",),
    "fedpriv_coordinator.secure_aggregation": ("SecureAggregation",),
    "fedpriv_worker.datasets": ("Dataset",),
    "fedpriv_worker.enrolment": ("OwnerTerms",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - every name is a key of _HOME_OF
    *sorted(_HOME_OF),
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Return a public name from the module that defines it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fedpriv' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(_HOME_OF)
