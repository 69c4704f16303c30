"""`fedpriv plot`: runs from their folders, and what is said where there are none."""

import pytest

from fedpriv.cli.app import main
from fedpriv_coordinator.experiment import History, RoundRecord


def run(folder, accuracy):
    folder.mkdir()
    record = RoundRecord(1, "complete", 0.1, 0.5, {"accuracy": accuracy}, {}, 10, 10, ())
    (folder / "history.json").write_text(History((record,)).to_json())
    return str(folder)


def said(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["plot", *words])
    return ended.value.code, capsys.readouterr()


def test_two_runs_are_drawn_into_one_picture(tmp_path, capsys):
    one, other = run(tmp_path / "fedavg", 0.9), run(tmp_path / "fedadam", 0.8)
    code, output = said(capsys, one, other, "-o", str(tmp_path / "both.svg"), "--column", "accuracy")
    assert (code, output.out) == (0, f"{tmp_path / 'both.svg'}\n")
    text = (tmp_path / "both.svg").read_text()
    assert ">fedavg<" in text
    assert ">fedadam<" in text


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    code, output = said(capsys, str(tmp_path))
    assert code == 2
    assert "holds no finished run: it has no history.json" in output.err
