"""Verification finds every changed byte, every moved, missing or extra entry, and every rolled-back checkpoint."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from keeping import KEY, all_files, entry, forged, in_memory, on_disk

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.log import Log
from fedpriv.storage.tiles import TileFolder
from fedpriv.storage.verification import find_ledgers, read_entries, verify_ledger


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 600])
def test_a_ledger_as_written_verifies(tmp_path, size):
    journal = in_memory(size)
    journal.publication.export(tmp_path)
    report = verify_ledger(tmp_path, key=journal.vkey)
    assert (report.signed, report.entries, report.message_bytes) == (size, size, 100 * size)
    assert (report.root, report.origin, report.pinned) == (journal.publish().root, "fedpriv.ledger/bob", True)
    assert verify_ledger(tmp_path, key=None).pinned is False
    assert [found.seq for found in read_entries(tmp_path)] == list(range(size))


def flips(folder, bits):
    """Verify with every byte of every file changed in turn; return how many, and what went unnoticed or unnamed."""
    tried, unnoticed = 0, []
    for path in all_files(folder):
        original = path.read_bytes()
        for at in range(len(original)):
            for bit in bits(at):
                path.write_bytes(original[:at] + bytes([original[at] ^ 1 << bit]) + original[at + 1 :])
                tried += 1
                try:
                    verify_ledger(folder, key=None)
                    unnoticed.append((path.name, at, bit))
                except VerificationFailed as error:
                    if not any(word in str(error) for word in ("entry", "line", "note", "vkey", "tile", "signature")):
                        unnoticed.append((path.name, at, bit, str(error)))
        path.write_bytes(original)
    return tried, unnoticed


def test_every_changed_byte_is_noticed_and_something_is_named(tmp_path):
    in_memory(2).export(tmp_path)
    tried, unnoticed = flips(tmp_path, lambda at: [at % 8])
    assert tried == sum(path.stat().st_size for path in all_files(tmp_path)) > 1000
    assert unnoticed == []


@pytest.mark.slow
def test_every_changed_bit_is_noticed(tmp_path):
    in_memory(3).export(tmp_path)
    tried, unnoticed = flips(tmp_path, lambda _: range(8))
    assert tried == 8 * sum(path.stat().st_size for path in all_files(tmp_path)) > 10_000
    assert unnoticed == []


def test_every_changed_byte_beside_a_journal_is_noticed(tmp_path):
    on_disk(tmp_path, [1]).close()
    tried, unnoticed = flips(tmp_path / "ledger", lambda at: [(at * 3) % 8])
    assert tried == sum(path.stat().st_size for path in all_files(tmp_path / "ledger")) > 500
    assert unnoticed == []


def test_every_missing_file_is_noticed(tmp_path):
    journal = in_memory(257)
    journal.publication.export(tmp_path / "whole")
    names = [path.relative_to(tmp_path / "whole") for path in all_files(tmp_path / "whole")]
    assert len(names) == 7
    for name in names:
        damaged = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", damaged)
        (damaged / name).unlink()
        with pytest.raises(VerificationFailed, match="missing"):
            verify_ledger(damaged, key=None)
        shutil.rmtree(damaged)


@pytest.mark.parametrize(
    "file", ["tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/1/000.p/1", "checkpoint"]
)
def test_a_file_cut_off_anywhere_is_noticed(tmp_path, file):
    in_memory(257).export(tmp_path)
    original = (tmp_path / file).read_bytes()
    for length in {0, 1, len(original) // 2, len(original) - 1}:
        (tmp_path / file).write_bytes(original[:length])
        with pytest.raises(VerificationFailed):
            verify_ledger(tmp_path, key=None)


def test_the_first_changed_entry_is_named(tmp_path):
    in_memory(300).export(tmp_path)
    bundle = tmp_path / "tile" / "entries" / "000"
    content = bundle.read_bytes()
    at = content.index(b'"seq":17,')
    bundle.write_bytes(content[:at] + content[at:].replace(b'"time":1767', b'"time":1768', 1))
    with pytest.raises(
        VerificationFailed,
        match="entry 17 was changed after it was signed: it does not have the hash that tile/0/000 holds",
    ):
        verify_ledger(tmp_path, key=None)


def test_a_changed_entry_in_the_last_bundle_is_named(tmp_path):
    in_memory(5).export(tmp_path)
    bundle = tmp_path / "tile" / "entries" / "000.p" / "5"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":100', b'"bytes":900', 1))
    with pytest.raises(
        VerificationFailed,
        match=r"entry 0 was changed after it was signed: it does not have the hash that tile/0/000\.p/5 holds",
    ):
        verify_ledger(tmp_path, key=None)


def test_swapped_entries_are_named(tmp_path):
    forged(tmp_path, [entry(0), entry(2), entry(1)])
    with pytest.raises(VerificationFailed, match="entry 1 says that it is number 2"):
        verify_ledger(tmp_path, key=None)


def test_a_removed_entry_is_named_even_if_the_ledger_is_signed_anew(tmp_path):
    forged(tmp_path, [entry(0), entry(1), entry(3)])
    with pytest.raises(VerificationFailed, match="entry 2 says that it is number 3"):
        verify_ledger(tmp_path, key=None)


def test_an_entry_of_another_worker_is_named(tmp_path):
    forged(tmp_path, [entry(0), entry(1, worker=WorkerName("alice"))])
    with pytest.raises(VerificationFailed, match="entry 1 is of worker 'alice'"):
        verify_ledger(tmp_path, key=None)


def test_an_entry_that_is_not_canonical_is_named(tmp_path):
    forged(tmp_path, [entry(0), entry(1).replace(b",", b", ", 1)])
    with pytest.raises(VerificationFailed, match="entry 1: entry 1 is not in canonical form"):
        verify_ledger(tmp_path, key=None)
    with pytest.raises(VerificationFailed, match="entry 1"):
        list(read_entries(tmp_path))


def test_fewer_entries_than_the_checkpoint_says_are_noticed(tmp_path):
    forged(tmp_path, [entry(0), entry(1)], size=3)
    with pytest.raises(VerificationFailed, match=r"tile/entries/000\.p/3 is missing"):
        verify_ledger(tmp_path, key=None)


def test_a_signed_root_that_the_entries_do_not_have_is_noticed(tmp_path):
    forged(tmp_path, [entry(0), entry(1)], root=bytes(32))
    with pytest.raises(VerificationFailed, match="the 2 entries have the root"):
        verify_ledger(tmp_path, key=None)
    forged(tmp_path / "empty", [], root=bytes(32))
    with pytest.raises(VerificationFailed, match="the 0 entries have the root"):
        verify_ledger(tmp_path / "empty", key=None)


def test_a_checkpoint_of_something_else_is_no_workers_ledger(tmp_path):
    other = SigningKey("witness.example/w", bytes(32))
    files = TileFolder(tmp_path, durable=False)
    files.create(str(other.verifier))
    files.publish(sign_checkpoint(Checkpoint(other.name, 0, Log().root()), other))
    with pytest.raises(VerificationFailed, match=r"line 1 .* is not the ledger of a worker"):
        verify_ledger(tmp_path, key=None)


def test_an_older_checkpoint_of_the_same_ledger_is_noticed(tmp_path):
    journal = in_memory(3)
    journal.publication.export(tmp_path)
    old = (tmp_path / "checkpoint").read_bytes()
    journal.append()
    journal.publication.export(tmp_path)
    assert verify_ledger(tmp_path, key=None).entries == 4
    (tmp_path / "checkpoint").write_bytes(old)
    with pytest.raises(VerificationFailed, match="reaches beyond the 3 entries"):
        verify_ledger(tmp_path, key=None)


def test_an_older_checkpoint_beside_its_journal_is_noticed(tmp_path):
    journal = on_disk(tmp_path, [3])
    old = (tmp_path / "ledger" / "checkpoint").read_bytes()
    journal.append()
    journal.close()
    (tmp_path / "ledger" / "checkpoint").write_bytes(old)
    with pytest.raises(VerificationFailed, match="signs 3 entries, but the journal published 4: rolled back"):
        verify_ledger(tmp_path / "ledger", key=None)
    with pytest.raises(VerificationFailed, match="rolled back"):
        on_disk(tmp_path)


def test_a_journal_that_lost_published_entries_is_noticed(tmp_path):
    on_disk(tmp_path, [3]).close()
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute("DELETE FROM entry WHERE seq = 2")
    database.execute("DELETE FROM published")
    database.commit()
    database.close()
    with pytest.raises(VerificationFailed, match="entry 2 is missing from the journal"):
        verify_ledger(tmp_path / "ledger", key=None)
    with pytest.raises(VerificationFailed, match="rolled back"):
        on_disk(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE entry SET content = CAST('{}' AS BLOB) WHERE seq = 4", "entry 4: the entry lacks the key"),
        ("UPDATE entry SET seq = 9 WHERE seq = 4", "entry 4 is missing from the journal"),
        ("DELETE FROM entry WHERE seq = 4", "entry 4 is missing from the journal"),
        ("UPDATE entry SET content = (SELECT content FROM entry WHERE seq = 5) WHERE seq = 4", "entry 4 says"),
    ],
)
def test_a_changed_tail_is_noticed(tmp_path, change, says):
    journal = on_disk(tmp_path, [3])
    journal.append(3).rows.close()  # the process ends without publishing
    assert verify_ledger(tmp_path / "ledger", key=None).entries == 6
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute(change)
    database.commit()
    database.close()
    with pytest.raises(VerificationFailed, match=says):
        verify_ledger(tmp_path / "ledger", key=None)


def test_a_journal_that_is_no_database_is_noticed(tmp_path):
    on_disk(tmp_path, [1]).close()
    (tmp_path / "journal.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(VerificationFailed, match="the journal beside the ledger cannot be read"):
        verify_ledger(tmp_path / "ledger", key=None)


@pytest.mark.parametrize(
    "name",
    ["tile/0/001.p/1", "tile/1/000", "tile/notes.txt", "tile/0/000.p/04", "tile/0/000.p/x", "notes.txt", "checkpoint2"],
)
def test_a_file_that_no_entry_accounts_for_is_noticed(tmp_path, name):
    in_memory(3).export(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(bytes(32))
    with pytest.raises(VerificationFailed, match=name.replace(".", r"\.")):
        verify_ledger(tmp_path, key=None)


def test_what_an_interrupted_write_left_behind_is_not_held_against_the_ledger(tmp_path):
    in_memory(3).export(tmp_path)
    (tmp_path / "tile" / "0" / ".001.tmp").write_bytes(b"half")
    (tmp_path / ".checkpoint.tmp").write_bytes(b"half")
    assert verify_ledger(tmp_path, key=None).entries == 3


def test_an_older_partial_tile_is_compared_too(tmp_path):
    journal = on_disk(tmp_path, [3, 4])
    journal.close()
    old = tmp_path / "ledger" / "tile" / "0" / "000.p" / "3"
    old.write_bytes(old.read_bytes()[:-1] + b"\x00")
    with pytest.raises(VerificationFailed, match=r"entry 2 .* tile/0/000\.p/3"):
        verify_ledger(tmp_path / "ledger", key=None)


def test_a_key_that_is_not_the_ledgers_is_noticed(tmp_path):
    other = str(SigningKey(KEY.name, bytes(range(32))).verifier)
    in_memory(1).export(tmp_path)
    with pytest.raises(VerificationFailed, match="another key than the one you gave"):
        verify_ledger(tmp_path, key=other)
    (tmp_path / "vkey").unlink()
    with pytest.raises(VerificationFailed, match="no signature is by the key"):
        verify_ledger(tmp_path, key=other)
    with pytest.raises(UsageError, match="no Ed25519 verifier key"):
        verify_ledger(tmp_path, key="nonsense")


def test_a_pinned_key_needs_no_file_beside_the_ledger(tmp_path):
    journal = in_memory(1)
    journal.publication.export(tmp_path)
    (tmp_path / "vkey").unlink()
    assert verify_ledger(tmp_path, key=f" {journal.vkey}\n").pinned is True
    with pytest.raises(VerificationFailed, match="vkey is missing"):
        verify_ledger(tmp_path, key=None)


def test_a_running_worker_can_be_verified_at_any_moment(tmp_path):
    journal = on_disk(tmp_path, [1])
    stop = threading.Event()

    def work():
        while not stop.is_set():
            journal.append()
            journal.publish()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        sizes = [verify_ledger(tmp_path / "ledger", key=None).entries for _ in range(15)]
    finally:
        stop.set()
        worker.join()
        journal.close()
    assert sizes == sorted(sizes)
    assert verify_ledger(tmp_path / "ledger", key=None).entries >= sizes[-1]


def test_ledgers_are_found_in_runs_states_and_by_themselves(tmp_path):
    for name in ("bob", "alice"):
        in_memory(1).export(tmp_path / "run" / "ledgers" / name)
    (tmp_path / "run" / "ledgers" / "notes.txt").write_text("not a ledger")
    on_disk(tmp_path / "state").close()
    assert find_ledgers(tmp_path / "run") == [tmp_path / "run" / "ledgers" / name for name in ("alice", "bob")]
    in_memory(1).export(tmp_path / "run" / "ingress")
    assert tmp_path / "run" / "ingress" not in find_ledgers(tmp_path / "run")
    assert find_ledgers(tmp_path / "run", received=True)[0] == tmp_path / "run" / "ingress"
    assert find_ledgers(tmp_path / "state") == [tmp_path / "state" / "ledger"]
    assert find_ledgers(tmp_path / "state" / "ledger") == [tmp_path / "state" / "ledger"]


@pytest.mark.parametrize(
    ("where", "says"), [("absent", "does not exist"), ("empty", "holds no ledger"), ("file", "is no folder")]
)
def test_what_is_no_ledger_says_so(tmp_path, where, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"{where} {says}; give a run's folder"):
        find_ledgers(Path(tmp_path / where))
