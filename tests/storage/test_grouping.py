"""Group commit: who arrives during a commit shares the next, and a broken commit is believed by nobody."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedpriv.errors import StorageFailed, UsageError
from fedpriv.storage.grouping import GroupCommit


class Gate:
    """A commit that waits for permission and records its groups."""

    def __init__(self):
        self.groups = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, items):
        self.groups.append(list(items))
        self.entered.set()
        assert self.open.wait(10)
        return [item * 2 for item in items]


def wait_until(condition):
    turn = threading.Event()
    for _ in range(2000):
        if condition():
            return
        turn.wait(0.002)
    raise AssertionError("never came true")


def test_callers_during_a_commit_share_the_next_one():
    gate = Gate()
    group = GroupCommit(gate)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(group.submit, 0)
        assert gate.entered.wait(10)
        later = [pool.submit(group.submit, item) for item in range(1, 9)]
        wait_until(lambda: len(group._waiting) == 8)
        gate.open.set()
        assert [first.result(10), *(each.result(10) for each in later)] == [item * 2 for item in range(9)]
    assert gate.groups[0] == [0]
    assert sorted(gate.groups[1]) == list(range(1, 9))
    assert len(gate.groups) == 2


def test_each_caller_gets_its_own_error():
    group = GroupCommit(lambda items: [UsageError(f"no {item}") if item % 2 else item for item in items])
    assert group.submit(2) == 2
    with pytest.raises(UsageError, match="no 3"):
        group.submit(3)


def test_a_broken_commit_fails_its_group_and_the_next_goes_on():
    gate = Gate()
    broken = threading.Event()

    def commit(items):
        found = gate(items)
        if not broken.is_set() and len(items) > 1:
            broken.set()
            raise RuntimeError("defect")
        return found

    group = GroupCommit(commit)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(group.submit, 0)
        assert gate.entered.wait(10)
        later = [pool.submit(group.submit, item) for item in range(1, 4)]
        wait_until(lambda: len(group._waiting) == 3)
        gate.open.set()
        assert first.result(10) == 0
        errors = sorted(type(each.exception(10)).__name__ for each in later)
    assert errors == ["RuntimeError", "StorageFailed", "StorageFailed"]
    assert group.submit(5) == 10


def test_the_order_of_commits_is_the_order_of_arrival():
    seen = []
    group = GroupCommit(lambda items: seen.extend(items) or list(items))
    with ThreadPoolExecutor(8) as pool:
        for worker in [pool.submit(lambda at=at: [group.submit((at, step)) for step in range(50)]) for at in range(8)]:
            worker.result(10)
    assert len(seen) == 400
    assert all([step for at, step in seen if at == worker] == list(range(50)) for worker in range(8))


class Interrupting:
    """A lock whose holder is interrupted when it waits, as by Ctrl-C."""

    def __init__(self, lock, before):
        self._lock = lock
        self._before = before

    def acquire(self):
        self._before()
        raise KeyboardInterrupt

    def locked(self):
        return self._lock.locked()

    def release(self):
        self._lock.release()


@pytest.mark.parametrize("others", [0, 1])
def test_an_interrupted_caller_passes_on_the_lead(others):
    group = GroupCommit(list)
    lock = threading.Lock()
    lock.acquire()

    def chosen():  # what the leader before it does as it finishes
        group._hand_over()

    from fedpriv.storage.grouping import _Waiting

    mine = _Waiting(1, Interrupting(lock, chosen))
    group._led = True
    group._waiting.append(mine)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(group.submit, 2) if others else None
        wait_until(lambda: len(group._waiting) == 1 + others)
        with pytest.raises(KeyboardInterrupt):
            group._wait(mine)
        if other:
            assert other.result(10) == 2
    assert group.submit(3) == 3


def test_an_interrupted_caller_that_was_not_chosen_only_leaves():
    group = GroupCommit(list)
    lock = threading.Lock()
    lock.acquire()
    from fedpriv.storage.grouping import _Waiting

    mine = _Waiting(1, Interrupting(lock, lambda: None))
    group._led = True
    group._waiting.append(mine)
    with pytest.raises(KeyboardInterrupt):
        group._wait(mine)
    assert (group._waiting, group._led) == ([], True)


def test_an_interrupted_commit_is_an_error_for_whoever_led():
    def commit(items):
        raise KeyboardInterrupt

    group = GroupCommit(commit)
    with pytest.raises(KeyboardInterrupt):
        group.submit(1)
    group._commit = lambda items: [StorageFailed("full") for _ in items]
    with pytest.raises(StorageFailed, match="full"):
        group.submit(1)
