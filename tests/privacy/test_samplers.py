"""Integer noise: that what is drawn has the probabilities that are billed."""

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy import samplers, tables
from fedpriv.privacy.samplers import SAMPLERS, discrete_gaussian, skellam

LEAST_P = 1e-4
"""A fixed seed is drawn once; a test of a right sampler fails for one seed in ten thousand."""


def true_log_probabilities(name, values, variance):
    if name == "skellam":
        return np.log(special.ive(np.abs(values), variance))
    reach = np.arange(-60 * math.ceil(variance**0.5) - 60, 60 * math.ceil(variance**0.5) + 61)
    return -(values**2) / (2 * variance) - special.logsumexp(-(reach**2) / (2 * variance))


def p_of_chi_square(drawn, name, variance):
    """Return the p-value of Pearson's test, values with few expected draws taken together at each end."""
    reach = max(3, math.ceil(3 * variance**0.5))
    values = np.arange(-reach, reach + 1)
    shares = np.exp(true_log_probabilities(name, values, variance))
    below, above = ((1 - shares.sum()) / 2,) * 2
    expected = np.array([below, *shares, above]) * len(drawn)
    clipped = np.clip(drawn, -reach - 1, reach + 1) + reach + 1
    found = np.bincount(clipped, minlength=len(expected))
    keep = expected > 5
    found = np.append(found[keep], found[~keep].sum())
    expected = np.append(expected[keep], max(expected[~keep].sum(), 1e-9))
    if expected[-1] < 5:
        found, expected = found[:-1], expected[:-1]
    return stats.chi2.sf(((found - expected) ** 2 / expected).sum(), len(expected) - 1)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("variance", [0.25, 1.0, 9.0, 10_000.0, 1e6])
def test_draws_pass_a_chi_square_test(name, variance):
    drawn = SAMPLERS[name](variance).sample(400_000, SeededEntropy(b"chi-square"))
    assert p_of_chi_square(drawn, name, variance) > LEAST_P


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_chi_square_test_finds_noise_of_another_variance(name):
    drawn = SAMPLERS[name](0.97 * 9.0).sample(400_000, SeededEntropy(b"chi-square"))
    assert p_of_chi_square(drawn, name, 9.0) < LEAST_P


def test_the_chi_square_test_tells_the_two_distributions_apart():
    drawn = skellam(4.0).sample(400_000, SeededEntropy(b"chi-square"))
    assert p_of_chi_square(drawn, "discrete-gaussian", 4.0) < LEAST_P


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("deviation", [0.5, 3.0, 300.0, 15_000.0])
def test_draws_have_the_variance_of_their_table(name, deviation):
    noise = SAMPLERS[name](deviation**2)
    drawn = noise.sample(500_000, SeededEntropy(b"variance")).astype(np.float64)
    error = noise.table.variance * math.sqrt(2 / len(drawn))
    assert abs(drawn.var() - noise.table.variance) < 5 * error
    assert abs(drawn.mean()) < 5 * math.sqrt(noise.table.variance / len(drawn))


def test_a_discrete_gaussian_has_the_published_variance():
    assert tables.discrete_gaussian(1.0).variance == pytest.approx(0.999999788768, abs=1e-12)
    assert tables.discrete_gaussian(0.25).variance == pytest.approx(0.215012675088, abs=1e-12)


@pytest.mark.parametrize("variance", [0.01, 0.3, 2.0, 150.0, 90_000.0])
def test_a_skellam_table_has_its_variance(variance):
    assert tables.skellam(variance).variance == pytest.approx(variance, rel=1e-12)


def exact(name, variance, reach):
    """Return the probabilities of -reach to reach at 60 digits."""
    with mpmath.workdps(60):
        exactly = mpmath.mpf(variance)
        if name == "skellam":
            half = [mpmath.exp(-exactly) * mpmath.besseli(k, exactly) for k in range(reach + 1)]
        else:
            weights = [mpmath.exp(-mpmath.mpf(k * k) / (2 * exactly)) for k in range(reach + 1)]
            total = 2 * mpmath.fsum(weights) - weights[0]
            half = [each / total for each in weights]
        return [*reversed(half[1:]), *half]


