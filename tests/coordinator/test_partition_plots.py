"""Pictures of partitions: drawn for any number of workers and classes, refused without any."""

import numpy as np
import pytest

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.partition import dirichlet


@pytest.mark.parametrize("workers", [1, 10, 100])
def test_a_partition_is_drawn_as_one_bar_a_worker(tmp_path, workers):
    labels = np.arange(1200) % 10
    shares = dirichlet(labels, workers, alpha=0.5, seed=0)
    path = fp.plot_partitions(labels, shares, tmp_path / "shares.svg")
    text = path.read_text()
    assert "Rows per label and worker" in text
    assert all(f">{label}<" in text for label in range(10))


def test_workers_can_have_names(tmp_path):
    path = fp.plot_partitions(["a", "b"], [np.array([0]), np.array([1])], tmp_path / "s.svg", names=["bob", "eve"])
    assert "bob" in path.read_text()


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UsageError, match="no shares to draw"):
        fp.plot_partitions([1], [], tmp_path / "s.png")
    with pytest.raises(UsageError, match="2 names for 1 workers"):
        fp.plot_partitions([1], [np.array([0])], tmp_path / "s.png", names=["a", "b"])
    with pytest.raises(UsageError, match="cannot draw to"):
        fp.plot_partitions([1], [np.array([0])], tmp_path / "s.nothing")
