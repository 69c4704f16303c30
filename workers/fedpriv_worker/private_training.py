"""Private local training: what a private order computes on rows, clipped and noised as its price says.

Example-level jobs run steps of the worker's own on noisy gradients. In the others local training is what it always is,
and the update as a whole is clipped; then all the noise is added here, or a share of it where integers are made of it
(`contribution`), or none where the recipient promised to. An update with a value that is no number counts as zero. What
is returned is as private as it was billed to be, for the distributed mode once it is noised and masked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fedpriv.entropy import Entropy, fresh_seed
from fedpriv.errors import PlanRefused
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import InputRole, OutputRole, Plan
from fedpriv.privacy.noises import CentralNoise, ExampleNoise, LocalNoise, Noise, TreeNoise
from fedpriv.privacy.rounding import clipped
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import ErrorCode, Train
from fedpriv.wire.rounds import fixed_point_of
from fedpriv_worker import training
from fedpriv_worker.actions import Trained
from fedpriv_worker.datasets import Rows
from fedpriv_worker.definitions import code_of
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.pricing import Price
from fedpriv_worker.private_step import PrivateStep, train_privately

log = logging.getLogger("fedpriv.worker")


def ready(make: Callable[[], ExampleGradients]) -> ExampleGradients:
    """Return what `make` makes of a plan alone; raise `Unfit`, which says why, where it refuses that plan."""
    try:
        return make()
    except PlanRefused as refusal:
        raise training.Unfit(code_of(refusal), step=refusal.step, operation=refusal.operation) from None


def by_rows(
    gradients: ExampleGradients,
    plan: Plan,
    rows: Rows,
    order: Train,
    price: Price,
    entropy: Entropy,
    stopped: Callable[[], bool],
) -> Trained:
    """Return what private steps on single rows changed in the model over one round.

    Samples and noise come from `entropy`. Raise `Unfit` for an order that cannot be, whatever the rows are, and
    `Stopped` when `stopped` says so.
    """
    assert isinstance(price.noise, ExampleNoise)  # whoever asks looked
    assert price.optimizer is not None  # an order of this mode brings one
    training.check_fit(plan, rows, order.model, {})
    step = PrivateStep(gradients, price.noise)
    found = train_privately(step, price.noise, rows, order.model.tensors, price.optimizer, entropy, stopped)
    if found.ignored:
        log.warning("%d gradients of rows of %s were no numbers and counted as zero", found.ignored, order.dataset)
    return Trained(0, {}, found.delta)


def as_a_whole(
    program: Program, rows: Rows, order: Train, price: Price, entropy: Entropy, stopped: Callable[[], bool]
) -> Trained:
    """Return what ordinary training changed in the model, clipped and noised as a whole; raise as `by_rows` does.

    What fails on rows changed nothing, and that is noised like anything else. A plan that keeps something for later
    rounds is `Unfit`: it would be made of rows, and nobody pays for it.
    """
    if program.plan.inputs_of(InputRole.KEPT):
        raise training.Unfit(ErrorCode.BAD_REQUEST)
    try:
        delta = training.train(program, rows, order, fresh_seed(entropy), stopped, {})[0].delta
    except (training.Unfit, training.Stopped):
        raise
    except Exception as error:  # noqa: BLE001 - whatever torch raises, its text quotes values and stays here
        log.warning("training on %s failed with %s and counts as no change", order.dataset, type(error).__name__)
        changed = program.plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)
        delta = TensorSet({each.name: torch.zeros_like(order.model[each.name]) for each in changed})
    return Trained(0, {}, protected(delta, price.noise, order, entropy))


def protected(delta: TensorSet, noise: Noise, order: Train, entropy: Entropy) -> TensorSet:
    """Return a whole update as it leaves training: clipped and noised, clipped, or as it is where integers follow."""
    values = flat(delta)
    match noise:
        case LocalNoise():
            return shaped(noise.lattice(len(values)).noisy(clipped(values, noise.clip), entropy), delta)
        case CentralNoise() | TreeNoise():
            return shaped(clipped(values, noise.clip - _rounding_of(order, len(values))), delta)
    return delta


def flat(delta: TensorSet) -> NDArray[np.float64]:
    """Return all values of `delta` in its order, shape (d,)."""
    return np.concatenate([tensor.detach().to(torch.float64).cpu().numpy().reshape(-1) for _, tensor in delta])


def shaped(values: NDArray[np.floating], like: TensorSet) -> TensorSet:
    """Return `values`, shape (d,), as tensors of the names, shapes and types of `like`."""
    made: dict[str, torch.Tensor] = {}
    start = 0
    for name, tensor in like:
        part = torch.from_numpy(np.ascontiguousarray(values[start : start + tensor.numel()]))
        made[name] = part.reshape(tensor.shape).to(tensor.dtype)
        start += tensor.numel()
    return TensorSet(made)


def _rounding_of(order: Train, dimension: int) -> float:
    """Return by how much rounding to words of a sum can lengthen an update; raise `Unfit` for all of the clip."""
    assert order.privacy is not None  # its update is clipped
    longer = 0.0
    if order.invite is not None:
        longer = math.ldexp(math.sqrt(dimension), -fixed_point_of(order.invite.descriptor).fraction_bits)
    if not longer < order.privacy.mode.clip:
        raise training.Unfit(ErrorCode.BAD_REQUEST)
    return longer
