"""Two workers that disagree: where gradient ascent, federated averaging and posterior averaging end.

Run it with: python examples/fedavg_vs_gradient_descent.py
Each worker's posterior over two parameters is a Gaussian; the goal is the peak of their sum. Averaging often reaches
it, averaging seldom misses it, and posterior averaging, which sends how sure a worker is, needs few rounds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import fedpriv as fp
from fedpriv.learning.posterior import shrinkage_delta
from fedpriv.learning.strategies import Contribution, Gathering, Setting, Standing
from fedpriv.updates import TensorSet
from fedpriv_coordinator import plots

START = np.array([-2.0, 0.1])


def gaussian(mean, spread):
    inverse, scale = np.linalg.inv(spread), 2 * np.pi * np.linalg.det(spread) ** 0.5
    return lambda at: np.exp(-0.5 * np.einsum("...i,ij,...j", at - mean, inverse, at - mean)) / scale


def total(at: np.ndarray) -> np.ndarray:
    return WORKERS[0](at) + WORKERS[1](at)


WORKERS = gaussian([0, 1], [[1, -0.9], [-0.5, 1.5]]), gaussian([0, -1.2], [[1.5, 0.6], [0.9, 1]])


def ascend(density, start: np.ndarray, steps: int) -> np.ndarray:
    """Return every place on the way: one coordinate, then the other, 0.3 central differences of width 1 each."""
    way = [start.copy()]
    for _ in range(steps):
        place = way[-1].copy()
        for coordinate in np.eye(2):
            place += coordinate * 0.3 * (density(place + coordinate) - density(place - coordinate)) / 2
        way.append(place)
    return np.array(way)


def sample(density, mode: np.ndarray, seed: int) -> np.ndarray:
    """Return 400 draws from a worker's posterior: as many chains of random-walk Metropolis, begun near its mode."""
    generator = np.random.default_rng(seed)
    places = mode + generator.normal(size=(400, 2))
    for _ in range(60):
        proposed = places + generator.normal(size=places.shape)
        places = np.where((generator.random(400) * density(places) < density(proposed))[:, None], proposed, places)
    return places


def averaged(rounds: int, steps: int | None, rate: float = 1.0) -> np.ndarray:
    """Return every round's place: updates of so many ascending steps, or of posteriors, averaged by `fp.FedAvgM`."""
    strategy, setting = fp.FedAvgM(rate, momentum=0.0), Setting(fp.LocalTraining(), 2, 2, frozenset({"theta"}))
    standing, way = Standing(setting, TensorSet({"theta": torch.from_numpy(START)})), [START]
    for number in range(rounds):
        at, gathering = way[-1], Gathering()
        for seed, density in enumerate(WORKERS, start=2 * number):
            ascended = ascend(density, at, 100 if steps is None else steps)[-1]
            delta = ascended - at if steps else shrinkage_delta(sample(density, ascended, seed), at)
            strategy.fold(gathering, Contribution(TensorSet({"theta": torch.from_numpy(delta)}), 1.0))
        standing = strategy.conclude(standing, gathering)
        way.append(standing.model["theta"].numpy())
    return np.array(way)


def draw(ways: dict[str, np.ndarray], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first, second = np.meshgrid(*[np.linspace(-3.5, 3.5, 71)] * 2)
    grid = np.stack([first, second], axis=-1)
    with plots.style():
        flat, solid = (Figure(figsize=(6.4, 5.6), layout="constrained") for _ in range(2))
        axes, space = flat.subplots(), solid.add_subplot(projection="3d")
        for density, colour in zip((*WORKERS, total), (plots.GREEN, plots.ORANGE, plots.GREY), strict=True):
            axes.contour(first, second, density(grid), levels=6, colors=colour, linewidths=0.7)
        space.plot_wireframe(first, second, total(grid), rstride=3, cstride=3, color=plots.PALE, linewidth=0.5)
        space.contourf(first, second, total(grid), zdir="z", offset=-0.1, cmap="Blues")
        colours = (plots.GREEN, plots.ORANGE, "black", plots.BLUE, plots.RED, "purple")
        for (name, way), colour in zip(ways.items(), colours, strict=True):
            axes.plot(*way.T, ".-", markersize=3, color=colour, label=f"{name}: {total(way[-1]):.3f}")
            space.plot(*way.T, total(way), ".-", markersize=3, color=colour, label=name)
        space.set_zlim(-0.1, 0.21)
        for each, figure, name in ((axes, flat, "ways.png"), (space, solid, "ways-3d.png")):
            each.set(xlabel="theta 0", ylabel="theta 1", title="Ways over the sum of two posteriors")
            each.legend(loc="upper right", fontsize=8)
            plots.save(figure, folder / name)


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the long run's rounds")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON document")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="a folder for the pictures")
    options = parser.parse_args(arguments)
    rounds = 100 if options.quick else 500
    ways = {
        "worker 1 alone": ascend(WORKERS[0], START, 1000),
        "worker 2 alone": ascend(WORKERS[1], START, 1000),
        "ascent on the sum": ascend(total, START, 1000),
        f"FedAvg, {rounds} x 10": averaged(rounds, 10),
        "FedAvg, 20 x 120": averaged(20, 120),
        "FedPA": averaged(20, None, rate=0.5),
    }
    draw(ways, options.out)
    ways["fedavg_19x100"] = averaged(19, 100)
    found = {name: [*way[-1].tolist(), float(total(way[-1]))] for name, way in ways.items()}
    found["gd_100"] = ascend(WORKERS[0], START, 100)[-1].tolist()
    print(json.dumps(found, indent=None if options.json else 1))
    return found


if __name__ == "__main__":
    main()
