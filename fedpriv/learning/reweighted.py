"""Strategies that weigh updates by something else than rows: by local steps (FedNova), by loss (q-FedAvg).

Both need the updates one by one, so neither works under secure aggregation.
"""

from __future__ import annotations

import math

import torch

from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.strategies import Gathering, Setting, Standing, Strategy, keep, moved


def FedNova() -> Strategy:  # noqa: N802 - as FedAvg
    """Return normalised averaging: updates by the length of their local run, so that many steps pull no harder.

    Wang et al. 2020, arXiv 2007.07481, equations 8 to 10: d = sum p_i delta_i / |a_i|, and the model moves by
    (sum p_i |a_i|) d. The number of local steps follows from a worker's weight in rows, so the rule that lets its
    update out has to say weight exact or rounded.
    """

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        shares = [update.weight / gathering.weight for update in gathering.kept]
        lengths = [_length(before.setting.local, update.weight) for update in gathering.kept]
        effective = sum(share * length for share, length in zip(shares, lengths, strict=True))
        by: dict[str, torch.Tensor] = {}
        for update, share, length in zip(gathering.kept, shares, lengths, strict=True):
            for name, value in update.delta:
                scale = share * effective / length if name in before.setting.trained else share
                by[name] = by.get(name, torch.zeros(())) + value.double() * scale
        return moved(before, by)

    return Strategy("fednova", keep, conclude, check=_steps_known)


def QFedAvg(q: float = 1.0) -> Strategy:  # noqa: N802 - as FedAvg
    """Return q-fair averaging: the higher a worker's loss, the more it counts; q = 0 weighs all alike.

    Li et al. 2020, arXiv 1905.10497, algorithm 2, with the Lipschitz constant 1 / lr of the local rate. The loss of a
    worker is the mean over its training steps of the round, which it says where "loss" is among `worker_metrics`.
    """
    if not (math.isfinite(q) and q >= 0):
        raise UsageError(f"q is {q}; use 0 (all workers alike) or more")

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        constant = 1.0 / before.setting.local.optimizer.lr
        by: dict[str, torch.Tensor] = {}
        trained, curvature = before.setting.trained, 0.0
        for update in gathering.kept:
            assert update.loss is not None  # `needs_loss` is why it is there
            loss = max(update.loss, 1e-10)
            square = sum(float(value.double().square().sum()) for name, value in update.delta if name in trained)
            curvature += q * loss ** (q - 1) * constant**2 * square + constant * loss**q
            for name, value in update.delta:
                scale = constant * loss**q if name in trained else 1.0 / gathering.updates
                by[name] = by.get(name, torch.zeros(())) + value.double() * scale
        return moved(before, {name: value / curvature if name in trained else value for name, value in by.items()})

    return Strategy("qfedavg", keep, conclude, needs_loss=True)


def _length(local: LocalTraining, rows: float) -> float:
    """Return the 1-norm of the weights that a run of local SGD over `rows` gives its gradients.

    It is the number of steps without momentum; with momentum m it is (T - m (1 - m^T) / (1 - m)) / (1 - m) for T steps,
    Wang et al. 2020, section 4.
    """
    batches = rows / local.batch_size
    steps = local.epochs * max(1, math.floor(batches) if local.drop_last else math.ceil(batches))
    momentum = local.optimizer.momentum if isinstance(local.optimizer, SGD) else 0.0
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def _steps_known(setting: Setting) -> None:
    """Raise `UsageError` where the length of a local run does not follow from a worker's rows."""
    optimizer = setting.local.optimizer
    if not isinstance(optimizer, SGD) or optimizer.nesterov or optimizer.dampening or optimizer.momentum >= 1:
        raise UsageError(
            "fednova normalises runs of SGD, with or without plain momentum below 1; use fp.SGD(lr, momentum=...)"
        )
    if None in setting.announced:
        raise UsageError(
            "fednova needs each worker's rows, and an owner hides them; use another strategy, or ask the owner to let "
            'them out rounded: rows = "rounded"'
        )
