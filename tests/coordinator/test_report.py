"""The report is one page that loads nothing, runs nothing, and says what it was given and no more."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fedpriv_coordinator import plots, report
from fedpriv_coordinator.experiment import (
    Egress,
    History,
    JobFacts,
    LedgerSummary,
    LostWorker,
    RoundFinding,
    RoundRecord,
    SumRecord,
    WorkerRound,
)

ROOT = "9f" * 32


def ledger(worker, *, verified=True):
    return LedgerSummary(worker, verified, 22, 84_213, ROOT, (Egress(worker, "update", 20, 84_213),))


def record(number, *, outcome="complete", loss=0.5):
    parts = (
        WorkerRound("alice", "folded", 10.0, 4000, 3900, 0.1),
        WorkerRound("carol", "lost", 0.0, 0, 3900, 0.1, {}, "no answer"),
    )
    return RoundRecord(number, outcome, 0.25, loss, {"accuracy": 0.9 + number / 100}, {}, 4000, 7800, parts)


HISTORY = History((record(1), record(2), record(3, outcome="abandoned", loss=None)), {"accuracy": 0.98})
JOB = JobFacts("tumours", "appendix B", "breast-cancer", 1021, "ab" * 32, "runs/first/WORKER/ledger")


def page(**changes):
    values = {"job": JOB, "history": HISTORY, "ledgers": (ledger("alice"), ledger("carol")), "lost": HISTORY.lost}
    return report.page(report.ReportInput(**values | changes))


class Elements(HTMLParser):
    """Collect the tags, the attributes and the text of a page, and check that its elements close in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, document):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_tells_the_job_the_result_and_what_left():
    text = " ".join(Elements(page()).words)
    for expected in ("tumours", "appendix B", "breast-cancer", "1,021 parameters", "ab" * 32, ROOT, "84,213", "0.9200"):
        assert expected in text
    assert "all rows in one place: 0.9800" in text
    assert "no answer" in text


@pytest.mark.parametrize(
    ("own", "theirs", "shown"),
    [
        ({"accuracy": 0.9}, {"accuracy": 0.8}, "Accuracy 0.9000 evaluated by the coordinator"),
        ({}, {"loss": 0.5, "accuracy": 0.8}, "Accuracy at workers 0.8000 mean over their own validation rows"),
        ({}, {}, "Training loss 0.2500 on the rows that it was trained on; nothing was evaluated"),
    ],
)
def test_the_headline_is_an_evaluation_where_there_is_one_and_says_what_it_is_of(own, theirs, shown):
    history = History((RoundRecord(1, "complete", 0.1, 0.25, own, theirs, 0, 0, ()),))
    text = " ".join(" ".join(Elements(page(history=history)).words).split())
    assert shown in text
    assert ("on the rows that it was trained on" in text) is (not own and not theirs)


def test_the_page_says_when_it_was_written():
    assert "Written 2026-11-28 12:00 UTC" in " ".join(" ".join(Elements(page(written=1795867200.0)).words).split())
    assert "Written" not in page()


def test_the_page_is_well_formed():
    assert Elements(page()).open == []


def test_the_page_loads_nothing_and_runs_nothing():
    found = Elements(page())
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in {"src", "href", "xlink:href", "action", "data"}:
            assert value.startswith("#")
    assert "@import" not in page()
    assert "url(http" not in page()
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes


HOSTILE = "</title><script>alert(1)</script><img src=x onerror='alert(2)'>\"&"


def test_every_text_from_outside_is_escaped():
    parts = (WorkerRound(HOSTILE, "lost", 0.0, 0, 0, 0.1, {HOSTILE: 0.5}, HOSTILE),)
    history = History((RoundRecord(1, "complete", 0.1, 0.5, {HOSTILE: 1.0}, {HOSTILE: 1.0}, 0, 0, parts),))
    hostile = LedgerSummary(HOSTILE, True, 1, 1, HOSTILE, (Egress(HOSTILE, HOSTILE, 1, 1),))
    job = JobFacts(HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE)
    document = page(job=job, history=history, ledgers=(hostile,), lost=(LostWorker(HOSTILE, 1, HOSTILE),))
    found = Elements(document)
    assert not {"script", "img"} & set(found.tags)
    assert found.open == []
    assert document.count("</title>") == 1


def test_a_ledger_that_was_not_verified_is_never_called_verified():
    text = " ".join(Elements(page(ledgers=(ledger("alice", verified=False),))).words)
    assert "ledger NOT VERIFIED" in text
    assert "ledger verified" not in text
    assert "0 of 1" in text


def test_the_page_says_how_to_verify_each_ledger():
    text = " ".join(Elements(page()).words)
    assert "fedpriv audit verify runs/first/alice/ledger" in text
    assert "fedpriv audit verify runs/first/carol/ledger" in text


def test_the_page_says_where_to_verify_when_the_ledgers_are_elsewhere():
    text = " ".join(Elements(page(job=JobFacts("tumours"))).words)
    assert "beside each worker's configuration" in text
    assert text.count("fedpriv audit verify") == 1


