"""A model there and back between two processes over loopback mutual TLS, beside a bare gRPC stream.

Prints one JSON line: MB/s each way (medians of interleaved runs) for fedpriv and for a bare grpcio stream of 4 MiB
frames under the same TLS, their ratios, peak memory of each side above its resting size, and the time that a 1 MB
model takes both ways while two other links are idle. "back_digest" is the way back with the ledger's payload digest
computed first, as a worker's door does it.

    python benchmarks/wire.py --json [--quick] [--frame-bytes N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import grpc
import torch

from fedpriv.ledger.entries import message_digest
from fedpriv.sealed import Envelope, Sealed
from fedpriv.storage.hashing import chunk_digests
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.stream import StreamLink
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import decode, encode
from fedpriv.wire.framing import FRAME_BYTES
from fedpriv.wire.messages import AskStatistics, Evaluation, Message, Role, Update

BARE_FRAME_BYTES = 4 << 20
MB = 1_000_000


def resting() -> int:
    """Forget the peak and return the resident size in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the largest resident size since `resting`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def model(nbytes: int) -> TensorSet:
    """Return about eight tensors of float32, `nbytes` altogether."""
    return TensorSet({f"layer{index}.weight": torch.ones(nbytes // 32) for index in range(8)})


# --- the worker's process ---------------------------------------------------------------------------------------------


async def serve(link: StreamLink, own: Credentials) -> None:
    """Keep the last model; send it back when asked, with its digest first if asked so; say the peak when asked."""
    sealed = SealedLink(link)
    await greet(Side.LISTENER, sealed, own, lambda message: Sealed(encode(message)))
    held = TensorSet()
    base = resting()

    async def send(message: Message) -> None:
        await sealed.send(Sealed(encode(message)))

    while (envelope := await sealed.receive()) is not None:
        message = decode(envelope)
        if isinstance(message, Update):
            held = message.delta
            await send(Evaluation(1, 1, 1.0, {}))
        elif isinstance(message, AskStatistics):
            wanted = message.kinds[0]
            if wanted == "peak":
                await send(Evaluation(1, 1, 1.0, {"peak": peak() - base}))
                continue
            envelope = encode(Update(1, 1, 1.0, {}, held))
            held = TensorSet()
            if wanted == "digest":
                await asyncio.to_thread(_digest, envelope)
            await sealed.send(Sealed(envelope))
        del envelope, message


def _digest(envelope: Envelope) -> None:
    message_digest(bytes(32), envelope.header, chunk_digests(envelope.payload), envelope.payload_bytes)


def worker(pipe: Pipe, pems: Path, frame_bytes: int) -> None:
    """Run a worker's listener and a bare one until the pipe says to stop."""
    torch.set_num_threads(1)
    own = Credentials.load(pems)

    async def attached(link: StreamLink) -> None:
        await serve(link, own)

    async def main() -> None:
        async with Listener("127.0.0.1:0", own, attached, frame_bytes=frame_bytes) as listener:
            server, port = await bare_server(own)
            pipe.send((listener.address, f"127.0.0.1:{port}"))
            await asyncio.to_thread(pipe.recv)
            await server.stop(None)

    asyncio.run(main())


# --- bare gRPC --------------------------------------------------------------------------------------------------------


async def bare_server(own: Credentials) -> tuple[object, int]:
    """Start a server whose one method reads as many bytes as it is told, then writes as many."""

    async def handle(_: object, context: object) -> None:
        while isinstance(told := await context.read(), bytes):
            total, got = int(told), 0
            while got < total:
                got += len(await context.read())
            await context.write(b"all here")
            await context.read()
            block = bytes(BARE_FRAME_BYTES)
            for start in range(0, total, BARE_FRAME_BYTES):
                await context.write(block if total - start >= BARE_FRAME_BYTES else block[: total - start])

    server = grpc.aio.server(options=_bare_options())
    method = {"C": grpc.stream_stream_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.B", method),))
    tls = grpc.ssl_server_credentials([(own.key_pem, own.chain_pem)], own.authorities_pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    return server, port


async def bare(call: object, total: int) -> tuple[float, float]:
    """Return the seconds that `total` bytes take there and back over a bare stream."""
    await call.write(str(total).encode())
    block = bytes(BARE_FRAME_BYTES)
    started = time.perf_counter()
    for start in range(0, total, BARE_FRAME_BYTES):
        await call.write(block if total - start >= BARE_FRAME_BYTES else block[: total - start])
    await call.read()
    there = time.perf_counter() - started
    started = time.perf_counter()
    await call.write(b"back")
    got = 0
    while got < total:
        got += len(await call.read())
    return there, time.perf_counter() - started


def _bare_options() -> list[tuple[str, int]]:
    limit = BARE_FRAME_BYTES + 1024
    return [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]


# --- the coordinator's process ----------------------------------------------------------------------------------------


async def ours(link: OpenLink, tensors: TensorSet, *, digest: bool) -> tuple[float, float]:
    """Return the seconds that `tensors` take there (until acknowledged) and back (until decoded)."""
    started = time.perf_counter()
    await link.send(encode(Update(1, 1, 1.0, {}, tensors)))
    await link.receive()
    there = time.perf_counter() - started
    started = time.perf_counter()
    await link.send(encode(AskStatistics(1, "", ("digest" if digest else "plain",), "")))
    envelope = await link.receive()
    assert envelope is not None
    back = decode(envelope)
    seconds = time.perf_counter() - started
    assert isinstance(back, Update)
    assert back.delta.nbytes == tensors.nbytes
    return there, seconds


async def attach(address: str, own: Credentials, frame_bytes: int) -> OpenLink:
    """Return a greeted link."""
    link = OpenLink(await dial(address, own, frame_bytes=frame_bytes))
    await greet(Side.DIALER, link, own, encode)
    return link


async def measure(
    address: str, bare_address: str, own: Credentials, arguments: argparse.Namespace
) -> dict[str, object]:
    """Return every figure of the run."""
    tls = grpc.ssl_channel_credentials(own.authorities_pem, own.key_pem, own.chain_pem)
    figures: dict[str, object] = {}
    async with grpc.aio.secure_channel(bare_address, tls, options=_bare_options()) as channel:
        call = channel.stream_stream("/bare.B/C", None, None)(None)
        for megabytes in arguments.megabytes:
            link = await attach(address, own, arguments.frame_bytes)
            figures[f"{megabytes}MB"] = await transfers(link, call, megabytes * MB, arguments.repeats)
            await link.close()
        await call.done_writing()
    figures["small_ms"] = await small(address, own, arguments.frame_bytes)
    return figures


async def transfers(link: OpenLink, call: object, nbytes: int, repeats: int) -> dict[str, float]:
    """Return MB/s each way, the ratios to bare, and the peaks."""
    tensors = model(nbytes)
    seconds: dict[str, list[float]] = {key: [] for key in ("there", "back", "back_digest", "bare_there", "bare_back")}
    base = resting()
    for repeat in range(repeats + 1):
        runs = [
            await bare(call, nbytes),
            await ours(link, tensors, digest=False),
            await ours(link, tensors, digest=True),
        ]
        if repeat == 0:
            continue  # the first of each warms up
        for key, value in zip(
            ("bare_there", "bare_back", "there", "back", "back_digest"), (*runs[0], *runs[1], runs[2][1]), strict=True
        ):
            seconds[key].append(value)
    here = peak() - base
    await link.send(encode(AskStatistics(1, "", ("peak",), "")))
    envelope = await link.receive()
    assert envelope is not None
    answer = decode(envelope)
    assert isinstance(answer, Evaluation)
    rates = {key: nbytes / MB / statistics.median(values) for key, values in seconds.items()}
    return {
        **{f"{key}_mb_s": round(rate, 1) for key, rate in rates.items()},
        "ratio_there": round(rates["there"] / rates["bare_there"], 3),
        "ratio_back": round(rates["back"] / rates["bare_back"], 3),
        "ratio_back_digest": round(rates["back_digest"] / rates["bare_back"], 3),
        "peak_coordinator_mb": round(here / MB),
        "peak_worker_mb": round(answer.metrics["peak"] / MB),
        "peak_allowed_mb": round(1.5 * nbytes / MB + 200),
    }


async def small(address: str, own: Credentials, frame_bytes: int) -> float:
    """Return the median milliseconds of a 1 MB model both ways, with two more peers attached and idle."""
    idle = [await attach(address, own, frame_bytes) for _ in range(2)]
    link = await attach(address, own, frame_bytes)
    tensors = model(MB)
    seconds = [sum(await ours(link, tensors, digest=False)) for _ in range(50)]
    for each in (*idle, link):
        await each.close()
    return round(statistics.median(seconds) * 1000, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line (the default is the same)")
    parser.add_argument("--quick", action="store_true", help="10 MB and 50 MB, three runs")
    parser.add_argument("--frame-bytes", type=int, default=FRAME_BYTES)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.megabytes, arguments.repeats = [10, 50], 3
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        authority = Authority.create()
        authority.issue("worker", Role.WORKER).save(folder)
        own = authority.issue("coordinator", Role.COORDINATOR)
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, Path(folder), arguments.frame_bytes))
        process.start()
        stack.callback(process.join)
        stack.callback(pipe.send, "stop")
        address, bare_address = pipe.recv()
        figures = asyncio.run(measure(address, bare_address, own, arguments))
    print(json.dumps({"benchmark": "wire", "frame_bytes": arguments.frame_bytes, "cores": os.cpu_count(), **figures}))


if __name__ == "__main__":
    main()
