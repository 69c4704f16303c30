"""`fedpriv audit reconcile`: honest runs agree, and each kind of dishonesty is exit code 3 with its message named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ledgers import entries, signer, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import SigningKey
from fedpriv.ledger.entries import Draft

HUB = "hub"


def reconcile(*arguments):
    return CliRunner().invoke(app, ["reconcile", *map(str, arguments)])


def sent_by(worker):
    drafts = [Draft(peer="unidentified", method="Attach", kind=kind, bytes=99) for kind in ("hello", "hello-proof")]
    drafts += [update(peer=HUB, round=number, labels=(f"notes/{worker}",)) for number in range(3)]
    return entries(drafts, worker=worker)


def receipts(*sent):
    """Return what an honest coordinator records of these entries."""
    drafts = [Draft(peer=each.worker, method="Attach", kind=each.draft.kind, bytes=each.draft.bytes, source=each.seq)
              for each in sent]  # fmt: skip  # one entry
    digested = zip(entries(drafts, worker=HUB), sent, strict=True)
    return [replace(entry, digest=each.digest) for entry, each in digested]


def ingress(folder, received):
    return written(folder, received, name=f"fedpriv.ingress/{HUB}", seed=b"h" * 32)


@pytest.fixture
def run(tmp_path):
    """A run of two honest workers and their coordinator."""
    sent = [sent_by(worker) for worker in ("alice", "bob")]
    for made in sent:
        worker = made[0].worker
        written(tmp_path / "ledgers" / worker, made, name=f"fedpriv.ledger/{worker}")
    ingress(tmp_path / "ingress", receipts(*sent[0], *sent[1]))
    return tmp_path


def test_an_honest_run_agrees_worker_by_worker(run):
    result = reconcile(run)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{worker}: ok: 5 of 5 messages that hub received agree" for worker in ("alice", "bob")
    ]
    assert "fedpriv.ingress/hub: verified with the key beside the ledger" in result.stderr
    assert "ask whoever runs that coordinator for the key that `fedpriv run` prints" in result.stderr


def test_keys_are_matched_to_ledgers_by_their_names(run):
    keys = [str(signer(worker).verifier) for worker in ("bob", "alice")]
    hub = str(SigningKey("fedpriv.ingress/hub", b"h" * 32).verifier)
    result = reconcile(run, run / "ingress", "--key", keys[0], "--key", keys[1], "--coordinator-key", hub)
    assert (result.exit_code, result.stderr) == (0, "")
    other = reconcile(run, "--key", str(signer("bobby").verifier))
    assert isinstance(other.exception, UsageError)
    assert "did you mean 'fedpriv.ledger/bob'?" in str(other.exception)
    wrong = reconcile(run, "--key", str(signer("bob", b"x" * 32).verifier))
    assert isinstance(wrong.exception, VerificationFailed)


def findings(result):
    return [found for found in map(json.loads, result.stdout.splitlines()) if "finding" in found]


def test_each_message_that_does_not_agree_is_named(tmp_path):
    sent = sent_by("bob")
    written(tmp_path / "bob", sent)
    received = receipts(*sent[:4])
    received[2] = replace(received[2], digest="ff" * 32, draft=replace(received[2].draft, bytes=1))
    received.append(replace(receipts(*sent)[4], draft=replace(received[3].draft, source=9)))
    ingress(tmp_path / "hub", received)
    result = reconcile(tmp_path / "bob", tmp_path / "hub", "--json")
    assert isinstance(result.exception, VerificationFailed)
    assert result.exception.exit_code == 3
    assert "do not agree on 3 messages" in str(result.exception)
    found = [(each["finding"], each["fields"], each["entry"], each["received_entry"], each["cited"], each["kind"])
             for each in findings(result)]  # fmt: skip  # one finding
    assert found == [
        ("different", ["bytes", "digest"], 2, 2, 2, "update"),
        ("unreceived", [], 4, None, None, "update"),
        ("unrecorded", [], None, 4, 9, "update"),
    ]
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "worker": "bob", "coordinator": "hub", "received": 5, "matched": 3, "again": 0, "findings": 3,
    }  # fmt: skip  # one line
    lines = reconcile(tmp_path / "bob", tmp_path / "hub").stdout.splitlines()
    assert lines[0] == (
        "bob: recorded differently (bytes: sent 12345, received 1, digest): entry 2 of bob; entry 2 of hub, which "
        "cites 2: update, 12,345 bytes, 2026-01-01 00:00:02.000 UTC"
    )
    assert lines[1].startswith("bob: in the worker's ledger, but not received: entry 4 of bob: update, 12,345 bytes, ")
    assert lines[2].startswith("bob: received, but not in the worker's ledger: entry 4 of hub, which cites 9: update")
    assert lines[3] == "bob: 3 findings: 3 of 5 messages that hub received agree"


def test_an_update_that_was_recorded_for_another_is_found(tmp_path):
    sent = sent_by("bob")
    written(tmp_path / "bob", [*sent[:4], replace(sent[4], draft=replace(sent[4].draft, peer="eve"))])
    ingress(tmp_path / "hub", receipts(*sent))
    result = reconcile(tmp_path / "bob", tmp_path / "hub")
    assert "recorded differently (recipient: sent to 'eve')" in result.stdout
    assert "do not agree on 1 message" in str(result.exception)


def test_a_worker_that_leaves_an_entry_out_and_signs_again_is_found(tmp_path):
    sent = sent_by("bob")
    shorter = [*sent[:3], *(replace(each, seq=each.seq - 1) for each in sent[4:])]
    written(tmp_path / "bob", shorter)
    ingress(tmp_path / "hub", receipts(*sent))
    found = findings(reconcile(tmp_path / "bob", tmp_path / "hub", "--json"))
    assert [(each["finding"], each["cited"]) for each in found] == [("different", 3), ("unrecorded", 4)]


def test_what_came_from_others_is_counted_and_not_compared(run):
    result = reconcile(run / "ledgers" / "bob", run)
    assert result.exit_code == 0
    assert "5 messages came from 'alice', whose ledger is not here" in result.stderr


def test_a_changed_ledger_is_not_compared(run):
    bundle = run / "ingress" / "tile" / "entries" / "000.p" / "10"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":12345', b'"bytes":12346', 1))
    result = reconcile(run)
    assert isinstance(result.exception, VerificationFailed)
    assert result.stdout == ""


def test_the_sides_cannot_be_confused(run):
    for arguments in ((run / "ingress", run / "ledgers" / "bob"), (run / "ledgers" / "bob",), (run / "absent",)):
        assert isinstance(reconcile(*arguments).exception, UsageError)


def test_what_peers_wrote_cannot_drive_the_terminal(tmp_path):
    evil = "\x1b]0;owned\x07"
    sent = entries([update(peer=HUB, kind=evil)])
    written(tmp_path / "bob", sent)
    ingress(tmp_path / "hub", [replace(receipts(*sent)[0], digest="ff" * 32), *receipts()])
    for form in ((), ("--json",)):
        output = reconcile(tmp_path / "bob", tmp_path / "hub", *form).output
        assert output
        assert all(character == "\n" or character.isprintable() for character in output)
