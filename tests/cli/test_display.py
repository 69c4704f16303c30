"""What a run shows: plain lines on a pipe, a bar on a terminal, and a table that verifies nothing by itself."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys

import pytest

from fedpriv.cli.display import RoundDisplay, egress_table
from fedpriv_coordinator.experiment import Egress, LedgerSummary, RoundRecord, WorkerRound


def part(worker, status="folded", reason=""):
    return WorkerRound(worker, status, 1.0, 4000, 3900, 0.1, {}, reason)


def record(number, *parts, outcome="complete", loss=0.5, metrics=None, blind=False, **more):
    own = {} if blind else {"accuracy": 0.875}
    loss = None if blind else loss
    return RoundRecord(number, outcome, 0.25, loss, metrics or {}, own, 12_600, 11_900, parts, **more)


def shown(*records):
    stream = io.StringIO()
    with RoundDisplay(20, stream=stream) as display:
        for each in records:
            display.on_round(each)
    return stream.getvalue().splitlines()


def test_a_round_is_one_plain_line_where_no_terminal_is():
    assert shown(record(3, part("alice"), metrics={"accuracy": 0.9375})) == [
        "round 3/20  training loss 0.5000  accuracy 0.9375  left workers 12.6 kB  sent 11.9 kB  0.25 s"
    ]


def test_the_accuracy_of_the_workers_stands_in_where_the_coordinator_evaluates_nothing():
    assert "accuracy 0.8750" in shown(record(1))[0]


@pytest.mark.parametrize(("loss", "text"), [(None, "loss - "), (math.nan, "loss nan "), (3.2e38, "loss 3.2e+38 ")])
def test_a_loss_that_is_missing_or_diverged_still_has_a_line(loss, text):
    assert text in shown(record(1, loss=loss))[0]


def test_a_run_that_measures_nothing_is_told_so_once():
    lines = shown(record(1, blind=True, outcome="abandoned"), record(2, blind=True), record(3, blind=True))
    hint = "no metrics asked for: set worker_metrics or evaluate"
    assert [line for line in lines if hint in line] == [hint]
    assert lines.index(hint) > next(at for at, line in enumerate(lines) if line.startswith("round 2/20"))


@pytest.mark.parametrize("measured", [{"metrics": {"auc": 0.9}}, {"loss": 0.1}])
def test_a_run_that_measures_anything_is_not_called_blind(measured):
    assert not any("no metrics" in line for line in shown(record(1, **measured)))


def test_a_lost_worker_is_told_once_and_its_return_too():
    lines = shown(
        record(1, part("alice"), part("carol", "lost", "no answer in 5 s")),
        record(2, part("alice"), part("carol", "lost")),
        record(3, part("alice"), part("carol")),
    )
    told = [line for line in lines if not line.startswith("round")]
    assert told == ["lost carol in round 1: no answer in 5 s", "carol is back in round 3"]


def test_metrics_that_were_not_given_are_told_once_for_each_reason_and_are_not_called_blind():
    def without(why):
        return WorkerRound("bob", "folded", 1.0, 4000, 3900, 0.1, {}, "", why)

    records = (record(at, without(why), blind=True) for at, why in enumerate(("loss: no", "loss: no", "loss: late"), 1))
    lines = [line for line in shown(*records) if not line.startswith("round")]
    assert lines == ["no metrics from bob in round 1: loss: no", "no metrics from bob in round 3: loss: late"]


def test_refusals_and_abandoned_rounds_are_told():
    few = "nobody was asked: 2 workers there, and the quorum is 3"
    lines = shown(record(1, part("bob", "rejected", "not finite"), outcome="abandoned", reason=few))
    assert lines[0] == "bob rejected in round 1: not finite"
    assert lines[1] == f"round 1 abandoned: {few}"


def test_what_was_clipped_is_in_the_line_of_each_round_and_what_to_do_is_said_once():
    lines = shown(record(1, part("alice"), saturated=1250), record(2, part("alice"), saturated=3), record(3))
    assert [line.partition(" s  ")[2] for line in lines if line.startswith("round ")] == [
        "1,250 clipped",
        "3 clipped",
        "",
    ]
    assert [line for line in lines if "raise clip" in line] == [
        "1,250 numbers were out of bounds in the sum, and so were clipped: raise clip in secure aggregation, or scale "
        "what is trained"
    ]


def test_text_from_outside_is_never_markup():
    stream = io.StringIO()
    with RoundDisplay(1, stream=stream) as display:
        display.note("[bold]loud[/bold] [link=x]y[/link] [/]")
    assert stream.getvalue() == "[bold]loud[/bold] [link=x]y[/link] [/]\n"


def test_a_long_line_is_neither_wrapped_nor_cut_on_a_pipe():
    stream = io.StringIO()
    with RoundDisplay(1, stream=stream) as display:
        display.note("x" * 500)
    assert stream.getvalue() == "x" * 500 + "\n"


def ledger(worker, *kinds, verified=True):
    rows = tuple(Egress(worker, kind, 20, 1_000_000) for kind in kinds)
    return LedgerSummary(worker, verified, 20, 1_000_000 * len(rows), "9f" * 32, rows)


def table(*ledgers):
    stream = io.StringIO()
    egress_table(ledgers, stream)
    return [line.split() for line in stream.getvalue().splitlines()]


def test_the_table_has_every_kind_of_message_and_the_total_of_each_worker():
    assert table(ledger("alice", "update", "announcement"), ledger("bob")) == [
        ["worker", "kind", "of", "message", "messages", "bytes", "ledger"],
        ["alice", "update", "20", "1,000,000"],
        ["announcement", "20", "1,000,000"],
        ["total", "40", "2,000,000", "ledger", "verified"],
        ["bob", "total", "0", "0", "ledger", "verified"],
    ]


def test_a_ledger_that_was_not_verified_says_so_in_capitals():
    text = table(ledger("bob", "update", verified=False))
    assert text[-1][-2:] == ["NOT", "VERIFIED"]
    assert "verified" not in [word for line in text for word in line]


PROGRAM = """
from fedpriv.cli.display import RoundDisplay
from fedpriv_coordinator.experiment import RoundRecord, WorkerRound
import sys
lost = WorkerRound("carol", "lost", 0.0, 0, 0, 0.1, {}, "no answer")
with RoundDisplay(2, title="demo") as display:
    for number in (1, 2):
        display.on_round(RoundRecord(number, "complete", 0.1, 0.5, {"accuracy": 0.9}, {}, 1000, 1000, (lost,)))
print("data")
"""


def test_on_a_terminal_there_is_a_bar_and_stdout_has_data_alone():
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
        timeout=60,
    )
    os.close(terminal)
    seen = os.read(controller, 100_000).decode()
    os.close(controller)
    assert finished.stdout == b"data\n"
    assert "━" in seen
    assert "2/2" in seen
    assert seen.count("lost carol in round 1: no answer") == 1
    assert "accuracy" in seen
    assert "\x1b[?25h" in seen  # the cursor is back
