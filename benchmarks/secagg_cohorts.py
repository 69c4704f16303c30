"""Secure sums over large cohorts on a Harary graph: what a worker's part costs as n grows, and what the coordinator's.

Prints one JSON line for each size. All workers live in a second process, so that the coordinator's memory is its own;
messages between the two are the wire's bytes. `client_seconds` is the processor time of one worker's whole round but
for reading messages, `client_reading_seconds` that of parsing them (medians over the workers that stay);
`client_received_bytes` and `client_sent_bytes` are one worker's. `server_seconds` is the coordinator's processor time,
`server_peak_bytes` how much its process grew, and `server_shares_bytes` the sealed shares of a round, which it has to
pass on. The share that is lost, after they shared keys, is half of what the graph allows.

    python benchmarks/secagg_cohorts.py --sizes 100 1000 3000 10000 --length 10000 --plot docs/pictures/cohorts.png
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import secagg

from fedpriv.sealed import Envelope
from fedpriv.secagg import server
from fedpriv.secagg.messages import Delivery, Roll, Shares, Survivors
from fedpriv.secagg.server_states import Complete
from fedpriv.wire.secagg import decode_secagg, encode_secagg


def bytes_of(message):
    envelope = encode_secagg(message)
    return envelope.header, b"".join(envelope.payload)


def message_of(header, payload):
    return decode_secagg(Envelope(header, (memoryview(payload),) if payload else ()))


def told_once(message, lists):
    """Return `message` with lists of names that all workers here have in common, or they would fill the memory."""
    field = {Roll: "everybody", Delivery: "members", Survivors: "members"}.get(type(message))
    if field is None:
        return message
    names = getattr(message, field)
    return replace(message, **{field: lists.setdefault(names, names)})


def serve_workers(connection, workers, values):
    """Answer for every worker until asked for the figures: seconds, seconds of reading, bytes in and out of each."""
    by_name, reading, received, lists = {worker.name: worker for worker in workers}, {}, {}, {}
    while name := connection.recv_bytes().decode():
        header, payload = connection.recv_bytes(), connection.recv_bytes()
        begun = time.process_time()
        message = message_of(header, payload)
        reading[name] = reading.get(name, 0.0) + time.process_time() - begun
        received[name] = received.get(name, 0) + len(header) + len(payload)
        for part in bytes_of(by_name[name].answer(told_once(message, lists), values)):
            connection.send_bytes(part)
    figures = {name: (by_name[name].seconds, reading[name], received[name], by_name[name].bytes) for name in by_name}
    connection.send_bytes(json.dumps(figures).encode())


class Coordinator:
    """The coordinator, its processor time, and the sealed shares that passed through it."""

    def __init__(self, descriptor, roster, names, terms):
        self.seconds, self.shares_bytes = 0.0, 0
        self.turn = self._timed(server.begin, descriptor, roster, names, terms)

    def _timed(self, step, *arguments):
        begun = time.process_time()
        turn = step(*arguments)
        self.seconds += time.process_time() - begun
        return turn

    def receive(self, name, message):
        if isinstance(message, Shares):
            self.shares_bytes += sum(len(ciphertext) for _, ciphertext in message.ciphertexts)
        self.turn = self._timed(server.receive, self.turn.state, name, message)

    def lose(self, name):
        self.turn = self._timed(server.lost, self.turn.state, name)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def play(options):
    """Return the figures of one round."""
    descriptor, roster, terms, workers = secagg.prepare(options)
    values = {"update": np.random.default_rng(0).uniform(-1, 1, options.length).astype(np.float32)}
    names = [worker.name for worker in workers]
    dropped = set(names[: descriptor.graph.lost // 2])
    here, there = FORK.Pipe()
    process = FORK.Process(target=serve_workers, args=(there, workers, values))
    process.start()
    before, coordinator = peak_bytes(), Coordinator(descriptor, roster, names, terms)
    while pending := coordinator.turn.outgoing:
        for name, message in pending:
            if name in dropped and isinstance(message, Delivery):
                coordinator.lose(name)
                continue
            here.send_bytes(name.encode())
            for part in bytes_of(message):
                here.send_bytes(part)
            coordinator.receive(name, message_of(here.recv_bytes(), here.recv_bytes()))
    here.send_bytes(b"")
    figures = json.loads(here.recv_bytes())
    process.join()
    assert isinstance(state := coordinator.turn.state, Complete), state
    assert np.abs(state.sum.mean("update") - values["update"]).max() < 2.0**-14, "the sum is not the sum"
    seconds, reading, received, sent = zip(*(figures[name] for name in names if name not in dropped), strict=True)
    return {
        "benchmark": "secagg-cohorts",
        "workers": options.workers,
        "length": options.length,
        "dropouts": len(dropped),
        "degree": descriptor.graph.degree,
        "threshold": descriptor.threshold,
        "client_seconds": statistics.median(seconds),
        "client_reading_seconds": statistics.median(reading),
        "client_received_bytes": int(statistics.median(received)),
        "client_sent_bytes": int(statistics.median(sent)),
        "server_seconds": coordinator.seconds,
        "server_peak_bytes": peak_bytes() - before,
        "server_shares_bytes": coordinator.shares_bytes,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def apart(options, size):
    """Return the figures of one size from a process of its own, whose peak of memory no other size has raised."""
    here, there = FORK.Pipe()
    sized = argparse.Namespace(workers=size, length=options.length, graph="harary")
    process = FORK.Process(target=lambda: there.send_bytes(json.dumps(play(sized)).encode()))
    process.start()
    there.close()
    result = json.loads(here.recv_bytes())
    process.join()
    return result


def draw(results, path):
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    sizes, degrees = [each["workers"] for each in results], [each["degree"] for each in results]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, label in (("client_seconds", "computing"), ("client_reading_seconds", "reading what it is told")):
        left.plot(sizes, [1000 * each[key] for each in results], "o-", label=label)
    per_neighbour = results[0]["client_seconds"] / degrees[0] * 1000
    left.plot(sizes, [per_neighbour * degree for degree in degrees], "--", label="in proportion to k, from the first")
    for each in results:
        left.annotate(f"k = {each['degree']}", (each["workers"], 1000 * each["client_seconds"]), (0, -16), **BELOW)
    left.set(xscale="log", xlabel="workers", ylabel="milliseconds of one worker", title="One worker")
    right.plot(sizes, [each["server_seconds"] for each in results], "o-", label="seconds")
    right.plot(sizes, [each["server_peak_bytes"] / 1e6 for each in results], "s-", label="peak memory, MB")
    right.plot(sizes, [each["server_shares_bytes"] / 1e6 for each in results], "--", label="sealed shares in it, MB")
    right.set(xscale="log", yscale="log", xlabel="workers", title="The coordinator")
    left.set_ylim(0, 1.5 * max(left.get_ylim()))
    for axes in (left, right):
        axes.legend(loc="upper left")
        axes.margins(x=0.1)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


FORK = multiprocessing.get_context("fork")  # one thread, and workers that need not be made twice
BELOW = {"textcoords": "offset points", "ha": "center"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--length", type=int, default=10_000)
    parser.add_argument("--plot", type=Path, help="where to draw the figures; needs matplotlib")
    options = parser.parse_args()
    secagg.Worker.clock = staticmethod(time.process_time)
    results = []
    for size in options.sizes:
        results.append(apart(options, size))
        rounded = json.dumps(results[-1])
        print(json.dumps(json.loads(rounded, parse_float=lambda text: float(f"{float(text):.4g}"))), flush=True)
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
