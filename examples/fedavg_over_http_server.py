"""Five workers on the network learn to read digits, under four ways of dividing the rows, and one of them crashes.

Run it with: python examples/fedavg_over_http_server.py [--idx FOLDER]
The workers dial a coordinator over gRPC with TLS. After the first round one of them dies and begins anew: the run
goes on, and asks it again once it is back. FOLDER has MNIST as it comes; without it, scikit-learn's digits are
enlarged to 28 x 28. Each experiment leaves a JSON log, in which a client's accuracy is on rows that it held out.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import fedpriv as fp
from fedpriv.learning.draws import drawn
from fedpriv.simulation.dialling import DiallingWorker
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role
from fedpriv_coordinator import comparison
from fedpriv_worker.images import read_idx

EXPERIMENTS = ("uniform", "random-equal", "random-unequal", "skewed")
NAMES = tuple(f"client-{number}" for number in range(5))
RULES = [fp.PlainUpdate(recipients=("server",), weight="exact"), fp.Metrics(recipients=("server",))]


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10))


def digits(folder: Path | None) -> list[np.ndarray]:
    """Return images and labels to learn from, and images and labels to test on."""
    if folder is not None:
        names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        read = [read_idx(next(folder.glob(f"{name}-ubyte*"))) for name in names]
        return [(each[:, None] / 255).astype(np.float32) if each.ndim == 3 else each.astype(np.int64) for each in read]
    pixels, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(pixels / 16).float().reshape(-1, 1, 8, 8)
    images, order = (
        nn.functional.interpolate(small, 28, mode="bilinear").numpy(),
        np.random.default_rng(0).permutation(1797),
    )
    return [images[order[400:]], labels[order[400:]], images[order[:400]], labels[order[:400]]]


def run(
    experiment: str, rows: list[np.ndarray], rounds: int, epochs: int, count: int, state: Path
) -> dict[str, object]:
    images, labels, held_out, answers = rows
    shares = drawn(labels, len(NAMES), seed=1, experiment=experiment, rows=count)
    data = [fp.Dataset("digits", images[s], labels[s], classes=10, validation=0.1, release=RULES) for s in shares]
    authority, clients = Authority.create(), []

    def start(address: str) -> None:
        for name, each in zip(NAMES, data):
            own = authority.issue(name, Role.WORKER)
            clients.append(DiallingWorker(name, [each], address, credentials=own, state=state / name))

    def after(record: object) -> None:
        if record.number == 1:
            clients[-1].restart()

    @torch.inference_mode()
    def evaluate(model: nn.Module) -> dict[str, float]:
        prediction = model.eval()(torch.from_numpy(held_out)).argmax(1)
        return {"accuracy": float((prediction == torch.from_numpy(answers)).float().mean())}

    server = authority.issue("server", Role.COORDINATOR)
    with fp.Federation.listen("127.0.0.1:0", credentials=server, workers=NAMES, on_listening=start) as federation:
        local, loss = fp.LocalTraining(epochs, 8, fp.SGD(lr=0.01)), nn.functional.cross_entropy
        terms = {"local": local, "quorum": 3, "worker_metrics": ("accuracy",), "evaluate": evaluate, "on_round": after}
        result = federation.fit(network(), dataset="digits", loss=loss, rounds=rounds, **terms)
    for client in clients:
        client.close()
    parts = [part for record in result.history.rounds for part in record.workers]
    numbers = {"client number": len(NAMES), "experiment": 1 + EXPERIMENTS.index(experiment), "max round": rounds}
    return numbers | {
        "clients acc": {name: [p.metrics.get("accuracy") for p in parts if p.worker == name] for name in NAMES},
        "server acc": list(result.history.column("accuracy")),
        "final weight": [tensor.flatten().tolist() for tensor in result.model.state_dict().values()],
    }


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one experiment, two rounds, 60 rows each")
    parser.add_argument("--json", action="store_true", help="the logs as one JSON document, without weights")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="a folder for logs and pictures")
    parser.add_argument("--idx", type=Path, help="a folder with MNIST")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    terms = (2, 1, 60) if options.quick else (5, 10, 600)
    rows, logs = digits(options.idx), {}
    for experiment in EXPERIMENTS[3:] if options.quick else EXPERIMENTS:
        with tempfile.TemporaryDirectory() as state:
            log = run(experiment, rows, *terms, Path(state))
        (options.out / f"http-{experiment}.json").write_text(json.dumps(log))
        logs[experiment] = {name: each for name, each in log.items() if name != "final weight"}
        panels = {
            "Clients, on rows held out": log["clients acc"],
            "Server, on test images": {experiment: log["server acc"]},
        }
        comparison.curves(panels, options.out / f"http-{experiment}.png")
    print(json.dumps(logs, indent=None if options.json else 1))
    return logs


if __name__ == "__main__":
    main()
