"""What strategies reach: accuracy after 50 rounds on unlike workers, and under attack; the table of docs/strategies.md.

Run it with: python benchmarks/strategies.py [--rounds 50] [--seeds 3] Ten virtual workers share scikit-learn's digits
by Dirichlet(0.1), and a perceptron of one hidden layer learns from them; means and standard errors are over seeds of
partition, weights and order. Then a fifth of ten workers with alike rows (fifteen for Bulyan, which needs more) send
their update times -20; a run that diverged counts as far as it came. One JSON line.
"""

import argparse
import json
import os
import time
from contextlib import suppress

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import fedpriv as fp
from fedpriv.learning.partition import dirichlet, iid
from fedpriv_worker import training

RULES = [fp.PlainUpdate(recipients=("me",), weight="exact"), fp.Metrics(recipients=("me",))]
LOCAL = fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.1))
DRIFT = {
    "fedavg": fp.FedAvg(), "fedprox": fp.FedProx(0.01), "scaffold": fp.Scaffold(), "feddyn": fp.FedDyn(0.1),
    "fedavgm": fp.FedAvgM(1.0, 0.8), "fedadagrad": fp.FedAdagrad(0.1, 1e-2), "fedadam": fp.FedAdam(0.1, eps=1e-2),
    "fedyogi": fp.FedYogi(0.1, eps=1e-2), "fednova": fp.FedNova(), "qfedavg": fp.QFedAvg(0.2),
}  # fmt: skip
CROWD = {"bulyan": 15}
"""Workers of who needs more than 10: 4 f + 3 for f attackers, a fifth of all as for the others."""
ROBUST = {
    "fedavg": fp.FedAvg(), "median": fp.Median(), "trimmed-mean": fp.TrimmedMean(2), "krum": fp.Krum(2),
    "multi-krum": fp.MultiKrum(2), "geometric-median": fp.GeometricMedian(), "norm-bound": fp.NormBound(),
    "norm-bound 0.5": fp.NormBound(0.5), "bulyan": fp.Bulyan(3),
}  # fmt: skip


def rows(seed):
    pixels, labels = load_digits(return_X_y=True)
    features, order = (pixels / 16).astype(np.float32), np.random.default_rng(seed).permutation(len(labels))
    return features, labels, order[360:], order[:360]


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def fleet(features, labels, share_of):
    return [
        fp.VirtualWorker(f"worker-{n}", [fp.Dataset("digits", features[s], labels[s], classes=10, release=RULES)])
        for n, s in enumerate(share_of)
    ]


def accuracies(workers, strategy, seed, rounds, test):
    features, labels = map(torch.from_numpy, test)

    @torch.inference_mode()
    def evaluate(model):
        return {"accuracy": float((model(features).argmax(1) == labels).float().mean())}

    course = []
    with fp.Federation(workers) as federation, suppress(fp.RoundAbandoned):  # a model that diverged is sent no further
        federation.fit(
            network(seed), dataset="digits", loss=nn.functional.cross_entropy, rounds=rounds, local=LOCAL,
            strategy=strategy, evaluate=evaluate, seed=seed, quorum=len(workers),
            worker_metrics=("loss",) if strategy.needs_loss else (),
            on_round=lambda record: course.append(record.metrics["accuracy"]),
        )  # fmt: skip
    for worker in workers:
        worker.close()
    return course


def attacked(workers, attackers, scale=-20.0):
    """Make some workers send their update times `scale`, at the point where it is computed."""
    for worker in workers[:attackers]:
        executor = worker._worker._executor
        honest = executor.carry_out

        def poison(request, plan, stopped, peer, honest=honest):
            outcome = honest(request, plan, stopped, peer)
            if isinstance(outcome, training.Trained):
                for _, tensor in outcome.delta:
                    tensor.mul_(scale)
            return outcome

        executor.carry_out = poison
    return workers


def summary(found):
    last = np.array([each[-1] for each in found])
    return {"mean": round(float(last.mean()), 4), "error": round(float(last.std(ddof=1) / len(last) ** 0.5), 4)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("unlike", "attacked"), help="one half")
    parser.add_argument("--strategies", nargs="*", help="only these")
    options = parser.parse_args()
    began, unlike, alike, courses = time.monotonic(), {}, {}, {}
    for name, strategy in (DRIFT if options.only != "attacked" else {}).items():
        if options.strategies and name not in options.strategies:
            continue
        found = []
        for seed in range(options.seeds):
            features, labels, train, held_out = rows(seed)
            shares = [train[s] for s in dirichlet(labels[train], 10, alpha=0.1, seed=seed, minimum_rows=10)]
            test = features[held_out], labels[held_out]
            found.append(accuracies(fleet(features, labels, shares), strategy, seed, options.rounds, test))
        courses[name], unlike[name] = np.mean(found, axis=0), summary(found)
    goal = courses["fedavg"][-1] if courses else 0.0
    for name, course in courses.items():
        reached = np.flatnonzero(course >= goal)
        unlike[name]["rounds_to_fedavg"] = int(reached[0]) + 1 if len(reached) else None
    for name, strategy in (ROBUST if options.only != "unlike" else {}).items():
        if options.strategies and name not in options.strategies:
            continue
        alike[name] = {}
        crowd = CROWD.get(name, 10)
        for attackers in (0, crowd // 5):
            found = []
            for seed in range(options.seeds):
                features, labels, train, held_out = rows(seed)
                shares = [train[s] for s in iid(len(train), crowd, seed=seed)]
                workers = attacked(fleet(features, labels, shares), attackers)
                found.append(
                    accuracies(workers, strategy, seed, options.rounds, (features[held_out], labels[held_out]))
                )
            alike[name][f"{attackers} of {crowd} attack"] = summary(found)
    print(json.dumps({
        "unlike": unlike, "attacked": alike, "rounds": options.rounds, "seeds": options.seeds,
        "seconds": round(time.monotonic() - began), "load": os.getloadavg()[0],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
