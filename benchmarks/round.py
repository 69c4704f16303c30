"""Seconds per federated round: virtual workers and worker processes, beside a plain torch loop in the same run.

The work: 10 workers with 4,800 rows each of synthetic data, an MLP 784-100-100-10, batch 32, SGD 0.01, one local epoch.
Prints one JSON line. (a) a loop that only trains and averages, with 1 and 2 threads; (b) virtual workers at the
same threads; (c) worker processes over gRPC with mutual TLS, a durable ledger each, one thread each. Evaluation is left
out everywhere. Contestants take turns; figures are medians over rounds. Also: the first round, and one deployed
round of a 1 MB model with two workers that have next to nothing to do. (c) and that round run once more with every
ledger, the workers' and the coordinator's, in memory: what the durable ledger costs.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import fedpriv as fp
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

WORKERS, ROWS, WIDTH, CLASSES, BATCH, RATE = 10, 4800, 784, 10, 32, 0.01

CONFIG = """\
[worker]
name = "{name}"
threads = 1
[dial]
address = "{address}"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "synthetic"
path = "rows.npz"
target = "target"
rows = "exact"
release = [{{ rule = "plain-update", recipients = ["coordinator"], weight = "exact" }}]
"""


IN_MEMORY = """\
import sys
from pathlib import Path
from fedpriv_worker.journal import Journal
def open_in_memory(state, **parts):
    Path(state).mkdir(mode=0o700, parents=True, exist_ok=True)  # the owner's socket still lives there
    return Journal.in_memory(**parts)
