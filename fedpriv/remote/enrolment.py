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
    def identity(self) -> bytes:
        """The 32 bytes of its key that stand in a roster."""
        ...

    def enrol(self, signed: SignedRoster) -> None:
        """Accept a roster; raise unless the administrator of this process signed it, later than the last one."""
        ...


@cache
def process_administrator() -> Identity:
    """Return the administrator of this process; its key is never written."""
    return new_identity(SystemEntropy())


def process_roster(workers: Sequence[Enrollable]) -> SignedRoster:
    """Return a roster of `workers`, signed for this process, which every one of them has accepted."""
    members = tuple(Member(each.name, each.identity) for each in sorted(workers, key=lambda each: each.name))
    signed = SignedRoster.sign(Roster(FEDERATION, next(_versions), members), process_administrator())
    for worker in workers:
        worker.enrol(signed)
    return signed
