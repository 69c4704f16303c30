"""Opening an entry shows that a kept message is the one on record, and opens nothing else; proofs stand alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ledgers import entries, signer, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app, opening
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import SigningKey
from fedpriv.ledger.cosignature import cosign
from fedpriv.ledger.entries import chunk_digests, entry_key, message_digest
from fedpriv_worker import journal

SECRET = bytes(range(32))
HEADER = b"header of entry %d"
PAYLOAD = bytes(range(256)) * 5000  # more than one chunk


def audit(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def recorded(seq, payload=PAYLOAD):
    key = entry_key(SECRET, seq)
    return message_digest(key, HEADER % seq, chunk_digests([memoryview(payload)]), len(payload)).hex()


@pytest.fixture
def state(tmp_path):
    """A worker's state folder with three entries; the last one has no payload."""
    made = entries([update()] * 3)
    digests = [recorded(0), recorded(1), recorded(2, b"")]
    written(tmp_path / "ledger", [replace(entry, digest=each) for entry, each in zip(made, digests, strict=True)])
    (tmp_path / "owner-secret").write_bytes(SECRET)
    for number in range(3):
        (tmp_path / f"header-{number}").write_bytes(HEADER % number)
    (tmp_path / "payload").write_bytes(PAYLOAD)
    return tmp_path


def check(state, number, key, *arguments):
    return audit("check", state, number, "--entry-key", key, "--header", state / f"header-{number}", *arguments)


def test_the_owner_opens_entries_and_an_auditor_checks_the_messages(state):
    opened = audit("open", state, 1, 2)
    assert opened.exit_code == 0
    found = [json.loads(line) for line in opened.stdout.splitlines()]
    assert found[0] == {
        "worker": "bob", "entry": 1, "key": entry_key(SECRET, 1).hex(), "digest": recorded(1), "kind": "update",
        "bytes": 12_345,
    }  # fmt: skip  # one line
    assert "can check one message against its digest, and nothing else" in opened.stderr
    checked = check(state, 1, found[0]["key"], "--payload", state / "payload")
    assert checked.exit_code == 0, checked.exception
    assert "bob: entry 1: ok: this is the message on record: update" in checked.stdout
    bare = check(state, 2, found[1]["key"], "--json")
    assert json.loads(bare.stdout)["ok"] is True


def test_another_message_another_entry_or_another_key_does_not_pass(state):
    key = entry_key(SECRET, 1).hex()
    (state / "other").write_bytes(PAYLOAD[:-1] + b"x")
    for result in (
        check(state, 1, key),
        check(state, 1, key, "--payload", state / "other"),
        check(state, 0, key, "--payload", state / "payload"),
        check(state, 1, "00" * 32, "--payload", state / "payload"),
    ):
        assert isinstance(result.exception, VerificationFailed)
        assert "this message is not the one of entry" in str(result.exception)


def test_a_bare_ledger_opens_nothing(state):
    result = audit("open", state / "ledger", 1)
    assert isinstance(result.exception, UsageError)
    assert "a bare ledger cannot open any" in str(result.exception)
    assert result.stdout == ""


def test_a_key_opens_one_entry_only(state):
    keys = {json.loads(line)["key"] for line in audit("open", state, 0, 1, 2).stdout.splitlines()}
    assert len(keys) == 3
    assert SECRET.hex() not in keys


@pytest.mark.parametrize("arguments", [("open", 9), ("open", 1, 7)])
def test_an_entry_that_is_not_there_is_named(state, arguments):
    result = audit(arguments[0], state, *arguments[1:])
    assert isinstance(result.exception, UsageError)
    assert f"has no entry {arguments[-1]}" in str(result.exception)


def test_what_cannot_be_read_says_so(state):
    key = entry_key(SECRET, 1).hex()
    for result, says in (
        (check(state, 1, "xyz"), "64 hex digits"),
        (check(state, 1, key, "--payload", state / "absent"), "no such file"),
        (audit("check", state, 1, "--entry-key", key, "--header", state / "absent"), "no such file"),
    ):
        assert isinstance(result.exception, UsageError)
        assert says in str(result.exception)
    (state / "header-9").write_bytes(b"")
    assert "has no entry 9" in str(check(state, 9, key).exception)


def test_the_worker_keeps_its_secret_where_it_is_looked_for():
    assert (opening.SECRET, opening.SECRET_BYTES) == (journal.OWNER_SECRET, journal.SECRET_BYTES)


def test_a_proof_stands_without_its_ledger(state, tmp_path):
    key = SigningKey("fedpriv.witness/hub", b"w" * 32)
    note = (state / "ledger" / "checkpoint").read_bytes()
    (state / "ledger" / "checkpoint").write_bytes(note + cosign(note, key, 1_767_225_600) + b"\n")
    file = tmp_path / "1.tlog-proof"
    assert audit("prove", state / "ledger", 1, "-o", file).exit_code == 0
    vkey = str(signer("bob").verifier)
    checked = audit("check-proof", file, "--key", vkey, "--witness", str(key.cosigner))
    assert checked.exit_code == 0, checked.exception
    first, second = checked.stdout.splitlines()
    assert first.startswith("fedpriv.ledger/bob: ok: entry 1 of 3: update to coordinator-1, 12,345 bytes")
    assert second == "fedpriv.ledger/bob: witnessed by fedpriv.witness/hub at 2026-01-01 00:00:00 UTC"
    other = SigningKey("fedpriv.witness/other", b"o" * 32)
    unwitnessed = audit("check-proof", file, "--key", vkey, "--witness", str(other.cosigner))
    assert isinstance(unwitnessed.exception, VerificationFailed)
    assert "no cosignature of fedpriv.witness/other" in str(unwitnessed.exception)
    found = json.loads(audit("check-proof", file, "--key", vkey, "--json").stdout)
    assert (found["index"], found["size"], found["entry"]["seq"], found["witnessed"]) == (1, 3, 1, [])


def test_a_changed_proof_or_another_key_is_exit_code_3(state, tmp_path):
    file = tmp_path / "1.tlog-proof"
    audit("prove", state / "ledger", 1, "-o", file)
    vkey = str(signer("bob").verifier)
    other = audit("check-proof", file, "--key", str(signer("bob", b"x" * 32).verifier))
    assert isinstance(other.exception, VerificationFailed)
    file.write_bytes(file.read_bytes().replace(b"index 1", b"index 2"))
    assert isinstance(audit("check-proof", file, "--key", vkey).exception, VerificationFailed)
    assert isinstance(audit("check-proof", tmp_path / "absent", "--key", vkey).exception, UsageError)
    assert isinstance(audit("prove", state / "ledger", 9, "-o", file).exception, UsageError)
