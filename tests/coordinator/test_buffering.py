"""The state machine of an asynchronous run, step by step and over random courses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import WorkerName
from fedpriv_coordinator.buffering import Begin, Between, Filling, Fold, Terms, advance, folded
from fedpriv_coordinator.round import Arrived, Ask, Failed, Leave, Returned, Tick

A, B, C, D = NAMES = tuple(map(WorkerName, "abcd"))


def play(state, *events):
    """Return the state after `events`, and all that was to be done."""
    done = []
    for event in events:
        state, actions = advance(state, event)
        done += actions
    return state, done


def test_the_model_steps_when_the_buffer_is_full_whoever_still_trains():
    state, done = play(Between(Terms(2, 10.0)), Begin((C, A, B), 0.0), Arrived(C), Arrived(A))
    assert done == [Ask(A), Ask(B), Ask(C), Fold(A, 0), Fold(C, 0)]
    assert state == Between(Terms(2, 10.0), steps=1, training={B: 0})


def test_who_trains_is_not_asked_again_and_its_update_counts_by_the_steps_that_it_missed():
    state, _ = play(Between(Terms(2, 10.0)), Begin((A, B, C), 0.0), Arrived(A), Arrived(C))
    state, _ = play(state, Begin((A, B, C), 1.0), Arrived(A), Arrived(C))
    state, done = play(state, Begin((A, B, C), 2.0), Arrived(B), Arrived(A))
    assert done == [Ask(A), Ask(C), Fold(A, 0), Fold(B, 2)]
    assert state.training == {C: 2}


def test_a_worker_rests_until_the_step_and_never_counts_twice_in_one():
    state, done = play(Between(Terms(2, 10.0)), Begin((A, B), 0.0), Arrived(A), Arrived(A), Returned(A))
    assert done == [Ask(A), Ask(B)]
    assert state.resting == {A: 0}


def test_the_same_updates_are_folded_in_the_same_order_whoever_was_first():
    begun, _ = play(Between(Terms(3, 10.0)), Begin(NAMES, 0.0))
    one, other = (play(begun, *map(Arrived, order))[1] for order in ((D, A, B), (B, D, A)))
    assert one == other == [Fold(A, 0), Fold(B, 0), Fold(D, 0)]


def test_a_step_of_a_known_order_waits_for_its_workers_and_keeps_what_came_before_its_turn():
    terms = Terms(2, 10.0, order=(frozenset({B, C}), frozenset({A, B})))
    state, done = play(Between(terms), Begin((A, B, C), 0.0), Arrived(A), Arrived(B), Arrived(C))
    assert folded(done) == (B, C)
    assert state.resting == {A: 0}
    state, done = play(state, Begin((A, B, C), 0.0), Arrived(B))
    assert done == [Ask(B), Ask(C), Fold(A, 1), Fold(B, 0)]
    missing, done = play(Between(terms), Begin((A, B), 0.0))
    assert missing.reason == "the step took an update of c before, and there is none now"


def test_what_is_there_stays_there_when_a_step_is_given_up():
    state, _ = play(Between(Terms(3, 10.0)), Begin((A, B, C), 5.0), Arrived(A), Tick(14.9))
    assert isinstance(state, Filling)
    state, more = play(state, Tick(15.0))
    assert state.reason == "1 updates within 10 s, and a step takes 3"
    state, more = play(state, Begin((A, B, C), 20.0), Arrived(C), Arrived(B))
    assert more == [Fold(A, 0), Fold(B, 0), Fold(C, 0)]


def test_losing_more_than_the_buffer_can_spare_ends_the_step_at_once():
    state, done = play(Between(Terms(2, 10.0)), Begin((A, B), 0.0), Failed(A, "refused", "no"))
    assert done[-1] == Leave(A, "refused", "no")
    assert state.reason == "1 workers are left, and a step takes 2"


def test_where_workers_can_come_back_the_step_waits_and_gives_them_the_model_of_now():
    terms = Terms(2, 10.0, returning=True)
    state, done = play(Between(terms, 4), Begin((A, B), 0.0), Failed(A, "lost", "cut"), Arrived(B), Returned(A))
    assert done == [Ask(A), Ask(B), Leave(A, "lost", "cut"), Ask(A)]
    state, done = play(state, Arrived(A))
    assert done == [Fold(A, 0), Fold(B, 0)]
    assert state.steps == 5


EVENTS = st.one_of(
    st.builds(Begin, st.lists(st.sampled_from(NAMES), unique=True).map(tuple), st.floats(0, 100)),
    st.builds(Arrived, st.sampled_from(NAMES)),
    st.builds(Failed, st.sampled_from(NAMES), st.sampled_from(("lost", "refused", "rejected")), st.just("")),
    st.builds(Returned, st.sampled_from(NAMES)),
    st.builds(Tick, st.floats(0, 200)),
)


@given(st.lists(EVENTS, max_size=40), st.integers(1, 4), st.booleans())
def test_no_course_asks_who_has_an_order_or_folds_what_did_not_arrive(events, size, returning):
    state, owing, there = Between(Terms(size, 10.0, returning=returning)), set(), set()
    for event in events:
        before = state
        state, actions = advance(state, event)
        if isinstance(event, Arrived) and isinstance(before, Filling) and event.worker in owing:
            owing.discard(event.worker)
            there.add(event.worker)
        for action in actions:
            match action:
                case Ask(worker):
                    assert worker not in owing | there
                    owing.add(worker)
                case Fold(worker, staleness):
                    assert staleness >= 0
                    there.remove(worker)
                case Leave(worker):
                    owing.remove(worker)
        assert (set(state.training), set(state.resting)) == (owing, there)
        assert len(folded(actions)) in (0, size)
        assert state.steps - before.steps == bool(folded(actions))
