"""The five modes: what they promise, what they cost, and that the noise they execute is the noise they bill."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.accountants import cost_of, epsilon_by_rdp
from fedpriv.privacy.clipping import AdaptiveClip
from fedpriv.privacy.mechanisms import DiscreteGaussian, Gaussian, PoissonSampled, Repeated, Skellam
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, TreeDP
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.rounding import squared_norm

MODES = (CentralDP, DistributedDP, LocalDP, ExampleDP, TreeDP)
SUM = {"workers": 10, "threshold": 7, "colluding": 3, "dimension": 500}


def cost(mode, rounds=5):
    """Return the epsilon that `rounds` rounds of `mode` cost under its own relation."""
    match mode:
        case CentralDP():
            whole = Repeated(mode.noise(rounds=rounds, workers=20).mechanism, rounds)
        case DistributedDP():
            whole = Repeated(mode.noise(rounds=rounds, **SUM).mechanism, rounds)
        case LocalDP():
            whole = Repeated(mode.noise(rounds=rounds).mechanism, rounds)
        case ExampleDP():
            one = mode.noise(rows=1000, batch_size=50, rounds=rounds, steps=4).mechanism
            whole = Repeated(one.mechanism, one.times * rounds)
        case TreeDP():
            whole = mode.noise(rounds=rounds, workers=20).mechanism
    return epsilon_by_rdp(whole, mode.delta, mode.relation)


@pytest.mark.parametrize("kind", MODES)
class TestEveryMode:
    """What holds for a mode whoever adds its noise."""

    @pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
    def test_the_noise_of_a_target_costs_the_target(self, kind, epsilon):
        assert cost(kind(epsilon=epsilon)) == pytest.approx(epsilon, rel=1e-4)
        assert cost(kind(epsilon=epsilon)) <= epsilon

    def test_without_a_target_it_aims_at_epsilon_three(self, kind):
        assert cost(kind()) == pytest.approx(3.0, rel=1e-4)

    def test_a_multiplier_is_taken_as_it_is(self, kind):
        assert cost(kind(noise_multiplier=4.0)) > cost(kind(noise_multiplier=8.0))

    def test_both_a_target_and_a_multiplier_are_one_too_many(self, kind):
        with pytest.raises(UsageError, match="give one: the other follows"):
            kind(epsilon=1.0, noise_multiplier=1.0)

    @pytest.mark.parametrize("clip", [0, 0.0, -1.0, math.nan, math.inf, True, "1"])
    def test_a_clip_that_is_none_is_refused(self, kind, clip):
        with pytest.raises(UsageError, match="largest L2 norm of what one unit contributes"):
            kind(clip=clip)

    @pytest.mark.parametrize(
        "wrong", [{"epsilon": 0}, {"epsilon": -1.0}, {"delta": 0.0}, {"delta": 1.0}, {"noise_multiplier": 0.0}]
    )
    def test_a_target_that_is_none_is_refused(self, kind, wrong):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            kind(**wrong)

    def test_it_says_whom_it_protects_and_whether_that_is_trust(self, kind):
        assert kind.unit == ("row" if kind is ExampleDP else "worker")
        assert kind.trusted is (kind in {CentralDP, TreeDP})
        assert isinstance(kind.relation, Relation)


def test_central_noise_is_what_is_billed():
    noise = CentralDP(clip=0.5, noise_multiplier=2.0).noise(rounds=3, workers=20)
    lattice = noise.lattice(100_000)
    drawn = lattice.noisy(np.zeros(100_000), SeededEntropy(b"central"))
    assert drawn.std() == pytest.approx(lattice.deviation, rel=0.02)
    assert lattice.deviation >= 2.0 * 0.5
    assert noise.mechanism == lattice.mechanism == Gaussian(2.0)


@pytest.mark.parametrize(("workers", "multiplier"), [(20, 1.1547), (50, 1.0206), (100, 1.0050)])
def test_a_clip_that_adapts_takes_its_share_of_the_noise(workers, multiplier):
    noise = CentralDP(noise_multiplier=1.0, adaptive=AdaptiveClip()).noise(rounds=3, workers=workers)
    assert noise.parts.multiplier == pytest.approx(multiplier, abs=5e-5)
    assert noise.parts.bits_deviation == pytest.approx(0.05 * workers)
    together = noise.lattice(1).noise_multiplier ** -2 + noise.bits().noise_multiplier ** -2
    assert together == pytest.approx(noise.multiplier**-2)
    assert noise.clip == AdaptiveClip().clip
    assert noise.lattice(1, clip=7.0).sensitivity == 7.0


def test_a_clip_cannot_adapt_with_so_few_workers_that_their_bits_cost_all():
    with pytest.raises(UsageError, match=r"at least 11 workers, or less noise than 1$"):
        CentralDP(noise_multiplier=1.0, adaptive=AdaptiveClip()).noise(rounds=3, workers=10)
    CentralDP(noise_multiplier=1.0, adaptive=AdaptiveClip()).noise(rounds=3, workers=11)


@pytest.mark.parametrize(("mechanism", "kind"), [("skellam", Skellam), ("discrete-gaussian", DiscreteGaussian)])
def test_distributed_noise_is_what_is_billed_and_sized_for_the_worst(mechanism, kind):
    noise = DistributedDP(mechanism=mechanism, noise_multiplier=2.0).noise(rounds=3, **SUM)
    assert isinstance(noise.mechanism, kind)
    assert (noise.honest, noise.price) == (4, 2.5)
    units = noise.rounding.clip * noise.rounding.scale
    assert noise.local_variance == pytest.approx((2.0 * units) ** 2 / 4)
    entropy = SeededEntropy(b"distributed")
    sums = [sum(noise.contribution(np.zeros(500), entropy) for _ in range(4)) for _ in range(200)]
    executed = np.concatenate(sums).astype(float).var()
    billed = noise.mechanism.variance * (1 if kind is Skellam else noise.mechanism.terms)
    assert executed == pytest.approx(billed, rel=5 * math.sqrt(2 / 100_000))


def test_a_contribution_less_its_noise_is_within_the_norm_that_is_billed():
    noise = replace(DistributedDP(noise_multiplier=1.0, scale_bits=10).noise(rounds=1, **SUM), local_variance=1e-9)
    far = noise.contribution(np.full(500, 1e6), SystemEntropy())
    assert squared_norm(far) <= noise.mechanism.l2**2


def test_no_sum_of_contributions_wraps_in_the_ring():
    noise = DistributedDP(noise_multiplier=1.0).noise(rounds=1, **SUM)
    widest = 10 * (math.floor(noise.rounding.l2) - noise._sampler().table.least)
    assert 2 ** (noise.ring_bits - 1) > widest
    assert 2 ** (noise.ring_bits - 2) <= widest


def test_the_units_of_a_clip_grow_with_the_dimension():
    few, many = (DistributedDP(clip=0.25).noise(rounds=1, **(SUM | {"dimension": each})) for each in (1, 10**6))
    assert few.rounding.scale == 4096.0
    assert many.rounding.l2 / (many.rounding.clip * many.rounding.scale) < 1.01


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"colluding": 7}, "leaves no honest one"),
        ({"colluding": -1}, "leaves no honest one"),
        ({"workers": 6}, "asks for more than there are"),
        ({"threshold": 0}, "threshold is 0"),
        ({"dimension": 0}, "dimension is 0"),
    ],
)
def test_workers_that_cannot_make_a_sum_are_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        DistributedDP().noise(rounds=1, **(SUM | wrong))


def test_a_minimum_cohort_above_the_threshold_counts():
    assert DistributedDP().noise(rounds=1, **(SUM | {"minimum": 9})).honest == 6


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mechanism": "skelam"}, r"did you mean 'skellam'\?"),
        ({"scale_bits": 1.5}, "scale_bits is 1.5"),
        ({"scale_bits": 61}, "scale_bits is 61"),
    ],
)
def test_a_distributed_mode_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        DistributedDP(**wrong)


def test_too_narrow_a_discrete_gaussian_names_the_mend():
    with pytest.raises(UsageError, match=r"below 3; use more scale_bits than 1, or 'skellam'"):
        DistributedDP(mechanism="discrete-gaussian", noise_multiplier=1.0, scale_bits=1).noise(rounds=1, **SUM)


def test_noise_too_wide_to_be_drawn_at_a_scale_says_what_to_do():
    with pytest.raises(UsageError, match="use a coarser scale"):
        DistributedDP(epsilon=1e-2, scale_bits=30).noise(rounds=1, **SUM).total_variation  # noqa: B018  draws the table


def test_local_noise_hides_one_update_among_all_others():
    noise = LocalDP(epsilon=2.0).noise(rounds=1)
    assert noise.multiplier == pytest.approx(2 * CentralDP(epsilon=2.0).noise(rounds=1, workers=9).multiplier, rel=1e-4)
    assert noise.lattice(10).mechanism == noise.mechanism


def test_a_mode_that_protects_workers_costs_a_row_twice_the_distance():
    noise = CentralDP(noise_multiplier=4.0).noise(rounds=1, workers=9)
    row, worker = (cost_of(noise.mechanism, each) for each in (Relation.REPLACE_ONE, CentralDP.relation))
    assert row.rdp[50] == pytest.approx(4 * worker.rdp[50])


def test_example_noise_is_billed_for_each_step_at_the_rate_of_public_numbers():
    noise = ExampleDP(noise_multiplier=1.5).noise(rows=1000, batch_size=50, rounds=9, steps=20)
    assert noise.mechanism == Repeated(PoissonSampled(0.05, Gaussian(1.5)), 20)
    assert noise.lattice(7).noise_multiplier == 1.5
    whole = ExampleDP(noise_multiplier=1.5).noise(rows=50, batch_size=50, rounds=9, steps=20)
    assert whole.mechanism == Repeated(Gaussian(1.5), 20)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch_size": 1001}, "announces 1000 rows; use at most that many"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rows": 100_000, "batch_size": 10}, "not below 1/100000"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        ExampleDP().noise(**({"rows": 1000, "batch_size": 50, "rounds": 1, "steps": 1} | wrong))


def test_the_noise_of_a_tree_is_sized_for_whoever_takes_part_in_every_round():
    often = TreeDP(noise_multiplier=1.0).noise(rounds=16, workers=5)
    once = TreeDP(noise_multiplier=1.0, participations=1).noise(rounds=16, workers=5)
    assert often.moved > once.moved == pytest.approx(math.sqrt(5))
    machine = often.running_sums(2)
    assert machine._noise.sensitivity == pytest.approx(often.moved)
    assert machine._noise.dimension == 32


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"participations": 0}, {"separation": 0}])
def test_a_tree_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TreeDP(**wrong)


def test_every_pair_of_modes_is_told_apart():
    for one, other in itertools.combinations([kind() for kind in MODES], 2):
        assert one != other


@pytest.mark.parametrize(
    "noise",
    [
        lambda: CentralDP(delta=0.05).noise(rounds=1, workers=20),
        lambda: TreeDP(delta=0.05).noise(rounds=1, workers=20),
        lambda: DistributedDP(delta=0.1).noise(rounds=1, **SUM),
        lambda: ExampleDP(delta=1e-3).noise(rows=1000, batch_size=50, rounds=1, steps=1),
    ],
)
def test_a_delta_that_would_allow_to_publish_one_of_all_is_refused(noise):
    with pytest.raises(UsageError, match="that would allow to publish one of"):
        noise()
