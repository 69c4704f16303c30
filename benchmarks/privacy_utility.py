"""What privacy costs in accuracy: digits and breast cancer, trained by `Federation.fit` under three modes.

    python benchmarks/privacy_utility.py [--quick] [--json] [--only NAME] [--plot FILE]

Prints a table, or with `--json` one JSON line, for each data set. Virtual workers hold equal shares of three quarters
of the rows, accuracy is that on the last quarter; a seed divides the rows, the noise comes from the operating system.
For each epsilon: `central`, `distributed`, `central_executed` (central noise of the variance that the distributed mode
really adds when nobody drops out, which is `price` times what it is billed for) and, where workers have rows enough,
`example`. Figures are means and sample deviations over the seeds, one run each. One draw of noise moves an accuracy by
more than the two modes differ, so `difference`, distributed minus central_executed, is that of DRAWS draws of each for
each seed, by the code that workers and coordinator add them with, on what the workers of that seed learned; with the
standard error of its mean. `executed_noise` is the deviation of all parameters of whole runs where nothing is learned
(a learning rate of 1e-12), over the one that the price foretells. `--plot` draws what was measured; `--from FILE` draws
and tells lines that `--json` printed before, without a run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn import functional as F

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.learning.partition import iid
from fedpriv.privacy.lattice import LatticeGaussian
from fedpriv.privacy.modes import Mode
from fedpriv.privacy.noises import DistributedNoise
from fedpriv.privacy.rounding import clipped
from fedpriv.secagg.thresholds import colluding, least_threshold

DELTA = 1e-5
EPSILONS = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0)
SEEDS, DRAWS = 5, 400
CENTRE = 5 / 16  # of a feature's range: ink is rare, and so are large tumours
EVERYBODY = 1000  # a batch that holds all rows of a worker
BUDGET = fp.Budget(1e9, DELTA)  # one data set serves every run here; a real owner's ends after the first
MODES = ("central", "distributed", "central_executed", "example")


@dataclass(frozen=True)
class Setting:
    """A data set, its workers, and the public choices that it is trained with; those of rows as `example`."""

    workers: int
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    outputs: int
    clip: float
    local: fp.LocalTraining
    example_clip: float = 0.0
    example: fp.LocalTraining | None = None
    epsilons: tuple[float, ...] = EPSILONS
    rounds: int = 1
    example_rounds: int = 2

    def model(self, features: int) -> nn.Module:
        layer = nn.Linear(features, self.outputs)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer if self.outputs > 1 else nn.Sequential(layer, nn.Flatten(0))

    @property
    def loss(self):
        return F.cross_entropy if self.outputs > 1 else F.binary_cross_entropy_with_logits

    def right(self, scores: torch.Tensor, target: torch.Tensor) -> float:
        found = scores.argmax(1) if self.outputs > 1 else scores > 0
        return float((found == target).double().mean())


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, target = load_digits(return_X_y=True)
    return (images / 16 - CENTRE).astype(np.float32), target


def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Return the table scaled by the ranges that its published description lists."""
    table = load_breast_cancer()
    line = r"^[a-z ]+ \((?:mean|standard error|worst)\): +([\d.]+) +([\d.]+)$"
    ranges = re.findall(line, table.DESCR, re.MULTILINE)
    low, high = np.array(ranges, dtype=np.float64).T
    return ((table.data - low) / (high - low) - CENTRE).astype(np.float32), table.target == 0


def loop(epochs: int, lr: float, batch_size: int = EVERYBODY) -> fp.LocalTraining:
    return fp.LocalTraining(epochs=epochs, batch_size=batch_size, optimizer=fp.SGD(lr=lr))


SETTINGS = {
    "digits": Setting(10, digits, 10, 0.3, loop(50, 0.5), 0.5, loop(10, 6.0, 130)),
    "breast-cancer": Setting(3, cancer, 1, 0.3, loop(50, 0.5), 0.5, loop(10, 4.0, 140)),
    "digits-40": Setting(40, digits, 10, 0.3, loop(50, 0.5), epsilons=(2.0, 4.0, 8.0, 16.0)),
}


