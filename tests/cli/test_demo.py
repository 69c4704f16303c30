"""The demo: what it trains is as good in sums as in clear, and both of its ways run from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fedpriv as fp
from fedpriv.cli import demo_data
from fedpriv.cli.demo import LOCAL, NAMES, measure
from fedpriv.cli.demo_data import DATASET, network, shares
from fedpriv.learning.standardize import Standardize
from fedpriv.policy.rules import Rule
from fedpriv.storage.verification import read_entries

ROUNDS, SEED = 20, 0
PLAIN = (fp.PlainUpdate(recipients=("me",), weight="exact"), fp.Statistics(recipients=("me",)))


def accuracy(rules: tuple[Rule, ...], secure: fp.SecureAggregation | None) -> float:
    """Return what the demo's five workers reach, here in one process, under `rules`."""
    workers = []
    for name, share in zip(NAMES, shares(5, seed=SEED), strict=False):
        features, target = torch.from_numpy(share.features).float(), torch.from_numpy(share.target)
        workers.append(fp.VirtualWorker(name, [fp.Dataset(DATASET, features, target, release=rules, validation=0.2)]))
    try:
        with fp.Federation(workers, name="me") as federation:
            found = federation.statistics(DATASET, secure_aggregation=secure)
            result = federation.fit(
                network(Standardize(found.mean, found.deviation), seed=SEED), dataset=DATASET,
                loss=F.binary_cross_entropy_with_logits, rounds=ROUNDS, local=LOCAL, seed=SEED, deadline_seconds=60,
                secure_aggregation=secure,
            )  # fmt: skip  # one call
            return measure(result.model, *demo_data.test_rows(seed=SEED))["accuracy"]
    finally:
        for worker in workers:
            worker.close()


def test_sums_train_the_demo_as_well_as_updates_in_clear() -> None:
    plain, secure = accuracy(PLAIN, None), accuracy((fp.SecureSum(),), fp.SecureAggregation())
    assert secure == pytest.approx(plain, abs=0.005)
    assert plain > 0.94


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "workers", "left", "stayed"),
    [
        (("--plain", "--workers", "3"), 3, "update", "secagg-masked"),
        ((), 5, "secagg-masked", "update"),
    ],
)
def test_each_way_runs_in_processes_of_its_own(
    tmp_path: Path, words: tuple[str, ...], workers: int, left: str, stayed: str
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fedpriv.cli.app", "demo", *words, "--rounds", "2", "--json", "--run", str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    document = json.loads(done.stdout)
    assert len(document["workers"]) == workers
    assert document["unaccounted_bytes"] == 0
    assert all(each["ledger_verified"] for each in document["workers"])
    for name in NAMES[:workers]:
        kinds = {entry.draft.kind for entry in read_entries(run / "workers" / name / "state" / "ledger")}
        assert left in kinds
        assert stayed not in kinds
