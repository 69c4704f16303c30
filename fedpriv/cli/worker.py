"""`fedpriv worker init` and `fedpriv worker start`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import torch

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.policy.rules import in_words
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial_with_retry
from fedpriv.transport.hello import Side
from fedpriv.transport.link import RawLink
from fedpriv.transport.listen import Listener
from fedpriv.wire.messages import Role
from fedpriv_worker.config import WorkerConfig, load_config
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.loading import check
from fedpriv_worker.template import write_template
from fedpriv_worker.worker import Worker, serve_quietly

SETTLED_SECONDS = 5.0
"""A link that lasted so long starts the pauses between attempts from the shortest again."""


def init(folder: Path, name: str | None) -> None:
    """Write a commented worker.toml into `folder` and say what to do next."""
    path = write_template(folder, name) if name else write_template(folder)
    sys.stdout.write(f"{path}\n")
    _say(f"next: fill in {path}, then fedpriv worker start --config {path}")


def start(config: Path) -> None:
    """Run a worker until SIGTERM or Ctrl-C; bad input raises before anything is written."""
    settings = load_config(config)
    datasets = check(settings)
    tls = settings.tls
    credentials = Credentials.from_files(
        ca=tls.ca, certificate=tls.certificate, key=tls.key, name=settings.worker.name, role=Role.WORKER
    )
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if settings.worker.threads is not None:
        torch.set_num_threads(settings.worker.threads)
    asyncio.run(_run(settings, datasets, credentials))


async def _run(settings: WorkerConfig, datasets: tuple[Dataset, ...], credentials: Credentials) -> None:
    name = WorkerName(settings.worker.name)
    journal = Journal.open(settings.worker.state, worker=name, clock=SystemClock(), entropy=SystemEntropy())
    worker = Worker(name, datasets, executor=InProcessExecutor(datasets), journal=journal, credentials=credentials)
    _describe(name, datasets)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(
        _dial(worker, settings, credentials) if settings.dial else _listen(worker, settings, credentials)
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (serving, stopping):
            if not task.done():
                task.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await serving
            finally:
                await worker.close()
    _say(f"worker {name} stopped; its ledger is published in {settings.worker.state / 'ledger'}")


async def _dial(worker: Worker, settings: WorkerConfig, credentials: Credentials) -> None:
    """Keep one outbound stream to the coordinator, for ever."""
    assert settings.dial is not None
    while True:
        raw = await dial_with_retry(settings.dial.address, credentials, on_wait=_waiting)
        _say(f"connected to {settings.dial.address}")
        await serve_quietly(worker, raw, Side.DIALER)
        _say("the link ended; dialling again")


async def _listen(worker: Worker, settings: WorkerConfig, credentials: Credentials) -> None:
    """Accept streams from coordinators and researchers, for ever."""
    assert settings.listen is not None

    async def attach(raw: RawLink) -> None:
        await serve_quietly(worker, raw, Side.LISTENER)

    async with Listener(settings.listen.address, credentials, attach) as listener:
        _say(f"listening on {listener.address}")
        await asyncio.Event().wait()


def _describe(name: WorkerName, datasets: tuple[Dataset, ...]) -> None:
    """Say in words what this worker will let out, before it lets anything out."""
    for dataset in datasets:
        _say(f"{name}: data set {dataset.name}, {len(dataset)} rows stay here")
        for rule in dataset.release:
            _say(f"  {in_words(rule)}")
        if not dataset.release:
            _say("  no rule is active: nothing but its announcement leaves")


def _waiting(attempt: int, seconds: float, reason: str) -> None:
    _say(f"attempt {attempt}: {reason}; trying again in {seconds:.1f} s")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
