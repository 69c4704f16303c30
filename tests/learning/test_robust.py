"""Robust combiners: by hand, against what attackers send, and with the bound that each says when they are too many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds_by_hand import once, row, setting

import fedpriv as fp
from fedpriv.errors import UsageError

FIVE = [(row(each, -each), 1.0) for each in (1.0, 2.0, 3.0, 4.0, 1000.0)]


def combined(strategy, updates=FIVE):
    return once(strategy, {"w": torch.zeros_like(updates[0][0])}, updates, setting(len(updates)))["w"]


def test_the_median_is_that_of_every_coordinate():
    assert torch.equal(combined(fp.Median()), row(3.0, -3.0))
    assert torch.equal(combined(fp.Median(), FIVE[:4]), row(2.5, -2.5))


def test_the_trimmed_mean_leaves_out_both_ends():
    assert torch.equal(combined(fp.TrimmedMean(1)), row(3.0, -3.0))
    assert torch.equal(combined(fp.TrimmedMean(0), FIVE[:3]), row(2.0, -2.0))


def test_krum_takes_the_update_with_the_nearest_neighbours():
    # f = 1 of 5: two nearest; squared distances of one coordinate: 1: 1+4, 2: 1+1, 3: 1+1, 4: 1+4; the first best wins
    assert torch.equal(combined(fp.Krum(1)), row(2.0, -2.0))


def test_multi_krum_averages_the_best():
    assert torch.equal(combined(fp.MultiKrum(1)), row(2.5, -2.5))  # 5 - 1 - 2 = 2 are kept
    assert torch.equal(combined(fp.MultiKrum(1, kept=4)), row(2.5, -2.5))
    assert torch.equal(combined(fp.MultiKrum(1, kept=1)), combined(fp.Krum(1)))


def test_bulyan_averages_what_is_nearest_to_the_median_of_what_krum_picks():
    updates = [(row(each), 1.0) for each in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0)]
    # Krum picks in turn 7 - 2 = 5 of 7; the 5 - 2 = 3 nearest to their median are averaged
    assert 2.0 <= combined(fp.Bulyan(1), updates).item() <= 5.0
    same = [(row(7.0), 1.0)] * 7
    assert combined(fp.Bulyan(1), same).item() == 7.0
    picked = combined(fp.Bulyan(0), [(row(each), 1.0) for each in (1.0, 2.0, 6.0)])
    assert picked.item() == pytest.approx(3.0)  # without attackers all are picked and averaged


def test_the_geometric_median_is_nearest_to_all():
    corners = [(row(0.0, 0.0), 1.0), (row(1.0, 0.0), 1.0), (row(0.0, 1.0), 1.0), (row(1.0, 1.0), 1.0)]
    assert torch.allclose(combined(fp.GeometricMedian(), corners), row(0.5, 0.5))
    line = [(row(each), 1.0) for each in (0.0, 1.0, 50.0)]
    assert combined(fp.GeometricMedian(), line).item() == pytest.approx(1.0, abs=1e-3)  # the median, on a line


def test_norm_bounding_by_the_median_follows_the_round():
    # norms 5, 1 and 0.5: the median is 1, so (3, 4) becomes (0.6, 0.8)
    moved = combined(fp.NormBound(), [(row(3.0, 4.0), 1.0), (row(0.0, 0.5), 1.0), (row(1.0, 0.0), 9.0)])
    assert torch.allclose(moved, row(1.6 / 3, 1.3 / 3))
    assert torch.equal(combined(fp.NormBound(), [(row(0.0, 0.0), 1.0)]), row(0.0, 0.0))


def test_norm_bounding_shortens_long_updates_and_leaves_short_ones():
    moved = combined(fp.NormBound(1.0), [(row(3.0, 4.0), 1.0), (row(0.0, 0.5), 1.0)])
    assert torch.allclose(moved, row(0.3, (0.8 + 0.5) / 2))
    assert torch.equal(combined(fp.NormBound(1.0), [(row(0.0, 0.0), 1.0)]), row(0.0, 0.0))


ROBUST = [fp.Median(), fp.TrimmedMean(2), fp.Krum(2), fp.MultiKrum(2), fp.Bulyan(2), fp.GeometricMedian()]


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda each: each.name)
@pytest.mark.parametrize("attack", [1e6, -1e6, 30.0])
def test_two_of_eleven_attackers_do_not_move_a_robust_combiner_far(strategy, attack):
    honest = torch.randn(9, 20, generator=torch.Generator().manual_seed(1)) * 0.1 + 1.0
    updates = [(each, 1.0) for each in honest] + [(torch.full((20,), attack), 1e9)] * 2
    moved = combined(strategy, updates)
    assert float((moved - 1.0).abs().max()) < 0.5
    assert float((combined(fp.FedAvg(), updates) - 1.0).abs().max()) > 5.0  # the attack is one


@settings(max_examples=25)
@given(st.permutations(range(11)), st.sampled_from([each for each in ROBUST if each.name != "bulyan"]))
def test_who_sent_what_does_not_matter(order, strategy):  # but for bulyan, where two that are nearest to each other tie
    numbers = torch.randn(11, 4, generator=torch.Generator().manual_seed(2))
    plain = combined(strategy, [(each, 1.0) for each in numbers])
    assert torch.allclose(plain, combined(strategy, [(numbers[each], 1.0) for each in order]), atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (
            fp.TrimmedMean(2),
            r"trimmed-mean against 2 attackers needs 2 x attackers \+ 1 = 5 workers, and there are 4; ",
        ),
        (
            fp.Krum(2),
            r"krum against 2 attackers needs 2 x attackers \+ 3 = 7 workers, and there are 4; assume at most 0",
        ),
        (fp.MultiKrum(2), "multi-krum against 2 attackers needs"),
        (fp.Bulyan(2), r"bulyan against 2 attackers needs 4 x attackers \+ 3 = 11 workers, .*; assume at most 0"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_more_attackers_than_a_combiner_tolerates_are_refused_with_its_bound(strategy, says):
    with pytest.raises(UsageError, match=says):
        strategy.check(setting(4))


def test_a_quorum_below_the_bound_is_refused_and_one_at_it_is_not():
    with pytest.raises(UsageError, match=r"= 5 updates in every round, and the quorum is 4; raise it to 5"):
        fp.Krum(1).check(setting(9, quorum=4))
    fp.Krum(1).check(setting(9, quorum=5))
    with pytest.raises(UsageError, match="use another strategy"):
        fp.Krum(0).check(setting(2))
