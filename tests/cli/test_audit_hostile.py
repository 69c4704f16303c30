"""What `fedpriv audit` prints of folders that were made to harm its reader, and that its lines are safe to copy."""

from __future__ import annotations

import html
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from ledgers import entries, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app, foreseeing
from fedpriv.errors import VerificationFailed
from fedpriv.storage import requests
from fedpriv.storage.database import APPLICATION_ID, VERSION

COMMAND = "w$(touch${IFS}pwned)"


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def fedpriv(*arguments):
    command = [sys.executable, "-m", "fedpriv.cli.app", "audit", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_a_keeper_whose_name_is_a_command_is_in_no_line_to_copy(tmp_path):
    written(tmp_path, entries([update()], worker=COMMAND), name=f"fedpriv.ledger/{COMMAND}")
    assert isinstance(audit("verify", tmp_path).exception, VerificationFailed)
    reported = audit("report", tmp_path)
    assert isinstance(reported.exception, VerificationFailed)
    assert "Check it yourself" not in reported.stdout


def test_the_lines_to_copy_name_one_folder_whatever_it_is_called(tmp_path):
    run = tmp_path / f"a {COMMAND} 'b'"
    key = written(run / "ledgers" / COMMAND, entries([update()]))
    for given, shown in ((("--key", key), key), ((), "KEY")):
        page = audit("report", run, *given).stdout
        line = html.unescape(re.search(r"<code>(fedpriv audit verify .*?)</code>", page)[1])
        assert shlex.split(line) == ["fedpriv", "audit", "verify", str(run / "ledgers" / COMMAND), "--key", shown]
    hint = audit("verify", run).stderr.replace("\n", "")
    assert shlex.split(hint.split("beside the ledger, ")[1].split("; whoever")[0]) == [key]
    proof = tmp_path / f"{COMMAND} .proof"
    said = audit("prove", run, 0, "-o", proof).stderr.replace("\n", "")
    words = shlex.split(said[said.index("fedpriv audit") : said.index("the key has to")])
    assert words == ["fedpriv", "audit", "check-proof", str(proof), "--key", key]
    written(run / "ledgers" / "z", entries([update()]))
    several = str(audit("prove", run, 0).exception)
    assert shlex.split(several[several.index(" as in ") :])[-1] == str(run / "ledgers" / COMMAND)


def test_a_files_name_cannot_drive_the_terminal(tmp_path):
    written(tmp_path, entries([update()]))
    (tmp_path / "tile" / "0" / "\x1b]0;owned\x07\x1b[2J\x1b[32mok: verified").write_bytes(b"")
    finished = fedpriv("verify", tmp_path)
    assert finished.returncode == 3
    assert "owned" in finished.stderr
    assert all(character == "\n" or character.isprintable() for character in finished.stderr)


def test_a_folders_name_cannot_add_a_line_to_what_failed(tmp_path):
    folder = tmp_path / "ledgers" / "w\nfedpriv.ledger/bob: ok: 1 entries"
    written(folder, entries([update()]))
    (folder / "stranger").write_bytes(b"")
    for command in ("verify", "report"):
        assert "\n" not in str(audit(command, tmp_path).exception)


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path):
    written(tmp_path, entries([update()]))
    (tmp_path / "vkey").unlink()
    os.mkfifo(tmp_path / "vkey")
    finished = fedpriv("verify", tmp_path)
    assert finished.returncode == 3
    assert "vkey is no regular file" in finished.stderr


@pytest.mark.parametrize("what", ["the ledger", "--holds", "the proof"])
def test_a_pipe_that_the_caller_names_is_the_callers_to_correct(tmp_path, what):
    key = written(tmp_path / "ledger", entries([update()]))
    os.mkfifo(tmp_path / "pipe")
    words = {
        "the ledger": ("verify", tmp_path / "pipe"),
        "--holds": ("verify", tmp_path / "ledger", "--holds", tmp_path / "pipe"),
        "the proof": ("check-proof", tmp_path / "pipe", "--key", key),
    }
    refused = audit(*words[what]).exception
    assert refused.exit_code == 2
    assert "pipe is no folder" in str(refused) if what == "the ledger" else "no regular file" in str(refused)


def test_an_empty_ledger_laid_into_a_run_does_not_hide_that_another_was_changed(tmp_path):
    written(tmp_path / "ledgers" / "bob", entries([update()]))
    bundle = tmp_path / "ledgers" / "bob" / "tile" / "entries" / "000.p" / "1"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":12345', b'"bytes":12346'))
    written(tmp_path / "ledger", [], name="fedpriv.ledger/decoy")
    verified = audit("verify", tmp_path)
    assert isinstance(verified.exception, VerificationFailed)
    assert "entry 0 was changed" in str(verified.exception)
    assert verified.stdout.startswith("fedpriv.ledger/decoy: ok: 0 entries")


MANY = """INSERT INTO requests SELECT value, 'hub', '{}', zeroblob(%d), 0, 0, 1, 'permitted', '', '', '', NULL
FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT %d) SELECT value FROM n)"""


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("CREATE VIEW requests AS SELECT 1", "its tables are not those of a fedpriv database"),
        (f"{requests.SCHEMA}; {MANY % (0, 2 * requests.MAXIMUM_REQUESTS + 1)}", "more than a worker keeps"),
        (f"{requests.SCHEMA}; {MANY % (1 << 20, 3)}", "more than a worker keeps"),
    ],
)
def test_orders_that_no_worker_keeps_are_refused_before_they_are_read(tmp_path, monkeypatch, statements, says):
    monkeypatch.setattr(foreseeing, "MAXIMUM_BYTES", 1 << 20)
    written(tmp_path / "kept", entries([update()]))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        database.executescript(f"{statements}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}")
    assert says in str(audit("verify", tmp_path / "kept", "--forecast").exception)
