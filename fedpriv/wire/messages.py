"""What workers and coordinators say to each other, as values.

Every message is a frozen dataclass; `codec` turns it into an `Envelope` and back. Requests go to the worker,
replies come from it, and a reply carries the `request` number it answers. There is no message that names a
Python object, a module or a file: computation travels as plans alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.ids import Role as Role  # noqa: PLC0414 - named here beside the hello that proves it
from fedpriv.plans.plan import Plan
from fedpriv.privacy.budget import Account
from fedpriv.secagg.messages import FromCoordinator, FromWorker, Invite
from fedpriv.updates import TensorSet
from fedpriv.wire.private import Private
from fedpriv.wire.values import Asking, Objects, Pointing, SessionOpen, Ticket, Value

PROTOCOL = 1


class ErrorCode(Enum):
    """Everything a worker ever says about a failure; never a text, which could quote a value."""

    BAD_REQUEST = 1
    UNKNOWN_DATASET = 2
    UNKNOWN_PLAN = 3
    PLAN_REFUSED = 4
    OPERATION_NOT_ALLOWED = 5
    OVER_QUOTA = 6
    INPUT_MISMATCH = 7
    RELEASE_DENIED = 8
    STEP_FAILED = 9
    TORCH_VERSION = 10
    STORAGE_FULL = 11
    SHUTTING_DOWN = 12
    APPROVAL_PENDING = 13
    RELEASE_LOST = 14
    APPROVAL_DENIED = 15
    OVER_WORK = 16
    OVER_VALUES = 17
    OVER_REQUESTS = 18
    OVER_STEPS = 19
    NOT_ENROLLED = 20
    BUDGET_EXCEEDED = 21
    SUM_TOO_SMALL = 22


class Parting(Enum):
    """Why a link is closed on purpose: a code, as for failures."""

    DONE = 0
    NOT_EXPECTED = 1
    NAME_TAKEN = 2
    LEDGER_REFUSED = 3


class Memory(Enum):
    """What a round began with at a worker: nothing is kept under its plan, what was kept was found, or was not."""

    NONE = 0
    FOUND = 1
    ANEW = 2


# --- handshake: both sides, before anything else ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a link: the sender's certificate chain (DER, leaf first), 32 fresh bytes, and what it speaks."""

    certificates: tuple[bytes, ...] = field(repr=False)
    nonce: bytes = field(repr=False)
    protocol: int = PROTOCOL
    software: str = ""


@dataclass(frozen=True, slots=True)
class HelloProof:
    """Closes the handshake: the sender's signature over both hellos."""

    signature: bytes = field(repr=False)


# --- what a worker announces -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a data set; `kind` is float, integer, bool or category."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """What the owner lets a peer know of a data set; `rows` is None where the owner hides it."""

    name: DatasetName
    features: tuple[Column, ...]
    feature_shape: tuple[int, ...]
    feature_dtype: str
    target: Column
    target_dtype: str
    classes: tuple[str, ...]
    tags: tuple[str, ...]
    rows: int | None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A worker's first message after the handshake."""

    torch_version: str
    datasets: tuple[DatasetDescription, ...]


# --- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferPlan:
    """Give the worker a plan that later requests name by digest."""

    request: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Train:
    """Run `plan` over local epochs of `dataset` from `model`, and return what changed.

    `hyperparameters` are the plan's scalar inputs; `seed` orders the rows and drives dropout. With an `invite`, here
    and in the two orders below, the answer goes into a sum: masked, and in that round of secure aggregation alone. Such
    an order brings no seed (0) and drops no rows: what a coordinator picks for one worker could single out its rows.
    With `privacy`, what changed is clipped and noised as that says, and it comes without metrics.
    """

    request: int
    job: JobId
    round: int
    dataset: DatasetName
    plan: PlanDigest
    epochs: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    hyperparameters: Mapping[str, float]
    metrics: tuple[str, ...]
    purpose: str
    model: TensorSet = field(repr=False)
    invite: Invite | None = None
    privacy: Private | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Run the evaluation `plan` over the worker's validation rows with `model`."""

    request: int
    job: JobId
    round: int
    dataset: DatasetName
    plan: PlanDigest
    batch_size: int
    metrics: tuple[str, ...]
    purpose: str
    model: TensorSet = field(repr=False)
    invite: Invite | None = None


@dataclass(frozen=True, slots=True)
class AskStatistics:
    """Ask for per-column statistics of the features; `kinds` of count, sum, sum-of-squares."""

    request: int
    dataset: DatasetName
    kinds: tuple[str, ...]
    purpose: str
    invite: Invite | None = None


@dataclass(frozen=True, slots=True)
class AskMock:
    """Ask for the stand-in of `dataset` that its owner wrote for anybody to read."""

    request: int
    dataset: DatasetName


@dataclass(frozen=True, slots=True)
class AskBudget:
    """Ask what is left of the privacy budget of `dataset`; only whom a rule of it names is told."""

    request: int
    dataset: DatasetName


@dataclass(frozen=True, slots=True)
class AskCheckpoint:
    """Ask for the worker's signed checkpoint; `held` is the one that the sender cosigned last, b"" if none."""

    request: int
    held: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Acknowledge all that was released for a round: it is saved here, so nothing of it is asked for again."""

    job: JobId
    round: int


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness's signature line for the checkpoint that the worker showed last, without newline, and its `vkey`."""

    vkey: str
    signature: bytes = field(repr=False)


# --- replies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanAccepted:
    """The plan passed the worker's own validation."""

    request: int
    plan: PlanDigest


@dataclass(frozen=True, slots=True)
class Update:
    """What local training changed: trained value minus received value, per tensor, and its weight in the mean."""

    request: int
    round: int
    weight: float
    metrics: Mapping[str, float]
    delta: TensorSet = field(repr=False)
    memory: Memory = Memory.NONE


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics over the worker's validation rows, and their weight in the mean."""

    request: int
    round: int
    weight: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per-column statistics, float64: count shape (), sum and sum-of-squares shape (features,)."""

    request: int
    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mock:
    """The stand-in of a data set: "features" of shape (rows, ...) and "target" of shape (rows,)."""

    request: int
    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The worker's signed checkpoint as a note, its consistency with what the asker held, and the ledger's `vkey`."""

    request: int
    note: bytes = field(repr=False)
    proof: tuple[bytes, ...] = field(repr=False)
    vkey: str


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """A data set's budget and what was spent of it, by everybody: nothing of its rows. None where it has none."""

    request: int
    account: Account | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request was not carried out. `step` is the plan step that failed, -1 when none did; `operation` its name."""

    request: int
    code: ErrorCode
    step: int = -1
    operation: str = ""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender closes the link on purpose."""

    reason: Parting = Parting.DONE


Handshake: TypeAlias = Hello | HelloProof
Request: TypeAlias = OfferPlan | Train | Evaluate | AskStatistics | AskMock | AskCheckpoint | AskBudget | Asking
Notice: TypeAlias = CloseRound | Cosigned | Goodbye | Pointing
Reply: TypeAlias = (
    PlanAccepted
    | Update
    | Evaluation
    | Statistics
    | Mock
    | Checkpoint
    | BudgetLeft
    | SessionOpen
    | Value
    | Objects
    | Ticket
    | Failure
)
Message: TypeAlias = Handshake | Announcement | Request | Notice | Reply | FromCoordinator | FromWorker
