"""`fedpriv audit verify --forecast`: what left against what the worker's orders foresaw."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import torch
from ledgers import entries, written
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.errors import VerificationFailed
from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import PUBLIC
from fedpriv.learning.local import SGD
from fedpriv.ledger.entries import Draft
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_training
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.storage.database import Database
from fedpriv.storage.requests import SCHEMA, Requests
from fedpriv.wire.plans import encode_plan
from fedpriv_worker.forecast import forecast

FEATURES = TensorExample("float32", (5,))


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_what_left_is_held_to_what_the_orders_foresaw(tmp_path):
    plan = trace_training(torch.nn.Linear(5, 3), cross_entropy, SGD(0.1), FEATURES, TensorExample("int64", ()))
    digest = plan.digest.hex()
    order = ReleaseRequest(Recipient(PeerName("hub"), "coordinator"), DatasetName("notes"), ("update",), (), digest, "")
    most = forecast(plan, order, PUBLIC).most_bytes
    database = Database.open(tmp_path / "journal.sqlite", schema=SCHEMA)
    Requests(database).note(order, encode_plan(plan), permitted_by="plain-update:01", now=1.0)
    database.close()
    foreseen = Draft(peer="hub", method="Attach", kind="update", bytes=most, labels=("notes/bob",), plan=digest)
    others = [replace(foreseen, bytes=10), replace(foreseen, kind="statistics", plan=""), replace(foreseen, labels=())]
    written(tmp_path / "kept", entries([foreseen, *others]))
    fine = audit("verify", tmp_path / "kept", "--forecast")
    assert fine.exit_code == 0, fine.exception
    assert "2 messages were within what their orders foresaw; 1 had no forecast" in fine.stdout
    shutil.rmtree(tmp_path / "kept")
    written(tmp_path / "kept", entries([foreseen, replace(foreseen, bytes=most + 1)]))
    larger = audit("verify", tmp_path / "kept", "--forecast", "--json")
    assert isinstance(larger.exception, VerificationFailed)
    assert f"entry 1 has {most + 1:,} bytes, its order foresaw {most:,} at most" in str(larger.exception)
    assert json.loads(larger.stdout)["forecast"] == {"within": 1, "over": 1, "without": 0}
    (tmp_path / "journal.sqlite").unlink()
    assert "a bare ledger has none" in str(audit("verify", tmp_path / "kept", "--forecast").exception)
