"""A history as others keep theirs: TensorBoard's event files, and runs of MLflow. Both packages are optional.

Only what the history holds by round goes there: no name of a worker, no tensor, no row. Nothing is sent but to the
place that the caller names: MLflow's own reports of its use are switched off before it is imported, unless the
environment says otherwise.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedpriv.errors import UsageError
from fedpriv_coordinator.experiment import History, JobFacts


def to_tensorboard(history: History, folder: Path) -> Path:
    """Write one scalar for each column and round to event files in `folder`; needs the extra `tensorboard`."""
    _imported("tensorboard", "tensorboard")
    writer = _imported("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))
    try:
        for number, values in _scalars(history):
            for name, value in values.items():
                writer.add_scalar(name, value, number)
    finally:
        writer.close()
    return folder


def to_mlflow(history: History, facts: JobFacts, *, uri: str | None, experiment: str) -> str:
    """Log a run of `experiment` at the tracking server `uri` and return its id; needs the extra `mlflow`.

    Without `uri` it goes where MLflow is set up to keep runs, which is its own default or MLFLOW_TRACKING_URI.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    client = _imported("mlflow", "mlflow").MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    within = client.create_experiment(experiment) if found is None else found.experiment_id
    run = client.create_run(within, run_name=facts.name or None).info.run_id
    told = {"purpose": facts.purpose, "dataset": facts.dataset, "plan": facts.plan, "rounds": len(history.rounds)}
    for name, value in told.items():
        client.log_param(run, name, value)
    for number, values in _scalars(history):
        for name, value in values.items():
            client.log_metric(run, name, value, step=number)
    client.set_terminated(run)
    return str(run)


def _scalars(history: History) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each round's number with the columns that it has."""
    columns = {name: history.column(name) for name in history.columns}
    for at, record in enumerate(history.rounds):
        values = ((name, column[at]) for name, column in columns.items())
        yield record.number, {name: float(value) for name, value in values if value is not None}


def _imported(module: str, extra: str) -> Any:  # noqa: ANN401 - a package that need not be there
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{module} is not installed; install it with: pip install 'fedpriv[{extra}]'") from None
