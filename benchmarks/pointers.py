"""Small operations through pointers, beside RPyC netrefs, torch.distributed.rpc RRefs and local eager; and one step.

Prints one JSON line. Everything on loopback in one run, one thread a process, contestants in turn, medians. Operations:
z = x + y of two 2x2 tensors whose result stays remote: (a) pointers to a worker process over gRPC with mutual TLS,
(b) RRefs, pipelined, and netrefs, (c) local eager. Shapes that were never seen before are measured by themselves. The
step: forward, loss, backward and SGD of an MLP 784-100-100-10 at batch 32, through pointers and as a plan, beside local
eager; round trips within it are counted.

    python benchmarks/pointers.py --json [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import fedpriv as fp
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.transport.authority import Authority
from fedpriv.transport.hello import Side
from fedpriv.transport.listen import Listener
from fedpriv.wire.messages import Role
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.worker import Worker, serve_quietly

LR = 0.01


def worker_process(folder, pipe):
    """Be a worker without data sets."""
    torch.set_num_threads(1)
    name, credentials = WorkerName("bob"), fp.Credentials.load(folder)
    journal = Journal.in_memory(worker=name, clock=SystemClock(), entropy=SystemEntropy())
    worker = Worker(name, (), executor=InProcessExecutor(()), journal=journal, credentials=credentials)

    async def serve():
        async def attach(raw):
            await serve_quietly(worker, raw, Side.LISTENER)

        async with Listener("127.0.0.1:0", credentials, attach) as listener:
            pipe.send(listener.address)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(serve())


def rpyc_process(pipe):
    """Serve tensors as netrefs."""
    torch.set_num_threads(1)
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Tensors(rpyc.Service):
        def exposed_make(self):
            return torch.ones(2, 2)

    class NoDelay(ThreadedServer):
        def _accept_method(self, sock):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super()._accept_method(sock)

    everything = {"allow_all_attrs": True, "allow_public_attrs": True}
    server = NoDelay(Tensors(), hostname="127.0.0.1", port=0, protocol_config=everything)
    server._listen()
    pipe.send(server.port)
    server.start()


def make():
    return torch.ones(2, 2)


def add(x, y):
    return x.local_value() + y.local_value()


def rref_process(rank, port, pipe, count, repeats):
    """Be one of two torch.distributed.rpc processes; the first measures."""
    from torch.distributed import rpc

    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo", TP_SOCKET_IFNAME="lo")
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"tcp://127.0.0.1:{port}")
    rpc.init_rpc(f"w{rank}", rank=rank, world_size=2, rpc_backend_options=options)
    if rank == 0:
        x, y = rpc.remote("w1", make), rpc.remote("w1", make)
        x.to_here(), y.to_here()

        def pipelined(n):
            z = x
            for _ in range(n):
                z = rpc.remote("w1", add, args=(x, y))
            z.to_here()

        pipe.send(rate(pipelined, count, repeats))
    rpc.shutdown()


def rate(run, count, repeats):
    run(max(10, count // 10))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run(count)
        seconds.append(time.perf_counter() - begun)
    return count / statistics.median(seconds)


def rrefs(context, count, repeats):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours, theirs = context.Pipe()
    both = [context.Process(target=rref_process, args=(rank, port, theirs, count, repeats)) for rank in (0, 1)]
    for each in both:
        each.start()
    result = ours.recv()
    for each in both:
        each.join(30)
    return result


def netrefs(context, count, repeats):
    import rpyc

    ours, theirs = context.Pipe()
    server = context.Process(target=rpyc_process, args=(theirs,), daemon=True)
    server.start()
    connection = rpyc.connect("127.0.0.1", ours.recv())
    x, y = connection.root.make(), connection.root.make()

    def added(n):
        for _ in range(n):
            x + y

    try:
        return rate(added, count, repeats)
    finally:
        connection.close()
        server.terminate()


def operations(bob, count, repeats):
    """Return operations a second: through pointers, with shapes that are new each time, and local."""
    x, y = bob.send(torch.ones(2, 2)), bob.send(torch.ones(2, 2))

    def pointers(n):
        z = x
        for _ in range(n):
            z = x + y
        z.get()

    here = torch.ones(2, 2), torch.ones(2, 2)

    def local(n):
        for _ in range(n):
            here[0] + here[1]

    sizes = iter(range(3, 1 << 30))
    long = bob.send(torch.ones(1)).expand(1 << 20)

    def uncached(n):
        z = x
        for _ in range(n):
            z = long[: next(sizes)]
        z.sum().get()

    return {
        "pointers": rate(pointers, count, repeats),
        "pointers_uncached": rate(uncached, count // 50, repeats),
        "local": rate(local, count, repeats),
    }


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


@fp.plan
def planned(w1, b1, w2, b2, w3, b3, features, target):
    weights = [each.detach().requires_grad_() for each in (w1, b1, w2, b2, w3, b3)]
    hidden = F.relu(F.linear(features, weights[0], weights[1]))
    hidden = F.relu(F.linear(hidden, weights[2], weights[3]))
    loss = F.cross_entropy(F.linear(hidden, weights[4], weights[5]), target)
    gradients = torch.autograd.grad(loss, weights)
    return *(each - LR * gradient for each, gradient in zip(weights, gradients, strict=True)), loss


def steps(bob, count, repeats):
    """Return seconds a step: local, through pointers, as a plan; and the answers waited for within a step."""
    features, target = torch.randn(32, 784), torch.randint(0, 10, (32,))

    def stepper(model, x, y):
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)

        def step(n):
            for _ in range(n):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
            return loss

        return step

    there = bob.send(features), bob.send(target)
    remote = stepper(fp.send_module(mlp(), bob), *there)
    local = stepper(mlp(), features, target)
    state = [bob.send(each.detach()) for each in mlp().parameters()]

    def plan(n):
        for _ in range(n):
            *state[:], loss = planned(*state, *there)
        return loss

    remote(2), plan(2)
    trips = bob.values.round_trips
    remote(5), plan(5)
    trips = bob.values.round_trips - trips
    waited = {
        "local": local,
        "pointers": lambda n: remote(n).get(),
        "plan": lambda n: plan(n).get(),
    }
    seconds = {name: [] for name in waited}
    for _ in range(repeats):
        for name, run in waited.items():
            seconds[name].append(1 / rate(run, count, 1))
    return {name: statistics.median(each) for name, each in seconds.items()}, trips


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the default: one JSON line")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    share, repeats = (10, 3) if options.quick else (1, 5)
    torch.set_num_threads(1)
    context = mp.get_context("spawn")
    authority = Authority.create()
    with tempfile.TemporaryDirectory() as scratch:
        authority.issue("bob", Role.WORKER).save(Path(scratch) / "bob")
        ours, theirs = context.Pipe()
        worker = context.Process(target=worker_process, args=(Path(scratch) / "bob", theirs), daemon=True)
        worker.start()
        bob = fp.connect(ours.recv(), credentials=authority.issue("me", Role.RESEARCHER))
        a_second = operations(bob, 50_000 // share, repeats)
        step_seconds, trips = steps(bob, 500 // share, repeats)
        bob.close()
        ours.send("done")
        worker.join(10)
    a_second["rrefs_pipelined"] = rrefs(context, 5000 // share, repeats)
    a_second["netrefs"] = netrefs(context, 500 // share, repeats)
    result = {
        "benchmark": "pointers",
        "operations_per_second": a_second,
        "ratio_to_rrefs": a_second["pointers"] / a_second["rrefs_pipelined"],
        "ratio_to_netrefs": a_second["pointers"] / a_second["netrefs"],
        "step_seconds": step_seconds,
        "ratio_step_pointers": step_seconds["pointers"] / step_seconds["local"],
        "ratio_step_plan": step_seconds["plan"] / step_seconds["local"],
        "round_trips_in_steps": trips,
        "goals": {"to_rrefs": 5.0, "to_netrefs": 100.0, "step_pointers": 2.5, "step_plan": 1.3, "round_trips": 0},
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
    }
    print(json.dumps(json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.4g}"))))


if __name__ == "__main__":
    main()
