"""The states of a round at the coordinator, and what it found out; `server` has the steps between them.

The collections in a state grow in place, and a state is used once: memory is the sum, and the shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fedpriv.ids import WorkerName
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import Topology
from fedpriv.secagg.messages import Abort, Advertise, FromCoordinator
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.ring import Words
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.statements import History
from fedpriv.secagg.unmasking import Roles
from fedpriv.secagg.vector import Sum


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a worker no longer counts: it went away, sent something wrong, or said itself why it stopped (`abort`).

    With a `holder`, a share of its secret did not fit the others: either of the two made it wrong, and the sum stands.
    """

    worker: WorkerName
    reason: Reason | None
    explanation: str
    abort: Abort | None = None
    holder: WorkerName | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """What does not change in a round, and what was found out about its workers so far."""

    descriptor: Descriptor
    roster: Roster
    terms: Terms
    findings: list[Finding] = field(default_factory=list)
    gone: set[WorkerName] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who is still to answer in a phase."""

    round: Round
    history: History
    waiting: set[WorkerName]


@dataclass(frozen=True, slots=True)
class Advertising(Waiting):
    """Collects the workers' keys: U1. `keys` has every key so far, of either kind."""

    answers: dict[WorkerName, Advertise] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Cohort:
    """U1, and the graph over it."""

    members: Mapping[WorkerName, Advertise]
    graph: Topology = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sharing(Waiting):
    """Collects sealed shares, to be passed on: U2."""

    cohort: Cohort
    answers: dict[WorkerName, dict[WorkerName, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Masking(Waiting):
    """Adds up masked words: U3."""

    cohort: Cohort
    sharers: tuple[WorkerName, ...]
    total: Words = field(repr=False)
    answers: set[WorkerName] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Confirming(Waiting):
    """Collects signatures over U3."""

    cohort: Cohort
    sharers: tuple[WorkerName, ...]
    survivors: tuple[WorkerName, ...]
    total: Words = field(repr=False)
    answers: dict[WorkerName, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unmasking(Waiting):
    """Collects shares, by whose secret they are of and who held them, to remove the masks at the end."""

    roles: Roles = field(repr=False)
    total: Words = field(repr=False)
    self_shares: dict[WorkerName, dict[WorkerName, bytes]] = field(repr=False)
    key_shares: dict[WorkerName, dict[WorkerName, bytes]] = field(repr=False)
    answers: set[WorkerName] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Complete:
    """The sum over `members`, without masks."""

    round: Round
    members: tuple[WorkerName, ...]
    total: Words = field(repr=False)

    @property
    def sum(self) -> Sum:
        """What the total means; raises `VerificationFailed` for what no honest workers' words add up to."""
        descriptor = self.round.descriptor
        return descriptor.vector.decode(self.total, workers=len(self.members), ring=descriptor.ring)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The round has no sum and never will."""

    round: Round
    reason: Reason
    explanation: str


Running: TypeAlias = Advertising | Sharing | Masking | Confirming | Unmasking
State: TypeAlias = Running | Complete | Abandoned
Outgoing: TypeAlias = tuple[WorkerName, FromCoordinator]


@dataclass(frozen=True, slots=True)
class Turn:
    """The state after an event, and what to send to whom."""

    state: State
    outgoing: tuple[Outgoing, ...] = ()