class Fleet:
    """The workers of one seed, and the rows that none of them has."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.seed = setting, seed
        features, target = setting.load()
        order = np.random.default_rng(seed).permutation(len(features))
        held_out, training = order[: len(order) // 4], order[len(order) // 4 :]
        self.tests = torch.from_numpy(features[held_out]), torch.from_numpy(target[held_out])
        classes = setting.outputs if setting.outputs > 1 else None
        rules = [fp.PlainUpdate(recipients=("me",)), fp.SecureSum()]
        self.workers = []
        for at, share in enumerate(iid(len(training), setting.workers, seed=seed)):
            mine = training[share]
            rows = fp.Dataset("rows", features[mine], target[mine], classes=classes, release=rules, budget=BUDGET)
            self.workers.append(fp.VirtualWorker(f"worker-{at}", [rows]))
        self.federation = fp.Federation(self.workers)

    @cached_property
    def updates(self) -> list[np.ndarray]:
        """What each worker's rows alone change in the model, shape (parameters,) each: a run of that worker alone."""
        found = []
        for worker in self.workers:
            with fp.Federation([worker]) as alone:
                _, result = self.fit(None, federation=alone)
            found.append(nn.utils.parameters_to_vector(result.model.parameters()).detach().double().numpy())
        return found

    def accuracy(self, parameters: np.ndarray) -> float:
        """Return the accuracy on the held-out rows of a model of these parameters; it began at zero."""
        model = self.setting.model(self.tests[0].shape[1])
        nn.utils.vector_to_parameters(torch.from_numpy(parameters).float(), model.parameters())
        return self.accuracy_of(model)

    def accuracy_of(self, model: nn.Module) -> float:
        """Return the accuracy of `model` on the held-out rows."""
        with torch.no_grad():
            return self.setting.right(model(self.tests[0]), self.tests[1])

    def close(self) -> None:
        self.federation.close()
        for worker in self.workers:
            worker.close()

    def fit(
        self, mode: Mode | None, *, by_rows: bool = False, federation: fp.Federation | None = None
    ) -> tuple[float, fp.Result]:
        """Train under `mode` and return the accuracy on the held-out rows, and the result."""
        setting = self.setting
        summed = isinstance(mode, fp.DistributedDP | fp.ExampleDP)
        result = (federation or self.federation).fit(
            setting.model(self.tests[0].shape[1]),
            dataset="rows",
            loss=setting.loss,
            rounds=setting.example_rounds if by_rows else setting.rounds,
            local=setting.example if by_rows else setting.local,
            secure_aggregation=fp.SecureAggregation() if summed else None,
            privacy=mode,
            seed=self.seed,
        )
        return self.accuracy_of(result.model), result


def dimension(setting: Setting) -> int:
    return sum(value.numel() for value in setting.model(setting.load()[0].shape[1]).parameters())


def noise_of(setting: Setting, mode: fp.DistributedDP) -> DistributedNoise:
    """Return the noise that `mode` shares out among all workers, none of whom drops out."""
    count = setting.workers
    hostile = colluding(count)
    threshold = least_threshold(count, hostile)
    return mode.noise(
        rounds=setting.rounds, workers=count, threshold=threshold, dimension=dimension(setting), colluding=hostile
    )


def executed_multiplier(billed: float, noise: DistributedNoise) -> float:
    """Return the multiplier of central noise of the variance that is executed where `billed` is what is billed."""
    return billed * math.sqrt(noise.price)


def gaps(fleet: Fleet, epsilon: float, billed: float, draws: int) -> list[float]:
    """Return accuracies under distributed noise less those under central noise of its executed variance, by draw."""
    setting, entropy = fleet.setting, SystemEntropy()
    noise = noise_of(setting, fp.DistributedDP(clip=setting.clip, epsilon=epsilon, delta=DELTA))
    central = LatticeGaussian(setting.clip, executed_multiplier(billed, noise), dimension(setting))
    total = np.sum([clipped(update, setting.clip) for update in fleet.updates], axis=0)
    found = []
    for _ in range(draws):
        shared = sum(noise.contribution(update, entropy) for update in fleet.updates) / noise.rounding.scale
        one, other = (fleet.accuracy(values / setting.workers) for values in (shared, central.noisy(total, entropy)))
        found.append(one - other)
    return found


