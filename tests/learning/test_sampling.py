"""Sampling: the same at every replay, of the size that was asked for, and unbiased where it is not even."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.sampling import SAMPLINGS

TEN = tuple(f"worker-{number}" for number in range(10))
EVERY = [fp.Everybody(), fp.Fraction(0.3), fp.Fixed(4), fp.Between(2, 5), fp.Poisson(0.5), fp.RoundRobin(3)]
EVERY += [fp.Importance(4, {"worker-0": 9.0}), fp.Fixed(4, over=1.5)]


def drawn(sampling, workers=TEN, rounds=200, seed=0):
    return [sampling.choose(workers, seed=seed, round_number=number).workers for number in range(1, rounds + 1)]


@pytest.mark.parametrize("sampling", EVERY, ids=lambda each: each.name)
@given(st.permutations(TEN), st.integers(0, 2**63 - 1), st.integers(1, 1000))
def test_a_replay_asks_the_same_workers_whatever_order_they_connected_in(sampling, order, seed, number):
    found = sampling.choose(order, seed=seed, round_number=number)
    assert found == sampling.choose(TEN, seed=seed, round_number=number)
    assert list(found.workers) == sorted(set(found.workers))
    assert set(found.workers) <= set(TEN)
    assert sampling.name == "poisson" or len(found.workers) >= sampling.least(10)


@pytest.mark.parametrize(
    ("sampling", "sizes"),
    [
        (fp.Everybody(), {10}),
        (fp.Fraction(0.3), {3}),
        (fp.Fraction(0.01), {1}),
        (fp.Fraction(0.1, minimum=6), {6}),
        (fp.Fraction(0.1, minimum=60), {10}),
        (fp.Fixed(4), {4}),
        (fp.Fixed(40), {10}),
        (fp.Fixed(4, over=1.5), {6}),
        (fp.Between(2, 5), {2, 3, 4, 5}),
        (fp.RoundRobin(3), {3}),
        (fp.Importance(4, {}), {4}),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_round_asks_as_many_as_were_asked_for(sampling, sizes):
    assert {len(each) for each in drawn(sampling)} == sizes


@pytest.mark.parametrize("sampling", EVERY, ids=lambda each: each.name)
def test_all_are_asked_about_equally_often_but_by_importance(sampling):
    asked = Counter(name for each in drawn(sampling, rounds=600) for name in each)
    assert set(asked) == set(TEN)
    if sampling.name == "importance":
        assert asked["worker-0"] == 600  # nine times as likely as the others is more than certain
        del asked["worker-0"]
    assert max(asked.values()) < 1.35 * min(asked.values())


def test_round_robin_takes_turns():
    assert drawn(fp.RoundRobin(2), TEN[:5], rounds=3) == [TEN[:2], TEN[2:4], (TEN[0], TEN[4])]


def test_poisson_asks_by_a_coin_each():
    sizes = [len(each) for each in drawn(fp.Poisson(0.3), rounds=1000)]
    assert 2.7 < sum(sizes) / 1000 < 3.3
    assert len(set(sizes)) > 5


def test_importance_keeps_the_mean_of_all_workers():
    values = {name: float(number) for number, name in enumerate(TEN)}
    sampling = fp.Importance(3, {name: 1.0 + number for number, name in enumerate(TEN)})
    totals = []
    for number in range(4000):
        chosen = sampling.choose(TEN, seed=1, round_number=number)
        totals.append(sum(chosen.factors[name] * values[name] for name in chosen.workers))
    assert sum(totals) / len(totals) == pytest.approx(sum(values.values()), rel=0.02)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fp.Fraction(0.0), "fraction is 0.0"),
        (lambda: fp.Fraction(1.5), "fraction is 1.5"),
        (lambda: fp.Fraction(0.5, minimum=0), "minimum 0"),
        (lambda: fp.Fixed(0), "count is 0"),
        (lambda: fp.Fixed(3, over=0.5), "over 0.5"),
        (lambda: fp.Between(5, 2), "from 5 to 2 workers"),
        (lambda: fp.Poisson(0.0), "rate is 0.0"),
        (lambda: fp.RoundRobin(0), "count is 0"),
        (lambda: fp.Importance(2, {"a": 0.0}), "finite weights above 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_value(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_a_job_file_can_name_all_but_importance():
    assert set(SAMPLINGS) == {each.name for each in EVERY} - {"importance"}
