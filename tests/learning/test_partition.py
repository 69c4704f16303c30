"""Shares of rows: disjoint, complete, reproducible, and as unlike as asked."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.learning.draws import drawn
from fedpriv.learning.partition import (
    by_feature,
    by_identity,
    by_label,
    dirichlet,
    growing,
    iid,
    label_counts,
    pathological,
    sized,
    sizes,
)

SEEDS = st.integers(0, 2**32)
LABELS = st.lists(st.integers(-2, 4), min_size=1, max_size=120)


def assert_disjoint_and_complete(shares, rows):
    assert sorted(np.concatenate(shares).tolist()) == list(range(rows))
    assert all(np.all(np.diff(share) > 0) for share in shares)


@given(st.integers(1, 300), st.integers(1, 12), SEEDS)
def test_iid_shares_are_disjoint_complete_and_even(rows, workers, seed):
    assume(workers <= rows)
    shares = iid(rows, workers, seed=seed)
    assert_disjoint_and_complete(shares, rows)
    assert max(sizes(shares)) - min(sizes(shares)) <= 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), SEEDS)
def test_sized_shares_have_the_sizes_that_were_asked_for(wanted, seed):
    shares = sized(wanted, seed=seed)
    assert_disjoint_and_complete(shares, sum(wanted))
    assert sizes(shares) == tuple(wanted)


@given(LABELS, st.integers(1, 6), st.integers(1, 3), SEEDS)
def test_label_shards_are_disjoint_complete_and_even(labels, workers, shards, seed):
    assume(workers * shards <= len(labels))
    shares = by_label(labels, workers, seed=seed, shards_per_worker=shards)
    assert_disjoint_and_complete(shares, len(labels))
    assert max(sizes(shares)) - min(sizes(shares)) <= shards


@given(LABELS, st.integers(1, 6), st.floats(1e-3, 1e3), SEEDS)
def test_dirichlet_shares_are_disjoint_and_complete(labels, workers, alpha, seed):
    assume(workers <= len(labels))
    assert_disjoint_and_complete(dirichlet(labels, workers, alpha=alpha, seed=seed), len(labels))


@given(LABELS, st.integers(1, 6), st.integers(1, 40), SEEDS)
def test_shards_of_a_given_size_are_all_dealt_evenly(labels, workers, shard_rows, seed):
    assume(workers * shard_rows <= len(labels))
    shares = by_label(labels, workers, seed=seed, shard_rows=shard_rows)
    assert_disjoint_and_complete(shares, len(labels))
    shards = -(-len(labels) // shard_rows)
    assert max(sizes(shares)) <= -(-shards // workers) * shard_rows


@given(LABELS, st.integers(1, 6), st.floats(1e-3, 1e3), SEEDS)
def test_balanced_dirichlet_shares_are_complete_and_of_equal_size(labels, workers, alpha, seed):
    assume(workers <= len(labels))
    shares = dirichlet(labels, workers, alpha=alpha, seed=seed, balanced=True)
    assert_disjoint_and_complete(shares, len(labels))
    assert max(sizes(shares)) - min(sizes(shares)) <= 1


@given(st.integers(1, 300), st.integers(1, 12), st.sampled_from(["linear", "square", "exponential"]), SEEDS)
def test_growing_shares_are_complete_and_grow(rows, workers, growth, seed):
    assume(workers <= rows)
    shares = growing(rows, workers, seed=seed, growth=growth)
    assert_disjoint_and_complete(shares, rows)
    assert sizes(shares)[0] >= 1
    assert list(sizes(shares)) == sorted(sizes(shares))


def test_sizes_grow_as_they_are_said_to():
    assert sizes(growing(1006, 4, seed=0)) == (101, 201, 302, 402)  # 1 + 1002 * (.1, .2, .3, .4), rounded
    assert sizes(growing(303, 3, seed=0, growth="square")) == (22, 87, 194)  # 1 + 300 * (1, 4, 9) / 14
    assert sizes(growing(1000, 3, seed=0, growth="exponential")) == (91, 245, 664)  # 1 + 997 * exp(k) / sum
    assert len(growing(2000, 1000, seed=0, growth="exponential")) == 1000  # exp(1000) is no float


@given(st.integers(1, 8), st.integers(1, 5), SEEDS)
def test_pathological_shares_are_complete_and_hold_exactly_so_many_classes(workers, classes_per_worker, seed):
    assume(workers * classes_per_worker >= 5)
    labels = np.arange(200) % 5
    shares = pathological(labels, workers, seed=seed, classes_per_worker=classes_per_worker)
    assert_disjoint_and_complete(shares, 200)
    assert {len(set(labels[share])) for share in shares} == {classes_per_worker}
    owners = (label_counts(labels, shares)[1] > 0).sum(axis=1)
    assert max(owners) - min(owners) <= 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(1, 5), SEEDS)
def test_rows_of_one_identity_stay_together(identities, workers, seed):
    kept = np.array(identities)
    for shares in (by_identity(kept), by_identity(kept, min(workers, len(set(identities))), seed=seed)):
        assert_disjoint_and_complete(shares, len(kept))
        assert sum(len(set(kept[share])) for share in shares) == len(set(identities))


def test_natural_shares_are_in_order_of_identity():
    assert [share.tolist() for share in by_identity(np.array(["b", "a", "b", "c"]))] == [[1], [0, 2], [3]]


@given(st.integers(2, 100), st.integers(1, 6), st.floats(0, 1), SEEDS)
def test_feature_shares_are_complete_and_even(rows, workers, shift, seed):
    assume(workers <= rows)
    shares = by_feature(np.random.default_rng(0).normal(size=(rows, 3)), workers, seed=seed, shift=shift)
    assert_disjoint_and_complete(shares, rows)
    assert max(sizes(shares)) - min(sizes(shares)) <= 1


def test_a_feature_shift_moves_the_means_apart_and_none_does_not():
    table = np.random.default_rng(0).normal(size=(3000, 2)) * [3.0, 1.0]

    def spread(shift):
        return np.ptp([table[share, 0].mean() for share in by_feature(table, 3, seed=0, shift=shift)])

    assert spread(1.0) > 6.0
    assert spread(0.0) < 1.0
    assert spread(1.0) > spread(0.5) > spread(0.0)


def test_the_four_experiments_draw_what_they_say():
    labels = np.repeat(np.arange(10), 500)
    shares = {name: drawn(labels, 40, seed=0, experiment=name) for name in ("uniform", "random-equal")}
    assert all((np.bincount(labels[share]) == 60).all() for share in shares["uniform"])
    assert all(len(share) == 600 for share in shares["random-equal"])
    assert any(np.bincount(labels[share], minlength=10).std() > 3 for share in shares["random-equal"])
    unequal = sizes(drawn(labels, 40, seed=0, experiment="random-unequal"))
    assert 1 <= min(unequal) < 100
    assert 500 < max(unequal) <= 600
    for share in drawn(labels, 40, seed=0, experiment="skewed"):
        counts = np.bincount(labels[share], minlength=10)
        assert all(1 <= count <= 9 or count >= 60 for count in counts)
        assert 1 <= (counts >= 60).sum() <= 9


def test_skew_scales_with_the_rows_that_are_asked_for():
    labels = np.repeat(np.arange(10), 50)
    for share in drawn(labels, 20, seed=3, experiment="skewed", rows=60):
        counts = np.bincount(labels[share], minlength=10)
        assert all(count <= 1 or count >= 6 for count in counts)


def test_labels_are_counted_per_class_and_worker():
    classes, counts = label_counts(["b", "a", "b"], [np.array([0, 1]), np.array([2])])
    assert classes.tolist() == ["a", "b"]
    assert counts.tolist() == [[1, 0], [1, 1]]


@settings(max_examples=30)
@given(st.integers(1, 4), SEEDS)
def test_dirichlet_keeps_the_promised_minimum_and_every_class(workers, seed):
    labels = np.arange(120) % 3
    shares = dirichlet(labels, workers, alpha=2.0, seed=seed, minimum_rows=10, all_classes=True)
    assert min(sizes(shares)) >= 10
    assert all(set(labels[share]) == {0, 1, 2} for share in shares)


@pytest.mark.parametrize("alpha", [1e-300, 1e-12, 1e12])
def test_an_extreme_alpha_is_still_a_division(alpha):
    assert_disjoint_and_complete(dirichlet(np.arange(50) % 2, 5, alpha=alpha, seed=0), 50)


def test_the_same_seed_gives_the_same_shares_and_another_one_others():
    labels = np.arange(200) % 2

    def draw(seed):
        return [share.tolist() for share in dirichlet(labels, 3, alpha=0.5, seed=seed)]

    assert draw(0) == draw(0) != draw(1)


def test_a_small_alpha_makes_workers_less_alike_than_a_large_one():
    labels = np.arange(3000) % 3

    def spread(alpha):
        shares = dirichlet(labels, 3, alpha=alpha, seed=0)
        return np.std([np.bincount(labels[share], minlength=3) for share in shares])

    assert spread(0.1) > 5 * spread(1000.0)


def test_two_shards_each_leave_most_workers_without_most_classes():
    labels = np.repeat(np.arange(10), 100)
    shares = by_label(labels, 10, seed=0)
    assert all(len(set(labels[share])) <= 2 for share in shares)


def test_labels_may_be_strings_or_bools():
    assert_disjoint_and_complete(dirichlet(np.array(["a", "b"] * 10), 2, alpha=1.0, seed=0), 20)
    assert_disjoint_and_complete(by_label(np.array([True, False] * 10), 2, seed=0), 20)


@pytest.mark.parametrize("workers", [3, 5])
def test_the_demos_division_of_breast_cancer_comes_up(workers):
    labels = np.repeat([0, 1], [159, 267])  # three quarters of the table's 212 malignant and 357 benign tumours
    shares = dirichlet(labels, workers, alpha=0.5, seed=0, minimum_rows=30, all_classes=True)
    assert_disjoint_and_complete(shares, 426)
    assert min(sizes(shares)) >= 30
    assert all(set(labels[share]) == {0, 1} for share in shares)


@pytest.mark.parametrize(
    ("divide", "message"),
    [
        (lambda: iid(2, 3, seed=0), "2 rows cannot be divided among 3 workers; use 1 to 2"),
        (lambda: iid(2, 0, seed=0), "among 0 workers"),
        (lambda: sized([], seed=0), "give each worker a size"),
        (lambda: sized([3, -1], seed=0), r"shares of \[3, -1\] rows cannot be made"),
        (lambda: by_label([0, 1, 2], 2, seed=0), "4 shards cannot be cut from 3 rows"),
        (lambda: by_label([0, 1, 2], 2, seed=0, shards_per_worker=0), "0 shards cannot be cut"),
        (lambda: by_label([0, 1, 2], 3, seed=0, shard_rows=2), "3 rows are 2 shards of 2 rows, too few for 3 workers"),
        (lambda: by_label([0, 1, 2], 3, seed=0, shard_rows=0), "too few for 3 workers"),
        (lambda: growing(2, 3, seed=0), "2 rows cannot be divided among 3 workers"),
        (lambda: growing(9, 3, seed=0, growth="expo"), "growth 'expo' is not known.*use one of linear"),
        (lambda: pathological([0, 1], 2, seed=0, classes_per_worker=3), "classes_per_worker is 3; there are 2"),
        (lambda: pathological([0, 1, 2], 1, seed=0, classes_per_worker=2), "cannot hold 3 classes"),
        (lambda: pathological([0, 0, 1], 3, seed=0, classes_per_worker=2), "a class has 1 rows, too few"),
        (lambda: by_identity([1, 1, 2], 3), "2 identities cannot be divided among 3 workers"),
        (lambda: by_feature([[0.0], [1.0]], 2, seed=0, shift=1.5), "shift is 1.5; use 0"),
        (lambda: by_feature([[0.0], [np.nan]], 2, seed=0), "features that are finite"),
        (lambda: drawn([0, 1], 2, seed=0, experiment="skewd"), "'skewd' is not known.*skewed"),
        (lambda: drawn([], 2, seed=0, experiment="uniform"), "2 workers cannot draw 600 rows"),
        (lambda: drawn([0, 1], 2, seed=0, experiment="uniform", rows=1), "1 rows cannot hold equally many of 2"),
        (lambda: dirichlet([0, 1], 2, alpha=0.0, seed=0), r"alpha is 0.0; use a number above 0"),
        (lambda: dirichlet([0, 1], 2, alpha=float("nan"), seed=0), "alpha is nan"),
        (lambda: dirichlet([0.5, 1.0], 2, alpha=1.0, seed=0), "give one integer, bool or string per row"),
        (lambda: dirichlet([[0], [1]], 2, alpha=1.0, seed=0), "give one integer, bool or string per row"),
        (lambda: dirichlet([0, 1], 2, alpha=1.0, seed=0, minimum_rows=2), "2 workers cannot have 2 of 2 rows each"),
        (lambda: dirichlet([0, 0, 1], 2, alpha=1.0, seed=0, all_classes=True), "a class has 1 row"),
        (
            lambda: dirichlet([0] * 50 + [1] * 50, 10, alpha=0.01, seed=0, minimum_rows=10),
            "came up in 1000 draws; raise",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_with_what_to_do(divide, message):
    with pytest.raises(UsageError, match=message):
        divide()
