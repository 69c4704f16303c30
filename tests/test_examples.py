"""The examples run and do what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from fedpriv_coordinator.config import load_code, load_job
from fedpriv_worker.config import load_config

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_ten_virtual_workers_learn_to_read_digits() -> None:
    assert example("digits").main() > 0.93


def test_a_program_for_pysyft_learns_over_two_workers(capsys: pytest.CaptureFixture[str]) -> None:
    losses = example("pysyft_virtual_workers").main(as_json=True)
    assert json.loads(capsys.readouterr().out) == losses
    assert losses["here"][-1] < 0.01 < losses["here"][0]
    for worker in (0, 1):  # they take turns
        own = losses["over_workers"][worker::2]
        assert own[-1] < own[0] / 4


def test_the_files_for_separate_hosts_are_what_both_sides_read() -> None:
    job, worker = (
        load_job(EXAMPLES / "separate_hosts" / "job.toml"),
        load_config(EXAMPLES / "separate_hosts" / "worker.toml"),
    )
    assert worker.worker.name in job.workers.names
    assert worker.datasets[0].name == job.dataset
    assert load_code(job).model is not None
