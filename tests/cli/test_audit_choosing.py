"""Filters of `fedpriv audit`: which entries they take, and what they say to a word that nothing matches."""

from __future__ import annotations

import json

import pytest
from ledgers import START, entries, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.cli.audit.choosing import Choice, choice_of
from fedpriv.errors import UsageError

NOW = START / 1000


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def seqs(*arguments):
    shown = audit("show", *arguments, "--json")
    assert shown.exit_code == 0, shown.exception
    return [json.loads(line)["seq"] for line in shown.stdout.splitlines()]


@pytest.fixture
def ledger(tmp_path):
    drafts = [
        update(kind="hello", labels=(), policy="", peer="unidentified", purpose=""),
        update(round=1),
        update(round=2, peer="coordinator-2"),
        update(round=2, labels=("images/bob", "notes/bob")),
        update(round=2, kind="evaluation", bytes=100),
        update(round=2, source=3),
    ]
    written(tmp_path, entries(drafts, step=3_600_000))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("--to", "coordinator-2"), [2]),
        (("--dataset", "notes"), [1, 2, 3, 4, 5]),
        (("--dataset", "images/bob"), [3]),
        (("--kind", "evaluation"), [4]),
        (("--round", 2), [2, 3, 4, 5]),
        (("--worker", "bob", "--round", 1), [1]),
        (("--since", "2026-01-01T03:00"), [3, 4, 5]),
        (("--since", "2026-01-01T04:00+01:00"), [3, 4, 5]),
        (("--until", "2026-01-01T02:00:00Z"), [0, 1, 2]),
        (("--until", "2026-01-01"), [0, 1, 2, 3, 4, 5]),
        (("--since", "2026-01-01", "--until", "2025-12-31T23:59:59-02:00"), [0, 1]),
        (("--since", "2026-01-02"), []),
        (("--dataset", "notes", "--round", 2, "--kind", "update", "--to", "coordinator-1"), [3, 5]),
    ],
)
def test_filters_narrow_and_all_of_them_hold(ledger, arguments, expected):
    assert seqs(ledger, *arguments) == expected


def test_totals_respect_the_filters_and_name_what_was_sent_again(ledger):
    shown = audit("show", ledger, "--dataset", "images", "--to", "coordinator-1")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["update", "1", "12,345"] in rows
    assert not any(row[:1] == ["hello"] for row in rows)
    assert "again" not in shown.stdout
    shown = audit("show", ledger, "--kind", "update")
    assert "update (entry 3 again)" in shown.stdout
    assert "1 of them, 12,345 bytes, were sent before" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--kind", "updat"), "no entry has the kind 'updat' (did you mean 'update'?)"),
        (("--to", "coordinater-2"), "no entry has the recipient 'coordinater-2' (did you mean 'coordinator-2'?)"),
        (("--dataset", "note"), "no entry has the data set 'note' (did you mean 'notes'?)"),
        (("--worker", "bbo"), "no entry has the worker 'bbo' (did you mean 'bob'?); it occurs with 'bob'"),
        (("--since", "yesterday"), "--since 'yesterday' is no time"),
        (("--until", "12x"), "--until '12x' is no time"),
        (("--since", "2026-13-01"), "is no time"),
        (("--since", "2026-02-01", "--until", "2026-01-01"), "is later than --until"),
    ],
)
def test_a_word_that_matches_nothing_is_named_with_the_nearest(ledger, arguments, says):
    result = audit("show", ledger, *arguments)
    assert isinstance(result.exception, UsageError)
    assert says in str(result.exception)


def test_of_an_empty_ledger_nothing_can_be_misspelt(tmp_path):
    written(tmp_path, [])
    assert audit("show", tmp_path, "--kind", "update").exit_code == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_time_can_be_said_as_how_long_ago(text, seconds):
    assert choice_of(NOW, since=text) == Choice(since=START - seconds * 1000)
