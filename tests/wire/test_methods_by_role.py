"""Which messages each role may send to a worker: a list that is whole, and every other message ends the link."""

from __future__ import annotations

from typing import get_args

import pytest
from test_codec import EXAMPLES

from fedpriv.clock import in_words
from fedpriv.ids import PeerName, Role, WorkerName
from fedpriv.policy.decision import Recipient
from fedpriv.transport.software import SOFTWARE, mismatch
from fedpriv.wire import messages as m
from fedpriv_worker.actions import Close
from fedpriv_worker.methods import METHODS, may_send
from fedpriv_worker.session import Facts, handle, open_session

FACTS = Facts(WorkerName("alice"), "2.13.0", {}, {})
FOR_WORKERS = {*get_args(m.Request), *get_args(m.Notice), *get_args(m.FromCoordinator)} - {m.Invite}
"""What anybody may ever send to a worker; an invitation comes with its order alone."""


@pytest.mark.parametrize("role", Role)
def test_a_message_that_the_list_does_not_name_ends_the_link(role: Role) -> None:
    session, _ = open_session(FACTS, Recipient(PeerName("peer"), role.value))
    for message in EXAMPLES:
        after, actions = handle(session, message)
        if not may_send(role.value, message):
            assert (after, actions) == (session, (Close(),)), type(message).__name__


def test_only_who_drives_may_send_anything() -> None:
    assert set(METHODS) == {Role.COORDINATOR.value, Role.RESEARCHER.value}
    for role in ("worker", "auditor", "administrator", "registrar", "", "root", "Coordinator"):
        assert not any(may_send(role, message) for message in EXAMPLES)


def test_the_list_is_whole_and_has_nothing_that_only_a_worker_sends() -> None:
    assert METHODS[Role.COORDINATOR.value] == FOR_WORKERS
    for reply in get_args(m.Reply):
        assert all(reply not in methods for methods in METHODS.values())


@pytest.mark.parametrize(
    ("protocol", "software", "says"),
    [
        ("2", "fedpriv 9.1.0", r"the other side \(fedpriv 9.1.0\) speaks protocol 2, .* this side is the older one"),
        ("0", "fedpriv 0.0.1", r"protocol 0, .* update fedpriv there"),
        ("x", "", r"\(another version of fedpriv\) speaks protocol x"),
        ("2", "\x1b[2J" + "y" * 500, r"\(.\[2J" + "y" * 36 + r"\)"),
    ],
)
def test_two_versions_that_do_not_fit_say_which_side_to_update(protocol: str, software: str, says: str) -> None:
    import re

    found = mismatch(protocol, software)
    assert found is not None
    assert re.search(says, found)
    assert SOFTWARE in found
    assert "\x1b" not in found
    assert mismatch("1", software) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-41.4, "41 s"), (60, "1 min"), (7380, "2 h 3 min"), (86_399, "23 h 59 min"), (90_061, "1 d 1 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
