from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import WorkerName
from fedpriv_coordinator.round import (
    MAXIMUM_RETURNS,
    Abandoned,
    Action,
    Arrived,
    Ask,
    Begin,
    Collecting,
    Complete,
    Event,
    Failed,
    Fold,
    Leave,
    Returned,
    Selecting,
    State,
    Terms,
    Tick,
    advance,
)

A, B, C = WorkerName("a"), WorkerName("b"), WorkerName("c")


def terms(quorum: int = 2, *, returning: bool = False, enough: int | None = None) -> Terms:
    return Terms(number=1, quorum=quorum, deadline_seconds=10.0, returning=returning, enough=enough)


def play(state: State, *events: Event) -> tuple[State, list[Action]]:
    done: list[Action] = []
    for event in events:
        state, actions = advance(state, event)
        done.extend(actions)
    return state, done


def folds(actions: list[Action]) -> list[WorkerName]:
    return [action.worker for action in actions if isinstance(action, Fold)]


def test_everyone_who_is_connected_is_asked_once_in_order_of_name() -> None:
    state, actions = advance(Selecting(terms()), Begin((C, A, B, A), 0.0))
    assert actions == (Ask(A), Ask(B), Ask(C))
    assert isinstance(state, Collecting)
    assert state.deadline == 10.0


def test_a_round_below_its_quorum_is_abandoned_before_anyone_is_asked() -> None:
    state, actions = advance(Selecting(terms(quorum=3)), Begin((A, B), 0.0))
    assert isinstance(state, Abandoned)
    assert actions == ()
    assert "the quorum is 3" in state.reason


def test_updates_are_folded_in_order_of_name_whatever_order_they_arrive_in() -> None:
    state, actions = play(Selecting(terms()), Begin((A, B, C), 0.0), Arrived(C), Arrived(A), Arrived(B))
    assert folds(actions) == [A, B, C]
    assert state == Complete(terms(), (A, B, C))


def test_an_early_update_waits_until_those_before_it_are_settled() -> None:
    state, actions = play(Selecting(terms()), Begin((A, B, C), 0.0), Arrived(B))
    assert folds(actions) == []
    _, actions = play(state, Failed(A, "lost", "gone"))
    assert folds(actions) == [B]


def test_a_lost_worker_is_left_out_and_named() -> None:
    state, actions = play(Selecting(terms()), Begin((A, B, C), 0.0), Arrived(A), Failed(B, "lost", "cut"), Arrived(C))
    assert Leave(B, "lost", "cut") in actions
    assert state == Complete(terms(), (A, C))


def test_a_round_ends_at_its_deadline_with_what_it_has() -> None:
    state, _ = play(Selecting(terms()), Begin((A, B, C), 0.0), Arrived(A), Arrived(C), Tick(9.9))
    assert isinstance(state, Collecting)
    state, late = play(state, Tick(10.0))
    assert state == Complete(terms(), (A, C))
    assert [type(action) for action in late] == [Leave, Fold]


def test_a_round_ends_once_enough_updates_are_there_and_leaves_the_slow_ones() -> None:
    agreed = terms(enough=2)
    state, actions = play(Selecting(agreed), Begin((A, B, C), 0.0), Arrived(C), Arrived(B))
    assert state == Complete(agreed, (B, C))
    assert [action.worker for action in actions if isinstance(action, Leave)] == [A]
    assert folds(actions) == [B, C]
    assert play(state, Arrived(A)) == (state, [])


def test_enough_is_never_fewer_than_the_quorum_and_counts_no_failure() -> None:
    state, _ = play(Selecting(terms(enough=1)), Begin((A, B, C), 0.0), Arrived(C))
    assert isinstance(state, Collecting)
    state, _ = play(Selecting(terms(enough=2)), Begin((A, B, C), 0.0), Arrived(C), Failed(A, "lost", "x"))
    assert isinstance(state, Collecting)
    lost = terms(returning=True, enough=2)
    state, _ = play(Selecting(lost), Begin((A, B, C), 0.0), Failed(A, "lost", "x"), Arrived(C), Arrived(B))
    assert state == Complete(lost, (B, C))


def test_a_round_is_abandoned_as_soon_as_the_quorum_is_out_of_reach() -> None:
    state, _ = play(Selecting(terms()), Begin((A, B, C), 0.0), Failed(A, "lost", "x"), Failed(B, "refused", "y"))
    assert isinstance(state, Abandoned)
    assert "2 of 3 workers did not contribute" in state.reason


