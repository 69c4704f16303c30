"""Histories in TensorBoard's and MLflow's own formats, read back by their own packages where these are installed."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from fedpriv.errors import UsageError
from fedpriv_coordinator.experiment import History, JobFacts, Result, RoundRecord


def record(number, loss, accuracy):
    return RoundRecord(number, "complete", 0.5, loss, {"accuracy": accuracy}, {}, 10, 20, ())


RESULT = Result(
    nn.Linear(1, 1),
    History((record(1, 0.75, 0.5), record(2, None, 0.875))),
    job=JobFacts("first", "triage", "toy", plan="ab" * 32),
)


def test_tensorboard_reads_every_column_by_round(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(RESULT.to_tensorboard(tmp_path))).Reload()
    assert set(read.Tags()["scalars"]) == {"loss", "seconds", "bytes_in", "bytes_out", "accuracy"}
    assert [(each.step, each.value) for each in read.Scalars("accuracy")] == [(1, 0.5), (2, 0.875)]
    assert [(each.step, each.value) for each in read.Scalars("loss")] == [(1, 0.75)]


def test_mlflow_reads_every_column_by_round(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server's place in a folder of this test
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    uri = tmp_path.as_uri()
    run = RESULT.to_mlflow(uri, experiment="hospitals")
    client = mlflow.MlflowClient(uri)
    assert [(each.step, each.value) for each in client.get_metric_history(run, "accuracy")] == [(1, 0.5), (2, 0.875)]
    assert client.get_run(run).data.params == {
        "purpose": "triage", "dataset": "toy", "plan": "ab" * 32, "rounds": "2",
    }  # fmt: skip
    assert client.get_run(run).info.status == "FINISHED"
    assert RESULT.to_mlflow(uri, experiment="hospitals") != run


@pytest.mark.parametrize(("package", "write"), [("tensorboard", "to_tensorboard"), ("mlflow", "to_mlflow")])
def test_what_is_not_installed_names_its_extra(package, write, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UsageError, match=rf"{package} is not installed; install it with: pip install 'fedpriv\[{package}\]'"
    ):
        getattr(RESULT, write)(str(tmp_path))
