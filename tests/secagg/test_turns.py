"""A message out of turn changes nothing, a state is used once, and a worker may withdraw at any time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from parties import PHASES, cast, until, words_of
from witnesses import ME, check_signed, refusal, told

from fedpriv.secagg import client
from fedpriv.secagg.graph import COMPLETE, GraphKind, GraphSpec
from fedpriv.secagg.messages import Agreement, Delivery, Roll, Survivors
from fedpriv.secagg.reasons import OutOfTurn, Reason
from fedpriv.secagg.ring import Ring

WRONG = {
    "share": [Delivery, Survivors, Agreement],
    "mask": [Roll, Survivors, Agreement],
    "confirm": [Roll, Delivery, Agreement],
    "unmask": [Roll, Delivery, Survivors],
}


@pytest.mark.parametrize(("phase", "kind"), [(phase, kind) for phase, kinds in WRONG.items() for kind in kinds])
def test_a_message_out_of_turn_changes_nothing(phase, kind):
    party = cast(5)
    words = words_of(party)
    state, message = until(party, words, phase)[ME]
    empty = {Roll: ((),), Delivery: ((), ()), Survivors: ((),), Agreement: ((),)}
    with pytest.raises(OutOfTurn):
        client.receive(state, kind(message.sid, *empty[kind]))
    step = client.receive(state, message)
    assert not isinstance(step.state, client.Aborted)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_message_of_another_session_changes_nothing(phase):
    party = cast(5)
    state, message = until(party, words_of(party), phase)[ME]
    with pytest.raises(OutOfTurn):
        client.receive(state, replace(message, sid=bytes(32)))
    assert not isinstance(client.receive(state, message).state, client.Aborted)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_repeated_message_is_out_of_turn(phase):
    party = cast(5)
    state, message = until(party, words_of(party), phase)[ME]
    after = client.receive(state, message).state
    with pytest.raises(OutOfTurn):
        client.receive(after, message)


def test_nothing_is_taken_after_the_end():
    step, _ = told("unmask")
    with pytest.raises(OutOfTurn):
        client.receive(step.state, Survivors(step.state.sid, ()))
    aborted = client.withdraw(cast(5).begin(ME).state, "training failed")
    assert refusal(aborted) == (Reason.WITHDRAWN, "")
    with pytest.raises(OutOfTurn):
        client.receive(aborted.state, Roll(aborted.state.sid, ()))


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_worker_may_withdraw_in_any_phase_and_signs_it(phase):
    party = cast(5)
    state, _ = until(party, words_of(party), phase)[ME]
    step = client.withdraw(state, "out of memory")
    check_signed(party, ME, step.message)
    assert step.message.round == PHASES.index(phase)
    assert refusal(step)[0] is Reason.WITHDRAWN


def test_words_of_another_length_or_ring_are_not_submitted():
    party = cast(5)
    state, delivery = until(party, words_of(party), "mask")[ME]
    ready = client.receive(state, delivery).state
    for wrong in (Ring(32).zeros(6), Ring(32).zeros(8), Ring(64).zeros(7), Ring(32).zeros(7).reshape(1, 7)):
        with pytest.raises(client.UsageError):
            client.submit(ready, wrong)
    assert isinstance(client.submit(ready, Ring(32).zeros(7)).state, client.Submitted)


def test_a_complete_graph_has_no_degree():
    assert COMPLETE.kind is GraphKind.COMPLETE
    for wrong in (
        (GraphKind.COMPLETE, 4, 0),
        (GraphKind.COMPLETE, 0, 1),
        (GraphKind.HARARY, 3, 1),
        (GraphKind.HARARY, 0, 1),
    ):
        with pytest.raises(client.UsageError):
            GraphSpec(*wrong)
