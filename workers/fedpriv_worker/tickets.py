"""The values that wait for their owner's answer, each as it was when its release was asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from torch import Tensor

from fedpriv.errors import QuotaExceeded, ReleaseDenied, WireError
from fedpriv.labels import Label
from fedpriv.plans.plan import Plan
from fedpriv.policy.decision import Deny, Permit, decide
from fedpriv.policy.requests import Recipient
from fedpriv.policy.rules import cite
from fedpriv.sealed import Sealed
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import ErrorCode, Failure
from fedpriv.wire.plans import decode_plan, encode_plan
from fedpriv.wire.values import AskRelease, Collect, Ticket, Value
from fedpriv_worker.forecast import Forecast, forecast
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import Claim, asks_of, request_of
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import Facts

log = logging.getLogger("fedpriv.worker")

MAXIMUM_TICKETS = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value whose release is asked for, the plan that makes it, and what it derives from."""

    plan: Plan
    label: Label
    value: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A value as it was when its release was asked for."""

    claim: Claim
    foreseen: Forecast
    label: Label
    value: Tensor = field(repr=False)


class Tickets:
    """One session's tickets; the oldest is forgotten where there are more than `MAXIMUM_TICKETS`."""

    def __init__(self, facts: Facts, door: Door, journal: Journal, recipient: Recipient) -> None:
        self.recipient = recipient
        self._facts = facts
        self._door = door
        self._journal = journal
        self._snapshots: dict[str, Snapshot] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the values that wait."""
        return sum(each.value.nbytes for each in self._snapshots.values())

    def ask(self, ask: AskRelease, wanted: Wanted) -> Sealed:
        """Put a value before its owner and return its ticket, or the code why not, sealed; raise `StorageFailed`."""
        plan, label, value = wanted.plan, wanted.label, wanted.value
        (origin,) = label.origins
        spec = TensorSet({"value": value}).specs[0]
        claim = Claim(ask.request, origin.dataset, plan.digest, ask.reason, spec)
        request = request_of(claim, self.recipient)
        foreseen = forecast(plan, request, label)
        standing = self._journal.standing(origin.dataset)
        decisions = [decide(each, self._facts.rules, standing) for each in asks_of(claim, label, self.recipient)]
        if not all(isinstance(each, Permit) or each.pending for each in decisions):
            return self._refuse(ask.request, ErrorCode.RELEASE_DENIED)
        permits = [each.rule for each in decisions if isinstance(each, Permit) and each.rule is not None]
        try:
            content = encode_plan(plan)
            decode_plan(content)  # what its owner could not read is not put before them
        except WireError:
            return self._refuse(ask.request, ErrorCode.OVER_STEPS)
        try:
            self._journal.requests.note(
                request, content, permitted_by=" ".join(map(cite, permits)), now=self._journal.now()
            )
        except QuotaExceeded as error:
            log.warning("request %s of %s is not noted: %s", request.id, self.recipient.name, error)
            return self._refuse(ask.request, ErrorCode.OVER_REQUESTS)
        log.warning("%s needs your approval: fedpriv worker explain %s", self.recipient.name, request.id)
        self._snapshots[request.id] = Snapshot(claim, foreseen, label, value)
        while len(self._snapshots) > MAXIMUM_TICKETS:
            del self._snapshots[next(iter(self._snapshots))]
        return self._door.tell(Ticket(ask.request, request.id), self.recipient)

    def collected(self, request: Collect, *, last: bool) -> Sealed | None:
        """Return the answer to `request`, or None where the owner has not answered yet and there is time to wait."""
        snapshot = self._snapshots.get(request.ticket)
        if snapshot is None:
            return self._refuse(request.request, ErrorCode.BAD_REQUEST)
        claim = replace(snapshot.claim, request=request.request)
        asks = asks_of(claim, snapshot.label, self.recipient)
        decisions = [decide(each, self._facts.rules, self._journal.standing(claim.dataset)) for each in asks]
        admitted: Admitted | Sealed | None = None
        try:
            admitted = self._door.admit(claim, snapshot.foreseen, self.recipient)
            if isinstance(admitted, Sealed):
                return admitted  # the same answer again: it was lost on its way
            value = Value(request.request, TensorSet({"value": snapshot.value}))
            return self._door.release(value, claim, snapshot.foreseen, self.recipient, admitted)
        except ReleaseDenied as denial:
            if isinstance(admitted, Admitted):
                self._door.give_up(admitted, begun=True)
            elif any(isinstance(each, Deny) and each.pending for each in decisions):
                return self._refuse(request.request, ErrorCode.APPROVAL_PENDING) if last else None
            elif any(isinstance(each, Deny) and each.by_owner for each in decisions):
                return self._refuse(request.request, ErrorCode.APPROVAL_DENIED)
            log.warning("ticket %s of %s denied: %s", request.ticket, self.recipient.name, denial)
            return self._refuse(request.request, ErrorCode.RELEASE_DENIED)

    def _refuse(self, request: int, code: ErrorCode) -> Sealed:
        return refuse(self._door, self.recipient, Failure(request, code))


def refuse(door: Door, recipient: Recipient, failure: Failure) -> Sealed:
    """Return a refusal, sealed, and say it in the log: a code, never a reason that values had a part in."""
    log.warning("request %d of %s refused: %s", failure.request, recipient.name, failure.code.name)
    return door.tell(failure, recipient)
