"""Shares of rows: disjoint, complete, reproducible, and as unlike as asked."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.learning.partition import by_label, dirichlet, iid, sized, sizes

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
