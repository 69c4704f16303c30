"""One session of values: its table, its tensors, and the answers that leave it.

What arrives is judged by the table, run on the bench and answered through the door; this file only joins them. A
session belongs to the peer that opened it and outlives its link for a while, so that a link that was cut costs nothing:
messages are numbered, and one that was taken already is not taken twice. A failure on private rows shows in nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from threading import Lock

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import ReleaseDenied, WireError
from fedpriv.ids import DatasetName, PeerName, PlanDigest
from fedpriv.labels import private
from fedpriv.plans.calls import Layout
from fedpriv.plans.plan import InputRole, Plan
from fedpriv.policy.decision import may_receive
from fedpriv.policy.requests import Recipient
from fedpriv.sealed import Sealed
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import ErrorCode, Failure
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
    Value,
)
from fedpriv_worker.definitions import Defined, Run
from fedpriv_worker.executor import Executor
from fedpriv_worker.journal import Journal
from fedpriv_worker.lineage import Source, as_plan, seen
from fedpriv_worker.pointers import Table
from fedpriv_worker.release import Door
from fedpriv_worker.session import Facts
from fedpriv_worker.shelf import Missing
from fedpriv_worker.tickets import Tickets, Wanted, refuse

log = logging.getLogger("fedpriv.worker")

LOOK_SECONDS = 0.25
"""How often the owner's answers are looked for while a session waits for any."""
MAXIMUM_PLANS = 64
"""Plans that a session may use in definitions to come, those offered last."""
MARK_BYTES = 32
"""What no two requests share: an approval is for one value, whatever its recipe and whoever numbers it."""


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
        table: Table,
    ) -> None:
        self.recipient = recipient
        self.sequence = 0
        self._turn = Lock()
        self.turn = asyncio.Lock()
        """All sessions of one peer have the same, so that a peer has one thread of the worker's, and one quota."""
        self._dead = False
        self._facts = facts
        self._door = door
        self._table = table
        self.elsewhere: Callable[[], int] = int
        """Returns the bytes of the peer's other sessions."""
        self._executor = executor
        self._bench = executor.bench()
        self._plans: dict[PlanDigest, Plan] = {}
        self._waiting = 0
        """Tickets whose answer is waited for."""
        self.mark = mark
        self.links = self.attached = 0
        """Links of this session that are open now, and that ever were."""
        self._tickets = Tickets(facts, door, journal, recipient)

    @property
    def nbytes(self) -> int:
        """Bytes that this session holds, values that wait for their owner's answer included."""
        return self._table.shelf.live_bytes + self._tickets.nbytes

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
            self._begin()
            self._plans |= plans
            while len(self._plans) > MAXIMUM_PLANS:
                del self._plans[next(iter(self._plans))]
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
            self._begin()
            match request:
                case OpenSession():
                    return self._door.tell(
                        SessionOpen(request.request, self.sequence, self._table.allowance.quota.granted), self.recipient
                    )
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
        self._waiting += 1
        try:
            while True:
                last = loop.time() >= until
                sealed = await asyncio.to_thread(self._tickets.collected, request, last=last)
                if sealed is not None:
                    return sealed
                await asyncio.sleep(min(LOOK_SECONDS * self._waiting, max(0.0, until - loop.time())))
        finally:
            self._waiting -= 1

    # --- what arrives ---

    def _calls(self, calls: Calls) -> None:
        for each in calls.definitions:
            plan = self._plans.get(each.plan) if isinstance(each, PlanUse) else None
            defined = self._table.definitions.define(each, None if plan is None else self._executor.program(plan))
            if isinstance(defined, Defined):
                self._bench.prepare(len(self._table.definitions) - 1, defined)
        commands = self._table.admit(calls.words)
        while (at := self._bench.run(commands)) is not None:
            failed = commands[at]
            assert isinstance(failed, Run)
            stand_ins = self._table.failed(failed)
            if stand_ins is not None:
                self._bench.stand_in(failed.first, stand_ins)
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
        if self._table.allowance.excess(held.layout.nbytes, 0):  # a view shows more than it takes
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
        if self._table.allowance.excess(held.layout.nbytes, 0):
            return self._refuse(ask.request, ErrorCode.OVER_QUOTA)
        if len(origins) != 1 or any(each.dataset in self.barred for each in origins):
            return self._refuse(ask.request, ErrorCode.RELEASE_DENIED)  # nobody has to be asked, or nobody alone can
        try:
            plan = as_plan(seen(held), SystemEntropy().random_bytes(MARK_BYTES))
        except ReleaseDenied as denial:
            log.warning("request %d of %s denied: %s", ask.request, self.recipient.name, denial)
            return self._refuse(ask.request, ErrorCode.OVER_STEPS)
        return self._tickets.ask(ask, Wanted(plan, held.storage.label, self._bench.fetch(ask.id)))

    def _begin(self) -> None:
        """Begin a message: raise `WireError` in a session that has ended, and count what the peer holds elsewhere."""
        if self._dead:
            raise WireError("a session of values ended with a message that could not be done; open a new one")
        self._table.allowance.elsewhere = self._tickets.nbytes + self.elsewhere()

    def _refuse(self, request: int, code: ErrorCode, place: int = -1, operation: str = "") -> Sealed:
        return refuse(self._door, self.recipient, Failure(request, code, place, operation))
