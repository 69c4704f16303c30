"""Executed noise is billed noise: what leaves under each mode is opened, and its variance and reach are what was paid.

Every worker's rows are all zeros and every gradient is zero, so that what leaves is noise and nothing else; neighbours
with the same randomness differ by no more than the noise is sized for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import fedpriv as fp
from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.ids import DatasetName, JobId, PlanDigest, WorkerName
from fedpriv.learning.local import SGD
from fedpriv.learning.strategies import Contribution, Gathering
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.events import from_json
from fedpriv.privacy.mechanisms import Gaussian
from fedpriv.privacy.noises import DistributedNoise
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.ring import ring_for
from fedpriv.secagg.vector import Part, with_counts
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import Column, DatasetDescription, Train
from fedpriv.wire.private import Private
from fedpriv.wire.rounds import FixedPoint, vector_of
from fedpriv_coordinator.private_job import Settled
from fedpriv_coordinator.private_rounds import noising_of
from fedpriv_worker.actions import Trained
from fedpriv_worker.contribution import contribution_of
from fedpriv_worker.pricing import Price, price_of
from fedpriv_worker.private_training import flat, protected
from fedpriv_worker.training import Unfit

DIMENSION = 4000
CHANGED = (TensorSpec("w", "float32", (DIMENSION,)),)
HELD = DatasetDescription(
    DatasetName("rows"), (Column("x", "float"),), (1,), "float32", Column("y", "bool"), "float32", (), (), 100
)
ORDER = Train(1, JobId("j"), 1, HELD.name, PlanDigest(b"p" * 32), 1, 10, True, False, 0, {}, (), "", TensorSet())
Z, CLIP, WORKERS, LEAST, COLLUDING = 3.0, 0.5, 5, 4, 1


def ordered(mode: object, *, summed: bool) -> tuple[Train, Price]:
    """Return the private order and its price, as a worker of five makes it."""
    colluding = COLLUDING if isinstance(mode, fp.DistributedDP) else 0
    private = Private(mode, 5, WORKERS, colluding, SGD(0.1) if isinstance(mode, fp.ExampleDP) else None)
    order = replace(ORDER, privacy=private)
    if summed:
        empty = with_counts([Part("a", (), 16.0)])
        among = Descriptor(
            federation="f", roster=bytes(32), round=1, model=bytes(32), plan=bytes(32), vector=empty, modulus_bits=32,
            workers=WORKERS, threshold=LEAST, minimum_cohort=3,
        )  # fmt: skip  # one line of numbers
        shared = private.shared_noise(DIMENSION, workers=WORKERS, least=LEAST) if colluding else None
        vector = vector_of(order, CHANGED, 1, FixedPoint(16.0, 16, 1), shared)
        bits = ring_for(vector.bits_needed(WORKERS)).bits
        order = replace(order, invite=Invite(replace(among, vector=vector, modulus_bits=bits)))
    return order, price_of(order, private, HELD, Budget(100.0, 1e-5), CHANGED, Fraction(1, 3))


def zeros() -> TensorSet:
    return TensorSet({"w": torch.zeros(DIMENSION)})


def is_like(values: np.ndarray, variance: float) -> bool:
    """Chi-square: the sum of squares over the variance, at 6 deviations either way (2 in 10^9)."""
    statistic = float(np.square(values).sum()) / variance
    return abs(statistic - len(values)) <= 6 * math.sqrt(2 * len(values))


def contributions(mode: fp.DistributedDP) -> tuple[Price, Train, list[np.ndarray]]:
    """Return what each of five workers puts into a sum, in integer units, before it is masked."""
    order, price = ordered(mode, summed=True)
    assert order.invite is not None
    descriptor = order.invite.descriptor
    made = [
        contribution_of(Trained(0, {}, zeros()), 1, descriptor, SystemEntropy(), price.noise).words
        for _ in range(WORKERS)
    ]
    return price, order, [descriptor.ring.lift(each).astype(np.float64) for each in made]


@pytest.mark.parametrize("kind", ["skellam", "discrete-gaussian"])
def test_shared_noise_in_what_leaves_is_what_the_bill_says_of_the_certain_ones(kind: str) -> None:
    """The sum of three workers, which is what is billed, has the central variance; all five have 5/3 of it."""
    price, order, words = contributions(fp.DistributedDP(CLIP, noise_multiplier=Z, mechanism=kind, scale_bits=12))
    assert isinstance(price.noise, DistributedNoise)
    central = (Z * CLIP * 2.0**12) ** 2
    honest = LEAST - COLLUDING
    assert is_like(words[0], central / honest)
    assert is_like(sum(words[:honest]), central)
    assert not is_like(sum(words[: honest - 1]), central)
    assert is_like(sum(words), central * WORKERS / honest)
    billed = price.noise.mechanism
    total = billed.variance * (billed.terms if kind == "discrete-gaussian" else 1)
    assert total == pytest.approx(central)
    assert order.invite is not None
    assert order.invite.descriptor.vector.noise_bound == price.noise.largest


def test_the_sum_of_shared_noise_is_read_back_and_divided_by_who_was_expected() -> None:
    mode = fp.DistributedDP(CLIP, noise_multiplier=Z, scale_bits=12)
    _, order, words = contributions(mode)
    assert order.invite is not None
    descriptor = order.invite.descriptor
    total = descriptor.vector.decode(
        descriptor.ring.reduce(sum(words[:LEAST]).astype(np.int64)), workers=LEAST, ring=descriptor.ring
    )
    settled = Settled(mode, order.privacy, {WorkerName("a"): (None, 1)})
    mean = noising_of(settled, CHANGED, SystemEntropy()).mean_of(total)["w"]
    assert torch.allclose(mean, torch.from_numpy(sum(words[:LEAST]) / 2.0**12 / WORKERS).float())


def test_local_noise_in_what_leaves_is_that_of_the_bill() -> None:
    order, price = ordered(fp.LocalDP(CLIP, noise_multiplier=Z), summed=False)
    left = flat(protected(zeros(), price.noise, order, SystemEntropy()))
    lattice = price.noise.lattice(DIMENSION)
    assert is_like(left, lattice.deviation**2)
    assert 1.0 <= lattice.deviation / (Z * CLIP) <= 1.021  # what rounding to the grid takes
    assert from_json(price.cost.event) == Gaussian(3.0)


@pytest.mark.parametrize("summed", [False, True])
def test_central_noise_on_the_sum_is_that_of_the_bill_and_the_worker_adds_none(summed: bool) -> None:
    mode = fp.CentralDP(CLIP, noise_multiplier=Z)
    order, price = ordered(mode, summed=summed)
    left = protected(zeros(), price.noise, order, SystemEntropy())
    assert not flat(left).any()
    noising = noising_of(Settled(mode, order.privacy, {}), CHANGED, SystemEntropy())
    total = Gathering()
    for _ in range(WORKERS):
        noising.fold(total, Contribution(left, 1.0))
    mean = noising.mean(total)["w"].double().numpy()
    assert is_like(mean * WORKERS, price.noise.lattice(DIMENSION).deviation ** 2)


def test_a_tree_adds_up_to_running_sums_with_the_noise_of_the_bill() -> None:
    mode = fp.TreeDP(CLIP, noise_multiplier=Z)
    order, price = ordered(mode, summed=False)
    noising = noising_of(Settled(mode, order.privacy, {}), CHANGED, SystemEntropy())
    first = Gathering()
    noising.fold(first, Contribution(zeros(), 1.0))
    mean = noising.mean(first)["w"].double().numpy()
    assert is_like(mean * WORKERS, (Z * CLIP * price.noise.moved) ** 2 * 1.01)


@pytest.mark.parametrize("size", [0.1, 1.0, 1e6])
def test_one_worker_moves_the_words_of_a_sum_by_no_more_than_the_bill_counts_on(size: float) -> None:
    """The same randomness with and without its update: the integers differ by the rounded norm at most, exactly."""
    order, price = ordered(fp.DistributedDP(CLIP, noise_multiplier=Z, scale_bits=12), summed=True)
    assert order.invite is not None
    descriptor, noise = order.invite.descriptor, price.noise
    values = torch.randn(DIMENSION, generator=torch.Generator().manual_seed(1)) * size
    with_it, without = (
        descriptor.ring.lift(
            contribution_of(Trained(0, {}, TensorSet({"w": each})), 1, descriptor, SeededEntropy(b"same"), noise).words
        )
        for each in (values, torch.zeros(DIMENSION))
    )
    assert float(np.linalg.norm((with_it - without).astype(np.float64))) <= noise.mechanism.l2


@pytest.mark.parametrize("size", [0.1, 1.0, 1e6])
def test_one_worker_moves_a_clipped_sum_by_no_more_than_the_clip(size: float) -> None:
    order, price = ordered(fp.CentralDP(CLIP, noise_multiplier=Z), summed=True)
    assert order.invite is not None
    values = torch.randn(DIMENSION, generator=torch.Generator().manual_seed(1)) * size
    left = protected(TensorSet({"w": values}), price.noise, order, SystemEntropy())
    words = contribution_of(Trained(0, {}, left), 1, order.invite.descriptor, SeededEntropy(b"r"), price.noise).words
    lifted = order.invite.descriptor.ring.lift(words)[:-1].astype(np.float64)  # the last counts what was out of bounds
    assert float(np.linalg.norm(lifted)) / 2.0**16 <= CLIP
    assert int(order.invite.descriptor.ring.lift(words)[-1]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_no_number_contributes_noise_alone(bad: float) -> None:
    values = torch.ones(DIMENSION)
    values[7] = bad
    for mode in (fp.LocalDP(CLIP, noise_multiplier=Z), fp.CentralDP(CLIP, noise_multiplier=Z)):
        order, price = ordered(mode, summed=False)
        left = flat(protected(TensorSet({"w": values}), price.noise, order, SeededEntropy(b"same")))
        assert np.array_equal(left, flat(protected(zeros(), price.noise, order, SeededEntropy(b"same"))))


def test_a_clip_that_rounding_would_exceed_is_refused_before_a_row_counts() -> None:

    order, price = ordered(fp.CentralDP(1e-4, noise_multiplier=Z), summed=True)
    with pytest.raises(Unfit, match="BAD_REQUEST"):
        protected(zeros(), price.noise, order, SystemEntropy())
