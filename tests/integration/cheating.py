"""A coordinator that cheats: it speaks the wire protocol to real sessions, and changes what it tells some of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from fleets import Fleet
from torch import nn

import fedpriv as fp
from fedpriv.clock import SystemClock
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.learning.strategies import FedAvg
from fedpriv.ledger.entries import decode_entry
from fedpriv.privacy.reservations import State
from fedpriv.secagg.keys import check_signature
from fedpriv.secagg.messages import Abort, FromCoordinator, FromWorker, Invite, Shares
from fedpriv.secagg.statements import aborted
from fedpriv.storage.hashing import tensors_digest
from fedpriv.storage.rows import Rows
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Train
from fedpriv.wire.rounds import FixedPoint, computation, vector_of
from fedpriv.wire.tensors import tensor_bytes
from fedpriv_coordinator.coordinator import Coordinator
from fedpriv_coordinator.job import Job, agreed_schema, model_tensors, prepare
from fedpriv_coordinator.masked_round import Send
from fedpriv_coordinator.secure_aggregation import Numbering, Subject, describe
from fedpriv_coordinator.summing import Summed, Summing

LOSS = F.binary_cross_entropy_with_logits
PATIENCE_SECONDS = 5.0
CHEATED = ("alice", "bob", "carol", "dave", "erin")

Alter = Callable[[WorkerName, FromCoordinator], FromCoordinator | None]
AlterOrder = Callable[[WorkerName, Train], Train]


def honest(worker: WorkerName, message: FromCoordinator) -> FromCoordinator | None:
    return message


def as_is(worker: WorkerName, order: Train) -> Train:
    return order


@dataclass(slots=True)
class Cheating(Summing):
    """Plays a round as its base does, but for what `alter` and `alter_order` make of single messages.

    `heard` has everything that workers sent, also what an honest coordinator would drop. An altered message that is
    answered by an abort ends the round for that worker; `alter` returns None to tell nothing.
    """

    alter: Alter = honest
    heard: list[tuple[WorkerName, object]] = field(default_factory=list)

    async def _send(self, send: Send) -> None:
        message = send.message if isinstance(send.message, Invite) else self.alter(send.worker, send.message)
        if message is not None:
            await Summing._send(self, Send(send.worker, message))

    def _hear(self, worker: WorkerName, event: FromWorker | fp.WorkerRefused | fp.PeerLost) -> None:
        self.heard.append((worker, event))
        Summing._hear(self, worker, event)

    def sealed(self, sender: str) -> dict[str, bytes]:
        """Return what `sender` sealed for each of the others."""
        (shares,) = [event for worker, event in self.heard if worker == sender and isinstance(event, Shares)]
        return dict(shares.ciphertexts)

    def aborts(self) -> dict[str, tuple[str, str]]:
        """Return why each worker stopped, and about what, as it signed."""
        return {worker: (event.reason.value, event.subject) for worker, event in self.heard if isinstance(event, Abort)}


class Cheat:
    """What a coordinator needs to cheat a fleet: a job, and the roster that its workers accepted.

    One fleet serves many attempts: each begins with `anew`, and `settle` shows what it left behind.
    """

    def __init__(self, fleet: Fleet) -> None:
        federation = fleet.federation
        self.fleet, self.members = fleet, federation._members
        self.enrolments = {name: worker.enrolment for name, worker in fleet.workers.items()}
        self.began: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.received = 0
        self.cheating: Cheating | None = None
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        local = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5))
        self.job: Job = prepare(
            model, LOSS, dataset="toy", purpose="", rounds=1, seed=0, local=local, quorum=None,
            deadline_seconds=PATIENCE_SECONDS, worker_metrics=(), workers=len(federation.workers),
            schema=agreed_schema(DatasetName("toy"), federation._announced()),
        )  # fmt: skip  # one line of terms
        self.model = model_tensors(model, self.job.training)
        self.how = fleet.secure()
        self.roster = federation._rounds._roster(self.how).roster
        self.coordinator = Coordinator(self.job, self.members, FedAvg(), SystemClock())
        self.numbering = Numbering(SystemClock())

    def anew(self) -> None:
        """Begin an attempt: what was recorded before is not looked at."""
        self.began = {name: journal.rows.size for name, journal in self.fleet.journals.items()}
        self.charged = {name: self._charged(name) for name in self.began}
        self.received = self._ingress().size

    def kinds(self, worker: str) -> list[str]:
        """Return what a worker recorded of rounds in this attempt."""
        entries = self.fleet.journals[worker].entries(self.began[worker])
        return [entry.draft.kind for entry in entries if entry.draft.kind.startswith("secagg")]

    def settle(self) -> None:
        """End the attempt with an honest round, and hold every worker to its rules over both.

        What was let out is charged, once; what was not is given back; in no session anything was let out twice; and
        what stopped a worker reached the coordinator's own ledger.
        """
        for name, worker in self.fleet.workers.items():
            worker.enrolment = self.enrolments[name]
        self.roster = self.fleet.federation._rounds._roster(self.how).roster  # a run may have made another
        _, summed = self.play()
        assert summed.sum is not None, summed.reason
        ingress = self._ingress()
        received = [decode_entry(content).draft for content in ingress.read(self.received, ingress.size)]
        stopped = Counter(draft.peer for draft in received if draft.kind == "secagg-abort")
        for name, journal in self.fleet.journals.items():
            drafts = [entry.draft for entry in journal.entries(self.began[name])]
            let_out = [(draft.kind, draft.sid) for draft in drafts if draft.kind in ("secagg-masked", "secagg-unmask")]
            assert len(let_out) == len(set(let_out)), name
            kinds = Counter(draft.kind for draft in drafts)
            assert self._charged(name) - self.charged[name] == kinds["secagg-masked"], name
            assert stopped[name] == kinds["secagg-abort"], name

    def _charged(self, worker: str) -> int:
        """Return how many orders were charged for, after checking that no other is in the balance."""
        held = Counter(each.state for each in self.fleet.journals[worker].holds.all())
        charged = held.pop(State.COMMITTED, 0) + held.pop(State.ACKNOWLEDGED, 0)
        assert set(held) <= {State.CANCELLED}, (worker, held)
        return charged

    def _ingress(self) -> Rows:
        """Return the coordinator's own ledger, with all that came so far."""
        ingress = self.fleet.federation._evidence.ingress
        ingress.drain()
        return ingress._rows

    def check_signed(self, worker: str, abort: Abort) -> None:
        """Hold an abort to the key that the roster has for `worker`."""
        check_signature(worker, self.roster.key_of(WorkerName(worker)), abort.signature, aborted(worker, abort))

    def order(self) -> Train:
        return self.coordinator._training(1, self.model, seed=0)

    def descriptor(self, order: Train, *, clip: float = 16.0, **changes: object):
        """Return the descriptor that is right for `order`, but for `changes`."""
        names = list(self.members.connected)
        vector = vector_of(order, self.job.changed, 4, FixedPoint(clip, 16, 100))
        digest = tensors_digest(order.model.specs, [tensor_bytes(tensor) for _, tensor in order.model])
        subject = Subject(digest, computation(order), vector, PATIENCE_SECONDS)
        right = describe(self.how, self.roster, names, self.numbering.next(), 3, subject)
        return replace(right, **changes)

    def play(
        self, alter: Alter = honest, alter_order: AlterOrder = as_is, *, without: str = "", **changes: object
    ) -> tuple[Cheating, Summed]:
        """Play a round in which `alter` changes messages, `alter_order` orders and `changes` everybody's descriptor.

        One may be left `without` an invitation. Every abort that came is held to its signature.
        """
        order = self.order()

        def order_for(worker: WorkerName, invite: Invite) -> Train:
            return alter_order(worker, replace(order, invite=invite))

        async def ready(worker: WorkerName):
            if worker == without:
                raise fp.PeerLost("not invited by the test")
            return await self.coordinator._offering.ready(worker, self.job.training)

        self.cheating = cheating = Cheating(
            self.how, self.roster, self.descriptor(order, **changes), ready, order_for, SystemClock(), alter=alter
        )
        summed = runtime.run(cheating.run(list(self.members.connected)))
        for worker, event in cheating.heard:
            if isinstance(event, Abort):
                self.check_signed(worker, event)
        return cheating, summed

    def ask_one(self, worker: str, order: Train) -> list[object]:
        """Send one worker an order with an invitation, and return what it says within a moment of its first word."""
        heard: list[object] = []

        async def asked() -> None:
            connection = await self.coordinator._offering.ready(WorkerName(worker), self.job.training)
            first = asyncio.Event()

            def hear(event: object) -> None:
                heard.append(event)
                first.set()

            leave = await connection.invite(order, hear)
            await asyncio.wait_for(first.wait(), PATIENCE_SECONDS)
            leave()

        runtime.run(asked())
        for each in heard:
            if isinstance(each, Abort):
                self.check_signed(worker, each)
        return heard
