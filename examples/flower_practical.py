"""A program for Flower, run by fedpriv: ten clients learn to tell images apart.

Run it with: python examples/flower_practical.py [--quick] [--idx FOLDER]
All clients in every round, then half of them, then half where each holds few classes.
The Flower part of the Deep Learning Indaba's practical of 2024 (Jovanović, Nelaturu and Powell, Apache-2.0): its
model, training, client and strategies are as published, and its two import lines are changed. FOLDER has Fashion-MNIST
as it comes; without it, scikit-learn's digits stand in, with smaller batches. The rows come in loaders of the same form
as the practical's, without flwr_datasets.
"""

import argparse
import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import fedpriv.flower as fl  # import flwr as fl
from fedpriv.flower.common import Metrics  # from flwr.common import Metrics
from fedpriv.learning.partition import by_label, iid
from fedpriv_worker.images import read_idx

NUM_CLIENTS = 10
DEVICE = torch.device("cpu")


class Loader:
    """Batches of rows as the practical's DataLoaders give them."""

    def __init__(self, images, labels, batch_size):
        self.dataset, self._images, self._labels, self._batch = range(len(labels)), images, labels, batch_size

    def __len__(self):
        return (len(self._labels) + self._batch - 1) // self._batch

    def __iter__(self):
        for start in range(0, len(self._labels), self._batch):
            rows = slice(start, start + self._batch)
            yield {"image": self._images[rows], "label": self._labels[rows]}


# --- as published ----------------------------------------------------------------------------------------------------


def set_parameters(net, parameters: list[np.ndarray]):
    params_dict = zip(net.state_dict().keys(), parameters)
    state_dict = OrderedDict({k: torch.Tensor(v) for k, v in params_dict})
    net.load_state_dict(state_dict, strict=True)


def get_parameters(net) -> list[np.ndarray]:
    return [val.cpu().numpy() for _, val in net.state_dict().items()]


class FlowerClient(fl.client.NumPyClient):
    def __init__(self, net, trainloader, valloader):
        self.net = net
        self.trainloader = trainloader
        self.valloader = valloader

    def get_parameters(self, config):
        return get_parameters(self.net)

    def fit(self, parameters, config):
        set_parameters(self.net, parameters)
        train(self.net, self.trainloader, epochs=config["local_epochs"])
        return get_parameters(self.net), len(self.trainloader), {}

    def evaluate(self, parameters, config):
        set_parameters(self.net, parameters)
        loss, accuracy = test(self.net, self.valloader)
        return float(loss), len(self.valloader), {"accuracy": float(accuracy)}


