"""Seconds per simulated round beside hand-written limits in the same run, and the memory of a million workers.

Run it with: python benchmarks/simulation.py [--json] [--only sim10 sim1000 sim_tiny million] [--threads 1]

sim10: 10 workers x 4,800 rows, an MLP 784-100-100-10, batch 32; the limit is hand-written SGD in two processes.
sim1000: 100 of 1,000 workers x 60 rows, the same MLP, batch 10; the limit is hand-written products over all workers at
once, the fastest of one thread, two threads, and one thread in tens. sim_tiny: 25 workers x 20 rows, Linear(2,1), one
step; the same limit. A round is training, averaging and a central evaluation. Contestants take turns round by round;
figures are medians, with the load of the machine; where that is high, the fastest rounds and the processor's seconds
(which leave out the limit's own processes in sim10) say more. million: peak memory of a process that runs 5 rounds of
1,000 out of a million described workers. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import fedpriv as fp

SCENARIOS = {
    "sim10": {"workers": 10, "asked": 10, "rows": 4800, "batch": 32, "lr": 0.01, "goal": 1.15},
    "sim1000": {"workers": 1000, "asked": 100, "rows": 60, "batch": 10, "lr": 0.01, "goal": 1.15},
    "sim_tiny": {"workers": 25, "asked": 25, "rows": 20, "batch": 20, "lr": 0.1, "goal": 2.0},
}
WIDTH, CLASSES, TEST = 784, 10, 10_000
MILLION = """
import pathlib, torch, fedpriv as fp
from torch import nn

def rows(number):
    features = torch.randn(20, 2, generator=torch.Generator().manual_seed(number))
    return features, features @ torch.tensor([1.5, -2.0]) + 0.3 > 0

result = fp.simulate(
    nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), fp.Population(1_000_000, rows), rounds=5, sampling=fp.Fixed(1000),
    loss=nn.functional.binary_cross_entropy_with_logits, local=fp.LocalTraining(batch_size=20, optimizer=fp.SGD(0.1)),
    on_note=lambda note: None,
)
assert [len(record.workers) for record in result.history.rounds] == [1000] * 5
(peak,) = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
print(peak.split()[1], sum(each.seconds for each in result.history.rounds) / 5)
"""


def data(name):
    """Return all rows, target and the test rows of a scenario."""
    rng = np.random.default_rng(7)
    if name == "sim_tiny":
        x = rng.standard_normal((1000, 2)).astype(np.float32)
        y = (x @ np.array([1.5, -2.0], np.float32) + 0.3 > 0).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(x[-200:]), torch.from_numpy(y[-200:])
    means = rng.normal(0, 1.0, (CLASSES, WIDTH)).astype(np.float32)
    y = rng.integers(0, CLASSES, 60_000 + TEST)
    x = rng.standard_normal((len(y), WIDTH), dtype=np.float32)
    x *= 6.0
    x += means[y]
    x *= 0.15
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    return x[:60_000], y[:60_000], x[60_000:], y[60_000:]


def network(name):
    torch.manual_seed(0)
    if name == "sim_tiny":
        return nn.Linear(2, 1)
    return nn.Sequential(nn.Linear(WIDTH, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, CLASSES))


def loss_of(name):
    if name == "sim_tiny":
        return lambda found, target: F.binary_cross_entropy_with_logits(found.squeeze(-1), target)
    return F.cross_entropy


def accuracy(name, model, x, y):
    with torch.no_grad():
        found = model(x)
        right = (found.squeeze(-1) > 0).float() == y if name == "sim_tiny" else found.argmax(1) == y
        return float(right.float().mean())


def shuffled(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


# --- limits: nothing but training and averaging ----------------------------------------------------------------------


@torch.no_grad()
def by_hand(terms, rows, model, cohort, number):
    """Return the sum of the cohort's trained parameters, one worker after the other."""
    rate, batch = terms["lr"], terms["batch"]
    total = [torch.zeros_like(each) for each in model]
    for worker in cohort:
        x, y = rows(worker)
        order = shuffled(len(x), number * 100_003 + worker)
        w1, b1, w2, b2, w3, b3 = held = [each.clone() for each in model]
        xs, ys = x[order], F.one_hot(y[order], CLASSES).to(x.dtype)
        for start in range(0, len(x), batch):
            xb = xs[start : start + batch]
            step = -rate / len(xb)
            h1 = torch.addmm(b1, xb, w1.t()).relu_()
            h2 = torch.addmm(b2, h1, w2.t()).relu_()
            d3 = torch.softmax(torch.addmm(b3, h2, w3.t()), 1).sub_(ys[start : start + batch])
            d2 = (d3 @ w3).mul_(h2 > 0)
            d1 = (d2 @ w2).mul_(h1 > 0)
            for w, b, d, h in ((w3, b3, d3, h2), (w2, b2, d2, h1), (w1, b1, d1, xb)):
                w.addmm_(d.t(), h, alpha=step)
                b.add_(d.sum(0), alpha=step)
        for each, trained in zip(total, held, strict=True):
            each.add_(trained)
    return total


