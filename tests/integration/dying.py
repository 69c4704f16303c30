"""The other side of `killing`: starts workers that die, and holds what arrived from them to their ledgers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from killing import NAME, datasets
from torch import nn

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import PeerLost
from fedpriv.ids import DatasetName, JobId
from fedpriv.ledger.entries import Entry, chunk_digests, message_digest
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import Plan
from fedpriv.plans.tracing import trace_training
from fedpriv.remote.connection import Connection
from fedpriv.sealed import Envelope
from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.link import OpenLink
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv.wire.framing import envelope_bytes
from fedpriv.wire.messages import CloseRound, OfferPlan, Reply, Train
from fedpriv_coordinator.job import model_tensors
from fedpriv_worker.journal import Journal

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Work:
    """A model and its plan: what rounds of it ask for."""

    plan: Plan
    model: TensorSet = field(repr=False)

    def order(self, dataset: str = "ruled", number: int = 1) -> Train:
        return Train(
            request=0, job=JobId("job"), round=number, dataset=DatasetName(dataset), plan=self.plan.digest, epochs=1,
            batch_size=16, shuffle=True, drop_last=False, seed=number, hyperparameters={"lr": 0.1}, metrics=(),
            purpose="", model=self.model,
        )  # fmt: skip  # one line of fields


def work(width: int) -> Work:
    """Return a model of `width` hidden values; from 50000 its update is larger than what a worker keeps on disk."""
    from fedpriv.learning.local import SGD

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1), nn.Flatten(0))
    (example,) = {each.describe().target_dtype for each in datasets()}
    features, target = TensorExample("float32", (4,)), TensorExample(example, ())
    plan = trace_training(model, F.binary_cross_entropy_with_logits, SGD(lr=0.1), features, target)
    return Work(plan, model_tensors(model, plan))


class Nursery:
    """The process that forks workers; `start` and `ended` are for one thread at a time."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("killing.py"))]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip  # one line of a process
        assert self.heard() == {"ready": True}

    def start(self, **order: object) -> dict[str, Any]:
        """Fork a child and return what it says of itself once it is up."""
        return self._told(order)

    def _told(self, order: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(order, default=str)}\n")
        self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def ended(self, pid: int) -> int:
        """Wait for the child of this number to end and return its exit status."""
        return int(self._told({"task": "wait", "pid": pid})["ended"])

    def close(self) -> None:
        """End the nursery and whatever it forked, also after a test that failed half-way."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=30)


class Peer:
    """A coordinator that remembers every envelope that reached it in full."""

    def __init__(self, credentials: Credentials) -> None:
        self.received: list[tuple[str, Envelope]] = []
        self._credentials = credentials

    def record(self, peer: str, kind: str, envelope: Envelope) -> None:
        self.received.append((kind, envelope))

    @property
    def updates(self) -> list[Envelope]:
        return [envelope for kind, envelope in self.received if kind == "update"]

    def dial(self, address: str) -> Connection:
        async def attach() -> Connection:
            link = OpenLink(await dial(address, self._credentials))
            connection = await Connection.open(link, Side.DIALER, self._credentials, name=NAME)
            connection.record_with(self)
            return connection

        return runtime.run(attach())


@dataclass(slots=True)
class Mortal:
    """One worker on one state folder, alive or dead, and the peer that asks it."""

    nursery: Nursery
    state: Path
    credentials: Path
    peer: Peer
    _connection: Connection | None = None
    _pid: int = 0

    def wake(self, step: str | None = None, at: int = 1) -> None:
        """Start the worker, to be killed the n-th time that it reaches `step`; connect to it."""
        self.state.mkdir(exist_ok=True)
        said = self.nursery.start(task="serve", state=self.state, credentials=self.credentials, step=step, at=at)
        self._pid = said["pid"]
        self._connection = self.peer.dial(said["address"])

    def ask(self, ordered: Work, order: Train) -> Reply:
        """Offer the plan and ask for one update; raise `PeerLost` or `WorkerRefused`."""
        connection = self._open
        runtime.run(connection.ask(OfferPlan(0, ordered.plan), timeout_seconds=ANSWER_SECONDS))
        return runtime.run(connection.ask(order, timeout_seconds=ANSWER_SECONDS))

    def acknowledge(self, ordered: Work, order: Train) -> None:
        """Say that the round is saved, and wait until the worker knows."""
        runtime.run(self._open.tell(CloseRound(order.job, order.round)))
        runtime.run(self._open.ask(OfferPlan(0, ordered.plan), timeout_seconds=ANSWER_SECONDS))

    def live_a_round(self, ordered: Work, order: Train) -> None:
        """Have an update made and acknowledge it, up to wherever the worker dies."""
        try:
            self.ask(ordered, order)
            runtime.run(self._open.tell(CloseRound(order.job, order.round)))
            runtime.run(asyncio.wait_for(self._open.ended(), ANSWER_SECONDS))
        except PeerLost:
            pass
        self.dies()

    def dies(self) -> None:
        """Wait for the kill."""
        assert self.nursery.ended(self._pid) == -signal.SIGKILL
        runtime.run(self._open.close())
        self._connection = None

    def sleep(self) -> None:
        """Stop the worker in order."""
        runtime.run(self._open.close())
        os.kill(self._pid, signal.SIGTERM)
        assert self.nursery.ended(self._pid) == 0
        self._connection = None

    def journal(self) -> Journal:
        """Return the worker's own journal, recovered here: its process must have ended."""
        return Journal.open(self.state, worker=NAME, clock=SystemClock(), entropy=SystemEntropy())

    @property
    def _open(self) -> Connection:
        assert self._connection is not None
        return self._connection


def agreed(mortal: Mortal) -> list[Entry]:
    """Verify the ledger as the kill left it and as it is after recovery; hold every envelope received to its entry."""
    folder = mortal.state / "ledger"
    if (folder / "checkpoint").exists():
        verify_ledger(folder, key=None)
    journal = mortal.journal()
    entries = list(journal.entries())
    vkey = journal.vkey
    journal.close()
    assert verify_ledger(folder, key=vkey).signed == len(entries)
    for kind, envelope in mortal.peer.received:
        entry = entries[envelope.entry]
        chunks = chunk_digests(list(envelope.payload))
        digest = message_digest(envelope.entry_key, envelope.header, chunks, envelope.payload_bytes)
        assert (entry.draft.kind, entry.digest) == (kind, digest.hex())
        assert entry.draft.bytes == envelope_bytes(envelope)
    return entries


def contents(envelope: Envelope) -> tuple[bytes, bytes]:
    """Return header and payload of `envelope`, without the entry that it travelled under."""
    return envelope.header, b"".join(envelope.payload)


def renumbered(order: Train, number: int) -> Train:
    """Return the same order for another round."""
    return replace(order, round=number, seed=number)
