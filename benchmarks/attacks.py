"""What attackers get out of images of digits under three protections: none, secure aggregation, DP-SGD.

    python benchmarks/attacks.py FOLDER [--json]

Eight virtual workers with eight images each take one step on a model with a planted layer (Fowl et al. 2022); what
leaves is recorded and attacked, as `fedpriv attack FOLDER/NAME` does. The run "private" takes the orders of the run
"plain", carried out by the worker's private step at its defaults for 1,000 announced rows, every image in the sample.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import fedpriv as fp
from fedpriv.cli.attack import attack
from fedpriv.entropy import SystemEntropy
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import validate
from fedpriv.privacy.attacks.imprint import imprint
from fedpriv.privacy.modes import ExampleDP
from fedpriv.simulation import reconstructions
from fedpriv.simulation.attacking import attacked, worst_of_each
from fedpriv.simulation.recordings import Recording
from fedpriv.wire import codec
from fedpriv.wire.messages import Update
from fedpriv_worker.datasets import Rows
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.payloads import Recorder
from fedpriv_worker.private_step import PrivateStep, train_privately

WORKERS, ROWS, LINES, DATASET = 8, 8, 800, "digits"


def planted(sample: np.ndarray) -> nn.Sequential:
    """Return a classifier whose first layer sorts images into bins by a random measurement of them."""
    measure = np.random.default_rng(0).normal(size=sample.shape[1]) / sample.shape[1]
    trap = imprint(measure, sample, LINES)
    lines = len(trap.thresholds)
    model = nn.Sequential(nn.Linear(sample.shape[1], lines), nn.ReLU(), nn.Linear(lines, 10))
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(trap.weight))
        model[0].bias.copy_(torch.from_numpy(trap.bias))
        model[2].weight.copy_(torch.linspace(-0.2, 0.3, 10)[:, None].expand(10, lines) / lines)
    return model


def recorded(folder: Path, model: nn.Module, rows: Rows, *, secure: bool) -> Recording:
    """Train one step on `rows`, divided among the workers, and return what was recorded."""
    rule = fp.SecureSum() if secure else fp.PlainUpdate(recipients=("me",))
    workers = []
    for at in range(WORKERS):
        own = slice(at * ROWS, (at + 1) * ROWS)
        features, target = rows.features[own], rows.target[own]
        held = fp.Dataset(DATASET, features, target, classes=10, release=[rule], simulated=True)
        workers.append(fp.VirtualWorker(f"worker-{at}", [held], record_payloads=folder))
    how = fp.SecureAggregation() if secure else None
    local = fp.LocalTraining(batch_size=ROWS, optimizer=fp.SGD(lr=3000.0))
    with fp.Federation(workers) as federation:
        result = federation.fit(
            model, dataset=DATASET, loss=F.cross_entropy, rounds=1, local=local, secure_aggregation=how
        )
        result.save(folder)
    for worker in workers:
        worker.close()
    return Recording.load(folder)


def private(folder: Path, model: nn.Module, plain: Recording) -> None:
    """Record what the orders in `plain` let out where each worker takes one step of DP-SGD."""
    noise = replace(ExampleDP().noise(rows=1000, batch_size=ROWS, rounds=10, steps=1), rate=1.0)
    width = plain.workers[0].rows(next(plain.workers[0].orders())).features.shape[1]
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", (width,)), TensorExample("int64"))
    step = PrivateStep(ExampleGradients(validate(plan)), noise)
    for worker in plain.workers:
        order = next(worker.orders())
        rows = worker.rows(order)
        given = dict(order.model)
        trained = train_privately(step, noise, rows, given, fp.SGD(lr=1.0), SystemEntropy(), lambda: False)
        held = fp.Dataset(DATASET, rows.features, rows.target, classes=10, simulated=True)
        recorder = Recorder(folder, worker.worker, [held])
        for way, message in worker.messages:
            shown = replace(message, delta=trained.delta) if isinstance(message, Update) else message
            recorder.keep(way, codec.encode(shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept; none may be there yet")
    parser.add_argument("--json", action="store_true", help="one JSON document a run on stdout")
    options = parser.parse_args()
    images, target = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    count = WORKERS * ROWS
    model = planted(images[count:].astype(np.float64))
    rows = Rows(torch.from_numpy(images[:count]), torch.from_numpy(target[:count]).long())
    plain = recorded(options.folder / "plain", model, rows, secure=False)
    recorded(options.folder / "secure", model, rows, secure=True)
    private(options.folder / "private", model, plain)
    drawn = []
    drawn_of = (("plain", "update"), ("secure", "masked"), ("secure", "sum"), ("private", "update"))
    for name, released in drawn_of:
        worst = worst_of_each(attacked(Recording.load(options.folder / name)))
        wanted = [each for each, _ in worst if each.kind == ("planted layer", released)]
        drawn += [replace(each, of=f"{each.of} of run {name!r}") for each in wanted]
    reconstructions.draw(drawn, options.folder / "attacks.png")
    for name in ("plain", "secure", "private"):
        if not options.json:
            print(f"\n{name}")
        attack(options.folder / name, None, 1e-5, as_json=options.json)


if __name__ == "__main__":
    main()
