"""How an owner's commands are typed: durations, and help that names them as they are."""

from __future__ import annotations

import pytest
from test_requests_command import run

from fedpriv.cli.durations import seconds_of
from fedpriv.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("12h", 43_200), ("7d", 604_800), ("2W", 1_209_600)]
)
def test_a_duration_is_a_number_and_a_letter(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "7 days", "-1d", "1.5h", "9999999999d", "7d7h"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(UsageError, match="such as 7d"):
        seconds_of(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["worker", "requests", "--help"],
        ["worker", "requests", "show", "--help"],
        ["worker", "explain", "-h"],
        ["worker", "approve", "-h"],
        ["worker", "deny", "-h"],
        ["worker", "datasets", "-h"],
        ["budget", "-h"],
        ["budget", "show", "-h"],
    ],
)
def test_help_names_the_command_as_it_is_typed(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert f"Usage: fedpriv {' '.join(arguments[:-1])} " in out
