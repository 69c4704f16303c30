"""Group commit: callers that arrive while a commit is running share the next one.

Each caller waits until its own item is committed or refused, so what `submit` returns is as durable as what `commit`
does. Order of commits is order of arrival. It starts no thread: the first caller of a group commits for all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedpriv.errors import FedprivError, StorageFailed

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    """A caller's item; its `turn` opens when the outcome is there, or, without one, when it has to lead."""

    item: Item
    turn: threading.Lock
    outcome: Result | FedprivError | None = None


class GroupCommit(Generic[Item, Result]):
    """A queue in front of `commit`, which takes a group and returns a result or an error for each item, in order."""

    __slots__ = ("_commit", "_led", "_lock", "_waiting")

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result | FedprivError]]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Item, Result]] = []
        self._led = False

    def submit(self, item: Item) -> Result:
        """Return the result for `item` once its group is committed; raise the error that it or its group met."""
        mine: _Waiting[Item, Result] = _Waiting(item, threading.Lock())
        mine.turn.acquire()
        with self._lock:
            self._waiting.append(mine)
            follows, self._led = self._led, True
        if follows:
            self._wait(mine)
        if mine.outcome is None:
            self._lead()
        if isinstance(mine.outcome, FedprivError):
            raise mine.outcome
        assert mine.outcome is not None
        return mine.outcome

    def _wait(self, mine: _Waiting[Item, Result]) -> None:
        try:
            mine.turn.acquire()
        except BaseException:  # Ctrl-C: nobody will take this caller's turn, so it must not be left with the lead
            with self._lock:
                chosen = not mine.turn.locked() and mine.outcome is None
                if mine in self._waiting:
                    self._waiting.remove(mine)
                if chosen:
                    self._hand_over()
            raise

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            for waiting, outcome in zip(group, self._commit([waiting.item for waiting in group]), strict=True):
                waiting.outcome = outcome
        finally:
            for waiting in group:
                if waiting.outcome is None:  # `commit` itself broke: nobody may believe that it is stored
                    waiting.outcome = StorageFailed("the commit was interrupted; do not send what it was for")
                waiting.turn.release()
            with self._lock:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let the longest waiting caller lead the next group; the lock is held."""
        if self._waiting:
            self._waiting[0].turn.release()
        else:
            self._led = False
