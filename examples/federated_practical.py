"""From one place to many: a curve and a classifier that no worker has all the rows of.

Run it with: python examples/federated_practical.py [--idx FOLDER]
Three workers fit a curve from points of one function, then each from one of its own. Ten workers then learn to tell
images apart: all of them in every round, half of them, and half where each holds few classes. FOLDER has Fashion-MNIST
as it comes (train-images-idx3-ubyte.gz and so on); without it, scikit-learn's digits stand in.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import fedpriv as fp
from fedpriv.learning.partition import by_label, iid
from fedpriv_coordinator import comparison
from fedpriv_worker.images import read_idx

RULES = [fp.PlainUpdate(recipients=("me",), weight="exact"), fp.Metrics(recipients=("me",))]
CURVES = (
    lambda x, noise: x**2 + 10 * np.sin(x) + 2 * noise,
    lambda x, noise: np.exp(x) - 2 * x**2 + 1.5 * noise,
    lambda x, noise: 3 * x**3 - 5 * np.cos(x) + noise,
)


def layers(*sizes: int) -> nn.Sequential:
    torch.manual_seed(67)
    pairs = [each for pair in pairwise(sizes) for each in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*pairs[:-1])


def fit(shares, model: nn.Module, evaluate, data=None, **terms) -> fp.Result:
    """Return the result of a run over one virtual worker per share; `evaluate` is run without gradients."""
    rows = [fp.Dataset("rows", *share, release=RULES, **(data or {})) for share in shares]
    workers = [fp.VirtualWorker(f"worker-{number}", [each]) for number, each in enumerate(rows)]
    with fp.Federation(workers) as federation:
        result = federation.fit(model, dataset="rows", evaluate=torch.inference_mode()(evaluate), **terms)
    for worker in workers:
        worker.close()
    return result


def regression(alike: bool, rounds: int) -> tuple:
    """Return the loss on all workers' points after every round, those points, and the curve that was fitted."""
    generator, shares = np.random.default_rng(42), []
    for curve in CURVES:
        x, noise = generator.uniform(-2, 2, (100, 1)), generator.normal(size=(100, 1))
        y = x**3 + 1.5 * noise if alike else curve(x, noise)
        shares.append((x.astype(np.float32), y[:, 0].astype(np.float32)))
    x, y = (torch.from_numpy(np.concatenate(each)) for each in zip(*shares))
    model, loss = nn.Sequential(*layers(1, 128, 64, 1), nn.Flatten(0)), F.mse_loss
    local = fp.LocalTraining(epochs=5, batch_size=100, optimizer=fp.SGD(lr=0.001, momentum=0.9))
    result = fit(shares, model, lambda net: {"loss": float(loss(net(x), y))}, loss=loss, rounds=rounds, local=local)
    grid = torch.linspace(-2, 2, 200)
    return list(result.history.column("evaluation/loss")), shares, (grid, result.model(grid[:, None]).detach())


def images(folder: Path | None):
    """Return rows to learn from, rows to test on, the rows of a shard, and the local training that suits them."""
    if folder is None:
        pixels, labels = load_digits(return_X_y=True)
        features, order = (pixels / 16).astype(np.float32), np.random.default_rng(0).permutation(len(labels))
        parts = [(features[rows], labels[rows]) for rows in (order[360:], order[:360])]
        return (*parts, 30, fp.LocalTraining(epochs=2, batch_size=8, optimizer=fp.SGD(lr=0.1)))
    parts = []
    for name in ("train", "t10k"):
        files = (next(folder.glob(f"{name}-{what}-ubyte*")) for what in ("images-idx3", "labels-idx1"))
        pixels, labels = (read_idx(path) for path in files)
        parts.append(((pixels.reshape(len(pixels), -1) / 255).astype(np.float32), labels.astype(np.int64)))
    return (*parts, 1000, fp.LocalTraining(epochs=1, batch_size=32, optimizer=fp.SGD(lr=0.01)))


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 rounds of regression and 3 of images")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON document")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="a folder for the pictures")
    parser.add_argument("--idx", type=Path, help="a folder with Fashion-MNIST")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    points, rounds = (10, 3) if options.quick else (4000, 10)
    fits = {"one function": regression(True, points), "three functions": regression(False, points)}
    losses = {"Loss of the common curve": {name: each[0] for name, each in fits.items()}}
    comparison.curves(losses, options.out / "practical-regression.png")
    comparison.fits({name: each[1:] for name, each in fits.items()}, options.out / "practical-fits.png")
    (features, labels), test, shard, local = images(options.idx)
    held_out, answers = map(torch.from_numpy, test)
    alike, shards = iid(len(labels), 10, seed=0), by_label(labels, 10, seed=0, shard_rows=shard)
    found, half = {}, {} if options.quick else {"half": (alike, fp.Fraction(0.5))}
    cases = {"full": (alike, None), "shards, half": (shards, fp.Fraction(0.5)), **half}
    terms = {"rounds": rounds, "local": local, "worker_metrics": ("loss", "accuracy"), "loss": F.cross_entropy}
    for name, (shares, sampling) in {"central": ([np.arange(len(labels))], None), **cases}.items():
        found[name] = fit(
            [(features[share], labels[share]) for share in shares],
            layers(features.shape[1], 100, 100, 10),
            lambda net: {"accuracy": float((net(held_out).argmax(1) == answers).float().mean())},
            {"classes": 10, "validation": 0.2},
            sampling=sampling,
            **terms,
        ).history
    columns = ("accuracy", "worker/accuracy", "worker/loss")
    comparison.compare(found, options.out / "practical-images.png", columns=columns)
    for name in ("full", "shards, half"):
        fp.plot_partitions(labels, cases[name][0], options.out / f"practical-{name[:6]}.png")
    numbers: dict[str, object] = {name: {each: run.column(each)[-1] for each in columns} for name, run in found.items()}
    numbers["regression"] = {name: each[0][-1] for name, each in fits.items()}
    print(json.dumps(numbers, indent=None if options.json else 1))
    return numbers


if __name__ == "__main__":
    main()