def implied(table):
    """Return what the thresholds of a table say each value's probability is, from `least` on, exactly."""
    if isinstance(table, tables.Blocks):
        (*blocks, others), rest = implied(table.numbers), implied(table.rest)
        return [
            blocks[(table.least + at >> table.shift) - table.numbers.least] / (1 << table.shift) + others * share
            for at, share in enumerate(rest)
        ]
    ends = [0, *table.thresholds, 1 << tables.BITS]
    return [mpmath.mpf(high - low) / (1 << tables.BITS) for low, high in pairwise(ends)]


def distance(name, variance, table):
    """Return the total variation between what a table says and the distribution, at 60 digits."""
    reach = math.ceil(40 * variance**0.5) + 60
    true = exact(name, variance, reach)
    with mpmath.workdps(60):
        ours = implied(table)
        padded = [mpmath.mpf(0)] * (table.least + reach) + ours
        padded += [mpmath.mpf(0)] * (len(true) - len(padded))
        return mpmath.fsum(abs(one - other) for one, other in zip(true, padded, strict=True)) / 2


def by_blocks(monkeypatch, name, variance):
    """Return noise drawn by blocks though it is narrow, so that all of its probabilities can be computed."""
    monkeypatch.setattr(tables, "_WIDE", 0.0)
    monkeypatch.setattr(tables, "_BLOCK_NUMBERS", 2.5)
    table = getattr(tables, f"_{name.replace('-', '_')}").__wrapped__(variance)
    assert isinstance(table, tables.Blocks)
    assert table.shift >= 2
    return samplers.IntegerNoise(table, name, variance)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("variance", [0.25, 3.0, 37.5, 400.0])
def test_a_table_is_as_near_the_distribution_as_it_says(name, variance):
    table = getattr(tables, name.replace("-", "_"))(variance)
    assert 0 < distance(name, variance, table) <= table.total_variation < 2.0**-110


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("variance", [100.0, 151.3])
def test_blocks_and_what_is_above_them_are_as_near_the_distribution_as_they_say(monkeypatch, name, variance):
    noise = by_blocks(monkeypatch, name, variance)
    assert 0 < distance(name, variance, noise.table) <= noise.total_variation < 2.0**-110
    assert noise.table.variance == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_draws_by_narrow_blocks_pass_a_chi_square_test(monkeypatch, name):
    noise = by_blocks(monkeypatch, name, 100.0)
    drawn = noise.sample(400_000, SeededEntropy(b"blocks"))
    assert p_of_chi_square(drawn, name, 100.0) > LEAST_P


def test_a_block_is_left_for_the_rest_where_its_number_says_so():
    table = discrete_gaussian(1000.0**2).table
    assert isinstance(table, tables.Blocks)
    stream = Scripted(b"\xff\xff", b"\x07", b"\x00\x80", bytes(8), bytes(8))
    (value,) = samplers.draw(table, 1, stream)
    below = sum(each <= 0x8000 << (tables.BITS - 16) for each in table.rest.thresholds)
    assert value == table.rest.least + below


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_sixteen_bits_decide_only_what_they_decide(name):
    """Each slot of the direct table against the thresholds themselves, at its first and its last 128-bit number."""
    table = SAMPLERS[name](40.0**2).table
    size = 1 << (tables.BITS - 16)
    for slot in [*range(0, tables.SLOTS, 257), *range(40), *range(tables.SLOTS - 40, tables.SLOTS)]:
        first, last = (sum(each <= at for each in table.thresholds) for at in (slot * size, (slot + 1) * size - 1))
        if first == last:
            assert table.direct[slot] == table.least + first
        else:
            number = table.direct[slot] - table.open
            assert table.first[number] == table.least + first
            assert (table.only[number] != 0) == (last - first == 1)


