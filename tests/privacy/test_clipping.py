"""A clip that follows the norms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.privacy.clipping import LEAST, MOST, AdaptiveClip, bit_of, share_of, split


def test_the_clip_goes_where_it_is_published_to_go():
    clip = AdaptiveClip(clip=16.0, quantile=0.0, learning_rate=math.log(2))
    found = []
    for _ in range(5):
        share = share_of(sum(bit_of(norm, clip.clip) for norm in (5.0, 2.5)), 2)
        clip = clip.after(share)
        found.append(clip.clip)
    assert found == pytest.approx([8, 4, 2.8284271, 2, 2])


def test_the_clip_settles_at_its_quantile():
    norms = [each / 10 for each in range(1, 101)]
    clip = AdaptiveClip(clip=0.1, quantile=0.3)
    for _ in range(300):
        clip = clip.after(share_of(sum(bit_of(norm, clip.clip) for norm in norms), 100))
    assert clip.clip == pytest.approx(3.0, rel=0.05)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-9, 1e9))
def test_whatever_the_share_a_clip_stays_a_clip(share, start):
    assert LEAST <= AdaptiveClip(clip=start).after(share).clip <= MOST


def test_a_share_that_is_none_changes_nothing():
    assert AdaptiveClip().after(math.nan) == AdaptiveClip()


def test_the_two_parts_cost_what_the_whole_would():
    parts = split(0.7, 30, 0.1)
    assert parts.multiplier**-2 + (2 * parts.bits_deviation) ** -2 == pytest.approx(0.7**-2)


@pytest.mark.parametrize("wrong", [{"clip": 0.0}, {"quantile": 1.1}, {"learning_rate": -1.0}, {"quantile": math.nan}])
def test_a_clip_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AdaptiveClip(**wrong)
