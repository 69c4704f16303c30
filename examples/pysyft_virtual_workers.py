"""A program for PySyft 0.2, unchanged but for its import: a line is trained on the rows of two virtual workers.

Run it with: python examples/pysyft_virtual_workers.py
It trains the toy model here first, then over bob and alice: the model goes to where the rows are, learns there and
comes back, and only losses and weights are seen here. `--quick` trains for a few rounds, `--json` prints one object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import nn

import fedpriv.syft as sy
from fedpriv.syft import optim


def train_here(iterations: int, show: Callable[[torch.Tensor], None]) -> None:
    # A Toy Dataset
    data = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], requires_grad=True)
    target = torch.tensor([[0], [0], [1], [1.0]], requires_grad=True)

    # A Toy Model
    model = nn.Linear(2, 1)

    # Training Logic
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    for _ in range(iterations):
        opt.zero_grad()
        pred = model(data)
        loss = ((pred - target) ** 2).sum()
        loss.backward()
        opt.step()
        show(loss.data)


def train_over_workers(iterations: int, show: Callable[[torch.Tensor], None]) -> None:
    hook = sy.TorchHook(torch)
    # create a couple workers
    bob = sy.VirtualWorker(hook, id="bob")
    alice = sy.VirtualWorker(hook, id="alice")

    # A Toy Dataset
    data = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], requires_grad=True)
    target = torch.tensor([[0], [0], [1], [1.0]], requires_grad=True)
    # get pointers to training data on each worker by
    # sending some training data to bob and alice
    data_bob = data[0:2]
    target_bob = target[0:2]
    data_alice = data[2:]
    target_alice = target[2:]
    # Initialize A Toy Model
    model = nn.Linear(2, 1)
    data_bob = data_bob.send(bob)
    data_alice = data_alice.send(alice)
    target_bob = target_bob.send(bob)
    target_alice = target_alice.send(alice)
    # organize pointers into a list
    datasets = [(data_bob, target_bob), (data_alice, target_alice)]

    # Training Logic
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    for _ in range(iterations):
        # NEW) iterate through each worker's dataset
        for data, target in datasets:
            # NEW) send model to correct worker
            model.send(data.location)
            # 1) erase previous gradients (if they exist)
            opt.zero_grad()
            # 2) make a prediction
            pred = model(data)
            # 3) calculate how much we missed
            loss = ((pred - target) ** 2).sum()
            # 4) figure out which weights caused us to miss
            loss.backward()
            # 5) change those weights
            opt.step(data.shape[0])
            # NEW) get model (with gradients)
            model.get()
            # 6) print our progress
            show(loss.get())  # NEW) slight edit... need to call .get() on loss


def main(*, quick: bool = False, as_json: bool = False) -> dict[str, list[float]]:
    torch.manual_seed(18)
    losses: dict[str, list[float]] = {"here": [], "over_workers": []}
    for name, train, iterations in (("here", train_here, 20), ("over_workers", train_over_workers, 10)):
        seen: list[torch.Tensor] = []
        show = seen.append if as_json else lambda loss, seen=seen: (seen.append(loss), print(loss))
        train(3 if quick else iterations, show)
        losses[name] = [loss.item() for loss in seen]
    if as_json:
        print(json.dumps(losses))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Train a line on two virtual workers, as a program for PySyft 0.2 does."
    )
    parser.add_argument("--quick", action="store_true", help="three rounds of each")
    parser.add_argument("--json", action="store_true", help="print every loss as one JSON object")
    given = parser.parse_args()
    main(quick=given.quick, as_json=given.json)
