"""The command: what it prints where, its exit codes, and that a failure is one line without a traceback."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from fedpriv import errors
from fedpriv.cli import app as command


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def replace_command(monkeypatch, name, **functions):
    """Put a module of `functions` where the command looks for fedpriv.cli.`name`."""
    module = types.ModuleType(f"fedpriv.cli.{name}")
    for key, function in functions.items():
        setattr(module, key, function)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys.modules["fedpriv.cli"], name, module, raising=False)


def raising(error):
    def command(*arguments, **options):
        raise error

    return command


def test_the_version_goes_to_stdout(capsys):
    assert run(capsys, "--version") == (0, "fedpriv 0.1.0\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["demo", "--help"], ["worker", "--help"], ["run", "-h"]])
def test_help_goes_to_stdout(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "Usage: fedpriv" in out


@pytest.mark.parametrize("arguments", [["nonsense"], ["demo", "--rounds", "many"], ["demo", "--workers", "0"], ["run"]])
def test_a_usage_error_exits_2_and_leaves_stdout_empty(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Usage: fedpriv" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FedprivError("it failed"), 1),
        (errors.ConfigError("it failed"), 2),
        (errors.VerificationFailed("it failed"), 3),
        (errors.ReleaseDenied("it failed"), 4),
        (errors.PeerLost("it failed"), 5),
    ],
)
def test_a_refusal_is_one_line_on_stderr_and_its_own_exit_code(capsys, monkeypatch, error, code):
    replace_command(monkeypatch, "run", run=raising(error))
    assert run(capsys, "run", "job.toml") == (code, "", "fedpriv: error: it failed\n")


def test_what_a_refusal_quotes_cannot_drive_the_terminal(capsys, monkeypatch):
    replace_command(monkeypatch, "run", run=raising(errors.VerificationFailed("a\x1b]0;owned\x07\u202eb\r\nc")))
    marked = "a\ufffd]0;owned\ufffd\ufffdb\ufffd\nc"
    assert run(capsys, "run", "job.toml") == (3, "", f"fedpriv: error: {marked}\n")


def test_an_interrupt_exits_130(capsys, monkeypatch):
    replace_command(monkeypatch, "run", run=raising(KeyboardInterrupt()))
    code, out, err = run(capsys, "run", "job.toml")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_a_defect_names_its_kind_and_never_its_text(capsys, monkeypatch):
    monkeypatch.delenv("FEDPRIV_DEBUG", raising=False)
    replace_command(monkeypatch, "run", run=raising(IndexError("Target 7 is out of bounds")))
    code, out, err = run(capsys, "run", "job.toml")
    assert (code, out) == (1, "")
    assert "IndexError" in err
    assert "7" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--verbose", "run", "job.toml"], ["run", "job.toml", "--verbose"]])
def test_verbose_shows_the_traceback_wherever_it_stands(capsys, monkeypatch, arguments):
    replace_command(monkeypatch, "run", run=raising(errors.PeerLost("it failed")))
    code, _, err = run(capsys, *arguments)
    assert code == 5
    assert "Traceback" in err
    assert err.endswith("fedpriv: error: it failed\n")


def test_the_debug_variable_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("FEDPRIV_DEBUG", "1")
    replace_command(monkeypatch, "run", run=raising(errors.PeerLost("it failed")))
    assert "Traceback" in run(capsys, "run", "job.toml")[2]


def test_the_demo_gets_its_options(capsys, monkeypatch):
    received = {}
    replace_command(monkeypatch, "demo", demo=lambda **options: received.update(options))
    code, _, _ = run(capsys, "demo", "--plain", "--kill", "carol@3", "--json", "--rounds", "5")
    assert code == 0
    assert received == {
        "plain": True,
        "workers": 5,
        "rounds": 5,
        "kill": "carol@3",
        "quorum": None,
        "as_json": True,
        "run": None,
        "seed": 0,
    }


def test_worker_and_run_get_their_arguments(capsys, monkeypatch, tmp_path):
    received = []
    replace_command(
        monkeypatch,
        "worker",
        init=lambda *a: received.append(("init", *a)),
        start=lambda *a: received.append(("start", *a)),
    )
    replace_command(monkeypatch, "run", run=lambda *a: received.append(("run", *a)))
    run(capsys, "worker", "init", str(tmp_path), "--name", "st-elsewhere")
    run(capsys, "worker", "start")
    run(capsys, "worker", "start", "--config", "elsewhere.toml")
    run(capsys, "run", "job.toml", "--resume", str(tmp_path), "--json")
    kinds = [(call[0], *map(str, call[1:])) for call in received]
    assert kinds == [
        ("init", str(tmp_path), "st-elsewhere"),
        ("start", "worker.toml"),
        ("start", "elsewhere.toml"),
        ("run", "job.toml", str(tmp_path), "True"),
    ]


def test_audit_gets_every_word_that_follows_it(capsys, monkeypatch):
    received = {}
    replace_command(monkeypatch, "audit", app=lambda **options: received.update(options))
    run(capsys, "audit", "verify", "--json", "ledger", "--help")
    assert received == {"args": ["verify", "--json", "ledger", "--help"], "prog_name": "fedpriv audit"}


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "verify", "--help"]])
def test_help_and_audit_import_neither_torch_nor_grpc(arguments):
    finished = python("-X", "importtime", "-m", "fedpriv.cli.app", *arguments)
    imported = {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines()}
    assert finished.returncode == 0
    assert "typer" in imported
    assert not {"torch", "grpc", "numpy", "matplotlib"} & imported


@pytest.mark.parametrize("words", [["audit"], ["audit", "verify"], ["certs"], ["certs", "issue"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_every_sub_command_answers_and_offers_no_completion(capsys, words, option):
    code, out, _ = run(capsys, *words, option)
    assert code == 0
    assert f"Usage: fedpriv {words[0]}" in out
    assert "completion" not in out


STOPPED_READER = """
import os
from fedpriv.cli import app
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(writer)
os.close(reader)
app.main(["--help"])
"""


def test_a_reader_that_stops_reading_gets_no_traceback():
    finished = python("-c", STOPPED_READER)
    assert finished.returncode == 1
    assert finished.stderr == ""
