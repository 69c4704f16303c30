"""`fedpriv budget plan`: what a private job costs before it is run, and when a budget would run out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpriv.cli import budget
from fedpriv.errors import UsageError

JOB = """
name = "trial"
dataset = "toy"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
rounds = 10
listen = "127.0.0.1:0"
local = { epochs = 1, batch_size = 10, optimizer = "sgd", lr = 0.1 }
[workers]
names = ["alice", "bob", "carol"]
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
"""
WORKER = """
[worker]
name = "alice"
[dial]
address = "127.0.0.1:7443"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
budget = { epsilon = 2.0, delta = 1e-5 }
release = [{ rule = "differential-privacy", maximum_epsilon = 2.0 }]
"""


def planned(folder: Path, capsys: pytest.CaptureFixture[str], privacy: str, *arguments: str) -> str:
    (folder / "job.toml").write_text(JOB + privacy)
    budget.app(["plan", str(folder / "job.toml"), *arguments], standalone_mode=False)
    return capsys.readouterr().out


def worker(folder: Path) -> str:
    (folder / "worker.toml").write_text(WORKER)
    (folder / "rows.csv").write_text("x,y\n" + "".join(f"{at}.5,{at % 2}\n" for at in range(105)))
    return str(folder / "worker.toml")


def test_a_job_alone_says_its_own_epsilon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(tmp_path, capsys, '[privacy]\nmode = "local"\nnoise_multiplier = 8.0\n')
    assert text.startswith("trial: LocalDP, 10 rounds, noise multiplier 8\n  epsilon ")
    assert "for each worker: whether it is this one or any other" in text


def test_a_worker_says_what_it_costs_and_when_its_budget_runs_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = '[privacy]\nmode = "example"\nnoise_multiplier = 1.6\n'
    found = json.loads(planned(tmp_path, capsys, terms, "--worker", worker(tmp_path), "--json"))
    assert (found["dataset"], found["worker"], found["unit"]) == ("toy", "alice", "row")
    assert found["cost"] > found["budget"] == found["left"] == 2.0
    assert 0 < found["rounds_left"] < 10
    assert found["runs_out_in_round"] == found["rounds_left"] + 1
    text = planned(tmp_path, capsys, terms, "--worker", worker(tmp_path))
    assert f"warning: the budget runs out in round {found['runs_out_in_round']}; ask for fewer rounds" in text


def test_a_target_within_the_budget_is_paid_to_its_last_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = '[privacy]\nmode = "example"\nepsilon = 1.9\n'
    found = json.loads(planned(tmp_path, capsys, terms, "--worker", worker(tmp_path), "--json"))
    assert found["rounds_left"] >= 10
    assert found["runs_out_in_round"] is None
    assert found["cost"] == pytest.approx(1.9, rel=1e-4)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ("", "has no .privacy., so it costs no budget anything"),
        ('[privacy]\nmode = "example"\n', "name them with --rows, or the worker with --worker"),
        ('[privacy]\nmode = "distributed"\n', r"distributed noise needs \[secure_aggregation\]"),
        ('[privacy]\nmode = "exmaple"\n', r"mode 'exmaple' is not known \(did you mean 'example'\?\)"),
        ('[privacy]\nmode = "local"\nepsilon = 0\n', "epsilon is 0.0; use a finite number above 0"),
        ('[privacy]\nmode = "local"\nepsilon = -1.0\n', "epsilon is -1.0; use a finite number above 0"),
        ('[privacy]\nmode = "local"\nclip = 0\n', "clip is 0.0; use a finite number above 0: 1.0"),
        ('[privacy]\nmode = "central"\ndelta = 0.5\n', "delta is 0.5, not below 1/3"),
        ('[privacy]\nmode = "local"\nrate = 0.1\n', "'rate' is no key here"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], privacy: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, capsys, privacy)
