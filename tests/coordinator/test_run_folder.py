from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedpriv.errors import UsageError
from fedpriv.updates import TensorSet
from fedpriv_coordinator.experiment import History, RoundRecord
from fedpriv_coordinator.journal import RunFolder, Saved


def saved(rounds: int) -> Saved:
    records = tuple(RoundRecord(n, "complete", 0.1, 0.5, {}, {}, 1, 2, ()) for n in range(1, rounds + 1))
    return Saved(
        History(records),
        "ab" * 32,
        "fedadam",
        TensorSet({"w": torch.full((3,), float(rounds))}),
        TensorSet({"w/mean": torch.full((3,), -float(rounds))}),
    )


def test_the_last_whole_round_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for rounds in (1, 2, 3):
        folder.save(saved(rounds))
    found = folder.load()
    assert found.history == saved(3).history
    assert found.plan == "ab" * 32
    assert torch.equal(found.model["w"], torch.full((3,), 3.0))
    assert found.strategy == "fedadam"
    assert torch.equal(found.memory["w/mean"], torch.full((3,), -3.0))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"round.json", "round-3.json", "round-3.safetensors", "round-3.memory.safetensors"}


def test_a_crash_while_writing_a_round_leaves_the_one_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save(saved(1))
    (tmp_path / "round-2.safetensors").write_bytes(b"half a fi")
    (tmp_path / "round.json.new").write_text('{"round": 2, "pl')
    assert len(folder.load().history.rounds) == 1


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        RunFolder(tmp_path).load()


def test_a_finished_run_leaves_nothing_of_its_rounds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save(saved(2))
    folder.finish()
    assert not list(tmp_path.iterdir())
