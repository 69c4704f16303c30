"""People with several rows: a private step takes one row of each, so that a step costs a person what it costs a row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import fedpriv as fp
from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import ConfigError, DataError, UsageError
from fedpriv_worker.config import DatasetConfig
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.loading import load_dataset
from fedpriv_worker.units import numbered_units, units_of

PATIENTS = fp.Budget(8.0, 1e-5, unit="patient", unit_column="who")
WHOSE = ["a", "b", "a", "c", "a", "b"]


def grouped(units: object = WHOSE, budget: fp.Budget | None = PATIENTS, **options: object) -> Dataset:
    return Dataset("toy", torch.randn(6, 2), torch.zeros(6), units=units, budget=budget, **options)


def test_each_unit_gives_one_row_at_most_and_only_its_own() -> None:
    units = units_of(numbered_units("toy", PATIENTS, WHOSE, 6))
    assert units is not None
    assert len(units) == 3
    for _ in range(50):
        chosen = units.sample(0.6, SystemEntropy())
        assert len({WHOSE[row] for row in chosen}) == len(chosen)
    assert [WHOSE[row] for row in units.sample(1.0, SystemEntropy())] == ["a", "b", "c"]


def test_all_rows_of_a_unit_come_up_alike_and_units_by_the_rate() -> None:
    units = units_of(np.array([0, 0, 0, 0, 1]))
    assert units is not None
    stream = SeededEntropy(b"rows")
    seen = Counter(int(row) for _ in range(4000) for row in units.sample(0.5, stream))
    assert sum(seen.values()) == pytest.approx(4000, abs=200)
    assert all(seen[row] == pytest.approx(500, abs=120) for row in range(4))
    assert seen[4] == pytest.approx(2000, abs=160)


def test_somebody_more_or_less_leaves_the_others_rows_as_they_were() -> None:
    """Neighbours: with everything of one unit gone, the rest is numbered and drawn as before."""
    with_all = units_of(np.array([0, 1, 0, 1, 2, 2]))
    without = units_of(np.array([0, 1, 0, 1]))
    assert with_all is not None
    assert without is not None
    both = [units.sample(1.0, SeededEntropy(b"same")) for units in (with_all, without)]
    assert len(both[0]) == len(both[1]) + 1


def test_validation_rows_are_taken_out_of_units_too() -> None:
    data = grouped(validation=0.5)
    assert len(data.training) == 3
    assert sorted(data.training.units.rows.tolist()) == [0, 1, 2]
    chosen = data.training.sample(1.0, SystemEntropy())
    assert len(chosen) == len(data.training.units)


@pytest.mark.parametrize(
    ("units", "budget", "message"),
    [
        (None, PATIENTS, "its budget is for each patient, and nothing says whose rows they are; name the column"),
        (WHOSE, None, "units say whose rows they are, and no budget is for that"),
        (WHOSE, fp.Budget(8.0, 1e-5), "units say whose rows they are, and no budget is for that"),
        (
            WHOSE[:5],
            PATIENTS,
            r"units have shape \(5,\) and type <U1; give one text or whole",
        ),
        ([0.5] * 6, PATIENTS, "type float64; give one text or whole number"),
    ],
)
def test_units_that_say_nothing_or_too_little_are_refused(units: object, budget: object, message: str) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        grouped(units, budget)


def test_a_column_of_a_file_says_whose_its_rows_are_and_is_not_learned_from(tmp_path: Path) -> None:
    lines = "x,who,y\n" + "".join(f"{at}.5,p{at % 2},{at % 2}\n" for at in range(6))
    (tmp_path / "rows.csv").write_text(lines)
    loaded = load_dataset(DatasetConfig("toy", tmp_path / "rows.csv", "y", budget=PATIENTS))
    assert [column.name for column in loaded.columns] == ["x"]
    assert len(loaded.training.units) == 2
    whom = fp.Budget(8.0, 1e-5, unit="patient", unit_column="whom")
    with pytest.raises(DataError, match="has no unit column 'whom'"):
        load_dataset(DatasetConfig("toy", tmp_path / "rows.csv", "y", budget=whom))
    with pytest.raises((UsageError, ConfigError), match="unit_column 'who' is learned from; name another"):
        DatasetConfig("toy", tmp_path / "rows.csv", "y", columns=("x", "who"), budget=PATIENTS)
