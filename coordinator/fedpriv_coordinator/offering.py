"""The workers of one job: their connections, each given a plan once, and what they announced."""

from __future__ import annotations

import asyncio

from fedpriv.errors import PeerLost
from fedpriv.ids import PlanDigest, WorkerName
from fedpriv.plans.plan import Plan
from fedpriv.remote.connection import Connection
from fedpriv.wire.messages import CloseRound, OfferPlan
from fedpriv_coordinator.job import Job
from fedpriv_coordinator.membership import Membership

TELL_SECONDS = 5.0


class Offering:
    """Gives workers the plans of one job, once per connection; all methods run on the loop's thread."""

    def __init__(self, job: Job, members: Membership) -> None:
        self._job = job
        self._members = members
        self._offered: set[tuple[Connection, PlanDigest]] = set()

    def announced_rows(self, worker: WorkerName) -> int | None:
        """Return the rows that `worker` announced for the job's data set; None where it hides them."""
        connection = self._members.connected.get(worker)
        datasets = () if connection is None else connection.announcement.datasets
        return next((each.rows for each in datasets if each.name == self._job.dataset), None)

    def connection(self, worker: WorkerName) -> Connection:
        """Return the open connection of a worker; raise `PeerLost` where there is none."""
        connection = self._members.connected.get(worker)
        if connection is None:
            raise PeerLost(f"worker {worker!r} is not connected")
        return connection

    async def ready(self, worker: WorkerName, plan: Plan) -> Connection:
        """Return the connection of a worker that knows `plan`."""
        connection = self.connection(worker)
        await self.offer(connection, plan)
        return connection

    async def offer(self, connection: Connection, plan: Plan) -> None:
        """Give the worker a plan, once per connection."""
        if (connection, plan.digest) not in self._offered:
            await connection.ask(OfferPlan(0, plan), timeout_seconds=self._job.deadline_seconds)
            self._offered.add((connection, plan.digest))

    async def tell(self, worker: WorkerName, number: int) -> None:
        """Tell a worker that a round is over and saved; one that does not take it in time loses its connection."""
        connection = self._members.connected.get(worker)
        if connection is None:
            return
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await connection.tell(CloseRound(self._job.id, number))
        except (PeerLost, TimeoutError):
            await connection.close()
