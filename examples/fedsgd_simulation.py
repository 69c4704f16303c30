"""Gradient descent on many devices: each round some of them send one gradient, and the server takes Adam's step.

Run it with: python examples/fedsgd_simulation.py
A line divides points in a square; every device holds some thousands of points and their sides. In each of 100 rounds
20 to 29 of the devices are drawn, the gradients of all their points are summed, and Adam takes a step of rate 1.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import binary_cross_entropy

import fedpriv as fp
from fedpriv_coordinator import comparison, plots

WEIGHTS = np.array([0.3, 0.2, 0.8])  # of the line: 0.3 + 0.2 x + 0.8 y = 0
BATCH = 1000


def points(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(seed).uniform(-1, 1, size=(rows, 2)).astype(np.float32)
    return features, WEIGHTS[0] + features @ WEIGHTS[1:] > 0


def device(number: int, batch: int) -> fp.VirtualWorker:
    batches = np.random.default_rng(number).integers(5, 10)  # 5 to 9, as many as a device happens to have
    features, sides = points(batches * batch, seed=100 + number)
    rule = fp.PlainUpdate(recipients=("me",), weight="exact")
    data = fp.Dataset("points", features, sides, release=[rule], rows="exact")
    return fp.VirtualWorker(f"device-{number:02}", [data])


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 1), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Flatten(0))


def evaluate(trained: nn.Module) -> dict[str, float]:
    features, sides = (torch.from_numpy(each) for each in points(BATCH, seed=99))
    with torch.inference_mode():
        prediction = trained(features)
    right = (prediction.round().bool() == sides).float().mean()
    return {"loss": float(binary_cross_entropy(prediction, sides.float())), "accuracy": float(right)}


def draw_points(trained: nn.Module, path: Path) -> None:
    features, sides = points(BATCH, seed=99)
    slope_x, slope_y, offset = (*trained[0].weight[0].tolist(), trained[0].bias.item())
    with plots.style():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for side, colour in ((True, plots.BLUE), (False, plots.ORANGE)):
            axes.scatter(*features[sides == side].T, s=6, color=colour)
        across = np.array([-1.0, 1.0])
        axes.plot(across, -(WEIGHTS[0] + WEIGHTS[1] * across) / WEIGHTS[2], "--", color="black", label="the line")
        axes.plot(across, -(offset + slope_x * across) / slope_y, color=plots.RED, label="what was learned")
        axes.set(xlim=(-1, 1), ylim=(-1, 1), title="Points, and the line between them")
        axes.legend(loc="upper right", frameon=True)
        plots.save(figure, path)


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 rounds, 12 devices, a tenth of the points")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON document")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="a folder for the pictures")
    options = parser.parse_args(arguments)
    batch, devices, rounds = (BATCH // 10, 12, 30) if options.quick else (BATCH, 30, 100)
    workers = [device(number, batch) for number in range(devices)]
    with fp.Federation(workers) as federation:
        result = federation.fit(
            model(),
            dataset="points",
            loss=binary_cross_entropy,
            rounds=rounds,
            local=fp.LocalTraining(epochs=1, batch_size=9 * batch, optimizer=fp.SGD(lr=1.0)),
            strategy=fp.FedSGD(lr=1.0, server="adam", total=True),
            sampling=fp.Between(devices * 2 // 3, devices - 1),
            evaluate=evaluate,
        )
    for worker in workers:
        worker.close()
    losses, accuracies = result.history.column("evaluation/loss"), result.history.column("accuracy")
    asked = [len(record.workers) for record in result.history.rounds]
    options.out.mkdir(parents=True, exist_ok=True)
    comparison.curves({"Loss after each round": {"loss": losses}}, options.out / "fedsgd-loss.png")
    comparison.curves({"Accuracy after each round": {"accuracy": accuracies}}, options.out / "fedsgd-accuracy.png")
    draw_points(result.model, options.out / "fedsgd-points.png")
    found = {"rounds": rounds, "asked": [min(asked), max(asked)], "loss": losses[-1], "accuracy": accuracies[-1]}
    print(json.dumps(found, indent=None if options.json else 1))
    return found


if __name__ == "__main__":
    main()