def test_the_curves_stand_in_the_page_with_identifiers_of_their_own():
    found = Elements(page())
    identifiers = [value for name, value in found.attributes if name == "id"]
    assert found.tags.count("svg") == 3
    assert len(identifiers) == len(set(identifiers))
    uses = {value.removeprefix("#") for name, value in found.attributes if name == "xlink:href"}
    assert uses <= set(identifiers)


@pytest.mark.parametrize("history", [History(), History((record(1),))])
def test_runs_of_no_round_and_of_one_have_a_page(history):
    assert "</html>" in page(history=history, ledgers=(), lost=())


def test_without_matplotlib_the_page_stands_without_curves(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    found = Elements(page())
    assert "svg" not in found.tags
    assert "fedpriv[plot]" in " ".join(found.words)


def test_a_worker_name_in_a_legend_is_text_even_when_it_looks_like_mathematics():
    parts = (WorkerRound("$x_1$", "lost", 0.0, 0, 0, 0.1), WorkerRound("_hidden", "lost", 0.0, 0, 0, 0.1))
    history = History((RoundRecord(1, "complete", 0.1, 0.5, {}, {}, 0, 0, parts),))
    assert "$x_1$ lost" in " ".join(plots.svgs(history))


def test_who_was_left_out_of_a_sum_is_said_with_what_they_signed_and_clipping_is_a_warning():
    finding = RoundFinding("bob", "cohort-too-small", "worker 'bob' stopped <here>", "ab" * 32, "x", 0, "cd" * 64)
    summed = RoundRecord(1, "complete", 1.0, None, {}, {}, 0, 0, (), (finding,), 7)
    text = page(history=History((summed,)))
    assert "Who did not stay to the end of a sum" in text
    assert "session abababababababab" in text
    assert "stopped &lt;here&gt;" in text
    assert "7 numbers were out of bounds" in text
    quiet = page(history=History((replace(summed, findings=(), saturated=0),)))
    assert "did not stay" not in quiet
    assert "out of bounds" not in quiet


def test_whose_part_is_in_a_sum_though_it_went_away_and_whose_is_not_is_told_apart():
    four = ("alice", "bob", "carol", "dave")
    sums = (
        SumRecord("updates", "ab" * 32, "complete", 4, 3, FIVE, four),
        SumRecord("metrics", "cd" * 32, "complete", 4, 3, FIVE, (), "too few"),
    )
    findings = (
        RoundFinding("dave", "", "went away while signatures were awaited"),
        RoundFinding("erin", "", "went away while masked vectors were awaited"),
        RoundFinding("dave", "", "did not come back", summands="metrics"),
    )
    record = RoundRecord(3, "complete", 1.0, None, {}, {}, 0, 0, (), findings, sums=sums)
    text = " ".join(" ".join(Elements(page(history=History((record,)))).words).split())
    assert "dave 3 updates is in it went away while signatures" in text
    assert "erin 3 updates is not in it went away while masked" in text
    assert "dave 3 metrics there is no sum did not come back" in text


def test_the_sum_of_statistics_before_a_run_and_why_rounds_were_abandoned_are_in_the_page():
    before = SumRecord("statistics", "ab" * 32, "complete", 4, 3, FIVE, FIVE)
    abandoned = RoundRecord(1, "abandoned", 1.0, None, {}, {}, 0, 0, (), reason="2 workers <left> of 5")
    history = History((abandoned, summed(2, FIVE)), before=(before, replace(before, sid="cd" * 32)))
    text = " ".join(" ".join(Elements(page(history=history)).words).split())
    assert text.count("before statistics 5: alice, bob, carol, dave, erin - 4 of 5 to the end, 3 in the sum") == 1
    assert "Round 1 was abandoned: 2 workers <left> of 5." in text
    assert History.from_json(history.to_json()) == history


FIVE = ("alice", "bob", "carol", "dave", "erin")


def summed(number, members, *, summands="updates", reason=""):
    made = SumRecord(summands, "ab" * 32, "complete", 4, 3, FIVE, members, reason)
    return RoundRecord(number, "complete" if members else "abandoned", 1.0, None, {}, {}, 0, 0, (), sums=(made,))


def test_who_was_in_which_sum_is_said_and_what_each_sum_needed():
    rounds = (summed(1, FIVE), summed(2, FIVE), summed(3, ("bob", "carol", "dave", "erin")), summed(4, FIVE))
    text = " ".join(" ".join(Elements(page(history=History(rounds))).words).split())
    assert "The coordinator saw sums only of 4 to 5 workers each" in text
    assert "1-2, 4 updates 5: alice, bob, carol, dave, erin - 4 of 5 to the end, 3 in the sum" in text
    assert "3 updates 4: bob, carol, dave, erin alice 4 of 5 to the end" in text
    assert "Harary" not in text


def test_a_sum_that_there_is_none_of_says_why_and_a_run_in_clear_says_nothing_of_sums():
    text = " ".join(Elements(page(history=History((summed(1, (), reason="2 workers <are left>"),)))).words)
    assert "no sum: 2 workers <are left>" in text
    assert "sums only" not in text
    assert "Secure aggregation" not in " ".join(Elements(page()).words)
