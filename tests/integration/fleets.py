"""The same workers behind two transports: in memory, and over gRPC with mutual TLS on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

import fedpriv as fp
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import SignedRoster, new_identity
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.link import RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Role
from fedpriv_coordinator.federation import Federation
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.enrolment import Enrolment, OwnerTerms
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.steps import Step
from fedpriv_worker.worker import Worker, serve_quietly

RESEARCHER = "me"
TERMS = OwnerTerms()
PHASES = ("advertise", "shares", "masked", "confirm", "unmask")


class Dies:
    """Ends a worker's link as it is about to send the message of a phase: it was recorded, and never arrives."""

    def __init__(self, phase: str) -> None:
        self._left = PHASES.index(phase)

    def __call__(self, step: Step) -> None:
        if step is Step.SEND:
            self._left -= 1
            if self._left < 0:
                raise fp.PeerLost("killed by the test")


@dataclass
class Fleet:
    """Workers and the federation that drives them, whatever lies between."""

    federation: Federation
    journals: dict[str, Journal]
    workers: dict[str, Worker]
    roster: SignedRoster | None = None  # virtual workers get one of their process
    closing: list[Callable[[], None]] = field(default_factory=list)

    def kinds(self, worker: str) -> list[str]:
        return [entry.draft.kind for entry in self.journals[worker].entries()]

    def ledger_bytes(self, worker: str) -> int:
        return sum(entry.draft.bytes for entry in self.journals[worker].entries())

    def secure(self, **options: object) -> fp.SecureAggregation:
        return fp.SecureAggregation(roster=self.roster, **options)

    def close(self) -> None:
        for each in reversed(self.closing):
            each()
        self.closing.clear()


class MakeFleet(Protocol):
    """Makes a fleet of workers that hold these data sets, on whose owners' `terms`."""

    def __call__(self, held: dict[str, Sequence[Dataset]], terms: OwnerTerms = TERMS) -> Fleet: ...


def enrolled(names: Iterable[str], terms: OwnerTerms = TERMS) -> tuple[SignedRoster, dict[str, Enrolment]]:
    """Return a roster of `names` by an administrator of this call, and what each of them takes part with."""
    identities = {name: new_identity(SystemEntropy()) for name in sorted(names)}
    members = tuple(Member(WorkerName(name), each.public) for name, each in identities.items())
    signed = SignedRoster.sign(Roster("clinics", 1, members), new_identity(SystemEntropy()))
    return signed, {name: Enrolment(each, lambda: signed.roster, terms) for name, each in identities.items()}


def make_worker(
    name: str, datasets: Sequence[Dataset], credentials: fp.Credentials, enrolment: Enrolment | None = None
) -> tuple[Worker, Journal]:
    journal = Journal.in_memory(worker=WorkerName(name), clock=SystemClock(), entropy=SystemEntropy())
    executor = InProcessExecutor(datasets)
    worker = Worker(
        WorkerName(name), datasets, executor=executor, journal=journal, credentials=credentials, enrolment=enrolment
    )  # fmt: skip  # one line of parts
    return worker, journal


def virtual_fleet(held: dict[str, Sequence[Dataset]], tmp_path: Path, terms: OwnerTerms = TERMS) -> Fleet:
    workers = {name: fp.VirtualWorker(name, datasets, terms=terms) for name, datasets in held.items()}
    federation = fp.Federation(list(workers.values()), name=RESEARCHER)
    journals = {name: worker._journal for name, worker in workers.items()}
    fleet = Fleet(federation, journals, {name: worker._worker for name, worker in workers.items()})
    fleet.closing = [*(worker.close for worker in workers.values()), federation.close]
    return fleet


def listening_fleet(held: dict[str, Sequence[Dataset]], tmp_path: Path, terms: OwnerTerms = TERMS) -> Fleet:
    """Workers that listen; the researcher dials in."""
    authority = Authority.create()
    authority.issue(RESEARCHER, Role.RESEARCHER).save(tmp_path / "researcher")
    fleet_closing: list[Callable[[], None]] = []
    signed, enrolments = enrolled(held, terms)
    journals, workers, remote = {}, {}, []
    for name, datasets in held.items():
        credentials = authority.issue(name, Role.WORKER)
        worker, journals[name] = make_worker(name, datasets, credentials, enrolments[name])
        workers[name] = worker

        async def attach(raw: RawLink, worker: Worker = worker) -> None:
            await serve_quietly(worker, raw, Side.LISTENER)

        listener = Listener("127.0.0.1:0", credentials, attach)
        runtime.run(listener.start())
        fleet_closing += [
            lambda worker=worker: runtime.run(worker.close()),
            lambda each=listener: runtime.run(each.close()),
        ]
        remote.append(fp.connect(listener.address, credentials=fp.Credentials.load(tmp_path / "researcher")))
    federation = fp.Federation(remote)
    return Fleet(federation, journals, workers, signed, [*fleet_closing, federation.close])


def dialling_fleet(held: dict[str, Sequence[Dataset]], tmp_path: Path, terms: OwnerTerms = TERMS) -> Fleet:
    """Workers that dial out to a coordinator that listens."""
    authority = Authority.create()
    closing: list[Callable[[], None]] = []
    journals: dict[str, Journal] = {}
    workers: dict[str, Worker] = {}
    signed, enrolments = enrolled(held, terms)

    def start(address: str) -> None:
        for name, datasets in held.items():
            credentials = authority.issue(name, Role.WORKER)
            worker, journals[name] = make_worker(name, datasets, credentials, enrolments[name])
            workers[name] = worker
            raw = runtime.run(dial(address, credentials))
            serving = runtime.start(serve_quietly(worker, raw, Side.DIALER))
            closing.extend([serving.result, lambda worker=worker: runtime.run(worker.close())])

    credentials = authority.issue(RESEARCHER, Role.COORDINATOR)
    federation = fp.Federation.listen("127.0.0.1:0", credentials=credentials, workers=list(held), on_listening=start)
    return Fleet(federation, journals, workers, signed, [*closing, federation.close])


def toy(
    rows: int, *, seed: int = 0, release: Sequence[object] = (), validation: float = 0.0, name: str = "toy"
) -> Dataset:
    """Rows whose class is the sign of a fixed direction, as float target."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 4, generator=generator)
    target = features @ torch.tensor([1.0, -2.0, 0.5, 0.0]) > 0
    return Dataset(name, features, target, release=release, validation=validation)
