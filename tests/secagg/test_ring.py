"""Fixed point: the bits that a sum needs, the exact lift, and rounding that is right on average."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.secagg.ring import Ring, needed_bits, ring_for, round_stochastically
from fedpriv.secagg.vector import Part, Treatment, VectorSpec, with_counts

ENTROPY = SeededEntropy(b"rounding")


def vector(*, f=16, bound=1.0, weight=1, treatment=Treatment.WEIGHTED, length=4, dtype="float32"):
    return with_counts((Part("update", (length,), bound, f, treatment, dtype),), maximum_weight=weight)


@pytest.mark.parametrize(("weight", "bits"), [(1, 24), (10_000, 37)])
def test_the_bits_of_the_specification(weight, bits):
    part = Part("update", (1,), 1.0, 16)
    spec = VectorSpec((part, Part("weight", (1,), float(weight), 0, Treatment.WEIGHT)), weight)
    assert spec.bits_needed(100) == bits
    assert spec.largest_sum(part, 100) == 100 * weight * 65536


@given(st.integers(0, 2**80))
def test_bits_are_the_logarithm_that_the_specification_writes(largest):
    bits = needed_bits(largest)
    assert 2**bits > 2 * largest
    assert largest == 0 or 2 ** (bits - 1) <= 2 * largest


@pytest.mark.parametrize(("bits", "ring"), [(1, 32), (32, 32), (33, 64), (64, 64)])
def test_the_smallest_ring_that_fits_is_taken(bits, ring):
    assert ring_for(bits).bits == ring


def test_no_ring_is_too_small_in_silence():
    with pytest.raises(UsageError, match="need 65 bits"):
        ring_for(65)
    with pytest.raises(UsageError, match="not supported"):
        Ring(48)


@given(bits=st.sampled_from([32, 64]), data=st.data())
def test_the_lift_is_the_formula_of_the_specification(bits, data):
    ring, modulus = Ring(bits), 2**bits
    values = data.draw(st.lists(st.integers(0, modulus - 1), min_size=1, max_size=20))
    lifted = ring.lift(np.array(values, ring.dtype))
    assert lifted.tolist() == [((value + modulus // 2) % modulus) - modulus // 2 for value in values]
    np.testing.assert_array_equal(ring.reduce(lifted), np.array(values, ring.dtype))


@given(workers=st.integers(3, 200), f=st.integers(0, 20), weight=st.integers(1, 2**16), sign=st.sampled_from([1, -1]))
def test_the_largest_sum_that_honest_workers_reach_lifts_exactly(workers, f, weight, sign):
    """Every worker at the bound with the largest weight: nothing wraps in the ring that the proof asks for."""
    spec = vector(f=f, weight=weight, length=1)
    ring = ring_for(spec.bits_needed(workers))
    words = spec.encode({"update": np.array([sign * 1.0])}, weight=weight, ring=ring, entropy=ENTROPY)
    total = (words * ring.dtype.type(workers)).astype(ring.dtype)
    found = spec.decode(total, workers=workers, ring=ring)
    assert found.integers["update"][0] == sign * workers * weight * 2**f
    assert found.weight == workers * weight
    assert found.mean("update")[0] == sign


def test_one_bit_less_would_wrap():
    """Show that the proof is not generous: at 2**k = 2 nWB the largest sum has two readings."""
    spec = vector(f=31, length=1)
    assert spec.bits_needed(1) == 33
    words = spec.encode({"update": np.array([1.0])}, weight=1, ring=Ring(32), entropy=ENTROPY)
    assert Ring(32).lift(words)[0] == -(2**31)


def test_whole_numbers_stay_and_nothing_moves_by_more_than_one():
    whole = np.arange(-50.0, 50.0)
    np.testing.assert_array_equal(round_stochastically(whole, ENTROPY), whole)
    between = np.linspace(-9, 9, 10_001)
    rounded = round_stochastically(between, ENTROPY)
    assert (np.abs(rounded - between) < 1).all()
    assert (rounded == np.round(rounded)).all()


@pytest.mark.parametrize("fraction", [2**-16, 0.1, 0.5, 0.9, 1 - 2**-12])
@pytest.mark.parametrize("base", [-3.0, 0.0, 65_535.0, 2.0**40])
def test_rounding_is_right_on_average(fraction, base):
    """Within five standard errors of a Bernoulli mean, for fractions that float32 has no bits for at f = 16."""
    count = 400_000
    rounded = round_stochastically(np.full(count, base + fraction), ENTROPY) - base
    up = (base + fraction) - base
    assert abs(rounded.mean() - up) < 5 * math.sqrt(up * (1 - up) / count) + 1 / count


def test_rounding_draws_from_the_stream_that_it_is_given():
    values = np.linspace(0, 1, 1000)
    one, same, other = (round_stochastically(values, SeededEntropy(seed)) for seed in (b"a", b"a", b"b"))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_values_out_of_bounds_saturate_and_are_counted():
    spec = vector(length=6)
    values = np.array([np.inf, -np.inf, np.nan, 1.5, -1.0, 1.0])
    ring = Ring(32)
    found = spec.decode(spec.encode({"update": values}, weight=1, ring=ring, entropy=ENTROPY), workers=1, ring=ring)
    assert found.total("update").tolist() == [1.0, -1.0, 0.0, 1.0, -1.0, 1.0]
    assert found.saturated == 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "int64", "bool"])
def test_any_dtype_is_rounded_by_its_values(dtype):
    values = np.array([0, 1, 1, 0]).astype(dtype)
    ring, spec = Ring(64), vector(dtype=dtype, weight=5)
    found = spec.decode(spec.encode({"update": values}, weight=5, ring=ring, entropy=ENTROPY), workers=1, ring=ring)
    assert found.mean("update").tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("weight", [-1, 6])
def test_a_weight_above_the_declared_maximum_is_refused(weight):
    with pytest.raises(UsageError, match="declared maximum of 5"):
        vector(weight=5).encode({"update": np.zeros(4)}, weight=weight, ring=Ring(32), entropy=ENTROPY)


def test_values_that_are_missing_or_of_another_shape_are_refused():
    for values in ({}, {"update": np.zeros(5)}, {"update": np.zeros((2, 2))}):
        with pytest.raises(UsageError, match="shape"):
            vector().encode(values, weight=1, ring=Ring(32), entropy=ENTROPY)


def test_a_refused_value_is_not_quoted():
    with pytest.raises(UsageError) as refused:
        vector(weight=5).encode({"update": np.full(4, 0.123456)}, weight=987654, ring=Ring(32), entropy=ENTROPY)
    assert "987654" not in str(refused.value)
    assert "123456" not in str(refused.value)


def test_a_sum_that_no_honest_workers_reach_is_refused():
    spec, ring = vector(length=1), Ring(32)
    reachable = np.array([3 << 16, 0], ring.dtype)
    assert spec.decode(reachable, workers=3, ring=ring).total("update")[0] == 3.0
    for beyond in ([(3 << 16) + 1, 0], [2**32 - (3 << 16) - 1, 0], [0, 4]):
        with pytest.raises(VerificationFailed, match="outside the bound"):
            spec.decode(np.array(beyond, ring.dtype), workers=3, ring=ring)


def test_a_mean_of_nothing_is_refused():
    spec, ring = vector(weight=5), Ring(32)
    found = spec.decode(ring.zeros(spec.length), workers=3, ring=ring)
    with pytest.raises(VerificationFailed, match="add up to nothing"):
        found.mean("update")


@pytest.mark.parametrize(
    "fields",
    [
        {"bound": 0.0},
        {"bound": -1.0},
        {"bound": math.inf},
        {"bound": math.nan},
        {"fraction_bits": -1},
        {"fraction_bits": 41},
        {"bound": 2.0**40, "fraction_bits": 13},
        {"dtype": "object"},
        {"shape": (-1,)},
        {"treatment": Treatment.WEIGHT, "shape": (2,), "fraction_bits": 0},
        {"treatment": Treatment.SATURATED, "fraction_bits": 1},
    ],
    ids=str,
)
def test_a_part_that_cannot_be_rounded_is_refused(fields):
    with pytest.raises(UsageError):
        Part(**({"name": "update", "shape": (1,), "bound": 1.0} | fields))


UPDATE = Part("update", (4,), 1.0)
WEIGHT = Part("weight", (1,), 10.0, 0, Treatment.WEIGHT)
SATURATED = Part("saturated", (1,), 4.0, 0, Treatment.SATURATED)


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ((), {}),
        ((UPDATE, UPDATE), {}),
        ((UPDATE,), {"maximum_weight": 0}),
        ((UPDATE,), {"noise_bound": -1}),
        ((UPDATE,), {"maximum_weight": 2}),
        ((UPDATE, WEIGHT), {"maximum_weight": 11}),
        ((UPDATE, WEIGHT, Part("again", (1,), 10.0, 0, Treatment.WEIGHT)), {"maximum_weight": 10}),
        ((UPDATE, Part("saturated", (1,), 3.0, 0, Treatment.SATURATED)), {}),
    ],
)
def test_a_vector_that_cannot_be_read_back_is_refused(parts, options):
    with pytest.raises(UsageError):
        VectorSpec(parts, **options)


def test_a_vector_with_all_counts_is_accepted():
    spec = VectorSpec((UPDATE, WEIGHT, SATURATED), 10, noise_bound=1000)
    assert spec.length == 6
    assert spec.largest_sum(UPDATE, 3) == 3 * 10 * 65536 + 1000
    assert spec.largest_sum(WEIGHT, 3) == 30 + 1000