def measured(fleet: Fleet, epsilon: float) -> dict[str, tuple[float, float]]:
    """Return for each mode the accuracy and the noise multiplier that it came to."""
    setting, found = fleet.setting, {}

    def one(name: str, mode: Mode, *, by_rows: bool = False) -> None:
        accuracy, result = fleet.fit(mode, by_rows=by_rows)
        found[name] = accuracy, result.privacy.noise_multiplier

    aim = {"epsilon": epsilon, "delta": DELTA}
    distributed = fp.DistributedDP(clip=setting.clip, **aim)
    one("central", fp.CentralDP(clip=setting.clip, **aim))
    one("distributed", distributed)
    executed = executed_multiplier(found["distributed"][1], noise_of(setting, distributed))
    one("central_executed", fp.CentralDP(clip=setting.clip, noise_multiplier=executed, delta=DELTA))
    if setting.example is not None:
        one("example", fp.ExampleDP(clip=setting.example_clip, **aim), by_rows=True)
    return found


def executed_noise(fleet: Fleet) -> dict[str, float]:
    """Return the deviation of the noise in a model that learned nothing, over the one that was to be executed."""
    setting = fleet.setting
    distributed = fp.DistributedDP(clip=setting.clip, epsilon=8.0, delta=DELTA)
    still = replace(setting, local=loop(1, 1e-12))
    fleet.setting = still
    try:
        found, multiplier = {}, 0.0
        for name in ("distributed", "central_executed"):
            central = fp.CentralDP(clip=setting.clip, noise_multiplier=multiplier or 1.0, delta=DELTA)
            _, result = fleet.fit(distributed if name == "distributed" else central)
            billed = result.privacy.noise_multiplier
            multiplier = multiplier or executed_multiplier(billed, noise_of(setting, distributed))
            noise = nn.utils.parameters_to_vector(result.model.parameters()).detach().double()
            wanted = multiplier * setting.clip * math.sqrt(setting.rounds) / setting.workers
            found[name] = float(noise.pow(2).mean().sqrt()) / wanted
        return found
    finally:
        fleet.setting = setting


def summary(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "deviation": round(deviation, 4)}


def difference(found: list[float]) -> dict[str, float]:
    told = summary(found)
    return {"mean": told["mean"], "standard_error": round(told["deviation"] / math.sqrt(len(found)), 4)}


def document(name: str, setting: Setting, seeds: int, draws: int) -> dict[str, object]:
    """Run everything about one data set and return what came of it."""
    begun, load = time.perf_counter(), os.getloadavg()[0]
    plain: dict[str, list[float]] = {"update": [], "example": []}
    noise: list[dict[str, float]] = []
    runs: dict[float, list[dict[str, tuple[float, float]]]] = {epsilon: [] for epsilon in setting.epsilons}
    apart: dict[float, list[float]] = {epsilon: [] for epsilon in setting.epsilons}
    for seed in range(seeds):
        fleet = Fleet(setting, seed)
        try:
            plain["update"].append(fleet.fit(None)[0])
            if setting.example is not None:
                plain["example"].append(fleet.fit(None, by_rows=True)[0])
            noise.append(executed_noise(fleet))
            for epsilon, into in runs.items():
                into.append(measured(fleet, epsilon))
                apart[epsilon] += gaps(fleet, epsilon, into[-1]["distributed"][1], draws)
        finally:
            fleet.close()
        print(f"{name}: {seed + 1} of {seeds} seeds", file=sys.stderr)
    by_epsilon = {}
    for epsilon, each in runs.items():
        told = {
            mode: {**summary([run[mode][0] for run in each]), "noise_multiplier": round(each[0][mode][1], 4)}
            for mode in each[0]
        }
        by_epsilon[f"{epsilon:g}"] = {**told, "difference": difference(apart[epsilon])}
    return {
        "benchmark": "privacy_utility", "data": name, "workers": setting.workers, "seeds": seeds, "draws": draws,
        "delta": DELTA, "parameters": dimension(setting), "clip": setting.clip, "rounds": setting.rounds,
        "steps": setting.local.epochs, "lr": setting.local.optimizer.lr,
        "example": None if setting.example is None else {
            "clip": setting.example_clip, "rounds": setting.example_rounds, "steps": setting.example.epochs,
            "lr": setting.example.optimizer.lr, "batch_size": setting.example.batch_size,
        },
        "price": round(
            noise_of(setting, fp.DistributedDP(clip=setting.clip, noise_multiplier=1.0, delta=DELTA)).price, 3
        ),
        "none": {mode: summary(values) for mode, values in plain.items() if values},
        "executed_noise": {mode: summary([each[mode] for each in noise]) for mode in noise[0]},
        "epsilon": by_epsilon,
        "seconds": round(time.perf_counter() - begun, 1), "load_before": round(load, 1),
    }  # fmt: skip  # one line of numbers


