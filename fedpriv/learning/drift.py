"""Strategies against drift: what workers add to their training so that unlike rows do not pull the model apart.

Each adds a term to the plan (`terms`) and needs the mean of the updates alone, so all of them work under secure
aggregation. FedDyn and SCAFFOLD remember something at each worker between rounds; where that is lost, as after a
restart, it begins anew at zero and the worker's own log says so.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fedpriv.errors import UsageError
from fedpriv.learning.local import LocalTraining, Term
from fedpriv.learning.sampled import Posterior
from fedpriv.learning.server_optimizers import FedAvgM
from fedpriv.learning.strategies import Gathering, Setting, Standing, Strategy, add_weighted, apply_mean, moved
from fedpriv.learning.terms import Control, Dual, Proximal
from fedpriv.updates import TensorSet


def FedProx(mu: float = 0.01) -> Strategy:  # noqa: N802 - as FedAvg
    """Return averaging of training that stays near the received model. Li et al. 2020, arXiv 1812.06127."""
    return _with_term("fedprox", Proximal(mu))


def Scaffold() -> Strategy:  # noqa: N802 - as FedAvg
    """Return stochastic controlled averaging. Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1.

    Everybody's control variate travels beside the model, so messages are twice as long; each worker keeps its own.
    """

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        of_all = max(1, len(before.setting.announced))
        share = min(1.0, before.setting.workers / of_all)  # c moves by |S| / N times the mean change
        for name, total in gathering.totals.items():
            if _is_shared(name):
                total.mul_(share)
        return apply_mean(before, gathering)

    return replace(_with_term("scaffold", Control()), conclude=conclude)


def FedDyn(alpha: float = 0.1) -> Strategy:  # noqa: N802 - as FedAvg
    """Return dynamic regularisation. Acar et al. 2021, arXiv 2111.04263, algorithm 1.

    The server remembers h, which takes -alpha |P| / m times the mean update; the model is the mean model less h /
    alpha.
    """

    def initialise(setting: Setting, model: TensorSet) -> TensorSet:
        return TensorSet({name: torch.zeros_like(value) for name, value in model if name in setting.trained})

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        share = min(1.0, before.setting.workers / max(1, len(before.setting.announced)))
        means = {name: total / gathering.weight for name, total in gathering.totals.items()}
        memory = {name: held - alpha * share * means[name].to(held.dtype) for name, held in before.memory}
        by = {name: mean - memory[name] / alpha if name in memory else mean for name, mean in means.items()}
        return replace(moved(before, by), memory=TensorSet(memory))

    return replace(_with_term("feddyn", Dual(alpha)), initialise=initialise, conclude=conclude)


def FedPA(  # noqa: N802 - as FedAvg
    burn_in: int = 0, steps_per_sample: int = 10, samples: int = 4, shrinkage: float = 0.01, lr: float = 1.0,
    momentum: float = 0.0,
) -> Strategy:  # fmt: skip
    """Return posterior averaging. Al-Shedivat et al. 2021, arXiv 2010.05273, algorithm 1 and section 4.

    Workers take `burn_in` steps of the local optimiser, then average every `steps_per_sample` into a sample, `samples`
    at most, and send the inverse of their shrunk covariance times the way to their mean; the server descends along the
    mean of these at `lr`. With one sample, or shrinkage 0, the update is the way to the samples' mean.
    """
    inner = FedAvgM(lr, momentum)
    return replace(
        _with_term("fedpa", Posterior(burn_in, steps_per_sample, samples, shrinkage)),
        conclude=inner.conclude,
        initialise=inner.initialise,
    )


def _with_term(name: str, term: Term) -> Strategy:
    def prepare(local: LocalTraining) -> LocalTraining:
        if local.term is not None:
            raise UsageError(f"{name} adds a term of its own to local training; leave term out")
        return replace(local, term=term)

    return Strategy(name, add_weighted, apply_mean, prepare=prepare, of_sums=True)


def _is_shared(name: str) -> bool:
    return name.endswith(tuple(f"/{kind}" for kind in Control.shared))
