"""The examples run and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fedpriv_coordinator.config import load_code, load_job
from fedpriv_worker.config import load_config

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_ten_virtual_workers_learn_to_read_digits() -> None:
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLES / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() > 0.93


def test_the_files_for_separate_hosts_are_what_both_sides_read() -> None:
    job, worker = (
        load_job(EXAMPLES / "separate_hosts" / "job.toml"),
        load_config(EXAMPLES / "separate_hosts" / "worker.toml"),
    )
    assert worker.worker.name in job.workers.names
    assert worker.datasets[0].name == job.dataset
    assert load_code(job).model is not None
