"""One session of values: its table, its tensors, and the answers that leave it.

What arrives is judged by the table, run on the bench and answered through the door; this file only joins them. A
session belongs to the peer that opened it and outlives its link for a while, so that a link that was cut costs nothing:
messages are numbered, and one that was taken already is not taken twice. A failure on private rows bars their data set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from torch import Tensor

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import QuotaExceeded, ReleaseDenied, WireError
from fedpriv.ids import DatasetName, PeerName, PlanDigest
from fedpriv.labels import Label, private
from fedpriv.plans.calls import Layout
from fedpriv.plans.plan import InputRole, Plan
from fedpriv.policy.decision import Deny, Permit, decide, may_receive
from fedpriv.policy.requests import Recipient
from fedpriv.policy.rules import cite
from fedpriv.sealed import Sealed
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import (
    ErrorCode,
    Failure,
)
from fedpriv.wire.plans import encode_plan
from fedpriv.wire.values import (
    AskObjects,
    AskRelease,
    Calls,
    Collect,
    Fetch,
    Objects,
    OpenDataset,
    OpenSession,
    PlanUse,
    Put,
    SessionOpen,
    Ticket,
    Value,
)
from fedpriv_worker.definitions import Defined, Run
from fedpriv_worker.executor import Executor
from fedpriv_worker.forecast import Forecast, forecast
from fedpriv_worker.journal import Journal
from fedpriv_worker.lineage import Source, as_plan, seen
from fedpriv_worker.orders import Claim, asks_of, request_of
from fedpriv_worker.pointers import PointerQuota, Table
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import Facts
from fedpriv_worker.shelf import Held, Missing

log = logging.getLogger("fedpriv.worker")

LOOK_SECONDS = 0.25
"""How often the owner's answer is looked for while somebody waits for it."""
MAXIMUM_TICKETS = 64
MARK_BYTES = 32
"""What no two requests share: an approval is for one value, whatever its recipe and whoever numbers it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A value as it was when its release was asked for."""

    claim: Claim
    foreseen: Forecast
    label: Label
    value: Tensor = field(repr=False)


