"""Records come back from JSON as they went, bad documents are refused, and a result never overwrites a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fedpriv.errors import UsageError
from fedpriv_coordinator import plots
from fedpriv_coordinator.experiment import (
    Egress,
    History,
    JobFacts,
    LostWorker,
    Result,
    RoundRecord,
    SumRecord,
    WorkerRound,
    size_text,
)


def part(worker="alice", status="folded", reason=""):
    alive = status == "folded"
    return WorkerRound(worker, status, 90.0 * alive, 4000 * alive, 3900, 0.1, {"loss": 0.5} if alive else {}, reason)


def record(number, *parts, outcome="complete", loss=0.5, metrics=None):
    received, sent = sum(each.bytes_in for each in parts), sum(each.bytes_out for each in parts)
    return RoundRecord(number, outcome, 0.2, loss, metrics or {}, {"accuracy": 0.9}, received, sent, parts)


HISTORY = History(
    (
        record(1, part("alice"), part("carol"), metrics={"accuracy": 0.8}),
        record(2, part("alice"), part("carol", "lost", "no answer in 5 s"), metrics={"accuracy": 0.9}, loss=0.25),
        record(3, part("alice"), part("carol", "lost"), outcome="abandoned", loss=None),
        record(4, part("alice"), part("carol"), metrics={"accuracy": 0.95}),
        record(5, part("alice", "lost", "gone"), part("carol", "lost", "gone again")),
    ),
    {"accuracy": 0.97},
)


def result(history=HISTORY):
    model = torch.nn.Linear(3, 1)
    egress = (Egress("alice", "update", 4, 16_000),)
    return Result(model, history, egress, lost=history.lost, job=JobFacts("first", "to see", "rows"))


def test_a_history_comes_back_from_json_equal():
    assert History.from_json(HISTORY.to_json()) == HISTORY


number = st.floats(allow_nan=False)
metrics = st.dictionaries(st.text(), number, max_size=3)
counts = st.integers(0, 2**63)
parts = st.builds(
    WorkerRound,
    st.text(),
    st.sampled_from(["folded", "late"]),
    number,
    counts,
    counts,
    number,
    metrics,
    st.text(),
    st.text(),
)
names = st.lists(st.text(), max_size=3).map(tuple)
sums = st.builds(
    SumRecord, st.sampled_from(["updates", "metrics"]), st.text(), st.text(), counts, counts, names, names, st.text()
)
records = st.builds(
    RoundRecord,
    counts,
    st.sampled_from(["complete", "abandoned"]),
    number,
    st.none() | number,
    metrics,
    metrics,
    counts,
    counts,
    st.lists(parts, max_size=2).map(tuple),
    sums=st.lists(sums, max_size=2).map(tuple),
)


@settings(max_examples=40)
@given(st.lists(records, max_size=3).map(tuple), st.none() | metrics)
def test_any_history_comes_back_from_json_equal(rounds, baseline):
    history = History(rounds, baseline)
    text = history.to_json()
    assert History.from_json(text) == history
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_loss_that_is_not_a_number_survives_json():
    back = History.from_json(History((record(1, part(), loss=math.nan),)).to_json())
    assert math.isnan(back.rounds[0].loss)


def changed(edit):
    document = json.loads(HISTORY.to_json())
    edit(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d.update(format="fedpriv/history/v9"), "history.format"),
        (lambda d: d.update(extra=1), "does not know 'extra'"),
        (lambda d: d.pop("baseline"), "misses 'baseline'"),
        (lambda d: d.update(rounds={}), "rounds is a dict"),
        (lambda d: d.update(baseline=[1]), "baseline is a list"),
        (lambda d: d["rounds"].append(None), r"rounds\[5\] is a NoneType"),
        (lambda d: d["rounds"][0].update(number=True), r"rounds\[0\].number is True"),
        (lambda d: d["rounds"][0].update(bytes_in=-1), r"rounds\[0\].bytes_in is -1"),
        (lambda d: d["rounds"][0].update(loss="low"), r"rounds\[0\].loss is 'low'"),
        (lambda d: d["rounds"][0].update(seconds=10**400), r"rounds\[0\].seconds"),
        (lambda d: d["rounds"][0].update(outcome="fine"), r"rounds\[0\].outcome is 'fine', not one of complete"),
        (lambda d: d["rounds"][1]["workers"][0].update(status="dead"), r"rounds\[1\].workers\[0\].status"),
        (lambda d: d["rounds"][0].update(sums=[{}]), r"rounds\[0\].sums\[0\] misses 'graph'"),
        (lambda d: d["rounds"][1]["workers"][0].update(reason=None), r"rounds\[1\].workers\[0\].reason is None"),
    ],
)
def test_a_document_that_differs_is_refused_and_named(edit, says):
    with pytest.raises(UsageError, match=says):
        History.from_json(changed(edit))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nan", "1" * 5000])
def test_what_is_not_a_history_is_refused(text):
    with pytest.raises(UsageError, match="history"):
        History.from_json(text)


def test_a_column_has_one_value_per_round():
    assert HISTORY.column("accuracy") == (0.8, 0.9, None, 0.95, None)
    assert HISTORY.column("loss") == (0.5, 0.25, None, 0.5, 0.5)
    assert HISTORY.column("worker/accuracy") == (0.9,) * 5
    assert HISTORY.column("bytes_in") == (8000, 4000, 4000, 8000, 0)


def test_the_coordinators_own_loss_does_not_hide_the_training_loss():
    history = History((record(1, part(), loss=0.5, metrics={"loss": 0.75}),))
    assert history.column("loss") == (0.5,)
    assert history.column("evaluation/loss") == (0.75,)


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        HISTORY.column("acuracy")


def test_a_worker_that_goes_away_with_its_part_in_the_sum_is_lost_too():
    gone = replace(part("bob", "folded", "it went away once its part was in"), gone=True)
    history = History((record(1, part("bob")), record(2, gone), record(3, part("alice"))))
    assert history.lost == (LostWorker("bob", 2, "it went away once its part was in"),)
    assert History.from_json(history.to_json()) == history
    text = history.to_json().replace('"gone": true', '"gone": 1')
    with pytest.raises(UsageError, match=r"rounds\[1\].workers\[0\].gone is 1, not one of False, True"):
        History.from_json(text)


def test_a_worker_is_lost_once_for_each_time_that_it_goes_away():
    assert HISTORY.lost == (
        LostWorker("carol", 2, "no answer in 5 s"),
        LostWorker("alice", 5, "gone"),
        LostWorker("carol", 5, "gone again"),
    )


def test_printing_a_result_says_what_happened_and_what_left():
    text = str(result())
    assert "4 rounds complete, 1 abandoned" in text
    assert "lost carol in round 2: no answer in 5 s" in text
    assert "left alice: 16.0 kB in 4 x update" in text
    assert "rounds: received 24.0 kB from the workers" in text
    assert "come before it, and checkpoints outside of rounds;\n  a worker's ledger can have more" in text
    assert "Linear" not in text
    assert "accuracy 0.9500 (all rows in one place: 0.9700)" in str(
        result(History(HISTORY.rounds[:4], {"accuracy": 0.97}))
    )


def test_printing_a_result_says_what_the_workers_measured():
    measured = replace(result().history.rounds[-1], worker_metrics={"accuracy": 0.875})
    text = str(replace(result(), history=History((measured,))))
    assert "accuracy 0.8750 on the workers' own validation rows" in text


def test_printing_a_result_says_who_gave_no_metrics_and_why():
    parts = (replace(part("bob"), unmeasured="accuracy: no rule"), part("alice"))
    text = str(result(History((record(1, *parts), record(2, *parts), record(3, part("bob"))))))
    assert "  no metrics from bob in 2 of 3 rounds: accuracy: no rule" in text.splitlines()
    assert "no metrics from alice" not in text


def test_a_result_without_rounds_prints():
    assert str(Result(torch.nn.Linear(1, 1), History())).startswith("0 rounds complete")


def test_saving_writes_the_history_the_model_the_curves_and_the_report(tmp_path):
    outcome = result()
    folder = outcome.save(tmp_path / "runs" / "first")
    names = {"history.json", "model.safetensors", "curves.png", "report.html"}
    assert {path.name for path in folder.iterdir()} == names
    assert History.from_json((folder / "history.json").read_text()) == HISTORY
    assert torch.equal(load_file(folder / "model.safetensors")["weight"], outcome.model.weight)
    assert "4 parameters" in (folder / "report.html").read_text()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_saving_the_same_run_again_is_allowed(tmp_path):
    outcome = result()
    outcome.save(tmp_path)
    assert outcome.save(tmp_path) == tmp_path


def test_saving_never_overwrites_another_run(tmp_path):
    result().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="another run"):
        result(History(HISTORY.rounds[:2])).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_without_its_history_counts_as_another_run(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        result().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_model_that_shares_parameters_is_saved(tmp_path):
    first = torch.nn.Linear(2, 2)
    second = torch.nn.Linear(2, 2)
    second.weight = first.weight
    folder = Result(torch.nn.Sequential(first, second), HISTORY).save(tmp_path)
    assert "0.weight" in load_file(folder / "model.safetensors") or "1.weight" in load_file(
        folder / "model.safetensors"
    )


def test_plotting_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'fedpriv\[plot\]'"):
        result().plot(tmp_path / "curves.png")
    folder = result().save(tmp_path / "run")
    assert not (folder / "curves.png").exists()
    assert "fedpriv[plot]" in (folder / "report.html").read_text()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_run_of_one_round_without_metrics_draws(tmp_path, suffix):
    path = result(History((record(1, part(), loss=None),))).plot(tmp_path / f"curves.{suffix}")
    assert path.stat().st_size > 1000


def test_a_diverged_run_draws(tmp_path):
    rounds = tuple(record(at, part(), loss=loss) for at, loss in enumerate([0.5, 3e38, math.inf, math.nan], start=1))
    assert result(History(rounds)).plot(tmp_path / "curves.png").exists()


def test_plotting_to_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot draw"):
        result().plot(tmp_path / "curves.docx")


def test_a_run_without_rounds_has_nothing_to_draw(tmp_path):
    with pytest.raises(UsageError, match="no rounds"):
        result(History()).plot(tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (34_512, "34.5 kB"),
        (999_960, "1.0 MB"),
        (10**9, "1.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_read_as_people_read_them(count, text):
    assert size_text(count) == text
