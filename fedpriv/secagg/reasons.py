"""Why a round of secure aggregation is refused: a fixed list of reasons, and the error that carries one.

A reason travels in a signed `Abort` and is recorded, so it names public things only: a field of the descriptor, a
worker, a count. No key, seed, share or value is ever in one.
"""

from __future__ import annotations

from enum import StrEnum

from fedpriv.errors import FedprivError, UsageError


class Reason(StrEnum):
    """What a check found; the value is what travels and what is recorded."""

    DESCRIPTOR_DIFFERS = "descriptor-differs"
    ROUND_NOT_NEW = "round-not-new"
    COHORT_TOO_SMALL = "cohort-too-small"
    THRESHOLD_TOO_LOW = "threshold-too-low"
    GRAPH_TOO_THIN = "graph-too-thin"
    MODULUS_TOO_SMALL = "modulus-too-small"
    NOT_ON_ROSTER = "not-on-roster"
    BAD_SIGNATURE = "bad-signature"
    DUPLICATE_MEMBER = "duplicate-member"
    DUPLICATE_KEY = "duplicate-key"
    OWN_ENTRY_CHANGED = "own-entry-changed"
    TOO_MANY_MEMBERS = "too-many-members"
    TOO_FEW_MEMBERS = "too-few-members"
    NOT_A_SUBSET = "not-a-subset"
    LEFT_OUT = "left-out"
    UNUSABLE_KEY = "unusable-key"
    WRONG_CIPHERTEXTS = "wrong-ciphertexts"
    UNDECIPHERABLE_SHARE = "undecipherable-share"
    MALFORMED_SHARE = "malformed-share"
    MALFORMED_MESSAGE = "malformed-message"
    NOT_AGREED = "not-agreed"
    INCONSISTENT_SHARES = "inconsistent-shares"
    WITHDRAWN = "withdrawn"


class Refused(FedprivError):
    """A check of secure aggregation failed; `subject` names the field, worker or pair of workers, "" where none is."""

    exit_code = 4

    def __init__(self, reason: Reason, message: str, *, subject: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.subject = subject


class OutOfTurn(FedprivError):
    """A message is repeated, late, early or of another session; nothing was changed by it."""


class Erased(UsageError):
    """The secrets of a round were used after they were erased: a state was used twice."""
