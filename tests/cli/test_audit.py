"""`fedpriv audit`: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import entries, signer, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import SigningKey
from fedpriv.ledger.cosignature import cosign
from fedpriv.ledger.entries import Draft
from fedpriv_worker.journal import Journal


def made(worker):
    draft = Draft(peer="coordinator-1", method="Attach", kind="announcement", bytes=1000)
    labels = (f"breast-cancer/{worker}",)
    drafts = [draft]
    drafts += [replace(draft, kind="update", bytes=12_345, round=number, labels=labels, policy="plain-update")
               for number in range(3)]  # fmt: skip  # one message a round
    return entries(drafts, worker=worker, step=1500)


def write(folder, worker):
    return written(folder, made(worker), name=f"fedpriv.ledger/{worker}")


@pytest.fixture
def run(tmp_path):
    for worker in ("alice", "bob"):
        write(tmp_path / "ledgers" / worker, worker)
    return tmp_path


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_show_lists_every_entry_and_the_totals(run):
    shown = audit("show", run)
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    first = [
        "bob",
        "1",
        "2026-01-01",
        "00:00:01.500",
        "coordinator-1",
        "update",
        "12,345",
        "0",
        "plain-update",
        "breast-cancer/bob",
    ]
    assert first in rows
    assert sum(row[:1] in (["alice"], ["bob"]) for row in rows) == 8 + 2
    assert ["update", "6", "74,070"] in rows
    assert ["bob", "4", "38,035"] in rows


def test_show_narrows_by_kind_worker_and_number(run):
    shown = audit("show", run, "--kind", "update", "--worker", "bob", "--limit", "1")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert [row[:2] for row in rows if "coordinator-1" in row] == [["bob", "3"]]
    assert ["update", "3", "37,035"] in rows
    assert "the newest 1 of 3 entries" in shown.stderr
    assert "newest" not in shown.stdout


def test_show_prints_one_json_object_a_line(run):
    found = [json.loads(line) for line in audit("show", run, "--json").stdout.splitlines()]
    assert [(entry["worker"], entry["seq"]) for entry in found] == [
        (name, seq) for name in ("alice", "bob") for seq in range(4)
    ]
    assert found[1]["labels"] == ["breast-cancer/alice"]
    limited = audit("show", run, "--json", "--limit", "2", "--worker", "alice").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in limited] == [2, 3]


def test_what_a_peer_wrote_cannot_drive_the_terminal(tmp_path):
    draft = Draft(peer="\x1b]0;owned\x07[red]x", method="Attach", kind="up\x9bdate", bytes=1, purpose="\x9b2J")
    written(tmp_path, entries([draft]))
    for arguments in (("show", tmp_path), ("show", tmp_path, "--json"), ("verify", tmp_path), ("report", tmp_path)):
        output = audit(*arguments).output
        assert all(character == "\n" or character.isprintable() for character in output)
    assert "[red]x" in audit("show", tmp_path).stdout


def test_a_time_beyond_the_calendar_is_shown_as_it_is(tmp_path):
    written(tmp_path, entries([Draft(peer="c", method="Attach", kind="update", bytes=1)], start=10**15))
    assert "1000000000000000 ms" in audit("show", tmp_path).stdout


def test_verify_says_ok_for_each_ledger(run):
    verified = audit("verify", run)
    assert verified.exit_code == 0
    lines = verified.stdout.splitlines()
    assert lines[0].startswith("fedpriv.ledger/alice: ok: 4 entries, 38,035 bytes, root ")
    alone = "no witness: nobody but its owner is known to keep a signed checkpoint of this ledger, so one that was put"
    for line, name in zip(lines[1::2], ("alice", "bob"), strict=True):
        assert line.startswith(f"fedpriv.ledger/{name}: {alone}")
        assert "give that to the next verification with --holds" in line
    assert "verified with the key beside the ledger" in verified.stderr
    assert "proves nothing of who signed: ask its owner for the line in ledger/vkey" in verified.stderr
    assert f"--key {signer('alice').verifier}" not in verified.stderr


def test_verify_with_the_owners_key_needs_no_warning(run):
    verified = audit("verify", run / "ledgers" / "bob", "--key", str(signer("bob").verifier))
    assert (verified.exit_code, verified.stderr) == (0, "")


def test_verify_prints_json(run):
    found = [json.loads(line) for line in audit("verify", run, "--json").stdout.splitlines()]
    assert [(report["origin"], report["entries"], report["bytes"]) for report in found] == [
        ("fedpriv.ledger/alice", 4, 38_035),
        ("fedpriv.ledger/bob", 4, 38_035),
    ]


def test_verify_counts_what_is_recorded_but_not_signed(tmp_path):
    made = Journal.open(tmp_path, worker=WorkerName("bob"), clock=ManualClock(), entropy=SeededEntropy(b""))
    made.append(Draft(peer="c", method="Attach", kind="update", bytes=5), b"", [])
    assert "ok: 1 entries, 1 of them newer than the last checkpoint" in audit("verify", tmp_path).stdout
    made.close()
    assert "ok: 1 entries, 5 bytes" in audit("verify", tmp_path).stdout


def test_a_changed_ledger_is_exit_code_3_names_the_entry_and_does_not_hide_the_others(run):
    bundle = run / "ledgers" / "alice" / "tile" / "entries" / "000.p" / "4"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":12345', b'"bytes":12346', 1))
    verified = audit("verify", run)
    assert isinstance(verified.exception, VerificationFailed)
    assert verified.exception.exit_code == 3
    assert "alice: entry 1 was changed after it was signed" in str(verified.exception)
    assert verified.stdout.startswith("fedpriv.ledger/bob: ok")


def witness(folder, name, *, seconds):
    """Add the cosignature of witness `name` to a folder's checkpoint; return the witness's key."""
    key = SigningKey(f"fedpriv.witness/{name}", name.encode().ljust(32))
    note = (folder / "checkpoint").read_bytes()
    (folder / "checkpoint").write_bytes(note + cosign(note, key, seconds) + b"\n")
    return str(key.cosigner)


def test_verify_says_who_witnessed_and_when_and_whose_key_is_missing(tmp_path):
    write(tmp_path, "bob")
    hub, other = (witness(tmp_path, name, seconds=1_767_225_600) for name in ("hub", "other"))
    alone = audit("verify", tmp_path)
    assert "fedpriv.ledger/bob: cosigned by fedpriv.witness/hub, not verified: pass its key" in alone.stdout
    verified = audit("verify", tmp_path, "--witness", hub, "--witness", other)
    assert verified.exit_code == 0
    assert (
        "fedpriv.ledger/bob: witnessed by fedpriv.witness/hub at 2026-01-01 00:00:00 UTC: 4 entries" in verified.stdout
    )
    (found,) = (
        json.loads(line) for line in audit("verify", tmp_path, "--json", "--witness", other).stdout.splitlines()
    )
    assert found["witnessed"] == [{"witness": "fedpriv.witness/other", "time": 1_767_225_600, "size": 4}]
    assert found["unverified"] == ["fedpriv.witness/hub"]
    page = audit("report", tmp_path, "--witness", hub).stdout
    assert "Witnessed by fedpriv.witness/hub at 2026-01-01 00:00:00 UTC: 4 entries." in page


def test_a_witness_that_was_named_and_did_not_cosign_is_exit_code_3_and_names_the_mend(tmp_path):
    write(tmp_path, "bob")
    witness(tmp_path, "hub", seconds=1_767_225_600)
    impostor = SigningKey("fedpriv.witness/hub", b"i" * 32)
    for key in (SigningKey("fedpriv.witness/other", b"o" * 32), impostor):
        verified = audit("verify", tmp_path, "--witness", str(key.cosigner))
        assert isinstance(verified.exception, VerificationFailed)
        assert f"no cosignature of the witness {key.name}" in str(verified.exception)
        assert "--holds FILE" in str(verified.exception)


def test_a_ledger_that_does_not_extend_a_kept_checkpoint_was_rolled_back(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, "bob")
    written(cut, made("bob")[:2])
    older = audit("verify", whole, "--holds", cut / "checkpoint")
    assert older.exit_code == 0
    assert f"it extends the checkpoint of 2 entries in {cut / 'checkpoint'}" in older.stdout.replace("\n", "")
    later = audit("verify", cut, "--holds", whole / "checkpoint")
    assert isinstance(later.exception, VerificationFailed)
    assert "rolled back by 2 entries" in str(later.exception)
    assert isinstance(audit("verify", whole, "--holds", tmp_path / "absent").exception, UsageError)


def test_a_run_is_held_to_the_checkpoints_that_its_coordinator_cosigned(run):
    early = run / "early"
    written(early, made("bob")[:3])
    hub = witness(early, "hub", seconds=1_767_225_600)
    (run / "witness").mkdir()
    note = (early / "checkpoint").read_bytes()
    (run / "witness" / "bob.checkpoint").write_bytes(note)
    verified = audit("verify", run, "--witness", hub)
    assert "fedpriv.ledger/bob: witnessed by fedpriv.witness/hub at 2026-01-01 00:00:00 UTC: 3 " in verified.stdout
    assert "fedpriv.ledger/alice: no witness: nobody but its owner" in verified.stdout
    assert isinstance(verified.exception, VerificationFailed)
    assert "alice: no cosignature of the witness fedpriv.witness/hub" in str(verified.exception)
    assert "/bob: no cosignature" not in str(verified.exception)
    assert "Witnessed by fedpriv.witness/hub" in audit("report", run, "--witness", hub).stdout
    shutil.rmtree(run / "ledgers" / "bob")
    written(run / "ledgers" / "bob", made("bob")[:2])
    rolled_back = audit("verify", run)
    assert isinstance(rolled_back.exception, VerificationFailed)
    assert "rolled back by 1 entries" in str(rolled_back.exception)
    assert "NOT VERIFIED" in audit("report", run).stdout


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_path_that_is_no_ledger_is_exit_code_2(tmp_path, command):
    result = audit(command, tmp_path / "absent")
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2


def test_one_key_cannot_be_of_two_ledgers(run):
    result = audit("verify", run, "--key", str(signer("bob").verifier))
    assert isinstance(result.exception, UsageError)
    assert "name the ledger" in str(result.exception)


def test_auditing_needs_no_torch(run):
    program = "import sys; from fedpriv.cli.audit import app; app(sys.argv[1:], standalone_mode=False); "
    program += "print('torch' in sys.modules)"
    command = [sys.executable, "-c", program, "verify", str(run)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert finished.stdout.splitlines()[-1] == "False"


def test_the_folder_of_a_worker_and_of_a_demo_lead_to_the_ledgers(tmp_path):
    write(tmp_path / "workers" / "alice" / "state" / "ledger", "alice")
    write(tmp_path / "workers" / "bob" / "state" / "ledger", "bob")
    assert audit("verify", tmp_path / "workers" / "bob").stdout.startswith("fedpriv.ledger/bob: ok")
    assert audit("verify", tmp_path).stdout.count(": ok: ") == 2
    assert audit("show", tmp_path / "workers" / "alice").exit_code == 0


@pytest.mark.parametrize("command", ["verify", "report"])
def test_an_empty_key_is_refused_and_not_taken_for_none(run, command):
    refused = audit(command, run / "ledgers" / "bob", "--key", "")
    assert isinstance(refused.exception, UsageError)
    assert "is a variable of the shell not set?" in str(refused.exception)


def test_the_table_of_exit_codes_has_every_command():
    page = (Path(__file__).parents[2] / "docs" / "for-reviewers.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if re.match(r"\| [0-9]+ \|", line)]
    named = {name for row in rows if row[1].strip() == "3" for name in re.findall(r"`([\w-]+)`", row[2])}
    assert named == {command.name or command.callback.__name__ for command in app.registered_commands}
    assert [row[1].strip() for row in rows if row[2].strip() == "all"] == ["0", "2", "1", "130"]
