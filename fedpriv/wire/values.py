"""What is said about values that stay at a worker: operations on them without an answer, questions, and answers.

Ids are the asker's choice, above zero and rising; they mean something in one session only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from fedpriv.ids import DatasetName, PlanDigest
from fedpriv.plans.calls import Call, Layout
from fedpriv.updates import TensorSet

MAXIMUM_PUT_BYTES = 256 << 20
"""What one message may bring along to be kept: more would be taken into memory before anything is known of it."""


@dataclass(frozen=True, slots=True)
class PlanUse:
    """A plan that was offered, on operands of these layouts."""

    plan: PlanDigest
    operands: tuple[Layout, ...]


Definition: TypeAlias = Call | PlanUse


@dataclass(frozen=True, slots=True)
class Calls:
    """Operations to carry out in order. `words` are little-endian and 8 bytes each; see `pointer.proto`."""

    sequence: int
    definitions: tuple[Definition, ...]
    words: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Put:
    """Tensors of the sender's own, to be kept under the ids `first` and up."""

    sequence: int
    first: int
    tags: tuple[str, ...]
    description: str
    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """Let the ids `first` and `first` + 1 stand for features and target of a data set, as many rows as announced."""

    sequence: int
    first: int
    dataset: DatasetName


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session of values under 16 bytes of the sender's choice, or go on with one whose link was lost."""

    request: int
    session: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for the value of one id."""

    request: int
    id: int


@dataclass(frozen=True, slots=True)
class AskObjects:
    """Ask what the sender holds in this session."""

    request: int


@dataclass(frozen=True, slots=True)
class AskRelease:
    """Ask the owner to let the value of `id` out, as it is now, for `reason`."""

    request: int
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Ask for what `ticket` stands for, and wait so long for the owner's answer."""

    request: int
    ticket: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class HeldObject:
    """One value that a session holds for its peer."""

    id: int
    layout: Layout
    tags: tuple[str, ...]
    description: str


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """The value that was asked for, named "value"."""

    request: int
    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """What the owner grants one peer.

    `memory` is bytes of values at once, all sessions together, and what one operation may use; `values` is how many
    there may be at once in a session; `work` is elementary operations of one operation.
    """

    memory: int
    values: int
    work: int


@dataclass(frozen=True, slots=True)
class SessionOpen:
    """The session is open; `sequence` is that of the last message that was taken, 0 in a new one."""

    request: int
    sequence: int
    granted: Granted


@dataclass(frozen=True, slots=True)
class Objects:
    """What the asker holds in this session."""

    request: int
    objects: tuple[HeldObject, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request was put before the owner, who knows it as `ticket`."""

    request: int
    ticket: str


Asking: TypeAlias = OpenSession | Fetch | AskObjects | AskRelease | Collect
Pointing: TypeAlias = Calls | Put | OpenDataset
