"""The shell of a worker: links in and out, one session each, one executor, one door.

It waits and it performs; `session` decides what to do and `release` what may leave. Requests are executed one at a
time, in a thread, so that a link stays alive during local training. When a peer goes away its session ends: what was
being computed for it is never sent to anyone. Logs name peers, requests and codes, never a value.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import count
from typing import TypeVar

import torch

from fedpriv.errors import (
    BudgetExceeded,
    FedprivError,
    PeerLost,
    ReleaseDenied,
    ReleaseLost,
    StorageFailed,
    UsageError,
    WireError,
)
from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.occasion import about
from fedpriv.policy.decision import Recipient, may_compute
from fedpriv.sealed import Sealed
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES, RawLink, SealedLink
from fedpriv.wire.messages import ErrorCode, Failure, Hello, HelloProof, Message, Train
from fedpriv_worker.actions import (
    Answered,
    Broken,
    Execute,
    Outcome,
    Release,
    Tell,
    Validate,
)
from fedpriv_worker.config import HttpWitness
from fedpriv_worker.conversation import Carried, Conversation
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.enrolment import Enrolment
from fedpriv_worker.executor import Executor, stand_in
from fedpriv_worker.journal import Journal
from fedpriv_worker.leases import Leases
from fedpriv_worker.pace import GREETING, Paces
from fedpriv_worker.payloads import Recorder
from fedpriv_worker.pointers import Table
from fedpriv_worker.pointing import Pointing
from fedpriv_worker.publishing import Publisher
from fedpriv_worker.quotas import PointerQuota
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import (
    Facts,
    Session,
)
from fedpriv_worker.sizes import largest_message
from fedpriv_worker.steps import Reached, Step, unwatched

log = logging.getLogger("fedpriv.worker")

MAXIMUM_SESSIONS = 8
"""Sessions that one peer may hold at once."""
CLOSE_SECONDS = 5.0
_SESSIONS = count(1)

T = TypeVar("T")


@dataclass(slots=True)
class Meeting:
    """How one link went, for whoever dials again: whether a session began, and whether the peer sent us away."""

    began: bool = False
    turned_away: bool = False


class Worker:
    """A worker's data sets behind their rules; any number of links, each with its own session."""

    def __init__(
        self,
        name: WorkerName,
        datasets: Sequence[Dataset],
        *,
        executor: Executor,
        journal: Journal,
        credentials: CredentialsSource,
        pool: ThreadPoolExecutor | None = None,
        witnesses: Sequence[HttpWitness] = (),
        quota: PointerQuota | None = None,
        reached: Reached = unwatched,
        enrolment: Enrolment | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Hold `datasets`; without an `enrolment` the worker takes part in no secure aggregation.

        A `recorder`, for simulated data alone, keeps what crosses every link.
        """
        self.name = name
        self.facts = _facts(name, datasets, DEFAULT_COLLUDING if enrolment is None else enrolment.terms.colluding_share)
        self.journal = journal
        self.publisher = Publisher(journal, witnesses)
        self.reached = reached
        self.paces = Paces()
        self.closing = False
        self.draining = asyncio.Event()
        self._served: set[asyncio.Future[None]] = set()
        self.door = Door(self.facts, journal)
        self.enrolment = enrolment
        self._recorder = recorder
        self._executor = executor
        self._quota = quota or PointerQuota()
        self._credentials = credentials
        self._own_pool = ThreadPoolExecutor(1, thread_name_prefix=f"fedpriv-{name}") if pool is None else None
        self._pool = pool or self._own_pool
        self._links: set[SealedLink] = set()
        self._barred: dict[PeerName, frozenset[DatasetName]] = {}
        self._executing = asyncio.Lock()
        self.leases = Leases(self._values)
        self._ending: set[asyncio.Task[None]] = set()

    async def serve(self, raw: RawLink, side: Side, meeting: Meeting | None = None) -> None:
        """Prove who we are, learn who the peer is, and answer it until the link ends; raise `PeerLost` if it is cut."""
        if self.draining.is_set():
            await raw.close()
            return
        meeting, over = meeting or Meeting(), asyncio.get_running_loop().create_future()
        self._served.add(over)
        if self._recorder is not None:
            raw = self._recorder.over(raw)
        link = SealedLink(raw, maximum_message_bytes=STRANGER_MESSAGE_BYTES)
        self._links.add(link)
        try:
            await self.paces.keep(raw.tls_certificate, GREETING if raw.tls_certificate else None)
            peer = await greet(side, link, self._credentials, partial(_sealed_greeting, self.door))
            if sum(each.raw is not raw and each.is_with(peer.name) for each in self._links) >= MAXIMUM_SESSIONS:
                log.warning("%s has %d sessions already; another one is refused", peer.name, MAXIMUM_SESSIONS)
                return
            recipient = Recipient(peer.name, peer.role.value)
            if may_compute(recipient, self.facts.rules):  # whom no rule names has nothing large to ask
                raw.maximum_message_bytes = largest_message()
            meeting.began, conversation = True, Conversation(self, link, recipient)
            with about(worker=self.name, peer=peer.name, session=next(_SESSIONS)):
                log.info("session with %s (%s) begins", peer.name, peer.role.value)
                try:
                    await conversation.run()
                finally:
                    meeting.turned_away = conversation.turned_away
                log.info("session with %s ends", peer.name)
        finally:
            self._links.discard(link)
            await link.close()
            self._served.discard(over)
            over.set_result(None)

    async def drain(self, seconds: float) -> bool:
        """Take no order more, see through what was begun, and end each link; return False if that took too long."""
        self.draining.set()
        served = tuple(self._served)
        return not served or not (await asyncio.wait(served, timeout=seconds))[1]

    async def carry_out(
        self,
        action: Validate | Execute,
        recipient: Recipient,
        stopped: Callable[[], bool],
        admitted: Admitted | None = None,
    ) -> Carried:
        """Carry out one request, in a thread, one at a time; reserve for it first unless that was `admitted`.

        Raise `StorageFailed`.
        """
        loop = asyncio.get_running_loop()
        async with self._executing:
            work = partial(copy_context().run, self._carried, action, recipient, stopped, admitted)  # logs know the ids
            carried = await loop.run_in_executor(self._pool, work)
            if isinstance(action, Execute) and isinstance(carried.outcome, Broken) and carried.outcome.on_values:
                self.bar(recipient, frozenset({action.order.dataset}))  # also a peer that hung up before it hears
            return carried

    async def admit(self, action: Execute, recipient: Recipient) -> Admitted | Carried:
        """Reserve for one order; return what came of it instead where it is not to be carried out."""
        return await self.aside(lambda: _admitted(self.door, action, recipient))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do `work` on the journal, off the loop's thread when that waits for a disk."""
        return await asyncio.to_thread(work) if self.journal.durable else work()

    async def seal(self, action: Tell | Release, recipient: Recipient, admitted: Admitted | None) -> Sealed:
        """Take a message through the door; raise `StorageFailed` when it cannot be recorded."""
        return await self.aside(lambda: _through(self.door, action, recipient, admitted))

    async def give_up(self, admitted: Admitted, *, begun: bool) -> None:
        """Settle what an order reserved whose answer nobody gets; work on rows had `begun`, or not."""
        with suppress(StorageFailed):  # it then stays charged
            await self.aside(lambda: self.door.give_up(admitted, begun=begun))

    def leave(self, carried: Iterable[asyncio.Task[Carried]]) -> None:
        """Let requests end that nobody waits for any more, then settle what they had reserved."""
        task = asyncio.create_task(self._left(tuple(carried)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def with_bars(self, session: Session) -> Session:
        """Return the session knowing what its peer lost the right to, in this session or beside it."""
        barred = self._barred.get(session.peer.name, frozenset())
        return session if barred <= session.barred else replace(session, barred=session.barred | barred)

    def bar(self, peer: Recipient, datasets: frozenset[DatasetName]) -> None:
        """Remember, for as long as this worker runs, that `peer` lost the right to `datasets`."""
        known = self._barred.get(peer.name, frozenset())
        if not datasets <= known:
            self._barred[peer.name] = known | datasets
            self.leases.bar(peer.name, datasets)

    async def close(self) -> None:
        """Stop what is under way, close every link, then publish and close the ledger."""
        self.closing = True
        await self.publisher.close()
        closing = [asyncio.create_task(link.close()) for link in tuple(self._links)]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        if self._ending:
            await asyncio.wait(tuple(self._ending), timeout=CLOSE_SECONDS)
        if self._own_pool is not None:
            self._own_pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.journal.close)

    def _carried(
        self,
        action: Validate | Execute,
        recipient: Recipient,
        stopped: Callable[[], bool],
        before: Admitted | None,
    ) -> Carried:
        if isinstance(action, Validate):
            return Carried(self._executor.carry_out(action.request, action.request.plan, stopped, recipient.name))
        admitted = _admitted(self.door, action, recipient) if before is None else before
        if isinstance(admitted, Carried):
            return admitted
        outcome = _outcome(self._executor, action, admitted, stopped, recipient)
        self.reached(Step.COMPUTED)
        if isinstance(outcome, Broken):
            self.door.give_up(admitted, begun=outcome.begun, failed=outcome.on_values)
            return Carried(outcome)
        return Carried(outcome, admitted)

    async def _left(self, carried: tuple[asyncio.Task[Carried], ...]) -> None:
        for ended in await asyncio.gather(*carried, return_exceptions=True):
            if isinstance(ended, Carried) and ended.admitted is not None:
                await self.give_up(ended.admitted, begun=True)

    def _values(self, recipient: Recipient, mark: bytes) -> Pointing:
        """Return an empty session of values."""
        table = Table(self._quota, self._barred.get(recipient.name, frozenset()))
        return Pointing(self.facts, self.door, self.journal, self._executor, recipient, mark, table)


def _admitted(door: Door, action: Execute, recipient: Recipient) -> Admitted | Carried:
    """Reserve for one order; a denial is logged, and the peer gets a code."""
    try:
        admitted = door.admit(action.order, action.forecast, recipient, action.price)
    except ReleaseDenied as denial:
        log.warning("request %d of %s denied: %s", action.number, recipient.name, denial)
        return Carried(Broken(_code_of(denial)))
    return Carried(Answered(), again=admitted) if isinstance(admitted, Sealed) else admitted


def _outcome(
    executor: Executor, action: Execute, admitted: Admitted, stopped: Callable[[], bool], recipient: Recipient
) -> Outcome:
    """Return what an order came to; of a private one exactly what was paid for is executed."""
    order, price = action.order, admitted.price
    if price is None:
        return executor.carry_out(order, action.plan, stopped, recipient.name)
    assert isinstance(order, Train)  # nothing else is priced
    assert action.plan is not None  # as above
    return executor.train_privately(order, action.plan, price, stopped)


def _through(door: Door, action: Tell | Release, recipient: Recipient, admitted: Admitted | None) -> Sealed:
    if isinstance(action, Tell):
        return door.tell(action.message, recipient)
    assert admitted is not None  # nothing is computed that was not admitted
    try:
        return door.release(action.message, action.order, action.forecast, recipient, admitted)
    except (ReleaseDenied, UsageError) as denial:
        log.warning("release for request %d denied: %s", action.order.request, denial)
        door.give_up(admitted, begun=True)
        return door.tell(Failure(action.order.request, ErrorCode.RELEASE_DENIED), recipient)
    except StorageFailed:
        with suppress(StorageFailed):  # it then stays charged
            door.give_up(admitted, begun=True)
        raise


def _code_of(denial: ReleaseDenied) -> ErrorCode:
    """Return what a peer hears of a denial; the reasons stay here."""
    match denial:
        case ReleaseLost():
            return ErrorCode.RELEASE_LOST
        case BudgetExceeded():
            return ErrorCode.BUDGET_EXCEEDED
        case _:
            return ErrorCode.RELEASE_DENIED


def _sealed_greeting(door: Door, message: Message) -> Sealed:
    if not isinstance(message, Hello | HelloProof):
        raise WireError(f"a {type(message).__name__} is no part of the handshake")
    return door.tell(message, None)


def _facts(name: WorkerName, datasets: Sequence[Dataset], colluding: Fraction) -> Facts:
    mocks = {each.name: each.mock for each in datasets if each.mock is not None}
    return Facts(
        name,
        torch.__version__.split("+")[0],
        {each.name: each.describe() for each in datasets},
        {each.name: each.release for each in datasets},
        {each.name: each.legal_basis for each in datasets},
        {each: stand_in(mock).specs for each, mock in mocks.items()},
        {each.name: each.budget for each in datasets if each.budget is not None},
        colluding,
    )


async def serve_quietly(worker: Worker, raw: RawLink, side: Side, meeting: Meeting | None = None) -> None:
    """Serve one link and log how it ended: one bad peer must not end the worker."""
    try:
        await worker.serve(raw, side, meeting)
    except PeerLost as error:
        log.warning("link lost: %s", error)
    except WireError as error:
        log.warning("link closed, the peer sent bytes that are no message: %s", error)
    except FedprivError as error:
        log.warning("link closed: %s", error)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes provoke must not end the worker
        log.error("link closed by a defect of ours: %s", type(error).__name__)  # noqa: TRY400 - its text may quote
