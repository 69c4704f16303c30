"""Patience with the phases of a round of secure aggregation: each has its own, and the round ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from parties import cast, words_of

from fedpriv.secagg import client
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.server_states import Abandoned, Complete
from fedpriv_coordinator.masked_round import Collecting, Gone, Heard, Send, Tick, advance, begin

DEADLINES = (10.0, 20.0, 30.0, 40.0, 50.0)


class Play:
    """Honest workers against the state machine, at a clock that the test moves."""

    def __init__(self, size: int = 5) -> None:
        self.cast = cast(size)
        self.cast.descriptor = replace(self.cast.descriptor, deadlines_seconds=DEADLINES)
        self.words = words_of(self.cast)
        self.workers: dict[str, client.State] = {}
        self.now = 0.0
        self.state, self.sends = begin(self.cast.serve(), self.now)

    def answer(self, send: Send) -> object:
        if isinstance(send.message, Invite):
            step = self.cast.begin(send.worker)
        else:
            step = client.receive(self.workers[send.worker], send.message)
        if isinstance(step.state, client.Ready):
            step = client.submit(step.state, self.words[send.worker])
        self.workers[send.worker] = step.state
        return step.message

    def phase(self, *, silent: str = "") -> None:
        """Let everybody but `silent` answer what was sent."""
        sends, self.sends = self.sends, ()
        for send in sends:
            if send.worker != silent:
                heard = Heard(send.worker, self.answer(send))
                self.state, more = advance(self.state, heard, self.now)
                self.sends += more

    def tick(self, now: float) -> None:
        self.now = now
        self.state, more = advance(self.state, Tick(), now)
        self.sends += more


def test_every_phase_has_its_own_time_from_when_it_begins() -> None:
    play, ends = Play(), []
    while isinstance(play.state, Collecting):
        ends.append(play.state.deadline - play.now)
        play.now += 1.0
        play.phase()
    assert ends == list(DEADLINES)
    assert isinstance(play.state, Complete)


@pytest.mark.parametrize("phase", range(5))
def test_whoever_is_silent_is_left_out_at_the_deadline_and_not_before(phase: int) -> None:
    play = Play()
    for _ in range(phase):
        play.phase()
    assert isinstance(play.state, Collecting)
    deadline = play.state.deadline
    play.phase(silent="worker-00002")
    play.tick(deadline - 0.001)
    assert isinstance(play.state, Collecting)
    assert play.state.deadline == deadline
    play.tick(deadline)
    while isinstance(play.state, Collecting):
        play.phase()
    assert isinstance(play.state, Complete)
    assert [finding.worker for finding in play.state.round.findings] == ["worker-00002"]


def test_too_few_abandon_the_round_and_what_comes_later_changes_nothing() -> None:
    play = Play()
    for name in ("worker-00001", "worker-00002"):
        play.state, _ = advance(play.state, Gone(name), 0.0)
    first, *_ = play.sends
    answer = play.answer(first)
    play.tick(DEADLINES[0])
    assert isinstance(play.state, Abandoned)
    assert advance(play.state, Heard(first.worker, answer), 1.0) == (play.state, ())
    assert advance(play.state, Gone(first.worker), 1.0) == (play.state, ())


def test_a_message_said_twice_changes_nothing() -> None:
    play = Play()
    first = play.sends[0]
    heard = Heard(first.worker, play.answer(first))
    play.state, _ = advance(play.state, heard, 0.0)
    assert advance(play.state, heard, 5.0) == (play.state, ())