class Pointing:
    """One peer's values. Links may overlap while one is lost and the next is there: one message at a time is done."""

    def __init__(
        self,
        facts: Facts,
        door: Door,
        journal: Journal,
        executor: Executor,
        recipient: Recipient,
        mark: bytes,
        barred: frozenset[DatasetName] = frozenset(),
    ) -> None:
        self.recipient = recipient
        self.sequence = 0
        self._turn = Lock()
        self._dead = False
        self._facts = facts
        self._door = door
        self._journal = journal
        self._table = Table()
        self._table.barred = barred
        self._executor = executor
        self._bench = executor.bench()
        self._plans: dict[PlanDigest, Plan] = {}
        self.mark = mark
        self.links = self.attached = 0
        """Links of this session that are open now, and that ever were."""
        self._tickets: dict[str, Snapshot] = {}

    @property
    def barred(self) -> frozenset[DatasetName]:
        """Data sets that this peer lost the right to."""
        return self._table.barred

    def bar(self, datasets: frozenset[DatasetName]) -> None:
        """Take the right to `datasets` away."""
        self._table.barred = self._table.barred | datasets

    def take(self, message: Calls | Put | OpenDataset, plans: Mapping[PlanDigest, Plan]) -> None:
        """Do what a message says unless that was done before; raise `WireError` for one that is out of order.

        `plans` are those that the peer offered.
        """
        with self._turn:
            self._check_alive()
            self._plans.update(plans)
            try:
                self._take(message)
            except BaseException:
                self._dead = True  # what the table knows and what there is may differ: nothing of it is used again
                raise

    def _take(self, message: Calls | Put | OpenDataset) -> None:
        if message.sequence <= self.sequence:
            return  # it was taken over a link that was lost
        if message.sequence != self.sequence + 1:
            raise WireError(f"message {message.sequence} came after {self.sequence}; a session's messages are numbered")
        match message:
            case Calls():
                self._calls(message)
            case Put():
                self._put(message)
            case OpenDataset():
                self._open(message)
        self.sequence = message.sequence

    def answer(self, request: OpenSession | Fetch | AskObjects | AskRelease) -> Sealed:
        """Return the answer to a request, sealed; raise `StorageFailed`."""
        with self._turn:  # what another link brought is taken by now, or it never will be
            self._check_alive()
            match request:
                case OpenSession():
                    return self._door.tell(SessionOpen(request.request, self.sequence), self.recipient)
                case Fetch():
                    return self._fetch(request)
                case AskObjects():
                    return self._door.tell(Objects(request.request, tuple(self._table.shelf.objects())), self.recipient)
                case AskRelease():
                    return self._ask_release(request)

    async def collect(self, request: Collect) -> Sealed:
        """Return what a ticket stands for, or the code why it does not leave, within the time that the peer waits."""
        loop = asyncio.get_running_loop()
        until = loop.time() + request.wait_seconds
        while True:
            last = loop.time() >= until
            sealed = await asyncio.to_thread(self._collected, request, last=last)
            if sealed is not None:
                return sealed
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, until - loop.time())))

    # --- what arrives ---

    def _calls(self, calls: Calls) -> None:
        for each in calls.definitions:
            plan = self._plans.get(each.plan) if isinstance(each, PlanUse) else None
            defined = self._table.definitions.define(each, None if plan is None else self._executor.program(plan))
            if isinstance(defined, Defined):
                self._bench.prepare(len(self._table.definitions) - 1, defined.made, defined.operands)
        commands = self._table.admit(calls.words)
        while (at := self._bench.run(commands)) is not None:
            failed = commands[at]
            assert isinstance(failed, Run)
            self.bar(self._table.failed(failed))
            commands = [each for each in commands[at + 1 :] if self._table.still_stands(each)]

    def _put(self, put: Put) -> None:
        tensors = [tensor for _, tensor in put.values]
        layouts = [Layout.dense(spec.dtype, spec.shape) for spec in put.values.specs]
        if self._table.put(put.first, layouts, tagged=(put.tags, put.description)) is None:
            self._bench.keep(put.first, tensors)

    def _open(self, opened: OpenDataset) -> None:
        name, facts = opened.dataset, self._facts
        if name not in facts.datasets:
            self._table.miss(opened.first, 2, ErrorCode.UNKNOWN_DATASET)
            return
        announced = facts.datasets[name].rows
        named = may_receive(self.recipient, {name: facts.rules[name]})
        if announced is None or not named or name in self.barred:
            self._table.miss(opened.first, 2, ErrorCode.RELEASE_DENIED)
            return
        rows = self._executor.rows(name, announced)
        roles = {"features": InputRole.FEATURES, "target": InputRole.TARGET}
        sources = [
            Source(f"{name}/{part}", Layout.of(tensor), role)
            for (part, role), tensor in zip(roles.items(), rows, strict=True)
        ]
        if self._table.put(opened.first, sources, private(name, PeerName(facts.worker))) is None:
            self._bench.keep(opened.first, rows)

    # --- what leaves ---

    def _fetch(self, fetch: Fetch) -> Sealed:
        held = self._table.find(fetch.id)
        if isinstance(held, Missing):
            return self._refuse(fetch.request, held.code, held.place, held.operation)
        if self._is_too_large(held):
            return self._refuse(fetch.request, ErrorCode.OVER_QUOTA)
        try:
            value = Value(fetch.request, TensorSet({"value": self._bench.fetch(fetch.id)}))
            return self._door.give_back(value, held.storage.label, self.recipient)
        except ReleaseDenied as denial:
            log.warning("request %d of %s denied: %s", fetch.request, self.recipient.name, denial)
            return self._refuse(fetch.request, ErrorCode.RELEASE_DENIED)

    def _ask_release(self, ask: AskRelease) -> Sealed:
        held = self._table.find(ask.id)
        if isinstance(held, Missing):
            return self._refuse(ask.request, held.code, held.place, held.operation)
        origins = held.storage.label.origins
        if self._is_too_large(held):
            return self._refuse(ask.request, ErrorCode.OVER_QUOTA)
        if len(origins) != 1 or any(each.dataset in self.barred for each in origins):
            return self._refuse(ask.request, ErrorCode.RELEASE_DENIED)  # nobody has to be asked, or nobody alone can
        try:
            plan = as_plan(seen(held), SystemEntropy().random_bytes(MARK_BYTES))
        except ReleaseDenied as denial:
            log.warning("request %d of %s denied: %s", ask.request, self.recipient.name, denial)
            return self._refuse(ask.request, ErrorCode.OVER_QUOTA)
        return self._put_before_owner(ask, held, plan)

    def _is_too_large(self, held: Held) -> bool:
        """Whether a copy of a value would take more than the session may hold: a view shows more than it takes."""
        kept = sum(each.value.nbytes for each in self._tickets.values())
        return self._table.shelf.live_bytes + kept + held.layout.nbytes > PointerQuota().maximum_bytes

    def _check_alive(self) -> None:
        if self._dead:
            raise WireError("a session of values ended with a message that could not be done; open a new one")

    def _put_before_owner(self, ask: AskRelease, held: Held, plan: Plan) -> Sealed:
        label = held.storage.label
        (origin,) = label.origins
        value = self._bench.fetch(ask.id)
        spec = TensorSpec("value", held.layout.dtype, held.layout.shape)
        claim = Claim(ask.request, origin.dataset, plan.digest, ask.reason, spec)
        request = request_of(claim, self.recipient)
        foreseen = forecast(plan, request, label)
        standing = self._journal.standing(origin.dataset)
        decisions = [decide(each, self._facts.rules, standing) for each in asks_of(claim, label, self.recipient)]
        if not all(isinstance(each, Permit) or each.pending for each in decisions):
            return self._refuse(ask.request, ErrorCode.RELEASE_DENIED)
        permits = [each.rule for each in decisions if isinstance(each, Permit) and each.rule is not None]
        try:
            self._journal.requests.note(
                request, encode_plan(plan), permitted_by=" ".join(map(cite, permits)), now=self._journal.now()
            )
        except QuotaExceeded as error:
            log.warning("request %s of %s is not noted: %s", request.id, self.recipient.name, error)
            return self._refuse(ask.request, ErrorCode.OVER_QUOTA)
        log.warning("%s needs your approval: fedpriv worker explain %s", self.recipient.name, request.id)
        self._tickets[request.id] = Snapshot(claim, foreseen, label, value)
        while len(self._tickets) > MAXIMUM_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        return self._door.tell(Ticket(ask.request, request.id), self.recipient)

    def _collected(self, request: Collect, *, last: bool) -> Sealed | None:
        """Return the answer to `request`, or None where the owner has not answered yet and there is time to wait."""
        snapshot = self._tickets.get(request.ticket)
        if snapshot is None:
            return self._refuse(request.request, ErrorCode.BAD_REQUEST)
        claim = replace(snapshot.claim, request=request.request)
        standing = self._journal.standing(claim.dataset)
        decisions = [
            decide(each, self._facts.rules, standing) for each in asks_of(claim, snapshot.label, self.recipient)
        ]
        if any(isinstance(each, Deny) and each.pending for each in decisions):
            return self._refuse(request.request, ErrorCode.APPROVAL_PENDING) if last else None
        admitted: Admitted | Sealed | None = None
        try:
            admitted = self._door.admit(claim, snapshot.foreseen, self.recipient)
            if isinstance(admitted, Sealed):
                return admitted
            value = Value(request.request, TensorSet({"value": snapshot.value}))
            return self._door.release(value, claim, snapshot.foreseen, self.recipient, admitted)
        except ReleaseDenied as denial:
            if isinstance(admitted, Admitted):
                self._door.give_up(admitted, charged=False)
            log.warning("ticket %s of %s denied: %s", request.ticket, self.recipient.name, denial)
            return self._refuse(request.request, ErrorCode.RELEASE_DENIED)

    def _refuse(self, request: int, code: ErrorCode, place: int = -1, operation: str = "") -> Sealed:
        log.warning("request %d of %s refused: %s", request, self.recipient.name, code.name)
        return self._door.tell(Failure(request, code, place, operation), self.recipient)
