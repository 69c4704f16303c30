"""The report: what it counts, what it leaves blank, and that no text from a ledger can become part of the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import START, entries, signer, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.cli.audit.meanings import MEANINGS
from fedpriv.cli.audit.sections import Ledger, Proof, document
from fedpriv.cli.audit.summing import MAXIMUM_DISCLOSURES, Summary
from fedpriv.cli.audit.timeline import MAXIMUM_BARS, Histogram, picture, size_text
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.entries import PrivacySpend
from fedpriv.secagg.messages import FromWorker
from fedpriv.wire.bodies import KINDS
from fedpriv.wire.messages import Announcement, Goodbye, Hello, HelloProof, Reply

DAY = 86_400_000
VOID = {"meta", "rect", "br"}


class Page(HTMLParser):
    """What a browser would find: texts, tags in balance, and anything that it would load or run."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts, self.dangers = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"script", "link", "img", "iframe", "object", "embed", "a", "form", "base", "image", "use"}:
            self.dangers.append(tag)
        self.dangers += [name for name, _ in attributes if name.startswith("on") or name in {"src", "href"}]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def summed(made):
    summary = Summary()
    for entry in made:
        summary.add(entry)
    return summary


def page_of(made, **proof):
    return document([Ledger("bob", "/ledger", summed(made), Proof(**proof))], made="Made today.", period="")


def test_the_page_states_what_left_to_whom_under_which_rules_and_for_what(tmp_path):
    drafts = [update(kind="hello", labels=(), policy="", peer="unidentified", purpose="", bytes=500)]
    drafts += [update(), update(peer="coordinator-2", purpose="bones"), update(source=1)]
    vkey = written(tmp_path / "ledger", entries(drafts, step=DAY))
    made = audit("report", tmp_path / "ledger", "-o", tmp_path / "page.html", "--key", vkey)
    assert (made.exit_code, made.stdout) == (0, "")
    page = Page((tmp_path / "page.html").read_text())
    assert page.dangers == []
    for expected in (
        "What left bob",
        "From 2026-01-01 00:00:00 to 2026-01-04 00:00:00 UTC.",
        "37,535 bytes",
        "bob: verified with the owner's key",
        "coordinator-1 2 1 again 24,690 2026-01-02 00:00:00 2026-01-04 00:00:00 plain-update 01 tumours",
        "notes 3 1 again 37,035",
        "No release under differential privacy.",
        "No release was made under an approval given by hand.",
        "2 releases derived from data, under 1 rule of the owner.",
        "to be filled in: name and contact details of the controller",
        "2026-01-03 coordinator-2 1 update derived from notes; 12.3 kB bones",
        "No witness: nobody but its owner is known to keep a signed checkpoint of this ledger,",
        vkey,
    ):
        assert expected in page.text


def test_without_a_file_the_page_goes_to_stdout_and_json_is_one_line_a_ledger(tmp_path):
    for worker in ("alice", "bob"):
        made = entries([update(), update()], worker=worker)
        written(tmp_path / "ledgers" / worker, made, name=f"fedpriv.ledger/{worker}")
    printed = audit("report", tmp_path)
    assert Page(printed.stdout).text.count("What left 3 workers") == 0
    assert "What left 2 workers" in printed.stdout
    assert printed.stdout.count('<section class="ledger">') == 2
    found = [json.loads(line) for line in audit("report", tmp_path, "--json").stdout.splitlines()]
    assert [(each["keeper"], each["messages"], each["bytes"]) for each in found] == [
        ("alice", 2, 24_690),
        ("bob", 2, 24_690),
    ]
    assert found[0]["recipients"]["coordinator-1"]["rules"] == ["plain-update:01"]
    assert isinstance(audit("report", tmp_path, "--key", str(signer("bob").verifier)).exception, UsageError)


