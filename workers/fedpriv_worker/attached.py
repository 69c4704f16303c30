"""The session of values that one link is attached to: what arrives over the link goes there, and answers come back.

A link attaches to one session, with its first message about values. What the session took stays taken although the
link ends meanwhile; a question that waits for an owner ends with the link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from fedpriv.errors import PeerLost
from fedpriv.ids import PlanDigest
from fedpriv.plans.plan import Plan
from fedpriv.policy.requests import Recipient
from fedpriv.transport.link import SealedLink
from fedpriv.wire.values import Asking, Calls, Collect, OpenDataset, OpenSession, Put
from fedpriv.wire.values import Pointing as Message
from fedpriv_worker.leases import Leases
from fedpriv_worker.pointing import Pointing
from fedpriv_worker.steps import Reached, Step
from fedpriv_worker.tickets import MAXIMUM_TICKETS

T = TypeVar("T")


class Host(Protocol):
    """The worker, as far as its sessions of values need it."""

    leases: Leases
    reached: Reached


class Attached:
    """One link's session of values, none at first; used on the loop's thread, one message at a time."""

    def __init__(self, worker: Host, link: SealedLink, recipient: Recipient) -> None:
        self._worker = worker
        self._link = link
        self._recipient = recipient
        self._pointing: Pointing | None = None
        self._collecting: set[asyncio.Task[None]] = set()

    async def pass_on(self, message: Message | Asking, plans: Mapping[PlanDigest, Plan]) -> bool:
        """Have a message done, and answered where it asks; return False for one that no peer may send here.

        A session is opened once, and before anything else.
        """
        if self._pointing is None and isinstance(message, OpenSession):
            self._pointing = self._worker.leases.attach(self._recipient, message.session)
        pointing = self._pointing
        if pointing is None or (isinstance(message, OpenSession) and pointing.mark != message.session):
            return False
        match message:
            case Calls() | Put() | OpenDataset():
                await self._in_turn(pointing, partial(pointing.take, message, plans))
            case Collect() if len(self._collecting) >= MAXIMUM_TICKETS:
                return False  # more questions than there are tickets
            case Collect():
                waiting = asyncio.create_task(self._collect(pointing, message))
                self._collecting.add(waiting)
                waiting.add_done_callback(self._collecting.discard)
            case _:
                await self._link.send(await self._in_turn(pointing, partial(pointing.answer, message)))
        return True

    async def close(self) -> None:
        """End the questions that wait, and leave the session to its lease."""
        waiting = tuple(self._collecting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if self._pointing is not None:
            self._worker.leases.detach(self._pointing)

    async def _in_turn(self, pointing: Pointing, work: Callable[[], T]) -> T:
        """Do `work` in a thread when it is its peer's turn; it ends although the link may end meanwhile."""

        async def done() -> T:
            async with pointing.turn:
                return await asyncio.to_thread(work)

        return await asyncio.shield(asyncio.create_task(done()))

    async def _collect(self, pointing: Pointing, message: Collect) -> None:
        """Answer when the owner did; a link that broke meanwhile is noticed where it is read."""
        with suppress(PeerLost):
            sealed = await pointing.collect(message)
            self._worker.reached(Step.SEND)
            await self._link.send(sealed)
            self._worker.reached(Step.SENT)
