"""One worker, as a coordinator or researcher holds it: requests out, replies matched by number.

Any number of requests may be under way. A training or an evaluation has a number that follows from what is asked, so
that a retry, over another connection or by another process, is known as the same order; other requests are counted. A
reply that comes after its deadline is dropped. When the link is lost every waiting request gets `PeerLost` at once; a
worker that says what no worker may say loses its link. Everything that arrives goes to the recorder, if there is one.
It does not judge what a reply is worth, and it does not reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

from fedpriv import canonical
from fedpriv.errors import FedprivError, PeerLost, UsageError, WireError, WorkerRefused
from fedpriv.ids import PeerName, WorkerName
from fedpriv.remote.recording import Hearing, Record, Recorder
from fedpriv.sealed import Envelope
from fedpriv.secagg.messages import FromCoordinator, FromWorker
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.hello import TIMEOUT_SECONDS, Side, greet
from fedpriv.transport.link import Link
from fedpriv.wire.codec import encode, kind_of
from fedpriv.wire.framing import envelope_bytes
from fedpriv.wire.messages import (
    Announcement,
    AskBudget,
    AskCheckpoint,
    AskMock,
    AskStatistics,
    BudgetLeft,
    Checkpoint,
    ErrorCode,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    Message,
    Mock,
    Notice,
    OfferPlan,
    PlanAccepted,
    Reply,
    Request,
    Statistics,
    Train,
    Update,
)
from fedpriv.wire.rounds import Summable
from fedpriv.wire.values import (
    AskObjects,
    AskRelease,
    Collect,
    Fetch,
    Objects,
    OpenSession,
    SessionOpen,
    Ticket,
    Value,
)

_GOODBYE_SECONDS = 2.0
_FIRST_ORDER_NUMBER = 1 << 62  # nobody counts that far

_ANSWERS: Mapping[type[Request], type[Reply]] = {
    OfferPlan: PlanAccepted,
    Train: Update,
    Evaluate: Evaluation,
    AskStatistics: Statistics,
    AskMock: Mock,
    AskCheckpoint: Checkpoint,
    AskBudget: BudgetLeft,
    OpenSession: SessionOpen,
    Fetch: Value,
    AskObjects: Objects,
    AskRelease: Ticket,
    Collect: Value,
}

_ADVICE: Mapping[ErrorCode, str] = {
    ErrorCode.BAD_REQUEST: "the request makes no sense to it; check the job's settings",
    ErrorCode.UNKNOWN_DATASET: "it has no data set of that name; look at what it announces",
    ErrorCode.UNKNOWN_PLAN: "it does not know the plan; offer it first",
    ErrorCode.PLAN_REFUSED: "its own validation does not accept the plan; simplify the model or loss",
    ErrorCode.OPERATION_NOT_ALLOWED: "the plan uses an operation outside the allow-list; express the model without it",
    ErrorCode.OVER_QUOTA: "the plan needs more memory or work than the owner grants; use a smaller batch or model",
    ErrorCode.INPUT_MISMATCH: "data or model has not the shapes that the plan was traced for; trace it for this one",
    ErrorCode.RELEASE_DENIED: "no rule of the owner lets this result leave; ask the owner for a rule or an approval",
    ErrorCode.STEP_FAILED: "a step failed on its data, it never says why; try the model on similar data of your own",
    ErrorCode.TORCH_VERSION: "it runs another torch version than the plan was traced with; install the same one",
    ErrorCode.STORAGE_FULL: "its ledger's disk is full and nothing leaves unrecorded; its owner must free space",
    ErrorCode.SHUTTING_DOWN: "it is shutting down; ask again when it is back",
    ErrorCode.APPROVAL_PENDING: "its owner has been asked (fedpriv worker requests), again if an approval was used up "
    "or expired; run again when they approved",
    ErrorCode.APPROVAL_DENIED: "its owner denied this very request and keeps the reason; talk to them, or leave it out",
    ErrorCode.OVER_WORK: "it needs more elementary operations than the owner grants; use a smaller batch or model",
    ErrorCode.OVER_VALUES: "there are more values at once than the owner grants; free some with del",
    ErrorCode.OVER_REQUESTS: "too many requests wait for its owner already; ask again when some are answered",
    ErrorCode.OVER_STEPS: "the value took more steps than its owner can read; trace them with @fp.plan",
    ErrorCode.NOT_ENROLLED: "it takes part in no secure aggregation here: its owner has to accept the roster "
    "(fedpriv worker roster accept); its log says what is missing",
    ErrorCode.BUDGET_EXCEEDED: "the privacy budget of its data set has not enough left for this round; its owner can "
    "raise it, or go on without this worker",
    ErrorCode.SUM_TOO_SMALL: "its owner lets this out in a sum over more workers than this one is sure to have "
    "(minimum_workers of the rule secure-sum in its worker.toml); raise minimum_workers, or ask the owner how many",
    ErrorCode.RELEASE_LOST: "it made this result once and lost it in a crash, and makes it never again; go on without",
}


@dataclass(slots=True)
class _Waiting:
    """A request under way."""

    answer: type[Reply]
    reply: asyncio.Future[Reply] = field(repr=False)


Hear: TypeAlias = Callable[[FromWorker | WorkerRefused | PeerLost], None]
"""Is told of each message of a round of secure aggregation, of a refusal to take part, and of the end of the link."""


@dataclass(frozen=True, slots=True)
class _Round:
    """A round of secure aggregation under way: the number of its order, and who is told."""

    number: int
    hear: Hear


class Connection:
    """An open connection to one worker whose identity is proved; all methods run on the loop's thread."""

    def __init__(
        self,
        link: Link[Envelope],
        own_name: PeerName,
        announcement: Announcement,
        received: dict[str, tuple[int, int]],
        record: Record,
    ) -> None:
        self.name = WorkerName(link.peer.name)
        self.own_name = own_name
        """Our own name, as our certificate says it and the worker's ledger knows it."""
        self.announcement = announcement
        self.received = received
        """Messages and bytes that came, by kind; the bytes add up to `bytes_in`."""
        self._link = link
        self._record = record
        self._counted = 0
        self._waiting: dict[int, _Waiting] = {}
        self._rounds: dict[bytes, _Round] = {}
        self._end: PeerLost | None = None
        self._reading = asyncio.create_task(self._read(), name=f"connection to {self.name}")

    @classmethod
    async def open(
        cls,
        link: Link[Envelope],
        side: Side,
        credentials: CredentialsSource,
        *,
        name: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Self:
        """Shake hands over `link`, wait for the announcement and return the connection; close the link on failure.

        `name` is the worker that we expect, if any. Raise `HandshakeFailed`, `PeerLost` or `WireError`.
        """
        hearing = Hearing(link)
        await greet(side, hearing, credentials, encode, name=name, timeout_seconds=timeout_seconds)
        received = {"handshake": (2, link.bytes_received)}
        record = Record(link.peer.name)
        for envelope_of_greeting in hearing.heard:
            record.heard(envelope_of_greeting)
        try:
            async with asyncio.timeout(timeout_seconds):
                envelope = await link.receive()
            if envelope is None:
                raise PeerLost(f"worker {link.peer.name!r} closed the link after the handshake; its log says why")
            announcement = record.heard(envelope)
            if not isinstance(announcement, Announcement):
                raise WireError(f"worker {link.peer.name!r} did not announce itself; it is no fedpriv worker")
        except TimeoutError:
            await link.close()
            raise PeerLost(f"worker {link.peer.name!r} announced nothing within {timeout_seconds:g} s") from None
        except FedprivError:
            await link.close()
            raise
        _count(received, announcement, envelope)
        return cls(link, credentials.current().peer.name, announcement, received, record)

    @property
    def is_open(self) -> bool:
        """Whether requests can still be asked."""
        return self._end is None

    @property
    def bytes_in(self) -> int:
        """Serialised bytes received from the worker, handshake included."""
        return self._link.bytes_received

    @property
    def bytes_out(self) -> int:
        """Serialised bytes sent to the worker, handshake included."""
        return self._link.bytes_sent

    def record_with(self, recorder: Recorder) -> None:
        """Tell `recorder` of what the worker sent so far, if nothing was asked yet, and of everything from now on."""
        self._record.give_to(recorder)

    async def ask(self, request: Request, *, timeout_seconds: float | None = None) -> Reply:
        """Send `request` under its number and return the reply that carries it, of the type that answers it.

        Raise `WorkerRefused` with the worker's code, `PeerLost` if the link is lost or `timeout_seconds` pass; a
        deadline that passes while the request is still being written breaks the link, because half a message is none.
        Raise `UsageError` for an order that is under way already.
        """
        self._check_open()
        self._record.keep_no_longer()
        number = self._counted = self._counted + 1
        if isinstance(request, Train | Evaluate | Collect):
            number = order_number(request)
        if number in self._waiting:
            raise UsageError(
                f"worker {self.name!r} is at work on this {type(request).__name__} already; wait for its answer"
            )
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(_ANSWERS[type(request)], reply)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._link.send(encode(replace(request, request=number)))
                answer = await reply
        except TimeoutError:
            raise PeerLost(
                f"worker {self.name!r} did not answer a {type(request).__name__} within {timeout_seconds:g} s; "
                "allow it more time, or go on without it"
            ) from None
        finally:
            del self._waiting[number]
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even where the send failed first
        if isinstance(answer, Failure):
            raise _refusal(self.name, answer)
        return answer

    async def invite(self, order: Summable, hear: Hear) -> Callable[[], None]:
        """Send an order into a round of secure aggregation, and tell `hear` what comes of it.

        Return what to call when nothing of the round is awaited any more. Raise `PeerLost` if the link is lost.
        """
        assert order.invite is not None  # an order without has one reply: ask
        self._check_open()
        self._record.keep_no_longer()
        sid, number = order.invite.sid, round_number(order.invite.sid)
        self._rounds[sid] = _Round(number, hear)
        try:
            await self._link.send(encode(replace(order, request=number)))
        except BaseException:
            self._rounds.pop(sid, None)
            raise

        def leave() -> None:
            self._rounds.pop(sid, None)

        return leave

    async def tell(self, message: Notice | FromCoordinator) -> None:
        """Send a message that has no reply."""
        self._check_open()
        await self._link.send(encode(message))

    async def ended(self) -> None:
        """Return when the link is over, for whatever reason."""
        await asyncio.wait((self._reading,))

    async def close(self) -> None:
        """Say goodbye and close the link; waiting requests get `PeerLost`. Closing again does nothing."""
        if self._end is None:
            self._finish(PeerLost(f"the connection to worker {self.name!r} was closed here"))
            with contextlib.suppress(PeerLost, TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._link.send(encode(Goodbye()))
        await self._link.close()
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        """Hand each reply to whoever waits for it, until the link ends."""
        try:
            while (envelope := await self._link.receive()) is not None:
                self._take(envelope)
            end = PeerLost(f"worker {self.name!r} closed the link; connect again when it is back")
        except PeerLost as loss:
            end = loss
        except WireError as error:
            end = PeerLost(f"worker {self.name!r} sent what no worker may send, so its link was closed: {error}")
        except asyncio.CancelledError:
            end = PeerLost(f"the connection to worker {self.name!r} was closed here")
        except Exception as error:  # noqa: BLE001 - whatever a worker's bytes provoke, nobody may wait for ever
            end = PeerLost(f"the link to worker {self.name!r} was closed by a defect of ours, {type(error).__name__}")
        self._finish(end)
        await self._link.close()

    def _take(self, envelope: Envelope) -> None:
        message = self._record.heard(envelope)
        _count(self.received, message, envelope)
        match message:
            case Goodbye():
                self._finish(PeerLost(f"worker {self.name!r} said goodbye; connect again when it is back"))
            case _ if isinstance(message, FromWorker):
                if (one := self._rounds.get(message.sid)) is not None:
                    one.hear(message)
            case Failure(number) if invited := [each for each in self._rounds.values() if each.number == number]:
                invited[0].hear(_refusal(self.name, message))
            case _ if isinstance(message, Reply):
                waiting = self._waiting.get(message.request)
                if waiting is None or waiting.reply.done():
                    return
                if not isinstance(message, waiting.answer | Failure):
                    raise WireError(f"a {type(message).__name__} came where a {waiting.answer.__name__} answers")
                waiting.reply.set_result(message)
            case _:
                raise WireError(f"a {type(message).__name__} is not a worker's to send")

    def _finish(self, end: PeerLost) -> None:
        """End every waiting request with the first reason there was."""
        if self._end is None:
            self._end = end
        for waiting in self._waiting.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(PeerLost(str(self._end)))
        for each in tuple(self._rounds.values()):
            each.hear(PeerLost(str(self._end)))
        self._rounds.clear()

    def _check_open(self) -> None:
        if self._end is not None:
            raise PeerLost(str(self._end))


def _refusal(worker: WorkerName, failure: Failure) -> WorkerRefused:
    where = f" at step {failure.step}" if failure.step >= 0 else ""
    what = f" ({failure.operation})" if failure.operation else ""
    return WorkerRefused(
        f"worker {worker!r} refused{where}{what}: {_ADVICE[failure.code]}",
        code=failure.code.name,
        step=failure.step,
        operation=failure.operation,
    )


def round_number(sid: bytes) -> int:
    """Return the number of the order that invites to a session of secure aggregation."""
    return _FIRST_ORDER_NUMBER | int.from_bytes(sid[:8], "big") >> 2


def order_number(order: Train | Evaluate | Collect) -> int:
    """Return the number of an order, 2**62 or more and below 2**63: the same for every retry, whoever sends it."""
    if isinstance(order, Collect):
        digest = canonical.digest("fedpriv/collect/v1", order.ticket)
        return _FIRST_ORDER_NUMBER | int.from_bytes(digest[:8], "big") >> 2
    digest = canonical.digest("fedpriv/order/v1", kind_of(order), order.job, order.round, order.dataset, order.plan)
    return _FIRST_ORDER_NUMBER | int.from_bytes(digest[:8], "big") >> 2


def _count(received: dict[str, tuple[int, int]], message: Message, envelope: Envelope) -> None:
    kind = kind_of(message)
    messages, size = received.get(kind, (0, 0))
    received[kind] = messages + 1, size + envelope_bytes(envelope)
