"""Pictures that compare: what they draw, and what they refuse."""

import pytest

from fedpriv.errors import UsageError
from fedpriv_coordinator.comparison import compare, curves, fits
from fedpriv_coordinator.experiment import History, RoundRecord


def history(accuracies, losses=()):
    losses = losses or [None] * len(accuracies)
    return History(
        tuple(
            RoundRecord(number, "complete", 0.1, loss, {} if value is None else {"accuracy": value}, {}, 10, 10, ())
            for number, (value, loss) in enumerate(zip(accuracies, losses, strict=True), start=1)
        )
    )


def test_runs_are_compared_by_what_they_all_have(tmp_path):
    runs = {"fedavg": history([0.5, 0.9], [1.0, 0.5]), "fedadam": history([0.7, None, 0.95])}
    text = compare(runs, tmp_path / "two.svg").read_text()
    assert "Accuracy" in text
    assert "Training loss" not in text  # the second has none
    assert "fedavg" in text
    assert "fedadam" in text


def test_a_column_can_be_named(tmp_path):
    runs = {"a": history([0.5], [1.0]), "b": history([0.6], [0.5])}
    assert "bytes_in" in compare(runs, tmp_path / "c.svg", columns=["bytes_in"]).read_text()
    with pytest.raises(UsageError, match=r"no round has a column 'accurcy' \(did you mean 'accuracy'\?\)"):
        compare(runs, tmp_path / "c.svg", columns=["accurcy"])


def test_nothing_in_common_and_nothing_at_all_are_refused(tmp_path):
    with pytest.raises(UsageError, match="neither a loss nor an accuracy in common"):
        compare({"a": history([0.5]), "b": history([None], [1.0])}, tmp_path / "c.svg")
    with pytest.raises(UsageError, match="name at least one run"):
        compare({}, tmp_path / "c.svg")
    with pytest.raises(UsageError, match="no series has a value"):
        curves({"Loss": {"a": ()}}, tmp_path / "c.svg")


def test_many_curves_stay_apart(tmp_path):
    many = {str(number): [0.1 * number] * 40 for number in range(1, 13)}
    text = curves({"Many": many}, tmp_path / "m.svg").read_text()
    assert "stroke-dasharray" in text


def test_points_of_each_worker_are_drawn_with_the_curve_that_fits_them_all(tmp_path):
    shares = [([0.0, 1.0], [0.0, 1.0]), ([2.0], [2.5])]
    text = fits({"one function": (shares, ([0.0, 2.0], [0.0, 2.0]))}, tmp_path / "fits.svg").read_text()
    assert all(each in text for each in ("one function", "worker 0", "worker 1", "fitted to all"))
    with pytest.raises(UsageError, match="nothing to draw"):
        fits({}, tmp_path / "fits.svg")
