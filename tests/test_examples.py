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


def pictures(folder: Path) -> dict[str, int]:
    """Return the pictures that an example wrote, each with its size in bytes."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def test_averaging_against_ascent_finds_the_numbers_of_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = example("fedavg_vs_gradient_descent").main(["--quick", "--json", "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == found
    assert found["gd_100"] == pytest.approx([-1.01, 0.578], abs=0.005)
    assert found["fedavg_19x100"] == pytest.approx([0.1943, -0.1320, 0.1719], abs=0.005)
    assert found["FedPA"][-1] > found["FedAvg, 20 x 120"][-1] + 0.03
    assert found["FedPA"][-1] > 0.99 * found["ascent on the sum"][-1]
    assert all(size > 20_000 for size in pictures(tmp_path).values())
    assert set(pictures(tmp_path)) == {"ways.png", "ways-3d.png"}


def test_devices_that_send_gradients_alone_find_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("fedsgd_simulation").main(["--quick", "--json", "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == found
    assert found["accuracy"] >= 0.97
    assert found["asked"] == [8, 11]
    assert set(pictures(tmp_path)) == {"fedsgd-loss.png", "fedsgd-accuracy.png", "fedsgd-points.png"}


def test_the_practical_learns_a_curve_and_images_and_shards_cost_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = example("federated_practical").main(["--quick", "--json", "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == found
    assert found["regression"]["one function"] < found["regression"]["three functions"] < 40
    assert found["central"]["accuracy"] > 0.8
    assert found["full"]["accuracy"] > found["shards, half"]["accuracy"] + 0.05
    names = {f"practical-{each}.png" for each in ("regression", "fits", "images", "full", "shards")}
    assert set(pictures(tmp_path)) == names


def test_a_program_for_flower_learns_with_its_imports_changed(capsys: pytest.CaptureFixture[str]) -> None:
    found = example("flower_practical").main(["--quick", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    assert found["full"]["accuracy"] > 0.8
    assert found["full"]["worker/accuracy"] > 0.8
    assert found["full"]["accuracy"] > found["shards, half"]["accuracy"] + 0.05


def test_five_workers_on_the_network_go_on_after_one_crashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = example("fedavg_over_http_server").main(["--quick", "--json", "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == logs
    kept = json.loads((tmp_path / "http-skewed.json").read_text())
    names = ["client number", "experiment", "max round", "clients acc", "server acc", "final weight"]
    assert list(kept) == names
    assert (kept["client number"], kept["experiment"], len(kept["server acc"])) == (5, 4, 2)
    assert all(found for found in kept["clients acc"].values())  # also of the one that crashed
    assert sum(map(len, kept["final weight"])) == 1_199_882
    assert "http-skewed.png" in pictures(tmp_path)


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
