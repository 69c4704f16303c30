"""Personalisation: strategies under which each worker has something of its own (`owned`).

What is a worker's own leaves in no message: the update has no tensor of it. Metrics that workers measure
(`worker_metrics`) are those of each one's own model on its own rows. All three need the mean of the updates alone, so
they work under secure aggregation. What a worker keeps is made of its rows, and a private round begins with nothing but
the model, so none works with `privacy`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fedpriv.errors import UsageError
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.owned import BatchNorms, Beside, Layers, Personal
from fedpriv.learning.strategies import FedAvg, Strategy


def FedPer(layers: tuple[str, ...]) -> Strategy:  # noqa: N802 - as FedAvg
    """Return averaging of all but the named layers, which stay. Arivazhagan et al. 2019, arXiv 1912.00818, section 3.

    A name is a module's, as in `named_modules`, or a parameter's. The model of the result has these layers as they
    were given: nobody here has seen a trained one.
    """
    if isinstance(layers, str) or not layers:
        raise UsageError(f"layers is {layers!r}; name the layers that stay at each worker, such as ('head',)")
    return _personal("fedper", Layers(tuple(layers)))


def FedBN() -> Strategy:  # noqa: N802 - as FedAvg
    """Return averaging of all but BatchNorm, which stays. Li et al. 2021, arXiv 2102.07623, algorithm 1."""
    return _personal("fedbn", BatchNorms())


def Ditto(strength: float = 0.1, lr: float | None = None) -> Strategy:  # noqa: N802 - as FedAvg
    """Return averaging, with a model of its own at each worker. Li et al. 2021, arXiv 2012.04221, algorithm 1.

    The own model takes as many steps on the same batches, by plain SGD at `lr` (None: the local optimiser's), and is
    pulled by `strength`, lambda of the paper, towards the shared model that the round began with.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise UsageError(f"strength is {strength}; use 0 (a model of the worker's rows alone) or more")
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"lr is {lr}; use a number above 0, or None for the local optimiser's")

    def prepare(local: LocalTraining) -> LocalTraining:
        return _prepared("ditto", local, Beside(strength, local.optimizer.lr if lr is None else lr))

    return replace(FedAvg(), name="ditto", prepare=prepare)


def _personal(name: str, what: Layers | BatchNorms) -> Strategy:
    return replace(FedAvg(), name=name, prepare=lambda local: _prepared(name, local, what))


def _prepared(name: str, local: LocalTraining, what: Personal) -> LocalTraining:
    if local.personal is not None:
        raise UsageError(f"{name} says itself what stays at each worker; leave personal out")
    return replace(local, personal=what)
