"""What a release will use up, held before it is computed: the owner's limits and the data set's budget.

A reservation is charged from the moment it is durable. It is committed together with the ledger entry of its release,
or cancelled when nothing left the worker; whatever a crash leaves in between stays charged. Reservations form a hash
chain, so that one cannot be taken out unnoticed. No IO and no clock here; `storage.holds` makes each step durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from fedpriv import canonical
from fedpriv.ids import DatasetName, JobId, PeerName
from fedpriv.privacy.budget import Budget, Cost

DAY_SECONDS = 86_400.0
FIRST = bytes(32)
"""What the first reservation of a worker follows."""


class State(Enum):
    """How far a reservation came; all but `CANCELLED` are charged.

    `INTERRUPTED`: it ended before anything was recorded, by a crash or by a failure on private values. `LOST`:
    recorded, but a crash took the bytes before the peer acknowledged them; they are never made again.
    """

    RESERVED = "reserved"
    COMMITTED = "committed"
    ACKNOWLEDGED = "acknowledged"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` uses of `against`, which a rule's citation or an approval's digest names; ever, or within a time.

    `within_seconds` is None where the limit holds for ever.
    """

    against: str
    most: int
    within_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one release is charged with: uses of rules and approvals, and a privacy cost under the data set's budget.

    `release` is a digest of the order that asks for it, so that a retry is known as one. `plan` is hexadecimal.
    `ceiling` is the most epsilon that all rounds of `job` may cost, where a rule says so. A `whole` cost is that of all
    rounds, charged with the first.
    """

    release: bytes = field(repr=False)
    dataset: DatasetName
    recipient: PeerName
    plan: str
    job: JobId
    round: int
    limits: tuple[Limit, ...] = ()
    cost: Cost | None = None
    budget: Budget | None = None
    ceiling: float | None = None
    whole: bool = False

    @property
    def is_free(self) -> bool:
        """Whether the release uses nothing up, so that nothing needs to be held."""
        return not self.limits and self.cost is None

    def chained(self, previous: bytes, time: int) -> bytes:
        """Return the digest, 32 bytes, of this reservation at `time` (milliseconds) after the one with `previous`."""
        cost = self.cost
        priced: canonical.Field = None
        if cost is not None:
            said = (cost.mechanism, cost.event, cost.relation, cost.unit, cost.accountant, cost.trusted)
            priced = [*said, list(cost.rdp)]
        against: list[canonical.Field] = [limit.against for limit in self.limits]
        order: list[canonical.Field] = [self.release, self.dataset, self.recipient, self.plan, self.job, self.round]
        return canonical.digest("fedpriv/reservation/v1", previous, time, order, against, priced)