def test_what_comes_twice_late_or_unasked_changes_nothing() -> None:
    state, _ = play(Selecting(terms()), Begin((A, B), 0.0), Arrived(A))
    for event in (Arrived(A), Failed(A, "lost", "x"), Arrived(C), Begin((C,), 1.0), Tick(1.0)):
        assert advance(state, event) == (state, ())
    over, _ = play(state, Arrived(B))
    for event in (Arrived(B), Failed(B, "late", "x"), Tick(99.0)):
        assert advance(over, event) == (over, ())
    assert advance(Selecting(terms()), Arrived(A)) == (Selecting(terms()), ())


def test_a_lost_worker_that_comes_back_is_asked_again_and_folded_in_its_turn() -> None:
    begun = Selecting(terms(returning=True))
    state, actions = play(begun, Begin((A, B, C), 0.0), Failed(A, "lost", "cut"), Arrived(C), Returned(A))
    assert actions[3:] == [Leave(A, "lost", "cut"), Ask(A)]
    assert isinstance(state, Collecting)
    state, actions = play(state, Arrived(A), Arrived(B))
    assert folds(actions) == [A, B, C]
    assert state == Complete(terms(returning=True), (A, B, C))


def test_each_return_is_worth_one_more_asking() -> None:
    state, _ = play(Selecting(terms(returning=True)), Begin((A, B), 0.0))
    for _ in range(3):
        state, actions = play(state, Failed(A, "lost", "cut"), Returned(A), Returned(A))
        assert actions == [Leave(A, "lost", "cut"), Ask(A)]


def test_a_worker_that_comes_and_goes_is_not_waited_for_for_ever() -> None:
    state, _ = play(Selecting(terms(returning=True)), Begin((A, B, C), 0.0), Arrived(B))
    for _ in range(MAXIMUM_RETURNS):
        state, _ = play(state, Failed(A, "lost", "cut"), Returned(A))
    state, actions = play(state, Failed(A, "lost", "cut"), Returned(A))
    assert actions == [Leave(A, "lost", "cut"), Fold(B)]
    assert isinstance(state, Collecting)
    assert state.left == {A}
    state, _ = play(state, Failed(C, "lost", "cut"))
    assert isinstance(state, Collecting)
    below, _ = play(state, Returned(C), Failed(C, "refused", "no"))
    assert isinstance(below, Abandoned)


def test_a_round_does_not_wait_for_the_lost_once_it_has_its_quorum() -> None:
    begun = Selecting(terms(returning=True))
    state, actions = play(begun, Begin((A, B, C), 0.0), Failed(A, "lost", "cut"), Arrived(C), Arrived(B))
    assert state == Complete(terms(returning=True), (B, C))
    assert folds(actions) == [B, C]
    assert advance(state, Returned(A)) == (state, ())


def test_a_round_below_its_quorum_waits_for_the_lost_until_its_deadline() -> None:
    begun = Selecting(terms(returning=True))
    state, _ = play(begun, Begin((A, B), 0.0), Failed(A, "lost", "cut"), Arrived(B), Tick(9.9))
    assert isinstance(state, Collecting)
    over, actions = play(state, Tick(10.0))
    assert isinstance(over, Abandoned)
    assert actions == []
    over, _ = play(state, Returned(A), Tick(10.0))
    assert isinstance(over, Abandoned)


def test_who_refused_does_not_come_back() -> None:
    begun = Selecting(terms(quorum=1, returning=True))
    state, _ = play(begun, Begin((A, B), 0.0), Failed(A, "refused", "no"))
    assert advance(state, Returned(A)) == (state, ())


names = st.sampled_from([WorkerName(name) for name in "abcdef"])
events = st.one_of(
    st.builds(Arrived, names),
    st.builds(Failed, names, st.sampled_from(["lost", "refused", "rejected"]), st.just("r")),
    st.builds(Returned, names),
    st.builds(Tick, st.floats(0, 20)),
)


@given(st.sets(names, min_size=1), st.integers(1, 6), st.booleans(), st.lists(events, max_size=20))
def test_any_order_of_events_ends_whole_and_folds_each_update_once(
    workers: set[WorkerName], quorum: int, returning: bool, happening: list[Event]
) -> None:
    state, actions = play(
        Selecting(terms(quorum, returning=returning)), Begin(tuple(workers), 0.0), *happening, Tick(10.0)
    )
    assert isinstance(state, Complete | Abandoned)
    folded = folds(actions)
    assert folded == sorted(set(folded))
    if isinstance(state, Complete):
        assert list(state.folded) == folded
        assert len(folded) >= quorum
        left = {action.worker for action in actions if isinstance(action, Leave)}
        assert left | set(folded) == workers
        assert returning or not left & set(folded)
