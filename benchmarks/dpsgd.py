"""A private step of a worker beside a plain step of torch, and beside Opacus where it is installed.

Prints one JSON line: milliseconds a step, the median of interleaved rounds, for an MLP 784-100-100-10 and a small CNN
at batch 64, and each as a multiple of the plain step. The private step is whole: gradients of single examples from a
plan, norms, clipping, noise from an AES stream on a lattice, and the update of the parameters; the plain one is
torch.optim.SGD. `without_taps` differentiates every parameter for each example. Opacus draws its noise from torch's
generator. All run in one thread; only multiples of one run compare.

    python benchmarks/dpsgd.py --json [--quick] [--threads N]        (pip install opacus, for its columns)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from fedpriv.entropy import SystemEntropy
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import validate
from fedpriv.privacy.noises import ExampleNoise
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.private_step import PrivateStep

BATCH, BATCHES = 64, 8
LEARNING_RATE = 0.05
OPACUS_MODES = ("hooks", "functorch", "ew", "ghost")
Step = Callable[[int], None]


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def cnn() -> nn.Module:
    torch.manual_seed(0)
    first = (nn.Conv2d(1, 16, 8, 2, 3), nn.ReLU(), nn.MaxPool2d(2, 1))
    second = (nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten())
    return nn.Sequential(*first, *second, nn.Linear(32 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10))


MODELS = {"mlp": (mlp, (784,)), "cnn": (cnn, (1, 28, 28))}


def rows(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = BATCH * BATCHES
    return torch.randn(count, *shape, generator=generator), torch.randint(0, 10, (count,), generator=generator)


def batch(number: int) -> slice:
    start = number % BATCHES * BATCH
    return slice(start, start + BATCH)


def plain(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Step:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    features, target = rows(shape)

    def step(number: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(features[batch(number)]), target[batch(number)]).backward()
        optimizer.step()

    return step


def private(make: Callable[[], nn.Module], shape: tuple[int, ...], *, tapped: bool = True) -> Step:
    model = make()
    plan = trace_loss(model, F.cross_entropy, TensorExample("float32", shape), TensorExample("int64"))
    gradients = ExampleGradients(validate(plan), tapped=tapped)
    machine = PrivateStep(gradients, ExampleNoise(1.0, 1.0, BATCH / 4800, BATCH, 1))
    held = {name: value.detach().clone() for name, value in model.named_parameters()}
    features, target = rows(shape)
    entropy = SystemEntropy()

    def step(number: int) -> None:
        found = machine.of(held, features[batch(number)], target[batch(number)], entropy)
        for name, value in found.gradient.items():
            held[name].sub_(value, alpha=LEARNING_RATE)

    return step


def opacus(make: Callable[[], nn.Module], shape: tuple[int, ...], mode: str) -> Step:
    from opacus import PrivacyEngine

    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    features, target = rows(shape)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, target), batch_size=BATCH)
    loss = nn.CrossEntropyLoss()
    options = {
        "module": model, "optimizer": optimizer, "data_loader": loader, "noise_multiplier": 1.0, "max_grad_norm": 1.0,
        "poisson_sampling": False, "grad_sample_mode": mode,
    }  # fmt: skip
    engine = PrivacyEngine(accountant="rdp")
    if mode == "ghost":
        model, optimizer, loss, _ = engine.make_private(criterion=loss, **options)
    else:
        model, optimizer, _ = engine.make_private(**options)

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss(model(features[batch(number)]), target[batch(number)]).backward()
        optimizer.step()

    return step


def contestants(name: str) -> dict[str, Step]:
    make, shape = MODELS[name]
    steps = {"plain": plain(make, shape), "private": private(make, shape)}
    steps["private_without_taps"] = private(make, shape, tapped=False)
    try:
        import opacus as _  # noqa: F401
    except ImportError:
        return steps
    for mode in OPACUS_MODES:
        steps[f"opacus_{mode}"] = opacus(make, shape, mode)
    return steps


def milliseconds(steps: dict[str, Step], rounds: int, each: int) -> dict[str, float]:
    """Return the median time of a step of each contestant, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            for at in range(each):
                step(at)
            if number:  # the first round warms up
                taken[name].append((time.perf_counter() - begun) / each * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line, which is all it prints anyway")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    rounds, each = (3, 5) if options.quick else (15, 20)
    found: dict[str, object] = {"benchmark": "dpsgd", "batch": BATCH, "threads": options.threads}
    for name in MODELS:
        taken = milliseconds(contestants(name), rounds, each)
        times = {contestant: value / taken["plain"] for contestant, value in taken.items()}
        found[name] = {"milliseconds": taken, "times_plain": times}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
