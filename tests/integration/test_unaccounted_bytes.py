"""What a worker's ledger records is what leaves its machine: counted beneath its link, and once more on the wire.

Whatever a link hands to gRPC must stand in the ledger to the byte. What TCP carries may be more only by what framing
explains; a proxy that counts it also sees what passes no link, but nothing smaller than that allowance. Each of the
checks is shown to fail when it should.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from counting_proxy import CountingProxy
from fleets import RESEARCHER, enrolled, make_worker, toy
from torch import nn

import fedpriv as fp
from fedpriv.ledger.entries import Entry
from fedpriv.sealed import Envelope
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv.transport.stream import StreamLink
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import encode
from fedpriv.wire.framing import envelope_bytes, frames
from fedpriv.wire.messages import Role, Statistics
from fedpriv_worker.enrolment import Enrolment
from fedpriv_worker.worker import serve_quietly

FRAMING_PERCENT = 5
"""Most that framing adds to a long message; measured: 0.2 %, mostly TLS's 22 bytes for each record of 16 KiB."""
FRAMING_BYTES_PER_MESSAGE = 300
"""Most that framing adds to a short message; measured: 80. gRPC's prefix has 5 bytes, HTTP/2's frame 9, TLS's record
22; what came in the other direction is owed window updates and answers to pings, 35 to 39 each, 600 for 32 MiB."""
HANDSHAKE_BYTES = 5_000
"""Most that one end of a TCP connection says beside messages: TLS 1.3's hello, the certificate with its proof, a
listener's two session tickets with the dialer's certificate in each, HTTP/2's preface and settings, and the headers of
one call. Measured: 2.7 kB by who dials, 3.8 kB by who listens."""

