"""The secure sum is the plain sum, exactly: any cohort, any length, any weights, whoever drops when, either graph."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parties import PHASES, cast, completed, plain_sum, play, words_of

from fedpriv.secagg import client, server
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.server_states import Abandoned, Complete
from fedpriv.secagg.vector import Part, Treatment, VectorSpec, with_counts

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LENGTHS = st.one_of(st.integers(1, 200), st.sampled_from([1, 32_767, 32_768, 32_769, 10_000]))
DTYPES = st.sampled_from(["float16", "float32", "float64", "int32"])


@st.composite
def vectors(draw):
    """A vector of up to three parts, weighted or not, in either ring."""
    weight = draw(st.sampled_from([1, 1, 7, 100_000]))
    parts = [
        Part(
            f"part-{at}",
            (draw(LENGTHS),),
            draw(st.sampled_from([0.5, 1.0, 3.7, 100.0])),
            draw(st.integers(0, 20)),
            draw(st.sampled_from([Treatment.WEIGHTED, Treatment.UNWEIGHTED])),
            draw(DTYPES),
        )
        for at in range(draw(st.integers(1, 3)))
    ]
    return with_counts(parts, maximum_weight=weight)


ROUNDS = {"vector": vectors(), "seed": st.integers(0, 2**32), "data": st.data()}


@FEW
@given(size=st.integers(3, 20), **ROUNDS)
def test_secure_sums_are_plain_sums_while_enough_workers_stay(size, vector, seed, data):
    sums_agree(size, vector, seed, data)


@pytest.mark.slow
@MANY
@given(size=st.integers(3, 40), **ROUNDS)
def test_secure_sums_are_plain_sums_in_many_rounds(size, vector, seed, data):
    sums_agree(size, vector, seed, data)


def sums_agree(size, vector, seed, data):
    party = cast(size, vector)
    words = words_of(party, seed)
    spare = size - party.descriptor.least
    leaving = data.draw(st.lists(st.sampled_from(party.names), max_size=spare, unique=True))
    drops = {name: data.draw(st.sampled_from(PHASES)) for name in leaving}
    done = completed(play(party, words, drops=drops))
    staying = [name for name in party.names if drops.get(name) in (None, "confirm", "unmask")]
    assert done.members == tuple(staying)
    np.testing.assert_array_equal(done.total, plain_sum(words, staying))
    assert not [finding for finding in done.round.findings if finding.holder]


@FEW
@given(size=st.integers(20, 36), length=LENGTHS, seed=st.integers(0, 2**32), data=st.data())
def test_secure_sums_are_plain_sums_on_harary_graphs(size, length, seed, data):
    vector = VectorSpec((Part("update", (length,), 1.0, 16, Treatment.UNWEIGHTED),))
    party = cast(size, vector, graph="harary", number=seed)  # another round, another cycle
    words = words_of(party, seed)
    spare = party.descriptor.graph.lost
    leaving = data.draw(st.lists(st.sampled_from(party.names), max_size=spare, unique=True))
    drops = {name: data.draw(st.sampled_from(PHASES[2:])) for name in leaving}
    done = completed(play(party, words, drops=drops))
    staying = [name for name in party.names if drops.get(name) != "mask"]
    assert done.members == tuple(staying)
    np.testing.assert_array_equal(done.total, plain_sum(words, staying))


@pytest.mark.parametrize("phases", list(itertools.product((*PHASES, None), repeat=2)), ids=str)
def test_two_workers_of_seven_may_leave_in_any_two_phases(phases):
    """Seven workers have a threshold of five: every combination up to the tolerance."""
    party = cast(7)
    drops = {name: phase for name, phase in zip(("worker-00001", "worker-00005"), phases, strict=True) if phase}
    words = words_of(party)
    done = completed(play(party, words, drops=drops))
    staying = [name for name in party.names if drops.get(name) in (None, "confirm", "unmask")]
    np.testing.assert_array_equal(done.total, plain_sum(words, staying))


@pytest.mark.parametrize("leaving", list(itertools.combinations(range(5), 2)), ids=str)
@pytest.mark.parametrize("phase", PHASES)
def test_below_the_threshold_the_round_is_abandoned_with_its_reason(leaving, phase):
    """Five workers have a threshold of four: with any two gone, in any phase, there is no sum."""
    party = cast(5)
    played = play(party, words_of(party), drops={f"worker-{at:05d}": phase for at in leaving})
    assert isinstance(played.state, Abandoned)
    assert played.state.reason is Reason.TOO_FEW_MEMBERS


@pytest.mark.parametrize("phase", ["unmask", "confirm"])
def test_three_workers_lose_one_only_after_its_words_arrived(phase):
    party = cast(3)
    words = words_of(party)
    done = completed(play(party, words, drops={"worker-00002": phase}))
    np.testing.assert_array_equal(done.total, plain_sum(words, party.names))
    assert isinstance(play(party, words, drops={"worker-00002": "mask"}).state, Abandoned)


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["complete", "harary"])
def test_a_hundred_workers_add_up(graph):
    party = cast(100, VectorSpec((Part("update", (10_000,), 1.0, 16, Treatment.UNWEIGHTED),)), graph=graph)
    words = words_of(party)
    done = completed(play(party, words, drops=dict.fromkeys(party.names[:5], "mask")))
    np.testing.assert_array_equal(done.total, plain_sum(words, party.names[5:]))


def test_updates_weights_and_metrics_come_out_as_means():
    vector = with_counts(
        (
            Part("update", (3, 2), 1.0, 16),
            Part("loss", (1,), 10.0, 20),
            Part("correct", (1,), 1000.0, 0, Treatment.UNWEIGHTED, "int64"),
        ),
        maximum_weight=1000,
    )
    party = cast(4, vector)
    weights = dict(zip(party.names, (10, 0, 700, 1000), strict=True))
    random = np.random.default_rng(3)
    values = {
        name: {
            "update": random.uniform(-1, 1, (3, 2)),
            "loss": np.array([at + 0.5]),
            "correct": np.array([at]),
        }
        for at, name in enumerate(party.names)
    }
    words = {
        name: vector.encode(values[name], weight=weights[name], ring=party.descriptor.ring, entropy=party.entropy)
        for name in party.names
    }
    found = completed(play(party, words)).sum
    total = sum(weights.values())
    assert (found.weight, found.saturated, found.workers) == (total, 0, 4)
    exact = sum(weights[name] * values[name]["update"] for name in party.names) / total
    assert np.abs(found.mean("update") - exact).max() < 2**-15
    assert found.mean("loss")[0] == sum(weights[name] * values[name]["loss"][0] for name in party.names) / total
    assert found.total("correct")[0] == 6
    assert found.mean("correct")[0] == 1.5


def test_a_phase_ends_by_deadline_with_those_who_answered():
    party, words, states = cast(5), None, {}
    words = words_of(party)
    turn, silent = party.serve(), "worker-00003"
    while not isinstance(turn.state, Complete):
        told = turn.outgoing
        for name, message in told:
            if name == silent and isinstance(turn.state, server.Masking):
                continue
            step = party.begin(name) if name not in states else client.receive(states[name], message)
            if isinstance(step.state, client.Ready):
                step = client.submit(step.state, words[name])
            states[name] = step.state
            turn = server.receive(turn.state, name, step.message)
        if turn.outgoing == () and not isinstance(turn.state, Complete):
            turn = server.close(turn.state)
    assert turn.state.members == tuple(name for name in party.names if name != silent)
    assert [(each.worker, each.reason) for each in turn.state.round.findings] == [(silent, None)]
    np.testing.assert_array_equal(turn.state.total, plain_sum(words, turn.state.members))
