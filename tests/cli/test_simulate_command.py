"""`fedpriv simulate`: a job tried out on described workers, from the file that `fedpriv run` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fedpriv as fp
from fedpriv.cli.simulate import simulate
from fedpriv.errors import ConfigError
from fedpriv.simulation.config import load_simulation
from fedpriv_coordinator.config import load_job

JOB = """\
name = "tumours"
dataset = "toy"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
evaluate = "model.py:evaluate"
rounds = 2
run = "kept"
listen = "127.0.0.1:0"
local = { epochs = 1, batch_size = 8, optimizer = "sgd", lr = 0.1 }
sampling = { name = "fixed", count = 3 }
[simulation]
population = "model.py:population"
[workers]
names = ["alice"]
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
"""
MODEL = """\
import torch
from torch import nn
import fedpriv as fp
def build():
    return nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
def evaluate(model):
    return {"one": 1.0}
def population():
    return fp.Population(1000, rows)
def rows(number):
    features = torch.randn(16, 3, generator=torch.Generator().manual_seed(number))
    return features, features.sum(1) > 0
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


def test_a_job_is_tried_out_and_kept_under_a_name_that_says_so(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(job, None, True)
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["simulated"] == 1000
    assert document["metrics"] == {"one": 1.0}
    assert document["run"] == str(job.parent / "kept-simulated")
    assert "engine: stacked" in told.err
    assert (job.parent / "kept-simulated" / "history.json").is_file()
    assert "simulated tumours" in (job.parent / "kept-simulated" / "report.html").read_text()
    with pytest.raises(fp.UsageError, match="holds a finished run"):
        simulate(job, None, True)


def test_one_file_serves_both_commands(job: Path) -> None:
    assert load_job(job).workers.names == ("alice",)
    assert load_simulation(job).described().size == 1000


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('[simulation]\npopulation = "model.py:population"\n', "", r"has no \[simulation\]; add one"),
        ('population = "model.py:population"', "", "name either population"),
        ('"model.py:population"', '"model.py:build"', "returned a Sequential; return fp.Population"),
        ('population = "model.py:population"', 'population = "model.py:population"\nengine = "fast"', "engine"),
    ],
)
def test_what_is_wrong_with_a_simulation_is_said_with_its_remedy(
    job: Path, before: str, after: str, message: str
) -> None:
    job.write_text(JOB.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        load_simulation(job).described()


def test_a_folder_of_files_is_a_population(job: Path) -> None:
    job.write_text(JOB.replace('population = "model.py:population"', 'files = "workers"'))
    with pytest.raises(fp.UsageError, match=r"workers has no file that ends in \.npz"):
        load_simulation(job).described()
