"""Graphs, rosters and descriptors: everybody computes the same, and no field of a round is outside its id."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import cast, identity

from fedpriv.errors import UsageError
from fedpriv.secagg import harary
from fedpriv.secagg.graph import COMPLETE, GraphKind, GraphSpec, neighbourhood, permuted, topology
from fedpriv.secagg.harary import Population
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.roster import Member, Roster
from fedpriv.secagg.thresholds import advice
from fedpriv.secagg.vector import Part, Treatment, VectorSpec

NAMES = [f"w{at:03d}" for at in range(60)]


@given(size=st.integers(3, 60), half=st.integers(1, 20), seed=st.binary(min_size=32, max_size=32))
def test_neighbours_are_mutual_and_as_many_as_the_degree(size, half, seed):
    graph = topology(GraphSpec(GraphKind.HARARY, 2 * half, 0), NAMES[:size], seed)
    for name in NAMES[:size]:
        around = graph.neighbours(name)
        assert len(around) == min(2 * half, size - 1)
        assert name not in around
        assert all(name in graph.neighbours(other) for other in around)
        assert graph.holders(name) == around


@given(size=st.integers(3, 60), half=st.integers(0, 20), seed=st.binary(min_size=32, max_size=32))
def test_a_worker_finds_its_own_part_of_the_graph_without_the_rest(size, half, seed):
    spec = GraphSpec(GraphKind.HARARY, 2 * half, 0) if half else COMPLETE
    graph = topology(spec, NAMES[:size], seed)
    for name in NAMES[:size]:
        assert neighbourhood(spec, NAMES[:size], seed, name) == graph.around(name)


def test_in_a_complete_graph_everybody_holds_a_share_of_everybody():
    graph = topology(COMPLETE, NAMES[:5], bytes(32))
    assert graph.neighbours("w002") == ("w000", "w001", "w003", "w004")
    assert graph.holders("w002") == tuple(NAMES[:5])
    assert [graph.points[name] for name in NAMES[:5]] == [1, 2, 3, 4, 5]


def test_the_cycle_depends_on_h1_and_on_nothing_else():
    spec = GraphSpec(GraphKind.HARARY, 4, 0)
    one = topology(spec, NAMES, b"1" * 32)
    assert one.cycle == topology(spec, reversed(NAMES), b"1" * 32).cycle
    assert one.cycle != topology(spec, NAMES, b"2" * 32).cycle


def test_every_order_is_about_equally_likely():
    counts = {}
    for at in range(6000):
        order = permuted(["a", "b", "c"], at.to_bytes(4, "big"))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 5 + 5 * 10**0.5


def test_more_security_needs_more_neighbours():
    population = Population.of(10_000, Fraction("0.05"), Fraction("0.05"))
    assert harary.search(population).degree > harary.search(population, security_bits=40).degree


def test_no_graph_is_found_where_none_is_safe():
    with pytest.raises(UsageError, match="use the complete graph"):
        harary.search(Population.of(10, Fraction(1, 3), Fraction(1, 3)))


@pytest.mark.parametrize(
    ("workers", "hostile", "lost", "said"),
    [
        (
            3,
            Fraction(1, 3),
            Fraction(0),
            "there is none for 3 workers even if none may be lost; with these shares it takes 4 workers",
        ),
        (13, Fraction(1, 3), Fraction(1, 4), "of 13 workers 2 may be lost; with these shares it takes 14 workers"),
        (10, Fraction(1, 3), Fraction(1, 3), "of 10 workers 2 may be lost; with these shares up to 266 workers"),
    ],
)
def test_where_there_is_no_graph_it_is_said_what_there_is_one_for(workers, hostile, lost, said):
    with pytest.raises(UsageError) as refused:
        harary.advised(workers, hostile, lost, workers)
    assert said in str(refused.value)


@given(st.integers(20, 2000), st.sampled_from(["0.01", "0.05", "0.2"]))
def test_what_the_search_finds_passes_the_workers_check(size, hostile):
    population = Population.of(size, Fraction(hostile), Fraction("0.05"))
    try:
        choice = harary.search(population)
    except UsageError:
        return
    assert harary.connected(population, choice.degree)
    assert harary.least_safe_threshold(population, choice.degree) == choice.threshold <= choice.degree


def test_a_graph_that_cannot_be_connected_is_not():
    assert not harary.connected(Population(10, 8, 2), 10)
    assert not harary.connected(Population(20, 10, 10), 20)
    assert harary.connected(Population(20, 2, 2), 6)


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        (1, "over 1 worker hides nobody"),
        (2, "over 2 workers hides nobody"),
        (3, "loss of one"),
        (4, "loss of one"),
        (5, ""),
    ],
)
def test_small_cohorts_are_advised_against(workers, says):
    assert says in advice(workers)
    assert bool(advice(workers)) == bool(says)


# Rosters


def test_an_administrator_signs_the_whole_roster():
    administrator, roster = identity("administrator"), cast(4).roster
    signature = roster.signed(administrator)
    roster.check(signature, administrator.public)
    first = roster.members[0]
    for other in (
        replace(roster, version=2),
        replace(roster, federation="banks"),
        replace(roster, members=roster.members[1:]),
        replace(roster, members=(replace(first, version=2), *roster.members[1:])),
        replace(roster, members=(replace(first, key=identity("other").public), *roster.members[1:])),
    ):
        assert other.digest != roster.digest
        with pytest.raises(Refused) as refused:
            other.check(signature, administrator.public)
        assert (refused.value.reason, refused.value.subject) == (Reason.BAD_SIGNATURE, "administrator")


@pytest.mark.parametrize(
    "members",
    [
        [("b", 1), ("a", 2)],
        [("a", 1), ("a", 2)],
        [("a", 1), ("b", 1)],
        [("Not a name", 1)],
        [("a", None)],
    ],
)
def test_a_roster_that_is_unsorted_repeats_or_has_a_key_for_anybody_is_refused(members):
    made = tuple(Member(name, bytes(32) if key is None else identity(str(key)).public) for name, key in members)
    with pytest.raises(UsageError):
        Roster("clinics", 1, made)


# Descriptors

OTHER = {
    "federation": "banks",
    "roster": bytes(32),
    "round": 2,
    "model": bytes(32),
    "plan": bytes(32),
    "vector": VectorSpec((Part("update", (8,), 1.0, 16, Treatment.UNWEIGHTED),)),
    "modulus_bits": 64,
    "workers": 6,
    "threshold": 5,
    "minimum_cohort": 4,
    "graph": GraphSpec(GraphKind.HARARY, 4, 1),
    "privacy": "skellam",
    "deadlines_seconds": (1.0,) * 5,
    "protocol": "fedpriv-secagg/2",
}


def test_every_field_of_a_descriptor_is_in_the_sessions_id():
    descriptor = cast(5).descriptor
    assert set(OTHER) == {field.name for field in fields(descriptor)}
    sids = {replace(descriptor, **{name: value}).sid for name, value in OTHER.items()} | {descriptor.sid}
    assert len(sids) == len(OTHER) + 1


def test_whole_numbers_are_one_descriptor_with_or_without_a_point():
    """As TOML and JSON write them: 5 and 5.0."""
    right = cast(5).descriptor
    part = right.vector.parts[0]
    whole, pointed = (
        replace(right, deadlines_seconds=(kind(5),) * 5, vector=VectorSpec((replace(part, bound=kind(2)),)))
        for kind in (int, float)
    )
    assert whole == pointed
    assert whole.sid == pointed.sid != right.sid
    assert {type(each) for each in whole.deadlines_seconds} == {float}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"shape": (1, 7)},
        {"bound": 2.0},
        {"fraction_bits": 15},
        {"treatment": Treatment.WEIGHTED},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_every_field_of_a_part_is_in_the_sessions_id(change):
    descriptor = cast(5).descriptor
    vector = descriptor.vector
    for other in (
        replace(vector, parts=(replace(vector.parts[0], **change),)),
        replace(vector, noise_bound=1),
    ):
        assert replace(descriptor, vector=other).sid != descriptor.sid


@pytest.mark.parametrize(
    "change",
    [
        {"roster": b"short"},
        {"model": b""},
        {"plan": bytes(33)},
        {"modulus_bits": 48},
        {"workers": 0},
        {"threshold": 0},
        {"minimum_cohort": 0},
        {"round": -1},
    ],
    ids=str,
)
def test_an_impossible_descriptor_is_refused(change):
    with pytest.raises(UsageError):
        replace(cast(5).descriptor, **change)


def test_a_descriptor_knows_its_ring_and_how_many_must_stay():
    assert cast(5).descriptor.ring == Ring(32)
    assert cast(5).descriptor.least == 4
    assert cast(100, graph="harary").descriptor.least == 95
