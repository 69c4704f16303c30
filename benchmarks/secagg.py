"""A secure sum: what a worker and the coordinator compute, beside the masks that they cannot avoid.

Prints one JSON line. All workers and the coordinator run in this process, on one thread, without a network; K workers
are lost after they shared their keys. `client_seconds` is one worker's work of a whole round, rounding included (median
over the workers that stay), `server_seconds` all of the coordinator's, unmasking included. The limits are measured in
the same run, between the workers' turns: as many AES-256-CTR streams into a reused block and numpy sums as there are
masks, and for the worker one numpy quantisation pass. They are medians for the worker, and a mean for the coordinator,
whose time is a sum. `client_bytes` is what one worker sends.

    python benchmarks/secagg.py --workers 100 --length 1000000 --dropouts 10 --json

Beside Flower's SecAgg+ where a script for it and a Python that has it are named: --peer SCRIPT --peer-python PYTHON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import time

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.entropy import SystemEntropy
from fedpriv.secagg import client, harary, server
from fedpriv.secagg.checks import Expectation, Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import COMPLETE, DEFAULT_LOST, GraphKind, GraphSpec
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.messages import Agreement, Delivery, Invite
from fedpriv.secagg.ring import ring_for
from fedpriv.secagg.roster import Member, Roster
from fedpriv.secagg.server_states import Complete
from fedpriv.secagg.thresholds import colluding, least_threshold
from fedpriv.secagg.vector import Part, Treatment, VectorSpec
from fedpriv.wire.secagg import encode_secagg

BLOCK_BYTES, STREAMS, SAMPLES = 1 << 18, 50, 12


class Worker:
    """A worker and the seconds that it took, by `clock`."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, name, identity, expected, terms):
        self.name, self.identity, self.expected, self.terms = name, identity, expected, terms
        self.seconds, self.bytes, self.state = 0.0, 0, None

    def answer(self, message, values):
        begun = self.clock()
        if isinstance(message, Invite):
            step = client.begin(
                message,
                self.expected,
                name=self.name,
                identity=self.identity,
                terms=self.terms,
                entropy=SystemEntropy(),
            )
        else:
            step = client.receive(self.state, message)
        if isinstance(step.state, client.Ready):
            descriptor = step.state.own.descriptor
            words = descriptor.vector.encode(values, weight=1, ring=descriptor.ring, entropy=SystemEntropy())
            step = client.submit(step.state, words)
        self.seconds += self.clock() - begun
        self.state = step.state
        envelope = encode_secagg(step.message)
        self.bytes += len(envelope.header) + envelope.payload_bytes
        return step.message


def prepare(options):
    """Return the descriptor, the roster, the terms and the workers."""
    names = [f"worker-{at:05d}" for at in range(options.workers)]
    identities = {name: Identity(Ed25519PrivateKey.generate()) for name in names}
    roster = Roster("benchmark", 1, tuple(Member(name, identities[name].public) for name in names))
    vector = VectorSpec((Part("update", (options.length,), 1.0, 16, Treatment.UNWEIGHTED),))
    graph, threshold, terms = COMPLETE, least_threshold(options.workers, colluding(options.workers)), Terms()
    if options.graph == "harary":
        terms = Terms(colluding=DEFAULT_LOST)
        population = harary.Population.of(options.workers, terms.colluding, DEFAULT_LOST)
        choice = harary.search(population)
        graph, threshold = GraphSpec(GraphKind.HARARY, choice.degree, population.lost), choice.threshold
    descriptor = Descriptor(
        federation="benchmark",
        roster=roster.digest,
        round=1,
        model=bytes(32),
        plan=bytes(32),
        vector=vector,
        modulus_bits=ring_for(vector.bits_needed(options.workers)).bits,
        workers=options.workers,
        threshold=threshold,
        minimum_cohort=3,
        graph=graph,
    )
    expected = Expectation(roster=roster, round=1, model=bytes(32), plan=bytes(32), vector=vector)
    return descriptor, roster, terms, [Worker(name, identities[name], expected, terms) for name in names]


