"""Which messages a peer may send to a worker, by the role that its certificate gives it: a list, deny by default.

What is not listed here for a role ends the link, whatever an owner's rules say; what is listed is judged by those rules
all the same. A role that is not here may say nothing: auditors and administrators deal with the registrar alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedpriv.secagg.messages import Agreement, Delivery, Roll, Survivors
from fedpriv.wire.messages import (
    AskBudget,
    AskCheckpoint,
    AskMock,
    AskStatistics,
    CloseRound,
    Cosigned,
    Evaluate,
    Goodbye,
    Message,
    OfferPlan,
    Role,
    Train,
)
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

_DRIVING: frozenset[type[Message]] = frozenset({
    OfferPlan, Train, Evaluate, AskStatistics, AskMock, AskBudget, AskCheckpoint, CloseRound, Cosigned, Goodbye,
    Roll, Delivery, Survivors, Agreement,
    OpenSession, Calls, Put, OpenDataset, Fetch, AskObjects, AskRelease, Collect,
})  # fmt: skip  # by what they are about: rounds, sums, values

METHODS: Mapping[str, frozenset[type[Message]]] = {
    Role.COORDINATOR.value: _DRIVING,
    Role.RESEARCHER.value: _DRIVING,
}
"""The messages that a peer in each role may send; in a federation of its own, a researcher coordinates."""


def may_send(role: str, message: Message) -> bool:
    """Return whether a peer in `role` may send a message of this kind."""
    return type(message) in METHODS.get(role, frozenset())
