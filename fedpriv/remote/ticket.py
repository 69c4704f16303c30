"""A request that was put before an owner, and its answer."""

from __future__ import annotations

import torch

from fedpriv.errors import ReleaseDenied, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.remote.values import Values
from fedpriv.updates import TensorSpec
from fedpriv.wire.messages import ErrorCode

WAIT_SECONDS = 3600.0


class Ticket:
    """One value that its owner was asked for; it is let out once, and stays here once it came."""

    def __init__(self, values: Values, ticket: str, spec: TensorSpec, worker: WorkerName) -> None:
        self.id = ticket
        """What the owner sees in `fedpriv worker requests`."""
        self.worker = worker
        self._values = values
        self._spec = spec
        self._value: torch.Tensor | None = None

    def wait(self, timeout: float = WAIT_SECONDS) -> Ticket:
        """Wait up to `timeout` seconds until the owner said yes; raise `ReleaseDenied` for a no, or for no answer."""
        if self._value is None:
            try:
                self._value = self._values.collect(self.id, self._spec, timeout)
            except WorkerRefused as refusal:
                raise ReleaseDenied(self._why(refusal)) from None
        return self

    def get(self) -> torch.Tensor:
        """Return the value if the owner has said yes; raise `ReleaseDenied` if not."""
        self.wait(0.0)
        assert self._value is not None
        return self._value

    def __repr__(self) -> str:
        return f"<Ticket {self.id} at {self.worker}{', received' if self._value is not None else ''}>"

    def _why(self, refusal: WorkerRefused) -> str:
        if refusal.code == ErrorCode.APPROVAL_PENDING.name:
            return (
                f"the owner of {self.worker} has not answered request {self.id} yet (fedpriv worker explain {self.id}, "
                f"fedpriv worker approve {self.id}, or approve(ticket) of a virtual worker); wait(timeout=...) for it, "
                "or ask again later with get()"
            )
        if refusal.code == ErrorCode.APPROVAL_DENIED.name:
            return f"the owner of {self.worker} denied request {self.id} and lets nothing out for it; ask them why"
        if refusal.code == ErrorCode.BAD_REQUEST.name:
            return (
                f"{self.worker} does not know request {self.id} any more: its session ended; ask again with request()"
            )
        return f"the owner of {self.worker} lets nothing out for request {self.id}, or took the approval back"