def play(options, sample):
    """Return seconds of one worker, seconds of the coordinator, bytes of one worker, and the graph's degree.

    `sample` is called now and then between two turns, to measure the limits under the same conditions.
    """
    descriptor, roster, terms, workers = prepare(options)
    values = {"update": np.random.default_rng(0).uniform(-1, 1, options.length).astype(np.float32)}
    dropped = {worker.name for worker in workers[: options.dropouts]}
    spent, every = 0.0, max(1, options.workers // SAMPLES)

    def coordinate(step, *arguments):
        nonlocal spent
        begun = time.perf_counter()
        turn = step(*arguments)
        spent += time.perf_counter() - begun
        return turn

    turn = coordinate(server.begin, descriptor, roster, [worker.name for worker in workers], terms)
    by_name = {worker.name: worker for worker in workers}
    while turn.outgoing:
        pending = turn.outgoing
        gc.freeze()  # what the workers hold is elsewhere in truth, and not looked through in the coordinator's time
        for at, (name, message) in enumerate(pending):
            if at % every == 0 and isinstance(message, Delivery | Agreement):
                sample()
            if name in dropped and isinstance(message, Delivery):
                turn = coordinate(server.lost, turn.state, name)
            else:
                turn = coordinate(server.receive, turn.state, name, by_name[name].answer(message, values))
    assert isinstance(turn.state, Complete), turn.state
    mean = turn.state.sum.mean("update")
    assert np.abs(mean - values["update"]).max() < 2.0**-14, "the sum is not the sum"
    staying = [worker for worker in workers if worker.name not in dropped]
    degree = descriptor.graph.degree or options.workers - 1
    return statistics.median(worker.seconds for worker in staying), spent, max(w.bytes for w in staying), degree


def mask_seconds(total):
    """Return the seconds of one mask on `total`: a stream into a reused block and a numpy addition, over 50 masks."""
    width = total.itemsize
    zeros, block, most = bytes(BLOCK_BYTES), np.empty(BLOCK_BYTES // width, total.dtype), BLOCK_BYTES // width
    room, begun = memoryview(block).cast("B"), time.perf_counter()
    streams = [Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor() for _ in range(STREAMS)]
    for at in range(0, total.size, most):
        count = min(most, total.size - at)
        nothing, out, part, mask = zeros[: count * width], room[: count * width], total[at : at + count], block[:count]
        for stream in streams:
            stream.update_into(nothing, out)
            np.add(part, mask, out=part)
    return (time.perf_counter() - begun) / STREAMS


def quantisation_seconds(values, draws):
    """Return the seconds of one numpy pass that clips, scales, rounds stochastically and reduces."""
    begun = time.perf_counter()
    np.floor(np.clip(values, -1, 1) * 65536.0 + draws).astype(np.int64).astype(np.uint32)
    return time.perf_counter() - begun


def peer(options):
    """Return the line of Flower's script, or nothing where it was not asked for."""
    if not options.peer:
        return {}
    arguments = [options.peer_python, options.peer, options.workers, options.length, options.dropouts]
    finished = subprocess.run([*map(str, arguments)], check=True, capture_output=True, text=True)
    found = json.loads(finished.stdout.strip().splitlines()[-1])
    return {"flower": {"client_seconds": found["client_s"], "server_seconds": found["server_s"]}}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--dropouts", type=int, default=10)
    parser.add_argument("--graph", choices=("complete", "harary"), default="complete")
    parser.add_argument("--peer", help="a script that prints Flower's figures for N LENGTH DROPOUTS")
    parser.add_argument("--peer-python", default="python")
    parser.add_argument("--json", action="store_true", help="the default: one JSON line")
    return parser.parse_args()


def main():
    options = parse()
    random, total = np.random.default_rng(0), np.zeros(options.length, "<u4")
    values, draws = random.uniform(-1, 1, options.length).astype(np.float32), random.random(options.length)
    masks, passes = [], []

    def sample():
        masks.append(mask_seconds(total))
        passes.append(quantisation_seconds(values, draws))

    client_seconds, server_seconds, sent, degree = play(options, sample)
    one, on_average = statistics.median(masks), statistics.mean(masks)
    staying = options.workers - options.dropouts
    pairs = options.dropouts * (staying if options.graph == "complete" else degree)
    client_limit = (degree + 1) * one + statistics.median(passes)
    server_limit = (staying + pairs) * on_average
    result = {
        "benchmark": "secagg",
        "workers": options.workers,
        "length": options.length,
        "dropouts": options.dropouts,
        "graph": options.graph,
        "degree": degree,
        "client_seconds": client_seconds,
        "client_limit_seconds": client_limit,
        "server_seconds": server_seconds,
        "server_limit_seconds": server_limit,
        "client_bytes": sent,
        "ratio_client": client_seconds / client_limit,
        "ratio_server": server_seconds / server_limit,
        "goals": {"ratio_client": 1.75, "ratio_server": 1.8},
        **peer(options),
        "cpus": os.cpu_count(),
    }
    if "flower" in result:
        result["flower"]["ratio_client"] = result["flower"]["client_seconds"] / client_seconds
        result["flower"]["ratio_server"] = result["flower"]["server_seconds"] / server_seconds
    print(json.dumps(json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.4g}"))))


if __name__ == "__main__":
    main()
