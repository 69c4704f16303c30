"""A nursery of workers that die on command: imports once, then forks a child for every line of orders.

    {"task": "serve" or "spend", "state": folder, ...}  ->  {"pid": ..., "address": ...}
    {"task": "start", "config": worker.toml}            ->  the same, of what `fedpriv worker start` runs
    {"task": "run", "job": job.toml, "resume": folder}  ->  the same, of what `fedpriv run` runs
    {"task": "wait", "pid": ...}                        ->  {"ended": exit status}

A child is a whole process with its own files, sockets and threads. One that serves or spends ends by SIGKILL at the
n-th time that the named step is reached, or at the n-th step of any name; one that was started, when somebody kills it.
The nursery itself opens no socket and starts no thread, so that
forking it is safe. Its parent is `dying`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dying_coordinators
import torch

import fedpriv as fp
from fedpriv.cli import worker as command
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import DatasetName, JobId, PeerName, WorkerName
from fedpriv.ledger.entries import Draft
from fedpriv.plans.plan import Plan
from fedpriv.privacy.budget import ORDERS, Budget, Cost
from fedpriv.privacy.reservations import Reservation
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side
from fedpriv.transport.link import RawLink
from fedpriv.transport.listen import Listener
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import OfferPlan
from fedpriv_worker.actions import (
    Outcome,
    Trained,
)
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import Order
from fedpriv_worker.recording import Settlement
from fedpriv_worker.steps import Step
from fedpriv_worker.worker import Worker, serve_quietly

NAME = WorkerName("alice")
COORDINATOR = "me"
RULE = fp.PlainUpdate(recipients=(COORDINATOR,), rounds_per_day=1000)
APPROVAL = fp.Approval(recipients=(COORDINATOR,))
UNIT = 1 / 1024
"""What losses are multiples of, so that their sums are exact."""
PLENTY = Budget(epsilon=1e9, delta=1e-5)
PURSE = DatasetName("purse")
SPENDERS = 3


def datasets() -> tuple[Dataset, ...]:
    """Return the same rows twice: behind a rule with a limit, and behind an approval."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(32, 4, generator=generator)
    target = features[:, 0] > 0
    return (
        Dataset("ruled", features, target, release=[RULE]),
        Dataset("approved", features, target, release=[APPROVAL]),
    )


class Fate:
    """Ends this process by SIGKILL when a step is reached for the n-th time; safe in any thread."""

    def __init__(self, step: str | None, at: int) -> None:
        self._step, self._left = step, at
        self._lock = threading.Lock()

    def __call__(self, step: Step) -> None:
        if self._step not in ("any", step.value):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class NoisyExecutor(InProcessExecutor):
    """Adds fresh noise to every update, as a private mechanism does: one that were made twice would differ."""

    def carry_out(
        self, request: OfferPlan | Order, plan: Plan | None, stopped: Callable[[], bool], peer: str
    ) -> Outcome:
        outcome = super().carry_out(request, plan, stopped, peer)
        if not isinstance(outcome, Trained):
            return outcome
        fresh = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
        noisy = {name: tensor + torch.randn(tensor.shape, generator=fresh) for name, tensor in outcome.delta}
        return Trained(outcome.rows, outcome.metrics, TensorSet(noisy))


def opened(order: dict[str, Any], fate: Fate) -> Journal:
    return Journal.open(
        Path(order["state"]), worker=NAME, clock=SystemClock(), entropy=SystemEntropy(), reached=fate
    )  # fmt: skip  # one line of parts


async def serve(order: dict[str, Any], fate: Fate) -> None:
    """Be a worker over gRPC with mutual TLS until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    credentials, held = Credentials.load(order["credentials"]), datasets()
    journal = opened(order, fate)
    worker = Worker(
        NAME, held, executor=NoisyExecutor(held), journal=journal, credentials=credentials, reached=fate
    )  # fmt: skip  # one line of parts

    async def attach(raw: RawLink) -> None:
        await serve_quietly(worker, raw, Side.LISTENER)

    async with Listener("127.0.0.1:0", credentials, attach) as listener:
        say(pid=os.getpid(), address=listener.address)
        await stop.wait()
        await worker.close()


def spend(order: dict[str, Any], fate: Fate) -> None:
    """Reserve, cancel, forfeit, record and acknowledge random losses in several threads; every step is noted first."""
    journal = opened(order, fate)
    notes = os.open(order["notes"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str, number: int, units: int) -> None:
        os.write(notes, f"{what} {number} {units}\n".encode())
        os.fsync(notes)

    threads = [
        threading.Thread(target=spend_some, args=(journal, random.Random(f"{order['seed']}/{at}"), at, note))
        for at in range(SPENDERS)
    ]
    say(pid=os.getpid(), address="")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.kill(os.getpid(), signal.SIGKILL)


def spend_some(journal: Journal, chance: random.Random, thread: int, note: Any) -> None:
    draft = Draft(peer=COORDINATOR, method="Attach", kind="update", bytes=7)
    for at in range(6):
        number, units = thread * 1000 + at, chance.randrange(1 << 20)
        cost = Cost("test", "{}", "add-or-remove-one", (units * UNIT,) * len(ORDERS))
        release = number.to_bytes(32, "big")
        reservation = Reservation(release, PURSE, PeerName(COORDINATOR), "", JobId("j"), number, (), cost, PLENTY)
        note("reserving", number, units)
        held = journal.reserve(reservation)
        note("reserved", number, units)
        match chance.choice(("send", "send", "send", "cancel", "forfeit", "leave")):
            case "send":
                settles = Settlement(held, keep=chance.random() < 0.5)
                receipt = journal.append(draft, b"header", [memoryview(b"payload")], settles=settles)
                note("sent", number, receipt.seq)
                if chance.random() < 0.5:
                    journal.acknowledge(PeerName(COORDINATOR), JobId("j"), number)
            case "cancel":
                note("cancelling", number, units)
                journal.holds.cancel(held)
                note("cancelled", number, units)
            case "forfeit":
                journal.holds.forfeit(held)
        if chance.random() < 0.2:
            journal.publish()


def say(**said: object) -> None:
    """Write one line to the parent, whole."""
    os.write(1, f"{json.dumps(said)}\n".encode())


def live(order: dict[str, Any]) -> None:
    """Do what a child is forked for."""
    fate = Fate(order.get("step"), order.get("at", 1))
    match order["task"]:
        case "spend":
            spend(order, fate)
        case "serve":
            asyncio.run(serve(order, fate))
        case "start":
            start(Path(order["config"]))
        case "run":
            resume = order.get("resume")
            dying_coordinators.run(
                Path(order["job"]), Path(resume) if resume else None, order.get("step"), order.get("at", 1), say
            )


def start(config: Path) -> None:
    """Be the worker of `config`, as `fedpriv worker start` runs it, until SIGTERM; its words go beside the file."""
    os.dup2(os.open(config.with_name("worker.log"), os.O_WRONLY | os.O_CREAT), 2)
    say(pid=os.getpid(), address="")
    command.start(config)


def main() -> None:
    torch.set_num_threads(1)
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["task"] == "wait":
            say(ended=os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1]))
        elif os.fork() == 0:
            code = 1
            try:
                live(order)
                code = 0
            except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
            finally:
                os._exit(code)


if __name__ == "__main__":
    main()
