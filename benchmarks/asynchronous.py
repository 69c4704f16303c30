"""Simulated time to an accuracy: rounds that wait for the slowest device against steps that do not.

Run it with: python benchmarks/asynchronous.py [--seeds 3] Ten virtual workers share scikit-learn's digits alike; their
simulated devices take 1 to 10 simulated seconds for an order. Workers really train; only when their updates count is
simulated. For each accuracy: the simulated seconds after which FedAvg and FedBuff first reach it, means over seeds of
partition, weights, order and devices. One JSON line.
"""

import argparse
import json
import os
import time
from contextlib import suppress

import numpy as np
import torch
from strategies import LOCAL, fleet, network, rows
from torch import nn

import fedpriv as fp
from fedpriv.learning.partition import iid

GOALS = (0.90, 0.93, 0.95)
RUNS = {"fedavg": (fp.FedAvg(), 120), "fedbuff": (fp.FedBuff(4), 400)}


def reached(workers, strategy, rounds, seed, test, spread):
    """Return the simulated seconds at which each goal was first reached, None where it was not."""
    features, labels = map(torch.from_numpy, test)
    found, elapsed = {}, 0.0

    @torch.inference_mode()
    def evaluate(model):
        return {"accuracy": float((model(features).argmax(1) == labels).float().mean())}

    class Enough(Exception):
        pass

    def note(record):
        nonlocal elapsed
        elapsed += record.simulated_seconds
        for goal in GOALS:
            if record.metrics["accuracy"] >= goal:
                found.setdefault(goal, (elapsed, record.number))
        if len(found) == len(GOALS):
            raise Enough

    devices = fp.SimulatedDevices.unlike([each.name for each in workers], times=spread, seed=seed)
    with fp.Federation(workers, devices=devices) as federation, suppress(Enough):
        federation.fit(
            network(seed), dataset="digits", loss=nn.functional.cross_entropy, rounds=rounds, local=LOCAL,
            strategy=strategy, evaluate=evaluate, seed=seed, on_round=note,
        )  # fmt: skip
    return [found.get(goal, (None, None)) for goal in GOALS]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spread", type=float, default=10.0, help="the slowest device over the fastest")
    options = parser.parse_args()
    began, result = time.monotonic(), {}
    for name, (strategy, rounds) in RUNS.items():
        found = []
        for seed in range(options.seeds):
            features, labels, train, held_out = rows(seed)
            workers = fleet(features, labels, [train[s] for s in iid(len(train), 10, seed=seed)])
            found.append(
                reached(workers, strategy, rounds, seed, (features[held_out], labels[held_out]), options.spread)
            )
            for worker in workers:
                worker.close()
        whole = np.array(found, dtype=float)  # seeds, goals, (seconds, steps); NaN where one was not reached
        means = whole.mean(axis=0)
        result[name] = {
            str(goal): {"simulated_seconds": round(float(seconds), 1), "steps": round(float(steps), 1)}
            for goal, (seconds, steps) in zip(GOALS, means, strict=True)
        }
    shares = {
        goal: round(result["fedbuff"][goal]["simulated_seconds"] / each["simulated_seconds"], 3)
        for goal, each in result["fedavg"].items()
    }
    print(json.dumps({
        **result, "share_of_fedavgs_simulated_time": shares, "spread": options.spread, "seeds": options.seeds,
        "seconds": round(time.monotonic() - began), "load": os.getloadavg()[0],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