Journal.open = open_in_memory
from fedpriv.cli.app import main
sys.exit(main())
"""
"""A worker as `fedpriv worker start` runs it, except that its journal lasts as long as the process."""


def synthetic(workers, rows, width=WIDTH, seed=20240601):
    """Return one (features, target) pair per worker: ten Gaussian classes."""
    generator = np.random.default_rng(seed)
    means = generator.normal(0, 1.0, (CLASSES, width)).astype(np.float32)
    target = generator.integers(0, CLASSES, (workers, rows))
    features = (generator.standard_normal((workers, rows, width), dtype=np.float32) * 6.0 + means[target]) * np.float32(
        0.15
    )
    return [(torch.from_numpy(features[i]), torch.from_numpy(target[i].astype(np.int64))) for i in range(workers)]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, CLASSES))


def local(epochs=1):
    return fp.LocalTraining(epochs=epochs, batch_size=BATCH, optimizer=fp.SGD(lr=RATE))


class PlainLoop:
    """(a): what torch alone needs to train every worker in turn and average."""

    def __init__(self, data, threads):
        self.data, self.threads, self.model = data, threads, mlp()
        self.state = [p.detach().clone() for p in self.model.parameters()]

    def rounds(self, count):
        torch.set_num_threads(self.threads)
        seconds = []
        for number in range(count):
            started = time.perf_counter()
            total = [torch.zeros_like(p) for p in self.state]
            for index, (features, target) in enumerate(self.data):
                self._train(features, target, number * 1000 + index)
                for accumulator, p in zip(total, self.model.parameters(), strict=True):
                    accumulator.add_(p.detach())
            self.state = [accumulator.div_(len(self.data)) for accumulator in total]
            seconds.append(time.perf_counter() - started)
        return seconds

    def _train(self, features, target, seed):
        with torch.no_grad():
            for p, value in zip(self.model.parameters(), self.state, strict=True):
                p.copy_(value)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        for rows in torch.randperm(len(target), generator=torch.Generator().manual_seed(seed)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(self.model(features[rows]), target[rows]).backward()
            optimizer.step()


class Federated:
    """(b) and (c): a federation, a call of `fit` for every turn."""

    def __init__(self, federation, model, loss, job, close=()):
        self.federation, self.model, self.loss, self.job, self._close = federation, model, loss, job, close
        self.first = None

    def rounds(self, count):
        stamps = [time.perf_counter()]
        self.federation.fit(
            copy.deepcopy(self.model),
            dataset="synthetic",
            loss=self.loss,
            rounds=count + 1,
            local=self.job,
            on_round=lambda record: stamps.append(time.perf_counter()),
        )
        seconds = [after - before for before, after in itertools.pairwise(stamps)]
        self.first = self.first or seconds[0]
        return seconds[1:]  # the first of each call traces the plan again; it is reported by itself

    def close(self):
        self.federation.close()
        for each in self._close:
            each.close()


def virtual(data, threads):
    torch.set_num_threads(threads)
    rule = fp.PlainUpdate(recipients=("me",), weight="exact")
    workers = [
        fp.VirtualWorker(f"w{i}", [fp.Dataset("synthetic", x, y, release=[rule], rows="exact")])
        for i, (x, y) in enumerate(data)
    ]
    return Federated(fp.Federation(workers), mlp(), F.cross_entropy, local(), workers)


class Processes:
    """Worker processes in a folder of their own, one for each share of the data."""

    def __init__(self, data, folder, durable):
        self.folder, self.data, self.durable = Path(folder), data, durable
        self.authority = Authority.create()
        self.names = [f"w{i}" for i in range(len(data))]
        self.running = []

    def start(self, address):
        for name, (features, target) in zip(self.names, self.data, strict=True):
            home = self.folder / name
            self.authority.issue(name, Role.WORKER).save(home)
            np.savez(home / "rows.npz", features=features.numpy(), target=target.numpy())
            (home / "worker.toml").write_text(CONFIG.format(name=name, address=address))
            program = ["-m", "fedpriv.cli.app"] if self.durable else ["-c", IN_MEMORY]
            command = [sys.executable, *program, "worker", "start", "--config", str(home / "worker.toml")]
            log = (home / "worker.log").open("wb")
            self.running.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            )

    def federation(self):
        credentials = self.authority.issue("coordinator", Role.COORDINATOR)
        return fp.Federation.listen(
            "127.0.0.1:0",
            credentials=credentials,
            workers=self.names,
            on_listening=self.start,
            state=self.folder / "coordinator" if self.durable else None,
        )

    def close(self):
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(30)


def deployed(data, folder, durable):
    processes = Processes(data, folder, durable)
    return Federated(processes.federation(), mlp(), F.cross_entropy, local(), [processes])


def small_deployed(folder, durable):
    """Two workers with a handful of rows, a model of 1 MB: what a round costs when nobody has anything to do."""
    data = synthetic(2, 4, width=512)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 500), nn.ReLU(), nn.Linear(500, CLASSES))
    processes = Processes(data, folder, durable)
    return Federated(processes.federation(), model, F.cross_entropy, local(), [processes])


def take_turns(contestants, turns, rounds):
    """Return the seconds of every round by contestant; those that started something have it ended."""
    seconds = {name: [] for name in contestants}
    try:
        for _ in range(turns):
            for name, contestant in contestants.items():
                torch.set_num_threads(int(name.split("_")[1]) if "thread" in name else 1)
                seconds[name] += contestant.rounds(rounds)
    finally:
        for contestant in contestants.values():
            if isinstance(contestant, Federated):
                contestant.close()
    return seconds


def measure(turns, rounds):
    """Return the median seconds of a round by contestant, and of the first rounds."""
    data = synthetic(WORKERS, ROWS)
    with tempfile.TemporaryDirectory() as scratch:
        contestants = {
            "plain_1_thread": PlainLoop(data, 1),
            "plain_2_threads": PlainLoop(data, 2),
            "virtual_1_thread": virtual(data, 1),
            "virtual_2_threads": virtual(data, 2),
            "grpc_processes": deployed(data, Path(scratch) / "ten", durable=True),
            "grpc_processes_in_memory": deployed(data, Path(scratch) / "ten-in-memory", durable=False),
        }
        seconds = take_turns(contestants, turns, rounds)
        small = {
            "deployed_1mb": small_deployed(Path(scratch) / "two", durable=True),
            "deployed_1mb_in_memory": small_deployed(Path(scratch) / "two-in-memory", durable=False),
        }
        seconds |= take_turns(small, turns, 20)
    first = {name: each.first for name, each in contestants.items() if isinstance(each, Federated)}
    return {name: statistics.median(values) for name, values in seconds.items()}, first


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the default: one JSON line")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each contestant's turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    s, first = measure(options.turns, options.rounds)
    result = {
        "benchmark": "round",
        "seconds_per_round": s,
        "ratio_virtual_1_thread": s["virtual_1_thread"] / s["plain_1_thread"],
        "ratio_virtual_2_threads": s["virtual_2_threads"] / s["plain_2_threads"],
        "ratio_grpc_to_faster_plain": s["grpc_processes"] / min(s["plain_1_thread"], s["plain_2_threads"]),
        "first_round_seconds": first,
        "ratio_durable_to_in_memory_ledger": s["grpc_processes"] / s["grpc_processes_in_memory"],
        "goals": {
            "virtual": 1.0,
            "grpc": 0.75,
            "durable_to_in_memory_ledger": 1.1,
            "first_round_seconds": 1.0,
            "deployed_1mb": 0.02,
        },
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
    }
    print(json.dumps(json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.4g}"))))


if __name__ == "__main__":
    main()
