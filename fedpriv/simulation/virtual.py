"""Workers in this process: the same session, door and ledger as a worker on another host, over a link in memory.

A virtual worker isolates nothing: whoever runs this process can read its data. It is for learning, tests and
simulation, and its ledger says what a real worker's would. Whoever holds it is its owner too: `requests`, `explain`,
`approve` and `deny` ask the desk that `fedpriv worker` asks. Without a state folder the ledger lives in memory and can
be exported; with one it is durable, like a real worker's. Virtual workers train side by side, in as many threads as
torch has; compiled plans are shared among them. In secure aggregation they are on a roster that this process signs, or,
where the owner pinned the key of another administrator, on one that `enrol` was given.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import PeerName, WorkerName, checked_name
from fedpriv.ledger.entries import Entry
from fedpriv.remote.connection import Connection
from fedpriv.remote.enrolment import process_administrator
from fedpriv.remote.holder import Holder
from fedpriv.remote.homecoming import ModuleTicket
from fedpriv.remote.ticket import Ticket
from fedpriv.secagg.checks import check_own_key
from fedpriv.secagg.keys import key_text
from fedpriv.secagg.roster import Roster
from fedpriv.storage.rosters import IDENTITY_KEY, SignedRoster, key_of, made_identity, new_identity
from fedpriv.transport.authority import process_authority
from fedpriv.transport.hello import Side
from fedpriv.transport.link import OpenLink
from fedpriv.transport.memory import memory_pair
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Announcement, Role
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.desk import Desk
from fedpriv_worker.enrolment import Enrolment, OwnerTerms, check_next
from fedpriv_worker.executor import InProcessExecutor, Programs
from fedpriv_worker.holdings import holding_of
from fedpriv_worker.journal import Journal
from fedpriv_worker.payloads import Recorder
from fedpriv_worker.session import announcement
from fedpriv_worker.worker import Worker, serve_quietly

WEEK_SECONDS = 7 * 86_400.0


class VirtualWorker(Holder):
    """A worker inside this process, under `name`, with `datasets` behind their own rules."""

    def __init__(
        self,
        name: str,
        datasets: Sequence[Dataset] = (),
        *,
        state: str | Path | None = None,
        terms: OwnerTerms | None = None,
        administrator: str | bytes | None = None,
        record_payloads: str | Path | None = None,
    ) -> None:
        """Hold `datasets`, with a durable ledger in `state` if that is given.

        `terms` are what its owner insists on in secure aggregation, and `administrator` whose rosters count: 32 bytes,
        or their base64, as in `[secure_aggregation]` of a worker.toml; None for the administrator of this process.
        With the folder `record_payloads`, usually a run's own, all that crosses its links is kept there beside the
        rows, for `fedpriv attack`. Raise `UsageError` where one of the data sets is not marked as simulated.
        """
        repeated = {dataset.name for dataset in datasets if [d.name for d in datasets].count(dataset.name) > 1}
        if repeated:
            raise UsageError(f"worker {name!r} has two data sets called {sorted(repeated)[0]!r}; rename one of them")
        self.name = WorkerName(checked_name("worker", name))
        recorder = None if record_payloads is None else Recorder(Path(record_payloads), self.name, datasets)
        clock, entropy, threads = SystemClock(), SystemEntropy(), torch.get_num_threads()
        if state is None:
            self._journal = Journal.in_memory(worker=self.name, clock=clock, entropy=entropy)
        else:
            self._journal = Journal.open(Path(state), worker=self.name, clock=clock, entropy=entropy)
        self._roster: SignedRoster | None = None
        self.administrator = _pinned(administrator)
        """The 32 bytes of the key that signs the rosters which this worker's owner accepts."""
        self._identity = new_identity(entropy) if state is None else made_identity(Path(state) / IDENTITY_KEY, entropy)
        self._worker = Worker(
            self.name,
            datasets,
            executor=InProcessExecutor(datasets, _programs(), threads=partial(_share, threads)),
            journal=self._journal,
            credentials=process_authority().issue(self.name, Role.WORKER),
            pool=_training_threads(threads),
            enrolment=Enrolment(self._identity, self._accepted, terms or OwnerTerms()),
            recorder=recorder,
        )
        self._desk = Desk(self.name, tuple(map(holding_of, datasets)), self._journal)
        _alive.add(self)

    async def reach(self, name: PeerName) -> Connection:
        """Return an open connection as `name`; called on the runtime's thread."""
        ours, theirs = memory_pair()
        task = asyncio.create_task(serve_quietly(self._worker, theirs, Side.LISTENER))
        _serving.add(task)
        task.add_done_callback(_serving.discard)
        credentials = process_authority().issue(name, Role.RESEARCHER)
        return await Connection.open(OpenLink(ours), Side.DIALER, credentials)

    @property
    def identity(self) -> bytes:
        """The 32 bytes of this worker's key that stand in a roster."""
        return self._identity.public

    def enrol(self, signed: SignedRoster) -> None:
        """Accept a roster for secure aggregation, as its owner.

        Raise, with nothing changed, unless the administrator signed it, later than the last one, and it has this
        worker with its key.
        """
        check_next(signed, self.administrator, self._roster)
        check_own_key(signed.roster, self.name, self.identity)
        self._roster = signed

    def announced(self) -> Announcement:
        """Return what the worker announces."""
        return announcement(self._worker.facts)

    def requests(self) -> list[dict[str, Any]]:
        """Return what was asked of this worker's owner, what waits for an answer first; each has an "id"."""
        return self._desk.requests()

    def explain(self, request: str | Ticket | ModuleTicket) -> str:
        """Return in words who asks for what, and what would leave; it is named by ticket or id."""
        text: str = self._desk.explain(_id_of(request))["text"]
        return text

    def approve(
        self,
        request: str | Ticket | ModuleTicket,
        *,
        releases: int = 1,
        expires_seconds: float = WEEK_SECONDS,
        again: bool = False,
    ) -> dict[str, Any]:
        """Let exactly this request out so many times within so long, as its owner; an id has to be whole.

        What was denied before takes `again`.
        """
        return self._desk.approve(_id_of(request), releases, expires_seconds, again=again)

    def deny(self, request: str | Ticket | ModuleTicket, *, why: str) -> dict[str, Any]:
        """Stop exactly this request, whatever the rules say, as its owner; `why` stays in the owner's records."""
        return self._desk.deny(_id_of(request), why)

    def entries(self) -> Iterator[Entry]:
        """Yield every ledger entry so far."""
        return self._journal.entries()

    def export_ledger(self, folder: str | Path) -> None:
        """Write the ledger to `folder`, where `fedpriv audit` reads it."""
        self._journal.publication.export(Path(folder))

    def close(self) -> None:
        """End every session and close the ledger."""
        _alive.discard(self)
        runtime.run(self._worker.close())

    def _accepted(self) -> Roster:
        if self._roster is None:
            raise UsageError(f"worker {self.name!r} is on no roster; a Federation of virtual workers makes one")
        return self._roster.roster

    def __repr__(self) -> str:
        return f"<VirtualWorker {self.name}>"


_serving: set[asyncio.Task[None]] = set()
"""Sessions under way: asyncio itself would let a task go that nobody else holds."""
_alive: weakref.WeakSet[VirtualWorker] = weakref.WeakSet()


@cache
def _training_threads(count: int) -> ThreadPoolExecutor:
    """Return the threads in which virtual workers train: as many as torch had when they were made."""
    return ThreadPoolExecutor(count, thread_name_prefix="fedpriv-virtual")


@cache
def _programs() -> Programs:
    """Return the compiled plans of this process: its virtual workers run the same ones."""
    return Programs()


def _id_of(request: str | Ticket | ModuleTicket) -> str:
    return request if isinstance(request, str) else request.id


def _pinned(administrator: str | bytes | None) -> bytes:
    if administrator is None:
        return process_administrator().public
    return key_of(administrator if isinstance(administrator, str) else key_text(administrator), "administrator")


def _share(threads: int) -> int:
    """Return how many of torch's threads one worker may use while the others train beside it."""
    return max(1, threads // max(1, len(_alive)))
