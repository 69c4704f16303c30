"""What a session asks its shell to do, and what carrying out a request can come to: values without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fedpriv.ids import JobId, PlanDigest
from fedpriv.plans.plan import Plan
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.privacy.budget import Budget
from fedpriv.secagg.messages import FromCoordinator
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import (
    Announcement,
    AskBudget,
    AskCheckpoint,
    BudgetLeft,
    Checkpoint,
    Cosigned,
    ErrorCode,
    Failure,
    Goodbye,
    Memory,
    OfferPlan,
    PlanAccepted,
)
from fedpriv.wire.rounds import Summable
from fedpriv.wire.values import (
    AskObjects,
    AskRelease,
    Calls,
    Collect,
    Fetch,
    OpenDataset,
    OpenSession,
    Put,
)
from fedpriv_worker.forecast import Forecast
from fedpriv_worker.orders import Answer, Order, masked_among
from fedpriv_worker.pricing import Price

# --- what an execution came to ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The plan passed validation and is compiled."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Local training ended: what changed, over how many rows (0 of private training), and the training metrics.

    `memory` says whether what is kept here between rounds was found.
    """

    rows: int
    metrics: Mapping[str, float] = field(repr=False)
    delta: TensorSet = field(repr=False)
    memory: Memory = Memory.NONE


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Evaluation ended: metrics over so many validation rows."""

    rows: int
    metrics: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Summed:
    """Statistics were computed."""

    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoodIn:
    """The stand-in rows were fetched."""

    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Nothing:
    """A computation for a sum failed on rows: zeros that weigh nothing stand in, and nobody hears that they do."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The order had its answer already, which is sent again as it was."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Execution failed. `on_values` says that it could not have failed before private values were read.

    `begun` says that a private order was stopped when work on rows had begun: nothing left, and it stays charged.
    """

    code: ErrorCode
    step: int = -1
    operation: str = ""
    on_values: bool = False
    begun: bool = False


Summand: TypeAlias = Trained | Evaluated | Summed | Nothing
Outcome: TypeAlias = Loaded | Summand | StoodIn | Answered | Broken


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validate:
    """Validate and compile the plan that `request` offers, then report the outcome."""

    request: OfferPlan

    @property
    def number(self) -> int:
        """The number that the peer gave the request."""
        return self.request.request


@dataclass(frozen=True, slots=True)
class Execute:
    """Reserve what `order` would use up, carry it out with the plan that it names, if any, then report the outcome.

    `price` is what is executed of a private one, and what that costs.
    """

    order: Order
    plan: Plan | None
    forecast: Forecast
    price: Price | None = None

    @property
    def number(self) -> int:
        """The number that the peer gave the request."""
        return self.order.request

    @property
    def invited(self) -> bool:
        """Whether the answer goes into a sum."""
        return masked_among(self.order) > 0


@dataclass(frozen=True, slots=True)
class Note:
    """Put a request before the owner, durably; `permitted_by` cites the rule that lets it out, "" if none does.

    It comes before what is done about an order, once for every order; `again` says that the session sent one before.
    """

    request: ReleaseRequest
    plan: Plan | None
    permitted_by: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message that derives from no private data; the door records it."""

    message: Announcement | PlanAccepted | Failure | Goodbye | Checkpoint | BudgetLeft


@dataclass(frozen=True, slots=True)
class Release:
    """Hand a value that derives from private data to the door, with what it answers and what was foreseen of it."""

    message: Answer
    order: Order
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Contribute:
    """Put what an order came to into the sum that the order invited to; it leaves masked, or not at all."""

    outcome: Summand
    order: Summable
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Hear:
    """Pass a message of a round of secure aggregation on to this worker's part in it."""

    message: FromCoordinator


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Forget the bytes of what was released for a round: the peer has saved it."""

    job: JobId
    round: int


@dataclass(frozen=True, slots=True)
class Point:
    """Pass a message about values on to the session of values that the peer opened."""

    message: OpenSession | Calls | Put | OpenDataset | Fetch | AskObjects | AskRelease | Collect
    plans: Mapping[PlanDigest, Plan]
    """What the peer offered and may use."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Sign and publish a checkpoint of the ledger."""


@dataclass(frozen=True, slots=True)
class ShowCheckpoint:
    """Publish, and answer with the signed checkpoint and its consistency with the one that the peer holds."""

    request: AskCheckpoint


@dataclass(frozen=True, slots=True)
class ShowBudget:
    """Answer with what is left of a data set's budget, None where it has none."""

    request: AskBudget
    budget: Budget | None


@dataclass(frozen=True, slots=True)
class KeepCosignature:
    """Add the peer's cosignature to the checkpoint that it was shown last, if it is a good one."""

    cosigned: Cosigned


@dataclass(frozen=True, slots=True)
class Close:
    """End the link."""


Action: TypeAlias = (
    Validate
    | Execute
    | Note
    | Tell
    | Release
    | Contribute
    | Hear
    | Acknowledge
    | Point
    | Publish
    | ShowCheckpoint
    | ShowBudget
    | KeepCosignature
    | Close
)
