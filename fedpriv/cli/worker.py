"""`fedpriv worker init` and `fedpriv worker start`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from shlex import quote

import torch

from fedpriv.cli.logs import configure, say
from fedpriv.cli.watching import watched
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.policy.rules import in_words
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.dial import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_REST_SECONDS,
    dial_with_retry,
    drawn_pause,
)
from fedpriv.transport.hello import Side
from fedpriv.transport.link import RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.renewal import Renewal, keep_fresh
from fedpriv.transport.rotation import CredentialFiles, CredentialPaths
from fedpriv.wire.messages import Role
from fedpriv_worker import control
from fedpriv_worker.config import WorkerConfig, load_config
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.desk import Desk
from fedpriv_worker.enrolment import Enrolment
from fedpriv_worker.executor import InProcessExecutor, Programs
from fedpriv_worker.holdings import holding_of
from fedpriv_worker.journal import Journal
from fedpriv_worker.loading import check
from fedpriv_worker.payloads import Recorder
from fedpriv_worker.quotas import quota_of
from fedpriv_worker.rosters import AcceptedRoster, own_identity
from fedpriv_worker.template import write_template
from fedpriv_worker.worker import Meeting, Worker, serve_quietly

DRAIN_SECONDS = 60.0
"""What was begun when a worker is told to stop may take so long to end."""
SETTLED_SECONDS = 5.0
"""A link that lasted so long starts the pauses between attempts from the shortest again."""


def init(folder: Path, name: str | None) -> None:
    """Write a commented worker.toml into `folder` and say what to do next."""
    path = write_template(folder, name) if name else write_template(folder)
    sys.stdout.write(f"{path}\n")
    say(f"next: fill in {path}, then fedpriv worker start --config {quote(str(path))}")


def start(config: Path) -> None:
    """Run a worker until SIGTERM or Ctrl-C; bad input raises before anything is written."""
    settings = load_config(config)
    if not settings.datasets:
        raise UsageError(f"no data set yet: add one to {config}, under [[dataset]]")
    if settings.worker.device != "cpu":
        raise UsageError(
            f"{config}: [worker] device is {settings.worker.device!r}, but this version computes on the cpu alone; "
            'write device = "cpu" or remove the line'
        )
    datasets = check(settings)
    tls = settings.tls
    paths = CredentialPaths(tls.ca, tls.certificate, tls.key)
    credentials = CredentialFiles(paths, name=settings.worker.name, role=Role.WORKER)
    configure(as_json=False)
    if settings.worker.threads is not None:
        torch.set_num_threads(settings.worker.threads)
    asyncio.run(_run(settings, datasets, credentials))


async def _run(settings: WorkerConfig, datasets: tuple[Dataset, ...], credentials: CredentialFiles) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        streams = Streams()
        if settings.listen is not None:  # a port in use is found before anything is written
            listener = await stack.enter_async_context(Listener(settings.listen.address, credentials, streams.attach))
            say(f"listening on {listener.address}")
        name = WorkerName(settings.worker.name)
        journal = Journal.open(settings.worker.state, worker=name, clock=SystemClock(), entropy=SystemEntropy())
        quota = quota_of(settings.limits)
        worker = Worker(
            name, datasets, executor=InProcessExecutor(datasets, Programs(quota.each)), journal=journal,
            credentials=credentials, witnesses=settings.witnesses, quota=quota, enrolment=_enrolment(settings, journal),
            recorder=Recorder(settings.worker.state, name, datasets) if settings.worker.record_payloads else None,
        )  # fmt: skip  # one line of parts
        stack.push_async_callback(worker.close)
        desk = Desk(name, tuple(map(holding_of, datasets)), journal)
        await stack.enter_async_context(control.serve(settings.worker.state, desk))
        _describe(name, datasets)
        _remind(desk)
        address = None if settings.dial is None else settings.dial.address
        await stack.enter_async_context(
            watched(
                settings.operations,
                settings.worker.state,
                credentials,
                lambda: worker.publisher.begun and not worker.draining.is_set(),
            )
        )
        if settings.tls.registrar is not None:
            renewal = Renewal(credentials, settings.tls.registrar, SystemClock())
            await stack.enter_async_context(_running(keep_fresh(renewal)))
        await _until(stop, _serve(worker, streams, address, credentials), partial(_drained, worker))
    say(f"worker {name} stopped; its ledger is published in {settings.worker.state / 'ledger'}")


def _enrolment(settings: WorkerConfig, journal: Journal) -> Enrolment | None:
    """Return what the worker takes part in sums with; None where its owner pinned no administrator."""
    section, state = settings.secure_aggregation, settings.worker.state
    if section is None:
        return None
    accepted = AcceptedRoster(state, section.administrator)
    identity = own_identity(state, SystemEntropy())
    if accepted.signed() is None:
        say("no roster was accepted yet, so this worker takes part in no sums: fedpriv worker roster accept FILE")
    return Enrolment(identity, lambda: accepted.current(journal.rows.raise_to), section.terms)


class Streams:
    """Streams that others open: those that come before the worker is ready wait for it."""

    def __init__(self) -> None:
        self._worker: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

    def open_to(self, worker: Worker) -> None:
        """Let streams through to `worker`."""
        self._worker.set_result(worker)

    async def attach(self, raw: RawLink) -> None:
        """Serve one stream until it ends."""
        await serve_quietly(await self._worker, raw, Side.LISTENER)

    async def forever(self) -> None:
        """Wait; the listener does the work."""
        await asyncio.Event().wait()


async def _serve(worker: Worker, streams: Streams, address: str | None, credentials: CredentialsSource) -> None:
    """Serve once the ledger is published: a witness that holds more than we have speaks up before anything leaves."""
    await worker.publisher.begin()
    streams.open_to(worker)
    await (streams.forever() if address is None else _dial(worker, address, credentials))


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do `work` beside the rest, until that is over."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(
    stop: asyncio.Event, serving: Coroutine[None, None, None], drain: Callable[[asyncio.Event], Awaitable[None]]
) -> None:
    """Run `serving` until it fails or `stop` is set; then `drain` first, until that is done or `stop` is set again."""
    running, stopping = asyncio.create_task(serving), asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done() and not running.done():
        stop.clear()
        await drain(stop)
    for task in (running, stopping):
        task.cancel()
    (ended, _) = await asyncio.gather(running, stopping, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _drained(worker: Worker, again: asyncio.Event) -> None:
    """See through what was begun, for so long at most; a second signal ends that at once."""
    say(f"stopping: no new orders; what was begun has {DRAIN_SECONDS:g} s to end (once more to stop at once)")
    draining, hurried = asyncio.create_task(worker.drain(DRAIN_SECONDS)), asyncio.create_task(again.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not (draining.done() and draining.result()):
        say("stopping at once: what is under way is given up")
    for task in (draining, hurried):
        task.cancel()
    await asyncio.gather(draining, hurried, return_exceptions=True)


async def _dial(worker: Worker, address: str, credentials: CredentialsSource) -> None:
    """Keep one outbound stream to the coordinator, for ever; links that end at once are tried ever more rarely."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    while not worker.draining.is_set():
        raw = await dial_with_retry(address, credentials, on_wait=_waiting)
        say(f"connected to {address}")
        began, meeting = loop.time(), Meeting()
        await serve_quietly(worker, raw, Side.DIALER, meeting)
        longest = LONGEST_PAUSE_SECONDS if meeting.began and not meeting.turned_away else LONGEST_REST_SECONDS
        pause = FIRST_PAUSE_SECONDS if loop.time() - began > SETTLED_SECONDS else min(2 * pause, longest)
        if worker.draining.is_set():
            return
        seconds = drawn_pause(pause)
        say(f"the link ended; dialling again in {seconds:.1f} s")
        await asyncio.sleep(seconds)


def _describe(name: WorkerName, datasets: tuple[Dataset, ...]) -> None:
    """Say in words what this worker will let out, before it lets anything out."""
    for dataset in datasets:
        say(f"{name}: data set {dataset.name}, {len(dataset)} rows stay here")
        for rule in dataset.release:
            say(f"  {in_words(rule)}")
        if not dataset.release:
            say("  no rule is active: nothing but its announcement leaves")


def _remind(desk: Desk) -> None:
    """Say how many requests wait for the owner."""
    waiting = desk.status()["waiting"]
    if waiting:
        say(f"{waiting} {'request waits' if waiting == 1 else 'requests wait'} for you: fedpriv worker requests")


def _waiting(attempt: int, seconds: float, reason: str) -> None:
    say(f"attempt {attempt}: {reason}; trying again in {seconds:.1f} s")
