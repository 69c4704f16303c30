"""The demo's data and model: scikit-learn's bundled breast-cancer table, divided among workers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.partition import dirichlet
from fedpriv.learning.standardize import Standardize
from fedpriv.secagg.keys import key_text
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import SignedRoster, new_identity
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role
from fedpriv_worker.rosters import AcceptedRoster, own_identity

DATASET = "breast-cancer"
MINIMUM_ROWS = 30
ALPHA = 0.5

_CONFIG = """\
# Written by fedpriv demo. In this demo the coordinator sees {sees}.
[worker]
name = "{name}"
state = "state/"
threads = 1

[dial]
address = "{address}"

[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"

{secure}[[dataset]]
name = "{dataset}"
path = "rows.csv"
target = "malignant"
tags = ["#cancer", "#tabular"]
validation = 0.2
release = [
{rules}
]
"""

_PLAIN = """\
  # the coordinator may see each update of this worker, weighted by its exact row count
  {{ rule = "plain-update", recipients = ["{recipient}"], weight = "exact" }},
  # and how many rows there are, with the sum and sum of squares of every column
  {{ rule = "statistics", kinds = ["count", "sum", "sum-of-squares"], recipients = ["{recipient}"] }},
  # and how well a model does on the rows held out here
  {{ rule = "metrics", kinds = ["loss", "accuracy"], recipients = ["{recipient}"] }},"""

_SECURE = """\
  # the coordinator may see sums over three workers or more, and nothing of this one
  {{ rule = "secure-sum", minimum_workers = 3, recipients = ["{recipient}"] }},"""

_ADMINISTRATOR = """\
[secure_aggregation]
administrator = "{key}"  # whose roster counts; this demo made it up

"""


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's rows: raw columns, shape (rows, 30), and whether each patient's tumour was malignant."""

    columns: tuple[str, ...]
    features: NDArray[np.float64]
    target: NDArray[np.bool_]


class Network(nn.Module):
    """A small network on raw columns: a frozen standardising layer, then two trained ones."""

    def __init__(self, standardize: Standardize) -> None:
        super().__init__()
        self.standardize = standardize
        self.hidden = nn.Linear(30, 16)
        self.output = nn.Linear(16, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (rows,)."""
        hidden: torch.Tensor = F.relu(self.hidden(self.standardize(features)))
        logits: torch.Tensor = self.output(hidden)
        return logits.squeeze(-1)


def network(standardize: Standardize, *, seed: int) -> Network:
    """Return the network with the weights that `seed` gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(standardize)


def shares(workers: int, *, seed: int) -> list[Share]:
    """Return unequal, non-IID shares of three quarters of the table: Dirichlet over the label."""
    columns, features, target, training, _ = _table(seed)
    if workers * MINIMUM_ROWS > len(training):
        most = len(training) // MINIMUM_ROWS
        raise UsageError(f"{workers} workers cannot have {MINIMUM_ROWS} of {len(training)} rows each; use up to {most}")
    parts = dirichlet(target[training], workers, alpha=ALPHA, seed=seed, minimum_rows=MINIMUM_ROWS, all_classes=True)
    return [Share(columns, features[training[part]], target[training[part]]) for part in parts]


def test_rows(*, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the held-out quarter, which no worker has."""
    _, features, target, _, held_out = _table(seed)
    return torch.from_numpy(features[held_out]).float(), torch.from_numpy(target[held_out]).float()


def write_worker(
    folder: Path, name: str, share: Share, address: str, authority: Authority, recipient: str, administrator: str = ""
) -> Path:
    """Write one worker's folder: rows, credentials, worker.toml; return the last one's path.

    With an `administrator`'s public key the worker lets sums out alone, without one each update of its own.
    """
    home = folder / "workers" / name
    home.mkdir(parents=True, exist_ok=True)
    with (home / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*share.columns, "malignant"])
        for row, malignant in zip(share.features.tolist(), share.target.tolist(), strict=True):
            writer.writerow([*row, "true" if malignant else "false"])
    authority.issue(name, Role.WORKER).save(home)
    secure = _ADMINISTRATOR.format(key=administrator) if administrator else ""
    rules = (_SECURE if administrator else _PLAIN).format(recipient=recipient)
    sees = "sums over the workers, and no update of one" if administrator else "each update"
    text = _CONFIG.format(name=name, address=address, dataset=DATASET, rules=rules, secure=secure, sees=sees)
    (home / "worker.toml").write_text(text)
    return home / "worker.toml"


def enrol(folder: Path, names: Sequence[str]) -> tuple[SignedRoster, str]:
    """Make each worker's key and a roster that all of them accepted; return it with its administrator's public key.

    In earnest each owner does its part: `fedpriv worker roster show`, `certs roster`, `worker roster accept`.
    """
    entropy = SystemEntropy()
    administrator = new_identity(entropy)
    states = {WorkerName(name): folder / "workers" / name / "state" for name in sorted(names)}
    identities = {name: own_identity(state, entropy) for name, state in states.items()}
    members = tuple(Member(name, identity.public) for name, identity in identities.items())
    signed = SignedRoster.sign(Roster("demo", 1, members), administrator)
    for name, state in states.items():
        AcceptedRoster(state, administrator.public).accept(signed, name, identities[name])
    return signed, key_text(administrator.public)


def central_baseline(
    standardize: Standardize, held: Sequence[Share], rounds: int, local: LocalTraining, *, seed: int
) -> nn.Module:
    """Return the same network trained by torch alone on all the workers' rows in one place, as many epochs."""
    model = network(standardize, seed=seed)
    features = torch.from_numpy(np.concatenate([share.features for share in held])).float()
    target = torch.from_numpy(np.concatenate([share.target for share in held])).float()
    assert isinstance(local.optimizer, SGD)
    optimizer = torch.optim.SGD(model.parameters(), lr=local.optimizer.lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds * local.epochs):
        order = torch.randperm(len(target), generator=generator)
        for start in range(0, len(order), local.batch_size):
            rows = order[start : start + local.batch_size]
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(model(features[rows]), target[rows])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
    return model


def _table(
    seed: int,
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return column names, features, target, and the rows for training and for evaluation."""
    try:
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise UsageError("the demo needs scikit-learn for its table; pip install 'fedpriv[data]'") from None
    table = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(table.target))
    quarter = len(order) // 4
    columns = tuple(str(name).replace(" ", "-") for name in table.feature_names)
    return columns, table.data, table.target == 0, np.sort(order[quarter:]), np.sort(order[:quarter])
