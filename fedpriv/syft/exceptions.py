"""What a program of 0.2 catches, each of them also the error of fedpriv that it stands for."""

from __future__ import annotations

from fedpriv.errors import ReleaseDenied, UsageError


class TensorsNotCollocatedException(UsageError):
    """An operation has operands in two places."""


class GetNotPermittedError(ReleaseDenied):
    """A value does not come back to whoever asks for it."""


class SendNotPermittedError(UsageError):
    """A tensor is not sent by whoever sends it."""


class ObjectNotFoundError(UsageError):
    """A worker holds nothing under an id, or nothing any more."""


class WorkerNotFoundException(UsageError):
    """No worker is known under an id."""


class InvalidTensorForRemoteGet(UsageError):
    """Something is here, or points to a value and to no other pointer, so that there is nothing to collapse."""


class RemoteObjectFoundError(UsageError):
    """A pointer stands where a tensor of this process is needed."""


class ValueIsElsewhere(ReleaseDenied, RuntimeError):
    """`item()`, `bool()` and the like of a pointer, whose value is not here."""
