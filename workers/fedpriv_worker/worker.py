"""The shell of a worker: links in and out, one session each, one executor, one door.

It waits and it performs; `session` decides what to do and `release` what may leave. Requests are executed one at a
time, in a thread, so that a link stays alive during local training. When a peer goes away its session ends: what was
being computed for it is never sent to anyone. Logs name peers, requests and codes, never a value.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from fedpriv.errors import FedprivError, PeerLost, ReleaseDenied, StorageFailed, UsageError, WireError
from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.policy.decision import Recipient, may_receive
from fedpriv.sealed import Sealed
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import STRANGER_MESSAGE_BYTES, RawLink, SealedLink
from fedpriv.wire import codec
from fedpriv.wire.messages import ErrorCode, Failure, Hello, HelloProof, Message
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.executor import Executor
from fedpriv_worker.journal import Journal
from fedpriv_worker.release import Door
from fedpriv_worker.session import (
    Action,
    Close,
    Execute,
    Facts,
    Outcome,
    Publish,
    Release,
    Session,
    Tell,
    executed,
    handle,
    open_session,
)

log = logging.getLogger("fedpriv.worker")

MAXIMUM_SESSIONS = 8
"""Sessions that one peer may hold at once."""
CLOSE_SECONDS = 5.0
PUBLISH_SECONDS = 1.0
"""The least time between two checkpoints of a ledger, closing aside."""


class Worker:
    """A worker's data sets behind their rules; any number of links, each with its own session."""

    def __init__(
        self,
        name: WorkerName,
        datasets: Sequence[Dataset],
        *,
        executor: Executor,
        journal: Journal,
        credentials: Credentials,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.name = name
        self.journal = journal
        self.closing = False
        facts = Facts(
            name,
            torch.__version__.split("+")[0],
            {dataset.name: dataset.describe() for dataset in datasets},
            {dataset.name: dataset.release for dataset in datasets},
        )
        self._facts = facts
        self._door = Door(facts, journal)
        self._executor = executor
        self._credentials = credentials
        self._own_pool = ThreadPoolExecutor(1, thread_name_prefix=f"fedpriv-{name}") if pool is None else None
        self._pool = pool or self._own_pool
        self._links: set[SealedLink] = set()
        self._barred: dict[PeerName, frozenset[DatasetName]] = {}
        self._executing = asyncio.Lock()
        self._published = -PUBLISH_SECONDS
        self._publishing: asyncio.Task[None] | None = None

    async def serve(self, raw: RawLink, side: Side) -> None:
        """Prove who we are, learn who the peer is, and answer it until the link ends; raise `PeerLost` if it is cut."""
        link = SealedLink(raw)
        self._links.add(link)
        try:
            peer = await greet(side, link, self._credentials, self._seal_greeting)
            if sum(each.raw is not raw and each.is_with(peer.name) for each in self._links) >= MAXIMUM_SESSIONS:
                log.warning("%s has %d sessions already; another one is refused", peer.name, MAXIMUM_SESSIONS)
                return
            recipient = Recipient(peer.name, peer.role.value)
            if not may_receive(recipient, self._facts.rules):
                raw.maximum_message_bytes = STRANGER_MESSAGE_BYTES  # no rule names it: it has nothing large to ask
            log.info("session with %s (%s) begins", peer.name, peer.role.value)
            await Conversation(self, link, recipient).run()
            log.info("session with %s ends", peer.name)
        finally:
            self._links.discard(link)
            await link.close()

    def _seal_greeting(self, message: Message) -> Sealed:
        if not isinstance(message, Hello | HelloProof):
            raise WireError(f"a {type(message).__name__} is no part of the handshake")
        return self._door.tell(message, None)

    async def execute(self, action: Execute, stopped: Callable[[], bool]) -> Outcome:
        """Carry out one request in a thread, one at a time."""
        loop = asyncio.get_running_loop()
        async with self._executing:
            carry_out = self._executor.carry_out
            return await loop.run_in_executor(self._pool, carry_out, action.request, action.plan, stopped)

    def with_bars(self, session: Session) -> Session:
        """Return the session knowing what its peer lost the right to, in this session or beside it."""
        barred = self._barred.get(session.peer.name, frozenset())
        return session if barred <= session.barred else replace(session, barred=session.barred | barred)

    def keep_bars(self, session: Session) -> None:
        """Remember what the peer of `session` lost the right to, for as long as this worker runs."""
        if session.barred:
            self._barred[session.peer.name] = self._barred.get(session.peer.name, frozenset()) | session.barred

    async def seal(self, action: Tell | Release, recipient: Recipient) -> Sealed:
        """Take a message through the door, off the loop's thread when that waits for a disk."""
        if not self.journal.durable:
            return self._through_the_door(action, recipient)
        return await asyncio.to_thread(self._through_the_door, action, recipient)

    def publish_soon(self) -> None:
        """Publish the ledger in the background, at most once a second however often a peer asks."""
        now = asyncio.get_running_loop().time()
        if now - self._published < PUBLISH_SECONDS or (self._publishing and not self._publishing.done()):
            return
        self._published = now
        self._publishing = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        try:
            await asyncio.to_thread(self.journal.publish)
        except StorageFailed as error:
            log.error("the ledger's checkpoint is not published: %s", error)  # noqa: TRY400 - no traceback

    def greeting(self, recipient: Recipient) -> tuple[Session, tuple[Action, ...]]:
        """Return a new session and its first actions."""
        return open_session(self._facts, recipient)

    async def close(self) -> None:
        """Stop what is under way, close every link, then publish and close the ledger."""
        self.closing = True
        await self._publish()
        closing = [asyncio.create_task(link.close()) for link in tuple(self._links)]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        if self._own_pool is not None:
            self._own_pool.shutdown(wait=False, cancel_futures=True)
        if self._publishing is not None:
            await self._publishing
        await asyncio.to_thread(self.journal.close)

    def _through_the_door(self, action: Tell | Release, recipient: Recipient) -> Sealed:
        match action:
            case Tell(message):
                return self._door.tell(message, recipient)
            case Release(message, label, request):
                try:
                    return self._door.release(message, label, request, recipient)
                except (ReleaseDenied, UsageError) as denial:
                    log.warning("release for request %d denied: %s", request.request, denial)
                    return self._door.tell(Failure(request.request, ErrorCode.RELEASE_DENIED), recipient)


class Conversation:
    """One link's session: waits for whichever comes first, a message or an outcome, and performs what follows."""

    def __init__(self, worker: Worker, link: SealedLink, recipient: Recipient) -> None:
        self._worker = worker
        self._link = link
        self._recipient = recipient
        self._executing: dict[asyncio.Task[Outcome], int] = {}
        self._open = True
        self._over = False

    async def run(self) -> None:
        """Go on until the peer closes the link, breaks it, or says what no peer may say."""
        session, actions = self._worker.greeting(self._recipient)
        await self._perform(actions)
        receiving = asyncio.create_task(self._receive())
        try:
            while self._open:
                await asyncio.wait({receiving, *self._executing}, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in self._executing if task.done()]:
                    session = self._worker.with_bars(session)
                    session, actions = executed(session, self._executing.pop(task), task.result())
                    self._worker.keep_bars(session)
                    await self._perform(actions)
                if receiving.done():
                    message = receiving.result()
                    if message is None:
                        return
                    session, actions = handle(self._worker.with_bars(session), message)
                    await self._perform(actions)
                    receiving = asyncio.create_task(self._receive())
        except StorageFailed as error:
            log.error("nothing more leaves to %s: %s", self._recipient.name, error)  # noqa: TRY400 - no traceback
        finally:
            self._over = True
            unfinished: list[asyncio.Task[Any]] = [receiving, *self._executing]
            for waiting in unfinished:
                waiting.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _nobody_waits(self) -> bool:
        """Whether what is being computed has lost its recipient; read from the training thread."""
        return self._over or self._worker.closing

    async def _receive(self) -> Message | None:
        envelope = await self._link.receive()
        return None if envelope is None else codec.decode(envelope)

    async def _perform(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Execute():
                    task = asyncio.create_task(self._worker.execute(action, self._nobody_waits))
                    self._executing[task] = action.request.request
                case Tell() | Release():
                    self._note(action)
                    await self._link.send(await self._worker.seal(action, self._recipient))
                case Publish():
                    self._worker.publish_soon()
                case Close():
                    self._open = False

    def _note(self, action: Tell | Release) -> None:
        """Log a refusal, so that the owner sees what was asked and not given."""
        if isinstance(action, Tell) and isinstance(action.message, Failure):
            failure = action.message
            log.warning("request %d of %s refused: %s", failure.request, self._recipient.name, failure.code.name)


async def serve_quietly(worker: Worker, raw: RawLink, side: Side) -> None:
    """Serve one link and log how it ended: one bad peer must not end the worker."""
    try:
        await worker.serve(raw, side)
    except PeerLost as error:
        log.warning("link lost: %s", error)
    except WireError as error:
        log.warning("link closed, the peer sent bytes that are no message: %s", error)
    except FedprivError as error:
        log.warning("link closed: %s", error)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes provoke must not end the worker
        log.error("link closed by a defect of ours: %s", type(error).__name__)  # noqa: TRY400 - its text may quote
