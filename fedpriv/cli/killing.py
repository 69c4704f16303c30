"""`fedpriv demo --kill NAME@ROUND[:MESSAGE]`: when a worker's process is to end, and ending it exactly then.

The worker knows nothing of it: it is an ordinary one. Whoever runs the demo sees a message arrive and kills the process
(SIGKILL) before anything is done with that message, so that the worker cannot send the next one. No time plays a part.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedpriv.errors import UsageError, nearest

KINDS: Mapping[str, str] = {
    "keys": "secagg-advertise",
    "shares": "secagg-shares",
    "masked": "secagg-masked",
    "confirm": "secagg-confirm",
    "unmask": "secagg-unmask",
}
"""The messages of a round of secure aggregation, by the word for each, and their kinds in a ledger; in their order."""
FIRST = ("secagg-advertise", "update")
"""With one of these a worker first answers the order of a round."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End `worker` in that round: when its message of the kind `after` arrived, or, with "", before it is asked."""

    worker: str
    round: int
    after: str = ""


class Killer:
    """Ends one worker's process as `kill` says, once; `send` sends it a signal."""

    def __init__(self, kill: Kill, send: Callable[[signal.Signals], None]) -> None:
        self._kill = kill
        self._send = send
        self._armed = False

    def round_begins(self, number: int) -> None:
        """Take note that round `number` begins now; nobody is asked anything before this returns.

        A worker that is to end before it is asked is stopped now, so that it cannot answer, and killed when the first
        of the others has answered: it is lost in the middle of the round.
        """
        if number == self._kill.round:
            self._armed = True
            if not self._kill.after:
                self._send(signal.SIGSTOP)

    def heard(self, worker: str, kind: str) -> None:
        """Kill, if this is the message; called before anything is done with it."""
        kill = self._kill
        due = (worker, kind) == (kill.worker, kill.after) if kill.after else worker != kill.worker and kind in FIRST
        if self._armed and due:
            self._armed = False
            self._send(signal.SIGKILL)


def parse_kill(text: str, names: Sequence[str], rounds: int, *, plain: bool) -> Kill:
    """Return what NAME@ROUND or NAME@ROUND:MESSAGE asks for; raise `UsageError` for what this run does not have."""
    name, _, rest = text.partition("@")
    number, colon, message = rest.partition(":")
    if name not in names:
        raise UsageError(f"--kill {text}: no worker {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    if len(names) == 1:
        raise UsageError(f"--kill {text}: {name} is the only worker; use two or more")
    if not number.isdecimal() or not 1 <= int(number) <= rounds:
        raise UsageError(f"--kill {text}: write NAME@ROUND with a round from 1 to {rounds}, such as {names[0]}@5")
    if not colon:
        return Kill(name, int(number))
    if plain:
        raise UsageError(f"--kill {text}: with --plain there is one message alone; write {name}@{number}")
    if message not in KINDS:
        close = nearest(message, KINDS)
        raise UsageError(f"--kill {text}: no message {message!r}{close}; there are {', '.join(KINDS)}")
    return Kill(name, int(number), KINDS[message])