def table(found: dict) -> str:
    """Return `found` as a table in Markdown."""
    shown = [mode for mode in MODES if mode in next(iter(found["epsilon"].values()))]

    def cell(value: dict[str, float]) -> str:
        return f"{value['mean']:.3f} ± {value['deviation']:.3f}"

    lines = [
        f"{found['data']}: {found['workers']} workers, {found['parameters']} parameters, {found['seeds']} seeds",
        "",
        "| epsilon | " + " | ".join(shown) + " | difference | price |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for epsilon, row in found["epsilon"].items():
        gap = row["difference"]
        cells = [cell(row[mode]) for mode in shown]
        apart = f"{gap['mean']:+.3f} ± {gap['standard_error']:.3f}"
        lines.append(f"| {epsilon} | {' | '.join(cells)} | {apart} | {found['price']:g} |")
    none = found["none"]
    cells = [cell(none["example" if mode == "example" else "update"]) for mode in shown]
    lines.append(f"| none | {' | '.join(cells)} | | |")
    return "\n".join(lines)


def draw(every: list[dict], path: Path) -> None:
    """Draw accuracy against epsilon, a panel for each data set; bars are deviations over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fedpriv_coordinator.plots import BLUE, GREEN, GREY, ORANGE

    looks = {"central": (BLUE, "o"), "distributed": (ORANGE, "s"), "example": (GREEN, "^")}
    figure = Figure(figsize=(4.2 * len(every), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, found in zip(figure.subplots(1, len(every), sharey=True, squeeze=False)[0], every, strict=True):
        epsilons = [float(each) for each in found["epsilon"]]
        for nth, (mode, (colour, marker)) in enumerate(looks.items()):
            rows = [row[mode] for row in found["epsilon"].values() if mode in row]
            if rows:
                at = [epsilon * (1 + 0.03 * (nth - 1)) for epsilon in epsilons]  # beside each other
                means, bars = [row["mean"] for row in rows], [row["deviation"] for row in rows]
                axes.errorbar(at, means, bars, color=colour, marker=marker, capsize=2.5, ms=5, lw=1.6, label=mode)
        best = max(value["mean"] for value in found["none"].values())
        axes.axhline(best, color=GREY, ls="--", lw=1.2, label="no privacy")
        axes.set_xscale("log", base=2)
        axes.set_xticks(epsilons, [f"{each:g}" for each in epsilons])
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        axes.grid(axis="y", color="#e5e7eb")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{found['data'].split('-40')[0]}, {found['workers']} workers", loc="left", fontsize=11)
        axes.set_xlabel(f"epsilon, at delta {found['delta']:g}")
    figure.axes[0].set_ylabel("accuracy on held-out rows")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line a data set on stdout")
    parser.add_argument("--quick", action="store_true", help="two seeds, epsilon 3 and 8, few draws, no 40 workers")
    parser.add_argument("--only", choices=SETTINGS, help="one data set")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    parser.add_argument("--from", dest="earlier", type=Path, help="JSON lines to show instead of a run")
    options = parser.parse_args()
    every = []
    if options.earlier is not None:
        every = [json.loads(line) for line in options.earlier.read_text().splitlines()]
    else:
        wanted = [name for name in SETTINGS if not (options.quick and name == "digits-40")]
        for name in [options.only] if options.only else wanted:
            setting = replace(SETTINGS[name], epsilons=(3.0, 8.0)) if options.quick else SETTINGS[name]
            every.append(document(name, setting, *((2, 20) if options.quick else (SEEDS, DRAWS))))
    for found in every:
        print(json.dumps(found) if options.json else f"{table(found)}\n", flush=True)
    if options.plot is not None:
        draw(every, options.plot)


if __name__ == "__main__":
    main()
