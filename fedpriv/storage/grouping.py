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
    item: Item
    outcome: Result | FedprivError | None = None


class GroupCommit(Generic[Item, Result]):
    """A queue in front of `commit`, which takes a group and returns a result or an error for each item, in order."""

    __slots__ = ("_commit", "_committing", "_condition", "_waiting")

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result | FedprivError]]) -> None:
        self._commit = commit
        self._condition = threading.Condition(threading.Lock())
        self._waiting: list[_Waiting[Item, Result]] = []
        self._committing = False

    def submit(self, item: Item) -> Result:
        """Return the result for `item` once its group is committed; raise the error that it or its group met."""
        mine: _Waiting[Item, Result] = _Waiting(item)
        with self._condition:
            self._waiting.append(mine)
            while self._committing and mine.outcome is None:
                self._condition.wait()
            if mine.outcome is None:
                self._committing = True
                group, self._waiting = self._waiting, []
        if mine.outcome is None:
            self._lead(group)
        if isinstance(mine.outcome, FedprivError):
            raise mine.outcome
        assert mine.outcome is not None
        return mine.outcome

    def _lead(self, group: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            for waiting, outcome in zip(group, self._commit([waiting.item for waiting in group]), strict=True):
                waiting.outcome = outcome
        finally:
            with self._condition:
                for waiting in group:
                    if waiting.outcome is None:  # `commit` itself broke: nobody may believe that it is stored
                        waiting.outcome = StorageFailed("the commit was interrupted; do not send what it was for")
                self._committing = False
                self._condition.notify_all()