def test_only_the_time_asked_for_is_counted(tmp_path):
    written(tmp_path, entries([update()] * 3, step=DAY))
    html = audit("report", tmp_path, "--since", "2026-01-02").stdout
    assert "Only what was sent since 2026-01-02 00:00:00 is counted." in html
    assert "24,690 bytes" in html


def test_a_ledger_that_does_not_verify_is_marked_and_is_exit_code_3(tmp_path):
    written(tmp_path, entries([update()] * 3))
    bundle = tmp_path / "tile" / "entries" / "000.p" / "3"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":12345', b'"bytes":12346', 1))
    result = audit("report", tmp_path)
    assert isinstance(result.exception, VerificationFailed)
    page = Page(result.stdout)
    assert "bob: NOT VERIFIED" in page.text
    assert "The ledger is NOT VERIFIED" in page.text
    assert "entry 0 was changed after it was signed" in page.text
    assert "0 of 1" in page.text
    bundle.write_bytes(b"")
    assert "No message is on record" in audit("report", tmp_path).stdout


def test_epsilon_spent_and_left_and_approvals_come_from_the_entries():
    def noised(spent, limit="8.0", **changes):
        return update(dp=PrivacySpend("gaussian", "add-or-remove", spent, limit), approval="ab" * 32, **changes)

    page = Page(page_of(entries([noised("1.5"), noised("2.25"), noised("2.25", source=1)])))
    assert "notes 2.25 8.0 5.75 add-or-remove" in page.text
    assert f"{'ab' * 32} 2 37,035" in page.text
    assert "overspent" in page_of(entries([noised("9")]))
    assert "notes much unclear" in Page(page_of(entries([noised("much", "unclear")]))).text
    assert summed(entries([noised("3"), noised("NaN"), noised("1e999999")])).spends["notes"].left == ""


@pytest.mark.parametrize("limit", ["1E-999999", "1E-65", "-1E-999999", "0E-999999", "0E+999999", "1" + "0" * 70])
def test_a_number_that_cannot_be_written_out_is_no_number(limit):
    spend = PrivacySpend("gaussian", "add-or-remove", "0", limit)
    page = page_of(entries([update(dp=spend, labels=(f"d{number}/bob",)) for number in range(100)]))
    assert len(page) < 200_000


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egpj.exe", "\x1b]0;x\x07", "<!--"]
)