class Scripted:
    """Entropy that gives prepared bytes, in order."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def random_bytes(self, count):
        piece = self.pieces.pop(0)
        assert len(piece) == count
        return piece


def slot_of(threshold):
    return threshold >> (tables.BITS - 16)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_draw_next_to_a_threshold_is_decided_by_all_128_bits(beyond):
    table = discrete_gaussian(9.0).table
    at = len(table.thresholds) // 2 + 3
    number = table.thresholds[at] + beyond
    slot = slot_of(table.thresholds[at])
    high, low = (number >> 64) & (2**48 - 1), number & (2**64 - 1)
    stream = Scripted(slot.to_bytes(2, "little"), (high << 16).to_bytes(8, "little"), low.to_bytes(8, "big"))
    values = samplers.draw(table, 1, stream)
    assert values[0] == table.least + at + (beyond >= 0)
    assert stream.pieces == []


def test_draws_in_a_crowded_slot_are_searched():
    table = discrete_gaussian(9.0).table
    assert table.direct[0] == table.open
    assert table.only[0] == 0
    values = samplers.draw(table, 2, Scripted(bytes(4), bytes(8) + (2**64 - 1).to_bytes(8, "little"), bytes(8)))
    last = sum(each < (2**48 - 1 + 1) << 64 for each in table.thresholds)
    assert values.tolist() == [table.least + sum(each <= 0 for each in table.thresholds), table.least + last]


def test_the_noise_comes_from_a_stream_under_a_key_drawn_for_each_call():
    noise = discrete_gaussian(100.0)
    one = noise.sample(1000, Scripted(b"k" * 32))
    assert (one == noise.sample(1000, Scripted(b"k" * 32))).all()
    assert (one != noise.sample(1000, Scripted(b"K" * 32))).any()
    entropy = SeededEntropy(b"calls")
    assert (noise.sample(1000, entropy) != noise.sample(1000, entropy)).any()


def test_numpy_and_torch_generators_have_no_part_in_it():
    import torch

    state, held = np.random.get_state()[1].copy(), torch.get_rng_state()
    discrete_gaussian(100.0).sample(10_000, SystemEntropy())
    assert (np.random.get_state()[1] == state).all()
    assert torch.equal(torch.get_rng_state(), held)


def test_draws_do_not_depend_on_one_another():
    drawn = discrete_gaussian(50.0).sample(400_000, SeededEntropy(b"pairs")).astype(np.float64)
    for lag in (1, 2, 17):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 5 / math.sqrt(len(drawn))


@pytest.mark.parametrize("count", [0, 1, samplers.BLOCK - 1, samplers.BLOCK, samplers.BLOCK + 1])
def test_any_number_of_values_is_drawn(count):
    assert discrete_gaussian(100.0).sample(count, SystemEntropy()).shape == (count,)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf, 4.1e8])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_noise_that_cannot_be_sampled_says_what_to_do(name, variance):
    with pytest.raises(UsageError, match="use a coarser scale"):
        SAMPLERS[name](variance)


def test_fewer_than_no_values_are_refused():
    with pytest.raises(UsageError, match="use 0 or more"):
        discrete_gaussian(1.0).sample(-1, SystemEntropy())


def test_what_is_drawn_does_not_print():
    assert "thresholds" not in repr(discrete_gaussian(1.0)) + repr(discrete_gaussian(1.0).table)


@pytest.mark.parametrize("value", [Fraction(0), Fraction(-1, 3), Fraction(-50), Fraction(-1, 10**12)])
def test_exponentials_are_exact_to_240_bits(value):
    with mpmath.workdps(100):
        true = mpmath.exp(mpmath.mpf(value.numerator) / value.denominator)
        assert abs(mpmath.mpf(tables._exponential(value)) / 2**256 - true) < mpmath.mpf(2) ** -240


def test_a_threshold_at_the_edge_of_a_slot_leaves_no_slot_open():
    edge = 1 << (tables.BITS - 16)
    table = tables._indexed(0, [5 * edge, 9 * edge], 0.0)
    assert len(table.first) == 0
    assert [int(table.direct[slot]) for slot in (4, 5, 8, 9)] == [0, 1, 1, 2]


def test_a_release_is_off_by_the_values_in_it():
    noise = discrete_gaussian(100.0)
    assert 0 < noise.total_variation == noise.table.total_variation < 2.0**-110


def test_wide_noise_is_drawn_one_value_at_a_time_too():
    noise, entropy = discrete_gaussian(700.0**2), SeededEntropy(b"single")
    drawn = np.concatenate([noise.sample(1, entropy) for _ in range(3000)] + [noise.sample(0, entropy)])
    assert abs(drawn.mean()) < 5 * 700 / math.sqrt(3000)
    assert abs(drawn.std() / 700 - 1) < 5 / math.sqrt(2 * 3000)
