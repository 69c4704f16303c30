"""Rosters of workers in this process, by an administrator that the process makes up.

Whoever runs the process could sign any roster, as it could read the workers' data: among virtual workers a roster shows
how it is done and protects nobody. Workers on other hosts take none of these; their owners pin another key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Protocol, runtime_checkable

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import SignedRoster, new_identity

FEDERATION = "this-process"
_versions = count(1)


@runtime_checkable
class Enrollable(Protocol):
    """A worker in this process, which takes the roster that the process signs."""

    name: WorkerName

    @property
    def administrator(self) -> bytes:
        """The 32 bytes of the key whose rosters it takes."""
        ...

    @property
    def identity(self) -> bytes:
        """The 32 bytes of its key that stand in a roster."""
        ...

    def enrol(self, signed: SignedRoster) -> None:
        """Accept a roster; raise unless its administrator signed it, later than the last one, and it is on it."""
        ...


@cache
def process_administrator() -> Identity:
    """Return the administrator of this process; its key is never written."""
    return new_identity(SystemEntropy())


def process_roster(workers: Sequence[Enrollable]) -> SignedRoster:
    """Return a roster of `workers`, signed for this process, which every one of them has accepted.

    Raise `UsageError`, with nothing accepted, where a worker takes those of another administrator alone.
    """
    own = process_administrator().public
    if others := sorted(each.name for each in workers if each.administrator != own):
        raise UsageError(
            f"the owner of {others[0]!r} pinned another administrator than this process; pass "
            "SecureAggregation(roster=...) the roster that it signed, and give it to every worker's enrol"
        )
    members = tuple(Member(each.name, each.identity) for each in sorted(workers, key=lambda each: each.name))
    signed = SignedRoster.sign(Roster(FEDERATION, next(_versions), members), process_administrator())
    for worker in workers:
        worker.enrol(signed)
    return signed
