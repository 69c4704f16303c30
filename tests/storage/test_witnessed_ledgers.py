"""What others add to a verification: witnesses, a checkpoint that was kept elsewhere, the journal beside the folder."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import KEY, VKEY, WITNESS, all_files, entry, forged, in_memory, on_disk

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.cosignature import Cosignature
from fedpriv.storage.verification import verify_ledger


@pytest.mark.parametrize("size", [1, 300])
def test_what_a_coordinator_received_verifies_like_what_a_worker_sent(tmp_path, size):
    key = SigningKey("fedpriv.ingress/hub", bytes(32))
    on_disk(tmp_path, [size], key=key, keeper=WorkerName("hub")).close()
    report = verify_ledger(tmp_path / "ledger", key=str(key.verifier))
    assert (report.direction, report.origin, report.entries) == ("received", "fedpriv.ingress/hub", size)
    assert verify_ledger(in_folder(tmp_path / "sent", 1), key=None).direction == "sent"


def in_folder(folder, entries):
    in_memory(entries).export(folder)
    return folder


def test_cosignatures_are_verified_under_the_keys_that_are_given(tmp_path):
    other = SigningKey("witness.example/w1", bytes(range(2, 34)))
    journal = on_disk(tmp_path, [3])
    journal.cosign(WITNESS, time=5)
    journal.cosign(other, time=6)
    both = verify_ledger(tmp_path / "ledger", key=None, witnesses=[VKEY, f" {other.cosigner}\n"])
    assert both.witnessed == (Cosignature(WITNESS.name, 5), Cosignature(other.name, 6))
    one = verify_ledger(tmp_path / "ledger", key=None, witnesses=[VKEY])
    assert (one.witnessed, one.unverified) == ((Cosignature(WITNESS.name, 5),), (other.name,))
    none = verify_ledger(tmp_path / "ledger", key=None)
    assert (none.witnessed, none.unverified) == ((), (WITNESS.name, other.name))
    with pytest.raises(UsageError, match="not of a witness"):
        verify_ledger(tmp_path / "ledger", key=None, witnesses=[str(WITNESS.verifier)])


def test_every_changed_byte_of_a_witnessed_ledger_is_noticed_or_unwitnesses_it(tmp_path):
    journal = on_disk(tmp_path / "state", [2])
    journal.cosign(WITNESS)
    journal.export(tmp_path / "out")
    path = tmp_path / "out" / "checkpoint"
    original = path.read_bytes()
    for at in range(len(original)):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1 << at % 8]) + original[at + 1 :])
        try:
            report = verify_ledger(tmp_path / "out", key=None, witnesses=[VKEY])
        except VerificationFailed:
            continue
        assert report.witnessed == ()


def test_a_checkpoint_that_was_kept_elsewhere_shows_a_rollback(tmp_path):
    journal = on_disk(tmp_path / "state", [3])
    journal.export(tmp_path / "old")
    journal.append(2).publish()
    held = journal.rows.published()
    journal.close()
    assert verify_ledger(tmp_path / "state" / "ledger", key=None, holds=held).entries == 5
    assert verify_ledger(tmp_path / "old", key=None).entries == 3
    with pytest.raises(VerificationFailed, match="rolled back by 2 entries: a checkpoint of 5 entries was kept"):
        verify_ledger(tmp_path / "old", key=None, holds=held)


def test_a_checkpoint_that_was_kept_elsewhere_shows_a_ledger_that_was_rewritten(tmp_path):
    journal = in_memory(3)
    journal.publish()
    forged(tmp_path, [entry(0), entry(1).replace(b"100", b"101"), entry(2), entry(3)])
    assert verify_ledger(tmp_path, key=None).entries == 4
    with pytest.raises(VerificationFailed, match="3 entries that was kept elsewhere has another root"):
        verify_ledger(tmp_path, key=None, holds=journal.rows.published())


def test_a_checkpoint_of_something_else_shows_nothing(tmp_path):
    in_memory(3).export(tmp_path)
    other = SigningKey(KEY.name, bytes(range(32)))
    with pytest.raises(VerificationFailed, match="kept elsewhere is not of this ledger"):
        verify_ledger(tmp_path, key=None, holds=sign_checkpoint(Checkpoint(KEY.name, 1, bytes(32)), other))


@pytest.mark.parametrize("seq", [0, 255, 256, 299])
def test_a_published_row_that_was_changed_in_the_journal_is_named(tmp_path, seq):
    on_disk(tmp_path, [300]).close()
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute("UPDATE entry SET content = ? WHERE seq = ?", (entry(seq).replace(b"100", b"900"), seq))
    database.commit()
    database.close()
    with pytest.raises(VerificationFailed, match=f"entry {seq} was changed after it was published: the journal and"):
        verify_ledger(tmp_path / "ledger", key=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    in_memory(259).export(folder)
    return folder


@settings(max_examples=40)
@given(data=st.data())
def test_any_flipped_bit_anywhere_is_noticed(whole, data):
    path = data.draw(st.sampled_from(all_files(whole)))
    original = path.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    path.write_bytes(original[:at] + bytes([original[at] ^ 1 << data.draw(st.integers(0, 7))]) + original[at + 1 :])
    try:
        with pytest.raises(VerificationFailed):
            verify_ledger(whole, key=None)
    finally:
        path.write_bytes(original)


def test_a_verifier_key_without_its_newline_is_noticed(tmp_path):
    in_memory(1).export(tmp_path)
    (tmp_path / "vkey").write_text(str(KEY.verifier))
    with pytest.raises(VerificationFailed, match=r"vkey .* does not end with a newline"):
        verify_ledger(tmp_path, key=None)


def test_a_fault_beside_an_idle_worker_is_reported_once_it_has_settled(tmp_path):
    journal = on_disk(tmp_path, [3])
    (tmp_path / "ledger" / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(VerificationFailed, match="checkpoint was changed"):
        verify_ledger(tmp_path / "ledger", key=None)
    journal.rows.close()
