"""Server optimisers: the mean update taken as a gradient, and an optimiser's step along it.

The pseudo-gradient of a round is minus the weighted mean update (Reddi et al. 2021, arXiv 2003.00295, algorithms 1
and 2). Parameters take the optimiser's step; buffers, such as the statistics of BatchNorm, move by the mean as under
FedAvg: they are measured, not descended. All of these need the mean alone, so they work under secure aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD, Adam, Optimizer
from fedpriv.learning.strategies import Gathering, Setting, Standing, Strategy, add_weighted, moved
from fedpriv.updates import TensorSet

Gradients = Mapping[str, Tensor]
Step = Callable[[Standing, Gradients], tuple[dict[str, Tensor], TensorSet]]
"""From pseudo-gradients per parameter to what is added to each, and the next memory."""


def FedOpt(optimizer: Optimizer, *, name: str = "fedopt") -> Strategy:  # noqa: N802 - as FedAvg
    """Return a strategy that gives the pseudo-gradient to `optimizer`, exactly as torch.optim's class of that name.

    Reddi et al. 2021, algorithm 1, with any first-order optimiser at the server.
    """

    def initialise(setting: Setting, model: TensorSet) -> TensorSet:
        zeros = {
            f"{each}/{kind}": torch.zeros_like(_wide(tensor))
            for kind in optimizer.state
            for each, tensor in model
            if each in setting.trained
        }
        return TensorSet(zeros | {f"optimizer/{each}": _number(0.0) for each in optimizer.counters})

    def step(before: Standing, gradients: Gradients) -> tuple[dict[str, Tensor], TensorSet]:
        parameters = [_wide(before.model[each]) for each in gradients]
        after, state, counters = optimizer.update(
            parameters,
            list(gradients.values()),
            {kind: [before.memory[f"{each}/{kind}"] for each in gradients] for kind in optimizer.state},
            {each: before.memory[f"optimizer/{each}"] for each in optimizer.counters},
            {each: _number(value) for each, value in optimizer.hyperparameters.items()},
        )
        by = {each: new - old for each, new, old in zip(gradients, after, parameters, strict=True)}
        kept = {f"{each}/{kind}": new for kind, all_of in state.items() for each, new in _pairs(gradients, all_of)}
        return by, TensorSet(kept | {f"optimizer/{each}": new for each, new in counters.items()})

    return Strategy(name, add_weighted, _descending(step), initialise=initialise, of_sums=True)


def FedAvgM(lr: float = 1.0, momentum: float = 0.9) -> Strategy:  # noqa: N802 - as FedAvg
    """Return federated averaging with momentum at the server. Hsu et al. 2019, arXiv 1909.06335, section 4.3."""
    return FedOpt(SGD(lr, momentum=momentum), name="fedavgm")


def FedAdagrad(lr: float = 0.1, eps: float = 1e-3) -> Strategy:  # noqa: N802 - as FedAvg
    """Return Adagrad at the server; eps is tau, and squares begin at its square. Reddi et al. 2021, algorithm 2."""

    def second(squares: Tensor, square: Tensor) -> Tensor:
        return squares + square

    return _adaptive("fedadagrad", second, lr, (0.0, 0.0), eps)


def FedAdam(  # noqa: N802 - as FedAvg
    lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-3
) -> Strategy:
    """Return Adam at the server, without bias correction as its paper has it. Reddi et al. 2021, algorithm 2.

    `FedOpt(fp.Adam(lr))` is the one that corrects, as torch does.
    """

    def second(squares: Tensor, square: Tensor) -> Tensor:
        return squares * betas[1] + square * (1.0 - betas[1])

    return _adaptive("fedadam", second, lr, betas, eps)


def FedYogi(  # noqa: N802 - as FedAvg
    lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-3
) -> Strategy:
    """Return Yogi at the server, whose squares shrink by steps of bounded size. Reddi et al. 2021, algorithm 2."""

    def second(squares: Tensor, square: Tensor) -> Tensor:
        return squares - square * (1.0 - betas[1]) * torch.sign(squares - square)

    return _adaptive("fedyogi", second, lr, betas, eps)


def FedSGD(  # noqa: N802 - as FedAvg
    lr: float = 0.1,
    server: Literal["sgd", "adam"] = "sgd",
    total: bool = False,  # noqa: FBT001, FBT002 - a key of [strategy]
) -> Strategy:
    """Return federated gradient descent: one full-batch gradient per worker and round. McMahan et al. 2017, section 2.

    Workers take one step of plain SGD, so that the update is minus its rate times the gradient; the server descends
    along the row-weighted mean of the gradients, or with `total` along the sum over all rows, by torch's SGD or Adam.
    """
    inner = FedOpt(Adam(lr) if server == "adam" else SGD(lr), name="fedsgd")
    if server not in ("sgd", "adam"):
        raise UsageError(f"server is {server!r}; use 'sgd' or 'adam'")

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        scale = before.setting.local.optimizer.lr
        share = gathering.weight if total else 1.0
        totals = {
            each: value * (share / scale) if each in before.setting.trained else value
            for each, value in gathering.totals.items()
        }
        return inner.conclude(before, replace(gathering, totals=totals))

    return replace(inner, conclude=conclude, check=_one_full_step)


def _one_full_step(setting: Setting) -> None:
    """Raise `UsageError` unless the local training is one step of plain SGD on all rows."""
    local = setting.local
    if not isinstance(local.optimizer, SGD) or local.optimizer != SGD(local.optimizer.lr) or local.epochs != 1:
        raise UsageError(
            "fedsgd takes one gradient from each worker: use LocalTraining(epochs=1, optimizer=fp.SGD(lr)) without "
            "momentum or decay; the server's own rate is FedSGD(lr=...)"
        )
    most = max((rows for rows in setting.announced if rows is not None), default=0)
    if local.batch_size < most or local.drop_last:
        raise UsageError(
            f"fedsgd takes one gradient over all rows of a worker, but batch_size is {local.batch_size} and a worker "
            f"announces {most} rows; use a batch_size of {most} or more (counts may be announced rounded down to tens) "
            "and drop_last=False"
        )


def _adaptive(
    name: str, second: Callable[[Tensor, Tensor], Tensor], lr: float, betas: tuple[float, float], eps: float
) -> Strategy:
    """Return algorithm 2 of Reddi et al.: m <- b1 m + (1 - b1) d, v by `second`, x <- x + lr m / (sqrt v + eps)."""
    finite = all(math.isfinite(each) for each in (lr, eps, *betas))
    if not (finite and lr > 0 and eps > 0 and len(betas) == 2 and all(0 <= each < 1 for each in betas)):
        raise UsageError(
            f"{name} has lr {lr}, betas {betas} and eps {eps}; lr and eps must be above 0, betas from 0 to below 1"
        )

    def initialise(setting: Setting, model: TensorSet) -> TensorSet:
        held = [(each, _wide(tensor)) for each, tensor in model if each in setting.trained]
        means = {f"{each}/mean": torch.zeros_like(tensor) for each, tensor in held}
        return TensorSet(means | {f"{each}/square": torch.full_like(tensor, eps**2) for each, tensor in held})

    def step(before: Standing, gradients: Gradients) -> tuple[dict[str, Tensor], TensorSet]:
        by: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for each, gradient in gradients.items():
            mean = before.memory[f"{each}/mean"] * betas[0] - gradient * (1.0 - betas[0])
            square = second(before.memory[f"{each}/square"], gradient.square())
            by[each] = mean * lr / (square.sqrt() + eps)
            kept |= {f"{each}/mean": mean, f"{each}/square": square}
        return by, TensorSet(kept)

    return Strategy(name, add_weighted, _descending(step), initialise=initialise, of_sums=True)


def _descending(step: Step) -> Callable[[Standing, Gathering], Standing]:
    """Return a `conclude` that takes `step` along the parameters' pseudo-gradients, and moves buffers by their mean."""

    def conclude(before: Standing, gathering: Gathering) -> Standing:
        means = {each: value / gathering.weight for each, value in gathering.totals.items()}
        gradients = {each: -value for each, value in means.items() if each in before.setting.trained}
        by, memory = step(before, gradients)
        return replace(moved(before, means | by), memory=memory)

    return conclude


def _pairs(names: Gradients, tensors: Sequence[Tensor]) -> zip[tuple[str, Tensor]]:
    return zip(names, tensors, strict=True)


def _wide(tensor: Tensor) -> Tensor:
    """Return a parameter as the server computes with it: float32 or wider."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
