"""`fedpriv demo --kill`: what is asked for, and that the process is killed at that message and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import get_args

import pytest

from fedpriv.cli.killing import KINDS, Kill, Killer, parse_kill
from fedpriv.errors import UsageError
from fedpriv.secagg.messages import FromWorker

NAMES = ("alice", "bob", "carol")


@pytest.mark.parametrize(
    ("text", "kill"),
    [
        ("bob@1", Kill("bob", 1)),
        ("bob@20", Kill("bob", 20)),
        ("bob@5:keys", Kill("bob", 5, "secagg-advertise")),
        ("alice@5:unmask", Kill("alice", 5, "secagg-unmask")),
    ],
)
def test_who_when_and_after_what(text: str, kill: Kill) -> None:
    assert parse_kill(text, NAMES, 20, plain=False) == kill


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bop@5", "no worker 'bop' (did you mean 'bob'?)"),
        ("bob", "write NAME@ROUND with a round from 1 to 20, such as alice@5"),
        ("bob@21", "with a round from 1 to 20"),
        ("bob@0:keys", "with a round from 1 to 20"),
        ("bob@5:", "no message ''; there are keys, shares, masked, confirm, unmask"),
        ("bob@5:share", "no message 'share' (did you mean 'shares'?)"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_kill(text, NAMES, 20, plain=False)
    assert message in str(refused.value)


def test_messages_of_secure_aggregation_are_none_of_a_plain_run() -> None:
    assert parse_kill("bob@5", NAMES, 20, plain=True) == Kill("bob", 5)
    with pytest.raises(UsageError, match="with --plain there is one message alone; write bob@5"):
        parse_kill("bob@5:keys", NAMES, 20, plain=True)
    with pytest.raises(UsageError, match="bob is the only worker"):
        parse_kill("bob@5", ("bob",), 20, plain=True)


def test_the_words_are_those_of_messages_that_exist() -> None:
    assert set(KINDS.values()) == {f"secagg-{each.__name__.lower()}" for each in get_args(FromWorker)} - {
        "secagg-abort"
    }


class Process:
    """A process that waits, and what was sent to it."""

    def __init__(self) -> None:
        self.sent: list[signal.Signals] = []
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

    def send(self, number: signal.Signals) -> None:
        self.sent.append(number)
        self._process.send_signal(number)

    def ended(self) -> int:
        self._process.communicate(timeout=30)
        return self._process.returncode


def test_a_process_ends_with_its_own_message_of_that_round_and_with_no_other() -> None:
    process = Process()
    killer = Killer(Kill("bob", 2, "secagg-shares"), process.send)
    killer.round_begins(1)
    killer.heard("bob", "secagg-shares")
    killer.round_begins(2)
    killer.heard("bob", "secagg-advertise")
    killer.heard("carol", "secagg-shares")
    assert process.sent == []
    killer.heard("bob", "secagg-shares")
    killer.heard("bob", "secagg-shares")
    assert process.sent == [signal.SIGKILL]
    assert process.ended() == -signal.SIGKILL


@pytest.mark.parametrize("first", ["secagg-advertise", "update"])
def test_a_process_that_is_not_to_be_asked_is_stopped_at_once_and_killed_when_another_answers(first: str) -> None:
    process = Process()
    killer = Killer(Kill("bob", 1), process.send)
    killer.round_begins(1)
    assert process.sent == [signal.SIGSTOP]
    killer.heard("carol", "plan-accepted")
    killer.heard("bob", first)
    assert process.sent == [signal.SIGSTOP]
    killer.heard("carol", first)
    assert process.sent == [signal.SIGSTOP, signal.SIGKILL]
    assert process.ended() == -signal.SIGKILL