class Net(nn.Module):
    def __init__(self, input_size=784, hidden_size=100, output_size=10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.fc3 = nn.Linear(hidden_size, output_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x  # noqa: RET504 - as published


def train(net, trainloader, epochs: int, verbose=False):
    """Train the network on the training set."""
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    net.train()
    for epoch in range(epochs):
        correct, total, epoch_loss = 0, 0, 0.0
        for batch in trainloader:
            images, labels = batch["image"].to(DEVICE), batch["label"].to(DEVICE)
            optimizer.zero_grad()
            outputs = net(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            # Metrics
            epoch_loss += loss
            total += labels.size(0)
            correct += (torch.max(outputs.data, 1)[1] == labels).sum().item()
        epoch_loss /= len(trainloader.dataset)
        epoch_acc = correct / total
        if verbose:
            print(f"Epoch {epoch + 1}: train loss {epoch_loss}, accuracy {epoch_acc}")


def test(net, testloader):
    """Evaluate the network on the entire test set."""
    criterion = torch.nn.CrossEntropyLoss()
    correct, total, loss = 0, 0, 0.0
    net.eval()
    with torch.no_grad():
        for batch in testloader:
            images, labels = batch["image"].to(DEVICE), batch["label"].to(DEVICE)
            outputs = net(images)
            loss += criterion(outputs, labels).item()
            _, predicted = torch.max(outputs.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    loss /= len(testloader.dataset)
    accuracy = correct / total
    return loss, accuracy


def client_fn(cid: str) -> FlowerClient:
    """Create a Flower client representing a single organization."""
    net = Net(input_size=INPUT_SIZE, hidden_size=100, output_size=10).to(DEVICE)
    trainloader = trainloaders[int(cid)]
    valloader = valloaders[int(cid)]
    return FlowerClient(net, trainloader, valloader).to_client()


def weighted_average(metrics: list[tuple[int, Metrics]]) -> Metrics:
    # Multiply accuracy of each client by number of examples used
    accuracies = [num_examples * m["accuracy"] for num_examples, m in metrics]
    examples = [num_examples for num_examples, _ in metrics]

    # Aggregate and return custom metric (weighted average)
    return {"accuracy": sum(accuracies) / sum(examples)}


def evaluate(server_round, parameters, config):
    net = Net(input_size=INPUT_SIZE, hidden_size=100, output_size=10).to(DEVICE)
    set_parameters(net, parameters)  # Update model with the latest parameters
    loss, accuracy = test(net, testloader)
    print(f"Server-side evaluation loss {loss} / accuracy {accuracy}", file=sys.stderr)
    return loss, {"accuracy": accuracy}


def fit_config(server_round: int):
    """Information for each client's local training."""
    config = {
        "local_epochs": 1,
    }
    return config  # noqa: RET504 - as published


def simulation(fraction_fit, min_fit_clients, rounds):
    strategy = fl.server.strategy.FedAvg(
        fraction_fit=fraction_fit,
        fraction_evaluate=0.5,
        min_fit_clients=min_fit_clients,
        min_evaluate_clients=5,
        on_fit_config_fn=fit_config,
        min_available_clients=10,
        evaluate_metrics_aggregation_fn=weighted_average,
        evaluate_fn=evaluate,
    )

    client_resources = {"num_cpus": 1, "num_gpus": 0.0}

    # Start simulation
    return fl.simulation.start_simulation(
        client_fn=client_fn,
        num_clients=NUM_CLIENTS,
        config=fl.server.ServerConfig(num_rounds=rounds),
        strategy=strategy,
        client_resources=client_resources,
    )


# --- the data, and the practical's three runs ------------------------------------------------------------------------


def load(folder: Path | None):
    """Return rows to train on and to test on, the rows of a shard, and the size of a batch."""
    if folder is None:
        pixels, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        pixels = torch.from_numpy((pixels / 16).astype(np.float32)[order])
        labels = torch.from_numpy(labels.astype(np.int64)[order])
        return (pixels[360:], labels[360:]), (pixels[:360], labels[:360]), 30, 8
    parts = []
    for name in ("train", "t10k"):
        files = (next(folder.glob(f"{name}-{what}-ubyte*")) for what in ("images-idx3", "labels-idx1"))
        pixels, labels = (read_idx(path) for path in files)
        rows = (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)
        parts.append((torch.from_numpy(rows), torch.from_numpy(labels.astype(np.int64))))
    return (*parts, 1000, 32)


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 rounds, without the run of half")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON document")
    parser.add_argument("--idx", type=Path, help="a folder with Fashion-MNIST")
    options = parser.parse_args(arguments)
    global trainloaders, valloaders, testloader, INPUT_SIZE, LEARNING_RATE  # noqa: PLW0603 - as in a notebook
    (images, labels), held_out, shard, batch = load(options.idx)
    INPUT_SIZE, LEARNING_RATE, testloader = images.shape[1], 0.01 if options.idx else 0.3, Loader(*held_out, batch)
    alike, shards = iid(len(labels), NUM_CLIENTS, seed=0), by_label(labels, NUM_CLIENTS, seed=0, shard_rows=shard)
    cases = {"full": (alike, 1.0, 10), "half": (alike, 0.5, 5), "shards, half": (shards, 0.5, 5)}
    if options.quick:
        del cases["half"]
    numbers: dict[str, object] = {}
    for name, (shares, fraction, least) in cases.items():
        torch.manual_seed(67)
        mixed = [np.random.default_rng(42).permutation(share) for share in shares]
        cuts = [len(share) * 8 // 10 for share in mixed]
        trainloaders = [Loader(images[s[:cut]], labels[s[:cut]], batch) for s, cut in zip(mixed, cuts)]
        valloaders = [Loader(images[s[cut:]], labels[s[cut:]], batch) for s, cut in zip(mixed, cuts)]
        history = simulation(fraction, least, 10 if options.quick or options.idx else 30)
        _, local_accuracies = zip(*history.metrics_distributed["accuracy"])
        _, global_accuracies = zip(*history.metrics_centralized["accuracy"])
        _, losses = zip(*history.losses_distributed)
        numbers[name] = {
            "accuracy": global_accuracies[-1], "worker/accuracy": local_accuracies[-1], "worker/loss": losses[-1]
        }  # fmt: skip
    print(json.dumps(numbers, indent=None if options.json else 1))
    return numbers


if __name__ == "__main__":
    main()