NOBODY_ASKED = 1 << 40
"""A request that is not under way: whoever gets the answer drops it and goes on."""
CLOSE_SECONDS = 10.0
NAMES = ("alice", "bob", "carol")
ROSTER, ENROLMENTS = enrolled(NAMES)
OPEN = (
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Statistics(recipients=(RESEARCHER,)),
    fp.Metrics(recipients=(RESEARCHER,)),
    fp.SecureSum(),
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one worker recorded, what its link handed to gRPC, and what TCP carried from its end of the connections."""

    entries: tuple[Entry, ...]
    written_bytes: int
    wire_bytes: int
    connections: int

    @property
    def recorded_bytes(self) -> int:
        return sum(entry.draft.bytes for entry in self.entries)

    @property
    def unaccounted_bytes(self) -> int:
        """What left beyond the ledger, by the link; negative where the ledger says more than left."""
        return self.written_bytes - self.recorded_bytes

    @property
    def unexplained_bytes(self) -> int:
        """What left beyond the ledger, by the wire, and beyond what framing explains."""
        framing = self.recorded_bytes * FRAMING_PERCENT // 100 + len(self.entries) * FRAMING_BYTES_PER_MESSAGE
        return max(0, self.wire_bytes - self.recorded_bytes - framing - self.connections * HANDSHAKE_BYTES)


class Watched:
    """A worker whose link is counted where it hands frames to gRPC, and whose connections pass a counting proxy."""

    def __init__(self, authority: Authority, name: str, side: Side, enrolment: Enrolment) -> None:
        self.name, self.side = name, side
        self.credentials = authority.issue(name, Role.WORKER)
        data = toy(64, release=OPEN, validation=0.25)
        self.worker, self.journal = make_worker(name, [data], self.credentials, enrolment)
        self.proxy: CountingProxy | None = None
        self.link: StreamLink | None = None
        self.written_bytes = 0
        self.entries: tuple[Entry, ...] = ()

    def put_behind_proxy(self, target: str) -> str:
        """Return the address that leads to `target`, a port of the coordinator or of this worker, past the count."""
        self.proxy = CountingProxy(target)
        runtime.run(self.proxy.start())
        return self.proxy.address

    async def serve(self, link: StreamLink) -> None:
        assert self.link is None
        self.link = link
        link._stream = replace(link._stream, write=partial(self._write, link._stream.write))
        await serve_quietly(self.worker, link, self.side)

    async def _write(self, write: Callable[[bytes], Awaitable[None]], frame: bytes) -> None:
        self.written_bytes += len(frame)
        await write(frame)

    def close(self) -> None:
        """Wait for the last byte, and only then read the ledger."""
        try:
            if self.proxy is not None:
                runtime.run(self.proxy.close())
            self.entries = tuple(self.journal.entries())
        finally:
            runtime.run(self.worker.close())

    @property
    def traffic(self) -> Traffic:
        """All of it, once everything is closed."""
        assert self.proxy is not None
        dials = self.side is Side.DIALER
        wire_bytes = self.proxy.from_dialer_bytes if dials else self.proxy.from_target_bytes
        return Traffic(self.entries, self.written_bytes, wire_bytes, self.proxy.connections)


MakeFleet = Callable[[], AbstractContextManager[tuple[fp.Federation, list[Watched]]]]
MakeModel = Callable[[], nn.Module]
Smuggle = Callable[[StreamLink, Envelope], Coroutine[None, None, None]]


@contextmanager
def dialling() -> Iterator[tuple[fp.Federation, list[Watched]]]:
    """Workers that dial out; a proxy stands before the coordinator for each."""
    authority = Authority.create()
    workers = [Watched(authority, name, Side.DIALER, ENROLMENTS[name]) for name in NAMES]
    credentials = authority.issue(RESEARCHER, Role.COORDINATOR)
    with ExitStack() as closing:

        def start(address: str) -> None:
            for worker in workers:
                closing.callback(worker.close)
                link = runtime.run(dial(worker.put_behind_proxy(address), worker.credentials))
                closing.callback(runtime.start(worker.serve(link)).result, CLOSE_SECONDS)

        federation = fp.Federation.listen("127.0.0.1:0", credentials=credentials, workers=NAMES, on_listening=start)
        yield closing.enter_context(federation), workers


@contextmanager
def listening() -> Iterator[tuple[fp.Federation, list[Watched]]]:
    """Workers that listen; a proxy stands before each."""
    authority = Authority.create()
    workers = [Watched(authority, name, Side.LISTENER, ENROLMENTS[name]) for name in NAMES]
    credentials = authority.issue(RESEARCHER, Role.RESEARCHER)
    with ExitStack() as closing:
        remote = []
        for worker in workers:
            listener = Listener("127.0.0.1:0", worker.credentials, worker.serve)
            closing.callback(worker.close)
            runtime.run(listener.start())
            closing.callback(lambda each=listener: runtime.run(each.close()))
            remote.append(fp.connect(worker.put_behind_proxy(listener.address), credentials=credentials))
        yield closing.enter_context(fp.Federation(remote)), workers


def small() -> nn.Module:
    """An update of this model has 5 numbers, fewer bytes than the rest of its message."""
    return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))


def large() -> nn.Module:
    """An update of this model has more than 1 MB."""
    return nn.Sequential(nn.Linear(4, 510), nn.ReLU(), nn.Linear(510, 510), nn.ReLU(), nn.Linear(510, 1), nn.Flatten(0))


def fit(
    federation: fp.Federation, model: nn.Module, *, rounds: int, secure: fp.SecureAggregation | None = None
) -> None:
    local = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.1))
    loss, metrics = F.binary_cross_entropy_with_logits, ("loss", "accuracy")
    terms = {"dataset": "toy", "loss": loss, "rounds": rounds, "local": local, "worker_metrics": metrics}
    federation.fit(model, **terms, secure_aggregation=secure)


def say(address: str, content: bytes) -> bytes:
    """Say `content` over a connection of its own and return what comes back until it ends."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=CLOSE_SECONDS) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


both_ways = pytest.mark.parametrize("fleet", [listening, dialling], ids=["dial-in", "dial-out"])


@both_ways
@pytest.mark.parametrize("model", [small, large])
def test_every_byte_that_leaves_is_accounted_for(fleet: MakeFleet, model: MakeModel) -> None:
    with fleet() as (federation, workers):
        federation.statistics("toy")
        fit(federation, model(), rounds=3)
    for worker in workers:
        traffic = worker.traffic
        kinds = [entry.draft.kind for entry in traffic.entries]
        assert (kinds.count("statistics"), kinds.count("update"), kinds.count("evaluation")) == (1, 3, 3)
        assert traffic.unaccounted_bytes == 0
        assert traffic.recorded_bytes == sum(row.bytes for row in federation.egress() if row.worker == worker.name)
        assert traffic.recorded_bytes <= traffic.wire_bytes
        assert traffic.unexplained_bytes == 0
        assert traffic.connections == 1


@both_ways
@pytest.mark.parametrize("model", [small, large])
def test_every_byte_of_a_sum_is_accounted_for_and_nothing_of_one_worker_is_in_clear(
    fleet: MakeFleet, model: MakeModel
) -> None:
    secure = fp.SecureAggregation(roster=ROSTER)
    with fleet() as (federation, workers):
        federation.statistics("toy", secure_aggregation=secure)
        fit(federation, model(), rounds=2, secure=secure)
    for worker in workers:
        traffic = worker.traffic
        labelled = {entry.draft.kind for entry in traffic.entries if entry.draft.labels}
        assert labelled == {"secagg-masked", "secagg-unmask"}
        others = {entry.draft.kind for entry in traffic.entries} - labelled
        assert others <= {
            "hello", "hello-proof", "announcement", "checkpoint", "plan-accepted",
            "secagg-advertise", "secagg-shares", "secagg-confirm",
        }  # fmt: skip  # in clear, and of the protocol
        assert traffic.unaccounted_bytes == 0
        assert traffic.unexplained_bytes == 0
        assert traffic.connections == 1


def smuggled(size: int) -> Envelope:
    """An answer of `size` bytes that no door sealed and no ledger holds."""
    return encode(Statistics(NOBODY_ASKED, TensorSet({"rows": torch.zeros(size, dtype=torch.uint8)})))


async def past_the_door(link: StreamLink, envelope: Envelope) -> None:
    await link.send(envelope)


async def beneath_the_link(link: StreamLink, envelope: Envelope) -> None:
    for frame in frames(envelope):
        await link._stream.write(frame)


def traffic_with(fleet: MakeFleet, model: nn.Module, smuggle: Smuggle, envelope: Envelope) -> list[Traffic]:
    """Return what left the workers when the first one let out `envelope` on a way of its own.

    The answers after it follow it on the same stream, so that it arrived when they did.
    """
    with fleet() as (federation, workers):
        federation.statistics("toy")
        runtime.run(smuggle(workers[0].link, envelope))
        fit(federation, model, rounds=1)
    return [worker.traffic for worker in workers]


@both_ways
@pytest.mark.parametrize("smuggle", [past_the_door, beneath_the_link])
@pytest.mark.parametrize(("model", "size"), [(small, 1 << 14), (large, 1 << 20)], ids=["small", "large"])
def test_what_leaves_on_another_way_than_the_door_shows_at_the_link_and_on_the_wire(
    fleet: MakeFleet, smuggle: Smuggle, model: MakeModel, size: int
) -> None:
    envelope = smuggled(size)
    dishonest, honest, _ = traffic_with(fleet, model(), smuggle, envelope)
    assert dishonest.unaccounted_bytes == envelope_bytes(envelope) > size
    assert dishonest.unexplained_bytes > 0
    assert (honest.unaccounted_bytes, honest.unexplained_bytes) == (0, 0)


@both_ways
def test_one_byte_on_another_way_shows_at_the_link_though_not_on_the_wire(fleet: MakeFleet) -> None:
    envelope = smuggled(1)
    dishonest, *_ = traffic_with(fleet, small(), past_the_door, envelope)
    assert dishonest.unaccounted_bytes == envelope_bytes(envelope) < 100
    assert dishonest.unexplained_bytes == 0


def test_what_passes_no_link_shows_on_the_wire_alone() -> None:
    with dialling() as (federation, workers):
        fit(federation, small(), rounds=1)
        say(workers[0].proxy.address, bytes(1 << 16))
    traffic = workers[0].traffic
    assert traffic.unaccounted_bytes == 0
    assert traffic.unexplained_bytes > 0
    assert traffic.connections == 2


def test_a_link_without_a_message_costs_a_handshake_and_no_more() -> None:
    authority = Authority.create()

    async def until_it_ends(link: StreamLink) -> None:
        assert await link.receive() is None

    async def scenario() -> CountingProxy:
        async with Listener("127.0.0.1:0", authority.issue(NAMES[0], Role.WORKER), until_it_ends) as listener:
            proxy = CountingProxy(listener.address)
            await proxy.start()
            link = await dial(proxy.address, authority.issue(RESEARCHER, Role.RESEARCHER))
            await link.close()
        await proxy.close()
        return proxy

    proxy = runtime.run(scenario())
    assert HANDSHAKE_BYTES // 2 < max(proxy.from_dialer_bytes, proxy.from_target_bytes) <= HANDSHAKE_BYTES


def test_the_proxy_changes_nothing_and_counts_each_direction() -> None:
    question, answer = bytes(range(256)) * 4_000, bytes(reversed(range(256))) * 300
    heard: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def served() -> tuple[asyncio.Server, CountingProxy]:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        proxy = CountingProxy(f"{host}:{port}")
        await proxy.start()
        return server, proxy

    async def ended() -> None:
        await proxy.close()
        server.close()
        await server.wait_closed()

    server, proxy = runtime.run(served())
    try:
        assert say(proxy.address, question) == answer
    finally:
        runtime.run(ended())
    assert heard == [question]
    assert (proxy.from_dialer_bytes, proxy.from_target_bytes) == (len(question), len(answer))
    assert proxy.connections == 1
