"""Every error that fedpriv raises on purpose, as one tree.

Each says what happened, the values, and what to do; each knows the exit code of the command line
(2 usage, 3 verification failed, 4 denied, 5 peer lost). No error quotes a private value: what a worker
reports to a peer is a fixed code, never the text of an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedprivError(Exception):
    """Anything that fedpriv refuses or could not do."""

    exit_code = 1


class UsageError(FedprivError):
    """The caller's input cannot be used; nothing was written and nothing was sent."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file has an unknown key, a wrong type or an impossible value."""


class DataError(UsageError):
    """A data set cannot be loaded as declared."""


class TraceError(UsageError):
    """A function cannot be expressed as a plan; names the operation and the line of the module."""


class CredentialsError(UsageError):
    """A certificate or key is missing, expired, or does not match its name or role."""


class VerificationFailed(FedprivError):
    """A ledger, proof or signature does not verify; names the first entry that is wrong."""

    exit_code = 3


class RolledBack(VerificationFailed):
    """A witness holds more than this ledger, or another one under its name: entries are gone, or were rewritten."""


class ReleaseDenied(FedprivError):
    """No rule of the owner lets this value leave."""

    exit_code = 4


class ReleaseLost(ReleaseDenied):
    """A release was made once, and a crash took its bytes before they were acknowledged: it is never made again."""


class BudgetExceeded(ReleaseDenied):
    """A release would cost more than is left of a data set's privacy budget; figures are epsilon at its delta."""

    def __init__(self, *, dataset: str, requested: float, remaining: float) -> None:
        name = f"data set {dataset!r}" if dataset else "the data set"
        super().__init__(
            f"{name} has epsilon {remaining:.4g} left, but this release costs {requested:.4g}; "
            "run fewer rounds or raise the noise, or ask its owner for more"
        )
        self.dataset = dataset
        self.requested = requested
        self.remaining = remaining


class PlanRefused(FedprivError):
    """A worker will not run a plan: an operation outside the list, a bad argument, or over a quota.

    `step` is the step at fault and `operation` its name; -1 and "" where the plan as a whole is.
    """

    exit_code = 4

    def __init__(self, message: str, *, step: int = -1, operation: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.operation = operation


class OperationNotAllowed(PlanRefused):
    """A plan names an operation that is not on the allow-list."""


class TorchVersionMismatch(PlanRefused):
    """A plan was traced with another minor version of torch than the worker runs."""


class QuotaExceeded(PlanRefused):
    """A plan or message asks for more memory, operations or time than the owner grants."""


class WorkExceeded(QuotaExceeded):
    """A plan or operation asks for more elementary operations than the owner grants."""


class InputMismatch(FedprivError):
    """A tensor or number given to a plan is missing, or has another shape or dtype than the plan declares."""


class StepFailed(FedprivError):
    """A step of a validated plan failed; `step` and `operation` say which, and nothing says why."""

    def __init__(self, *, step: int, operation: str) -> None:
        super().__init__(f"step {step} ({operation or 'unknown'}) failed; the cause stays where the data is")
        self.step = step
        self.operation = operation


class WireError(FedprivError):
    """Bytes from a peer do not decode to a message that we accept."""


class PeerLost(FedprivError):
    """The other side of a link is unreachable, went away, or did not answer before its deadline."""

    exit_code = 5


class HandshakeFailed(PeerLost):
    """The signed hello does not prove who the peer is."""


class NotTrusted(HandshakeFailed):
    """The certificate of whoever listens is not acceptable; waiting does not mend it."""


class WorkerRefused(FedprivError):
    """A worker answered a request with an error code; `step` is the plan step that failed, -1 when none did."""

    exit_code = 4

    def __init__(self, message: str, *, code: str = "", step: int = -1, operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.step = step
        self.operation = operation


class RoundAbandoned(FedprivError):
    """A round ended below its quorum."""

    exit_code = 5


class RoundRefused(RoundAbandoned):
    """A round ended because no owner's rules let an update leave."""

    exit_code = 4


class StateInUse(UsageError):
    """Another process holds this state folder."""


class StorageFailed(FedprivError):
    """The disk is full, failing or not what was written; nothing that depended on the write was sent."""


class NotAFile(StorageFailed):
    """A pipe, a device or a folder lies where a file belongs; whoever names it can name another."""

    exit_code = 2


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the valid name closest to `name`, or "" when none is close."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def counted(number: int, noun: str, many: str = "") -> str:
    """Return a number with its noun: 1 worker, 3 workers."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"