@torch.no_grad()
def all_at_once(terms, rows, model, cohort, number, tiny):
    """Return the sum of the cohort's trained parameters, every product over all workers at once."""
    rate, batch = terms["lr"], terms["batch"]
    xs, ys = [], []
    for worker in cohort:
        x, y = rows(worker)
        order = shuffled(len(x), number * 100_003 + worker)
        xs.append(x[order])
        ys.append(y[order])
    x, y = torch.stack(xs), torch.stack(ys)
    held = [each.unsqueeze(0).repeat(len(cohort), *[1] * each.dim()) for each in model]
    if tiny:
        w, b = held
        for start in range(0, x.shape[1], batch):
            xb = x[:, start : start + batch]
            d = torch.sigmoid(torch.baddbmm(b.unsqueeze(1), xb, w.transpose(1, 2)))
            d.sub_(y[:, start : start + batch, None]).mul_(1 / xb.shape[1])
            w.baddbmm_(d.transpose(1, 2), xb, alpha=-rate)
            b.sub_(d.sum(1), alpha=rate)
        return [each.sum(0) for each in held]
    w1, b1, w2, b2, w3, b3 = held
    one_hot = F.one_hot(y, CLASSES).to(x.dtype)
    for start in range(0, x.shape[1], batch):
        xb = x[:, start : start + batch]
        step = -rate / xb.shape[1]
        h1 = torch.baddbmm(b1.unsqueeze(1), xb, w1.transpose(1, 2)).relu_()
        h2 = torch.baddbmm(b2.unsqueeze(1), h1, w2.transpose(1, 2)).relu_()
        d3 = torch.softmax(torch.baddbmm(b3.unsqueeze(1), h2, w3.transpose(1, 2)), 2)
        d3.sub_(one_hot[:, start : start + batch])
        d2 = torch.bmm(d3, w3).mul_(h2 > 0)
        d1 = torch.bmm(d2, w2).mul_(h1 > 0)
        for w, b, d, h in ((w3, b3, d3, h2), (w2, b2, d2, h1), (w1, b1, d1, xb)):
            w.baddbmm_(d.transpose(1, 2), h, alpha=step)
            b.add_(d.sum(1), alpha=step)
    return [each.sum(0) for each in held]


def in_a_process(rank, pipe, shared, terms, rows):
    torch.set_num_threads(1)
    while (asked := pipe.recv()) is not None:
        cohort, number = asked
        total = by_hand(terms, rows, [each[2].clone() for each in shared], cohort[rank::2], number)
        for held, each in zip(shared, total, strict=True):
            held[rank].copy_(each)
        pipe.send("done")


class TwoProcesses:
    """Hand-written training in two forked processes, results in shared memory."""

    def __init__(self, terms, rows, model):
        context = multiprocessing.get_context("fork")
        self._shared = [torch.zeros(3, *each.shape).share_memory_() for each in model]
        self._pipes, self._processes = [], []
        for rank in range(2):
            ours, theirs = context.Pipe()
            given = (rank, theirs, self._shared, terms, rows)
            self._processes.append(context.Process(target=in_a_process, args=given, daemon=True))
            self._processes[-1].start()
            self._pipes.append(ours)

    def __call__(self, model, cohort, number):
        for held, each in zip(self._shared, model, strict=True):
            held[2].copy_(each)
        for pipe in self._pipes:
            pipe.send((cohort, number))
        for pipe in self._pipes:
            pipe.recv()
        return [held[0] + held[1] for held in self._shared]

    def close(self):
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


class Limit:
    """One hand-written contestant: its model, and the seconds of its rounds."""

    def __init__(self, name, train, threads, test):
        self.name, self._train, self._threads, self._test = name, train, threads, test
        self.network = network(name)
        self.model = [each.detach().clone() for each in self.network.parameters()]
        self.seconds, self.work = [], []

    def round(self, cohort, number):
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        began, worked = time.perf_counter(), time.process_time()
        self.model = [each.div_(len(cohort)) for each in self._train(self.model, cohort, number)]
        with torch.no_grad():
            for held, each in zip(self.network.parameters(), self.model, strict=True):
                held.copy_(each)
        self.accuracy = accuracy(self.name, self.network, *self._test)
        self.seconds.append(time.perf_counter() - began)
        self.work.append(time.process_time() - worked)
        torch.set_num_threads(before)


