"""The worker's journal: durable appends, shared commits, one holder, full disks, and kills at every step."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import StateInUse, StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Draft, chunk_digests, message_digest
from fedpriv.storage.hashing import chunk_digests as parallel_chunk_digests
from fedpriv.storage.rows import Total
from fedpriv.storage.verification import verify_ledger
from fedpriv_worker.journal import Journal

BOB = WorkerName("bob")
DRAFT = Draft(peer="coordinator-1", method="attach", kind="update", bytes=100)
OTHER = Draft(peer="coordinator-1", method="attach", kind="failure", bytes=7)


def opened(state, worker=BOB):
    return Journal.open(state, worker=worker, clock=ManualClock(), entropy=SystemEntropy())


@pytest.fixture(params=["memory", "disk"])
def journal(request, tmp_path):
    if request.param == "memory":
        made = Journal.in_memory(worker=BOB, clock=ManualClock(), entropy=SystemEntropy())
    else:
        made = opened(tmp_path / "state")
    yield made
    made.close()


def test_a_receipt_carries_what_a_receiver_needs_to_recompute_the_digest(journal):
    payload = [memoryview(b"abc"), memoryview(b"defg")]
    receipt = journal.append(DRAFT, b"header", payload)
    expected = message_digest(receipt.key, b"header", chunk_digests(payload), 7)
    assert receipt.entry.digest == expected.hex()
    assert (receipt.seq, receipt.entry.seq, receipt.entry.worker, receipt.entry.time) == (
        0,
        0,
        "bob",
        1_767_225_600_000,
    )
    assert receipt.key not in (journal.append(DRAFT, b"header", payload).key, b"")


def test_entries_totals_and_sizes_agree(journal):
    receipts = [journal.append(draft, b"", []) for draft in (DRAFT, OTHER, DRAFT)]
    assert list(journal.entries()) == [receipt.entry for receipt in receipts]
    assert journal.rows.size == 3
    assert journal.rows.totals() == {"failure": Total(1, 7), "update": Total(2, 200)}


def test_publishing_returns_the_same_checkpoint_until_something_is_new(journal):
    first = journal.publish()
    assert journal.publish() is first
    journal.append(DRAFT, b"", [])
    second = journal.publish()
    assert (first.size, second.size, second.origin) == (0, 1, "fedpriv.ledger/bob")
    assert journal.publish() is second


def test_an_export_verifies_under_the_journals_key(journal, tmp_path):
    for _ in range(300):
        journal.append(DRAFT, b"", [])
    journal.publication.export(tmp_path / "ledgers" / "bob")
    report = verify_ledger(tmp_path / "ledgers" / "bob", key=journal.vkey)
    assert (report.entries, report.root, report.message_bytes) == (300, journal.publish().root, 30_000)
    journal.append(DRAFT, b"", [])
    journal.publication.export(tmp_path / "ledgers" / "bob")
    assert verify_ledger(tmp_path / "ledgers" / "bob", key=journal.vkey).entries == 301


def test_an_export_does_not_overwrite_another_ledger(journal, tmp_path):
    Journal.in_memory(worker=BOB, clock=ManualClock(), entropy=SystemEntropy()).publication.export(tmp_path / "out")
    with pytest.raises(UsageError, match="another ledger"):
        journal.publication.export(tmp_path / "out")
    (tmp_path / "out" / "vkey").unlink()
    with pytest.raises(UsageError, match="another ledger"):
        journal.publication.export(tmp_path / "out")


def test_values_are_remembered(journal):
    assert journal.rows.recall("round/job-1") is None
    journal.rows.remember("round/job-1", "7")
    assert journal.rows.recall("round/job-1") == "7"


def test_a_draft_that_no_entry_can_hold_is_refused_and_leaves_no_gap(journal):
    journal.append(DRAFT, b"", [])
    with pytest.raises(UsageError, match="labels are not in ascending order"):
        journal.append(Draft(peer="c", method="m", kind="k", bytes=1, labels=("b/x", "a/x")), b"", [])
    assert journal.append(DRAFT, b"", []).seq == 1
    assert [entry.seq for entry in journal.entries()] == [0, 1]


def test_appends_from_32_threads_are_all_recorded_once_and_without_gaps(journal, tmp_path):
    barrier = threading.Barrier(32)

    def work(worker):
        barrier.wait()
        return [journal.append(DRAFT, b"%d/%d" % (worker, step), [memoryview(b"payload")]) for step in range(10)]

    with ThreadPoolExecutor(32) as pool:
        found = [receipt for each in [pool.submit(work, at) for at in range(32)] for receipt in each.result(30)]
    assert sorted(receipt.seq for receipt in found) == list(range(320))
    assert {entry.digest for entry in journal.entries()} == {receipt.entry.digest for receipt in found}
    journal.publication.export(tmp_path / "out")
    assert verify_ledger(tmp_path / "out", key=journal.vkey).entries == 320


def test_a_large_payload_has_the_same_chunks_on_two_threads():
    payload = [memoryview(SeededEntropy(b"x").random_bytes(size)) for size in (3 << 20, 1, 7 << 20)]
    assert parallel_chunk_digests(payload) == chunk_digests(payload)
    assert len(chunk_digests(payload)) == 11


def test_a_journal_goes_on_where_it_ended(tmp_path):
    journal = opened(tmp_path)
    before = [journal.append(DRAFT, b"", []).entry for _ in range(300)]
    journal.rows.remember("round", "3")
    vkey = journal.vkey
    journal.close()
    journal = opened(tmp_path)
    assert (journal.rows.size, journal.rows.recall("round"), journal.vkey) == (300, "3", vkey)
    after = journal.append(DRAFT, b"", [])
    assert [*before, after.entry] == list(journal.entries())
    journal.close()
    assert verify_ledger(tmp_path / "ledger", key=vkey).signed == 301


def test_a_state_folder_is_its_owners_alone(tmp_path):
    journal = opened(tmp_path / "state")
    journal.append(DRAFT, b"", [])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert {mode for name, mode in modes.items() if name != "ledger"} == {0o600}
    assert {"ledger-signing-key", "owner-secret", "journal.sqlite", "lock", "ledger"} <= set(modes)
    journal.close()


def test_a_state_folder_belongs_to_one_worker(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(UsageError, match=r"belongs to 'fedpriv\.ledger/bob', not to 'alice'"):
        opened(tmp_path, worker=WorkerName("alice"))
    opened(tmp_path).close()


@pytest.mark.parametrize("lost", ["ledger-signing-key", "owner-secret"])
def test_a_lost_key_is_not_replaced_in_silence(tmp_path, lost):
    opened(tmp_path).close()
    (tmp_path / lost).unlink()
    with pytest.raises(StorageFailed, match=lost):
        opened(tmp_path)


def test_a_lost_journal_is_not_replaced_in_silence(tmp_path):
    journal = opened(tmp_path)
    journal.append(DRAFT, b"", [])
    journal.close()
    (tmp_path / "journal.sqlite").unlink()
    with pytest.raises(VerificationFailed, match="the journal has 0 entries, but 1 were published"):
        opened(tmp_path)


def test_a_ledger_folder_that_was_moved_aside_is_made_again(tmp_path):
    journal = opened(tmp_path)
    for _ in range(300):
        journal.append(DRAFT, b"", [])
    journal.close()
    (tmp_path / "ledger").rename(tmp_path / "aside")
    journal = opened(tmp_path)
    journal.append(DRAFT, b"", [])
    journal.close()
    assert verify_ledger(tmp_path / "ledger", key=None).signed == 301
    assert verify_ledger(tmp_path / "aside", key=journal.vkey).signed == 300


def test_a_damaged_tile_stops_the_start_and_frees_the_folder(tmp_path):
    journal = opened(tmp_path)
    journal.append(DRAFT, b"", [])
    journal.close()
    tile = tmp_path / "ledger" / "tile" / "0" / "000.p" / "1"
    original = tile.read_bytes()
    tile.write_bytes(bytes(32))
    with pytest.raises(VerificationFailed, match="no longer have the published root"):
        opened(tmp_path)
    tile.write_bytes(original)
    opened(tmp_path).close()


def test_one_process_holds_a_state_folder(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(StateInUse, match="another process holds"):
        opened(tmp_path)
    finished = child(tmp_path, "hold")
    assert (finished.returncode, finished.stdout) == (0, "StateInUse\n")
    journal.close()
    assert child(tmp_path, "hold").stdout == "held\n"


def test_secrets_do_not_print(tmp_path):
    journal = opened(tmp_path)
    receipt = journal.append(DRAFT, b"", [])
    assert repr(receipt.key) not in repr(receipt)
    assert repr((tmp_path / "owner-secret").read_bytes()) not in repr(journal._keys)
    journal.close()


# What a child process does: the state folder and a task on its command line. Kills are SIGKILL by itself, at a named
# rename (every file of the folder becomes visible by one), so that nothing is flushed or closed.
CHILD = """
import json, os, resource, signal, sys
from pathlib import Path
from fedpriv.clock import ManualClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import FedprivError, StateInUse, StorageFailed
from fedpriv.ledger.entries import Draft
from fedpriv.ids import WorkerName
from fedpriv_worker.journal import Journal

