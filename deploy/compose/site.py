"""Write what compose.yaml mounts: a folder for each of three workers, with its share of a public table, and the hub's.

In earnest every worker joins with a token of its own, and no machine ever holds two keys (docs/operations.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedpriv.cli.demo_data import DATASET, shares, write_worker
from fedpriv.ids import Role
from fedpriv.transport.authority import Authority

WORKERS = ("alice", "bob", "carol")
ADDRESS = "hub:7443"
OPERATIONS = '\n[operations]\nhealth = "127.0.0.1:7450"\nmetrics = "127.0.0.1:7451"\n'
JOB = f"""\
name = "compose"
dataset = "{DATASET}"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
rounds = 5
worker_metrics = ["loss", "accuracy"]
listen = "0.0.0.0:7443"
state = "state"
local = {{ epochs = 1, batch_size = 32, optimizer = "adam", lr = 0.01 }}

[workers]
names = ["alice", "bob", "carol"]
quorum = 2
deadline_seconds = 120

[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
{OPERATIONS}"""
MODEL = """\
from torch import nn


def build() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
"""


def main(folder: Path) -> None:
    """Write the site into `folder`, which must be new: keys are never written over."""
    authority = Authority.create()
    hub = folder / "coordinator"
    authority.issue("hub", Role.COORDINATOR, hosts=("hub",)).save(hub)
    (hub / "job.toml").write_text(JOB)
    (hub / "model.py").write_text(MODEL)
    for name, share in zip(WORKERS, shares(len(WORKERS), seed=0), strict=True):
        config = write_worker(folder, name, share, ADDRESS, authority, "hub")
        config.write_text(config.read_text() + OPERATIONS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