def limits_of(name, terms, rows, test):
    model = [each.detach() for each in network(name).parameters()]
    if name == "sim10":
        processes = TwoProcesses(terms, rows, model)
        return {"by hand, two processes": Limit(name, processes, 1, test)}, processes.close

    def stacked(held, cohort, number):
        return all_at_once(terms, rows, held, cohort, number, name == "sim_tiny")

    def in_tens(held, cohort, number):
        sums = [stacked(held, cohort[at : at + 10], number) for at in range(0, len(cohort), 10)]
        return [sum(each) for each in zip(*sums, strict=True)]

    found = {
        f"stacked by hand, {count} thread{'s' * (count > 1)}": Limit(name, stacked, count, test)
        for count in range(1, torch.get_num_threads() + 1)
    }
    if name == "sim1000":
        found["stacked by hand in tens, 1 thread"] = Limit(name, in_tens, 1, test)
    return found, lambda: None


def measured(name, rounds, engine, threads):
    """Return medians of ours and of the limits, which took turns, and what both models are good for."""
    terms = SCENARIOS[name]
    x, y, *test = data(name)
    stride = 6000 if name == "sim10" else terms["rows"]

    def rows(worker):
        start = worker * stride
        return x[start : start + terms["rows"]], y[start : start + terms["rows"]]

    torch.set_num_threads(threads)
    limits, close = limits_of(name, terms, rows, test)
    rng, notes, ours = np.random.default_rng(1), [], []
    began, work = [time.perf_counter(), time.process_time()], []

    def turn(record):
        ours.append(time.perf_counter() - began[0])
        work.append(time.process_time() - began[1])
        cohort = sorted(rng.choice(terms["workers"], terms["asked"], replace=False).tolist())
        for limit in limits.values():
            limit.round(cohort, record.number)
        began[:] = time.perf_counter(), time.process_time()

    result = fp.simulate(
        network(name), fp.Population(terms["workers"], rows), rounds=rounds + 1, loss=loss_of(name),
        local=fp.LocalTraining(batch_size=terms["batch"], optimizer=fp.SGD(terms["lr"])), on_round=turn, engine=engine,
        sampling=fp.Everybody() if terms["workers"] == terms["asked"] else fp.Fixed(terms["asked"]),
        evaluate=lambda model: {"accuracy": accuracy(name, model, *test)}, on_note=notes.append,
    )  # fmt: skip
    close()
    medians = {each: statistics.median(limit.seconds[1:]) for each, limit in limits.items()}
    best, seconds = min(medians.values()), statistics.median(ours[1:])
    least = min(min(limit.seconds[1:]) for limit in limits.values())
    return {
        "seconds": seconds, "limit_seconds": best, "ratio": seconds / best, "ratio_of_fastest": min(ours[1:]) / least,
        "processor_seconds": statistics.median(work[1:]),
        "limit_processor_seconds": min(statistics.median(limit.work[1:]) for limit in limits.values()),
        "goal": terms["goal"], "limits": medians, "first_round_seconds": ours[0], "engine": notes or [engine],
        "accuracy": result.history.rounds[-1].metrics["accuracy"],
        "limit_accuracy": next(iter(limits.values())).accuracy, "load": os.getloadavg()[0],
    }  # fmt: skip


def million():
    finished = subprocess.run([sys.executable, "-c", MILLION], check=True, capture_output=True, text=True)
    kilobytes, seconds = map(float, finished.stdout.split())
    return {"peak_megabytes": round(kilobytes / 1000), "goal_megabytes": 1000, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="one JSON line; otherwise one line each")
    parser.add_argument("--only", nargs="*", choices=(*SCENARIOS, "million"), default=(*SCENARIOS, "million"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="of ours, and the most of a limit")
    options = parser.parse_args()
    many = {"sim10": 1, "sim1000": 1, "sim_tiny": 20}
    found = {
        name: million()
        if name == "million"
        else measured(name, options.rounds * many[name], options.engine, options.threads)
        for name in options.only
    }
    document = {**found, "torch": torch.__version__, "cores": os.cpu_count()}
    if options.json:
        print(json.dumps(document))
        return
    for name, each in document.items():
        print(f"{name}: {each}")


if __name__ == "__main__":
    main()
