"""Ten virtual workers learn to read digits, none of which leaves its worker.

Run it with: python examples/digits.py
It divides scikit-learn's bundled 1,797 images among ten workers by label (Dirichlet, alpha 0.5), trains a small
convolutional network by federated averaging, and prints what left each worker.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import fedpriv as fp
from fedpriv.learning.partition import dirichlet


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def main(rounds: int = 15) -> float:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(labels))
    held_out, rows = order[:400], order[400:]

    rule = fp.PlainUpdate(recipients=("me",), weight="exact")
    shares = dirichlet(labels[rows], 10, alpha=0.5, seed=0, minimum_rows=20)
    workers = [
        fp.VirtualWorker(
            f"clinic-{number}",
            [fp.Dataset("digits", images[rows[share]], labels[rows[share]], classes=10, release=[rule])],
        )
        for number, share in enumerate(shares)
    ]
    features, target = torch.from_numpy(images[held_out]), torch.from_numpy(labels[held_out])

    def accuracy(model: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            return {"accuracy": float((model(features).argmax(1) == target).float().mean())}

    with fp.Federation(workers) as federation:
        result = federation.fit(
            network(),
            dataset="digits",
            loss=nn.functional.cross_entropy,
            rounds=rounds,
            local=fp.LocalTraining(epochs=2, batch_size=16, optimizer=fp.SGD(lr=0.05, momentum=0.9)),
            evaluate=accuracy,
            on_round=lambda record: print(f"round {record.number}: accuracy {record.metrics['accuracy']:.3f}"),
        )
    print(result)
    for worker in workers:
        worker.close()
    return result.history.rounds[-1].metrics["accuracy"]


if __name__ == "__main__":
    main()
