"""Workers behind pointers, in this process and behind gRPC, as their researcher and as their owner see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import torch
from fleets import RESEARCHER, make_worker

import fedpriv as fp
from fedpriv.ids import PeerName
from fedpriv.remote.connection import Connection
from fedpriv.remote.holder import Holder
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.link import OpenLink, RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Role
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.desk import Desk
from fedpriv_worker.holdings import holding_of
from fedpriv_worker.journal import Journal
from fedpriv_worker.worker import Worker, serve_quietly


@dataclass
class Site:
    """A worker as its researcher reaches it, and as its owner sees it."""

    pointed: Holder
    worker: Worker
    journal: Journal
    datasets: Sequence[Dataset]
    connect: Callable[[], Awaitable[Connection]]
    """Opens one more connection, on the loop's thread."""
    closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def desk(self) -> Desk:
        return Desk(self.worker.name, [holding_of(each) for each in self.datasets], self.journal)

    def close(self) -> None:
        for each in self.closing:
            each()


MakeSite = Callable[..., Site]


def rows(seed: int = 0, **options: object) -> Dataset:
    """Forty rows that an owner may approve releases of."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 4, generator=generator)
    given: dict[str, object] = {"release": [fp.Approval(recipients=(RESEARCHER,))], "tags": ("#toy", "#rows")} | options
    return Dataset("toy", features, features[:, 0] > 0, **given)


def virtual_site(datasets: Sequence[Dataset], name: str) -> Site:
    bob = fp.VirtualWorker(name, datasets)
    return Site(bob, bob._worker, bob._journal, datasets, lambda: bob.reach(PeerName(RESEARCHER)), [bob.close])


def listening_site(datasets: Sequence[Dataset], name: str) -> Site:
    authority = Authority.create()
    credentials, researcher = authority.issue(name, Role.WORKER), authority.issue(RESEARCHER, Role.RESEARCHER)
    worker, journal = make_worker(name, datasets, credentials)

    async def attach(raw: RawLink) -> None:
        await serve_quietly(worker, raw, Side.LISTENER)

    async def connected() -> Connection:
        raw = await dial(listener.address, researcher)
        return await Connection.open(OpenLink(raw), Side.DIALER, researcher)

    listener = Listener("127.0.0.1:0", credentials, attach)
    runtime.run(listener.start())
    bob = fp.connect(listener.address, credentials=researcher)
    closing = [bob.close, lambda: runtime.run(worker.close()), lambda: runtime.run(listener.close())]
    return Site(bob, worker, journal, datasets, connected, closing)
