"""A coordinator that cheats: it speaks the wire protocol to real sessions, and changes what it tells some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from fleets import Fleet
from torch import nn

import fedpriv as fp
from fedpriv.clock import SystemClock
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import FedAvg
from fedpriv.secagg.messages import Abort, FromCoordinator, FromWorker, Invite
from fedpriv.storage.hashing import tensors_digest
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Train
from fedpriv.wire.rounds import FixedPoint, computation, vector_of
from fedpriv.wire.tensors import tensor_bytes
from fedpriv_coordinator.coordinator import Coordinator
from fedpriv_coordinator.job import Job, model_tensors, prepare
from fedpriv_coordinator.masked_round import Send
from fedpriv_coordinator.secure_aggregation import Numbering, Subject, describe
from fedpriv_coordinator.summing import Summed, Summing

LOSS = F.binary_cross_entropy_with_logits
PATIENCE_SECONDS = 5.0

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

    def aborts(self) -> dict[str, tuple[str, str]]:
        """Return why each worker stopped, and about what, as it signed."""
        return {worker: (event.reason.value, event.subject) for worker, event in self.heard if isinstance(event, Abort)}


class Cheat:
    """What a coordinator needs to cheat a fleet: a job, and the roster that its workers accepted."""

    def __init__(self, fleet: Fleet) -> None:
        federation = fleet.federation
        self.fleet, self.members = fleet, federation._members
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        local = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5))
        self.job: Job = prepare(
            model, LOSS, dataset="toy", purpose="", rounds=1, seed=0, local=local, quorum=None,
            deadline_seconds=PATIENCE_SECONDS, worker_metrics=(), announced=federation._announced(),
        )  # fmt: skip  # one line of terms
        self.model = model_tensors(model, self.job.training)
        self.how = fleet.secure()
        self.roster = federation._rounds._roster(self.how).roster
        self.coordinator = Coordinator(self.job, self.members, FedAvg(), SystemClock())
        self.numbering = Numbering(SystemClock())

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
        self, alter: Alter = honest, alter_order: AlterOrder = as_is, **changes: object
    ) -> tuple[Cheating, Summed]:
        """Play a round in which `alter` changes messages, `alter_order` orders and `changes` everybody's descriptor."""
        order = self.order()

        def order_for(worker: WorkerName, invite: Invite) -> Train:
            return alter_order(worker, replace(order, invite=invite))

        async def ready(worker: WorkerName):
            return await self.coordinator._ready(worker, self.job.training)

        cheating = Cheating(
            self.how, self.roster, self.descriptor(order, **changes), ready, order_for, SystemClock(), alter=alter
        )
        return cheating, runtime.run(cheating.run(list(self.members.connected)))

    def ask_one(self, worker: str, order: Train) -> list[object]:
        """Send one worker an order with an invitation, and return what it says within a moment of its first word."""
        heard: list[object] = []

        async def asked() -> None:
            connection = await self.coordinator._ready(WorkerName(worker), self.job.training)
            first = asyncio.Event()

            def hear(event: object) -> None:
                heard.append(event)
                first.set()

            leave = await connection.invite(order, hear)
            await asyncio.wait_for(first.wait(), PATIENCE_SECONDS)
            leave()

        runtime.run(asked())
        return heard