state, task, *rest = sys.argv[1:]
draft = Draft(peer="coordinator-1", method="attach", kind="update", bytes=100)

def opened():
    return Journal.open(Path(state), worker=WorkerName("bob"), clock=ManualClock(), entropy=SystemEntropy())

def kill_at_rename(number):
    left = [number]
    def watch(event, arguments):
        if event == "os.rename":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

def kill_after_checkpoint(number):
    left = [number]
    def watch(event, arguments):
        if left[0] < 0 and event != "os.kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "os.rename" and str(arguments[1]).endswith("/checkpoint"):
            left[0] -= 1  # dies at the next call that is audited, the opening of the folder to flush it
    sys.addaudithook(watch)

if task == "hold":
    try:
        opened()
        print("held")
    except StateInUse:
        print("StateInUse")
elif task == "append-and-die":
    journal = opened()
    for number in range(int(rest[0])):
        journal.append(draft, b"", [])
        print(number, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif task in ("die-at-rename", "die-after-checkpoint"):
    (kill_at_rename if task == "die-at-rename" else kill_after_checkpoint)(int(rest[0]))
    journal = opened()
    for _ in range(260):
        journal.append(draft, b"", [])
    journal.publish()
    for _ in range(260):
        journal.append(draft, b"", [])
    journal.close()
    print("finished", flush=True)
elif task == "full-disk":
    journal = opened()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    recorded, failure, publishing = [], "", ""
    long = Draft(peer="coordinator-1", method="attach", kind="update", bytes=100, purpose="x" * 20_000)
    try:
        while True:
            recorded.append(journal.append(long, b"", []).seq)
    except StorageFailed as error:
        failure = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        journal.publish()
    except StorageFailed as error:
        publishing = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    again = journal.append(draft, b"", []).seq
    journal.close()
    print(json.dumps([recorded, failure, publishing, again]))
"""


def child(state, *arguments):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(state), *arguments], check=False, capture_output=True, text=True, timeout=60
    )


def test_what_was_appended_before_a_kill_is_published_on_the_next_start(tmp_path):
    finished = child(tmp_path, "append-and-die", "5")
    assert finished.returncode == -signal.SIGKILL
    assert finished.stdout.split() == ["0", "1", "2", "3", "4"]
    assert verify_ledger(tmp_path / "ledger", key=None).entries == 5
    journal = opened(tmp_path)
    assert journal.rows.size == 5
    assert verify_ledger(tmp_path / "ledger", key=None).signed == 5
    journal.close()


def recovers(state, finished):
    if (state / "ledger" / "checkpoint").exists():
        verify_ledger(state / "ledger", key=None)
    journal = opened(state)
    size = journal.rows.size
    assert [entry.seq for entry in journal.entries()] == list(range(size))
    assert journal.append(DRAFT, b"", []).seq == size
    journal.close()
    assert verify_ledger(state / "ledger", key=journal.vkey).signed == size + 1
    return finished.returncode


@pytest.mark.parametrize("point", [9, 12], ids=["before a checkpoint", "between two tiles"])
def test_a_kill_in_the_middle_of_publishing_loses_nothing(tmp_path, point):
    assert recovers(tmp_path, child(tmp_path, "die-at-rename", str(point))) == -signal.SIGKILL


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_kill_between_the_checkpoint_and_its_record_loses_nothing(tmp_path, number):
    finished = child(tmp_path, "die-after-checkpoint", str(number))
    shown = int((tmp_path / "ledger" / "checkpoint").read_text(encoding="utf-8").splitlines()[1])
    assert shown == 260 * number
    assert recovers(tmp_path, finished) == -signal.SIGKILL


@pytest.mark.slow
def test_a_kill_before_any_rename_loses_nothing(tmp_path):
    for point in range(60):
        state = tmp_path / str(point)
        finished = child(state, "die-at-rename", str(point))
        if finished.stdout == "finished\n":
            break
        assert recovers(state, finished) == -signal.SIGKILL
    assert 15 < point < 60


def test_a_full_disk_refuses_the_release_and_the_worker_lives_on(tmp_path):
    finished = child(tmp_path, "full-disk")
    assert finished.returncode == 0, finished.stderr
    recorded, failure, publishing, again = json.loads(finished.stdout)
    assert recorded == list(range(len(recorded)))
    assert len(recorded) > 0
    assert "cannot append to the journal" in failure
    assert "cannot write" in publishing
    assert again == len(recorded)
    assert verify_ledger(tmp_path / "ledger", key=None).signed == len(recorded) + 1


def test_a_journal_that_cannot_publish_on_close_still_frees_its_folder(tmp_path):
    journal = opened(tmp_path)
    journal.append(DRAFT, b"", [])
    tile = Path(tmp_path / "ledger" / "tile")
    tile.write_bytes(b"in the way")
    with pytest.raises(StorageFailed):
        journal.close()
    tile.unlink()
    opened(tmp_path).close()
    assert verify_ledger(tmp_path / "ledger", key=None).signed == 1


def test_a_read_only_journal_refuses_every_message(tmp_path):
    journal = opened(tmp_path)
    journal.rows._database._connection.execute("PRAGMA query_only=ON")
    for _ in range(2):
        with pytest.raises(StorageFailed, match="cannot append to the journal"):
            journal.append(DRAFT, b"", [])
    journal.rows._database._connection.execute("PRAGMA query_only=OFF")
    assert journal.append(DRAFT, b"", []).seq == 0
    journal.close()
    for _ in range(2):
        with pytest.raises(StorageFailed):
            journal.append(DRAFT, b"", [])