@settings(max_examples=40, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_a_ledger_becomes_part_of_the_page(kind, peer, purpose, label):
    spend = PrivacySpend(kind, purpose, peer, label)
    made = entries([update(kind=kind, peer=peer, purpose=purpose, labels=(label,), policy=peer, approval=label,
                           legal_basis=kind, dp=spend)])  # fmt: skip  # one entry
    ledger = Ledger(peer, purpose, summed(made), Proof(vkey=kind, root=peer, witnesses=(label,)))
    broken = Ledger(peer, purpose, summed(made), Proof(failure=label))
    html = document([ledger, broken], made=peer, period=kind)
    plain = document([Ledger("a", "b", summed(entries([update(approval="a", legal_basis="b")])), Proof())] * 2, made="",
                     period="")  # fmt: skip  # one page
    assert Page(html).dangers == []
    assert set(Page(html).tags) <= {*Page(plain).tags, "br"}
    assert all(character == "\n" or character.isprintable() for character in html)


def test_a_long_accounting_is_summed_up_with_first_last_and_number():
    days = MAXIMUM_DISCLOSURES + 5
    summary = summed(entries([update(), update(kind="evaluation")] * days, step=DAY // 2))
    assert len(summary.disclosures) == 1
    (tally,) = summary.disclosures.values()
    assert (tally.messages, tally.first, tally.last) == (2 * days, START, START + (2 * days - 1) * DAY // 2)
    html = Page(document([Ledger("bob", "x", summary, Proof())], made="", period="")).text
    assert f"2026-01-01 to 2026-07-24 coordinator-1 {days} evaluations, {days} updates derived from notes" in html


@pytest.mark.parametrize(
    ("span", "says"),
    [
        (0, "per 10 ms"),
        (60_000, "per second"),
        (3_600_000, "per minute"),
        (30 * DAY, "per 12 hours"),
        (730 * DAY, "per week"),
        (20 * 365 * DAY, "per 52 weeks"),
        (1 << 52, "days, by kind"),
    ],
)
def test_the_picture_has_bars_for_a_minute_and_for_years(span, says):
    histogram = Histogram()
    for part in range(101):
        histogram.add(START + span * part // 100, f"kind {part % 9}", 100)
    html = picture(histogram)
    assert says in html
    assert histogram.high - histogram.low < MAXIMUM_BARS
    assert sum(histogram.cells.values()) == 100 * 101
    assert html.count("<li>") == 7  # six kinds and the others
    assert 'style="left:50%"' in html
    assert Page(html).dangers == []


@given(st.integers(10, 10_000 * DAY))
def test_no_time_stands_twice_below_the_picture(span):
    histogram = Histogram()
    histogram.add(START, "update", 100)
    histogram.add(START + span, "update", 100)
    times = re.findall(r'<span style="left:[0-9]+%">([^<]+)</span>', picture(histogram))
    assert len(times) == len(set(times)) == 5


@given(st.lists(st.tuples(st.integers(0, 1 << 53), st.sampled_from("ab"), st.integers(0, 1 << 53)), max_size=30))
def test_the_picture_loses_no_byte_however_the_clock_jumps(sent):
    histogram = Histogram()
    for time, kind, size in sent:
        histogram.add(time, kind, size)
    assert sum(histogram.cells.values()) == sum(size for _, _, size in sent)
    assert len(histogram.cells) <= 2 * MAXIMUM_BARS
    picture(histogram)


SIZES = [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_849_999, "1.8 MB"), (999_960, "1 MB"), (1 << 53, "9.0 PB")]


@pytest.mark.parametrize(("size", "text"), SIZES)
def test_sizes_are_for_people(size, text):
    assert size_text(size) == text


def sums(*, more=()):
    """Entries of a worker that took part in two sums."""
    drafts = [update(kind="secagg-masked"), update(kind="secagg-unmask")]
    public = [update(kind=kind, labels=(), policy="") for kind in ("hello", "secagg-advertise", "secagg-shares")]
    return summed(entries([*public, *drafts, *drafts, *more]))


def test_an_officer_reads_that_nothing_left_in_clear_and_what_each_kind_is():
    html = Page(document([Ledger("bob", "x", sums(), Proof())], made="", period="")).text
    assert "Results in clear none" in html
    assert "No message held an update, a metric, a statistic or any other result of this worker in clear." in html
    assert "What was computed from its rows left masked, 2 messages" in html
    assert "secagg-shares pieces of this worker's fresh secrets, each encrypted for one other worker" in html
    assert "2 masked vectors, 2 sets of unmasking shares derived from notes" in html
    assert "2 results left under secure aggregation" in html
    assert html.index("Masked results") < html.index("Keys and shares") < html.index("Control messages")


@pytest.mark.parametrize(
    ("kind", "says"),
    [("update", "1 message (12.3 kB) left in clear."), ("news", "of a kind that is not known: nothing can be said")],
)
def test_one_message_in_clear_or_of_an_unknown_kind_takes_that_back(kind, says):
    html = Page(document([Ledger("bob", "x", sums(more=[update(kind=kind)]), Proof())], made="", period="")).text
    assert says in html
    assert "No message held" not in html


def test_every_kind_of_message_that_a_worker_sends_has_a_meaning():
    from_worker = {*get_args(Reply), *get_args(FromWorker), Hello, HelloProof, Announcement, Goodbye}
    kinds = {each.field.replace("_", "-") for type_, each in KINDS.items() if type_ in from_worker}
    kinds |= {f"secagg-{each.__name__.lower()}" for each in get_args(FromWorker)}
    assert kinds == set(MEANINGS)
