"""Folders that an auditor is handed and that were made to harm whoever reads them: commands, pipes, endless tables."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial

import pytest
from keeping import KEY, entry, in_memory, on_disk

from fedpriv.errors import NotAFile, StorageFailed, VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.log import Log
from fedpriv.storage import foreign
from fedpriv.storage.database import APPLICATION_ID, VERSION, Database
from fedpriv.storage.files import read_bounded
from fedpriv.storage.rows import LARGEST_ROW, SCHEMA, Rows
from fedpriv.storage.tiles import TileFolder
from fedpriv.storage.verification import find_ledgers, verify_ledger

NUMBERS = "WITH RECURSIVE n(seq) AS (SELECT 0 UNION ALL SELECT seq + 1 FROM n{limit})"
ENDLESS = f"CREATE VIEW entry AS {NUMBERS.format(limit='')} SELECT seq, 'k' AS kind, x'00' AS content FROM n"
HUGE = f"CREATE VIEW entry AS {NUMBERS.format(limit=' LIMIT 60')} SELECT seq, zeroblob(100000000) AS content FROM n"
PUBLISHED = SCHEMA.split(";")[-1]
COMPUTED = """CREATE TABLE entry (seq INTEGER PRIMARY KEY, kind TEXT, bytes INTEGER,
    content BLOB AS (zeroblob(100000000))); INSERT INTO entry (seq) VALUES (0), (1), (2)"""


@pytest.mark.parametrize("name", ["w$(touch${IFS}pwned)", "../bob", "Bob", "", "bob/x"])
@pytest.mark.parametrize("kind", ["ledger", "ingress"])
def test_a_keeper_whose_name_is_no_name_is_refused(tmp_path, name, kind):
    key = SigningKey(f"fedpriv.{kind}/{name}", bytes(32))
    files = TileFolder(tmp_path, durable=False)
    files.create(str(key.verifier))
    files.publish(sign_checkpoint(Checkpoint(key.name, 0, Log().root()), key))
    with pytest.raises(VerificationFailed, match="line 1 of checkpoint: keeper name"):
        verify_ledger(tmp_path, key=str(key.verifier))


@pytest.mark.parametrize("name", ["vkey", "checkpoint", "tile/entries/000.p/1", "tile/0/000.p/1"])
def test_a_pipe_in_a_files_place_is_refused_instead_of_waited_for(tmp_path, name):
    in_memory(1).export(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(VerificationFailed, match="no regular file"):
        verify_ledger(tmp_path, key=None)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(VerificationFailed, match="no regular file"):
        verify_ledger(tmp_path, key=None)


def test_a_folder_and_a_device_are_no_files_to_read(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(NotAFile, match="cannot read"):
            read_bounded(path, 10)
    assert read_bounded(tmp_path / "absent", 10) is None


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_pipe_in_the_place_of_a_workers_own_journal_is_not_waited_for_either(tmp_path, suffix):
    Database.open(tmp_path / "journal.sqlite", schema=SCHEMA).close()
    path = tmp_path / f"journal.sqlite{suffix}"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for opened in (Database.open_for_reading, partial(Database.open, schema=SCHEMA)):
        with pytest.raises(NotAFile, match="no regular file"):
            opened(tmp_path / "journal.sqlite")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_pipe_in_the_journals_place_is_refused_instead_of_waited_for(tmp_path, suffix):
    on_disk(tmp_path, [1]).close()
    (tmp_path / f"journal.sqlite{suffix}").unlink(missing_ok=True)
    os.mkfifo(tmp_path / f"journal.sqlite{suffix}")
    with pytest.raises(VerificationFailed, match="no regular file"):
        verify_ledger(tmp_path / "ledger", key=None)


def journal_of(state, statements):
    """Put a database made of `statements` in the place of a ledger's journal."""
    in_memory(2).export(state / "ledger")
    with closing(sqlite3.connect(state / "journal.sqlite")) as database:
        database.executescript(f"{statements}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}")


@pytest.mark.parametrize(
    "statements",
    [
        f"{ENDLESS}; {PUBLISHED}",
        f"{HUGE}; {PUBLISHED}",
        f"{COMPUTED}; {PUBLISHED}",
        f"{SCHEMA}; CREATE INDEX other ON entry (content)",
        f"{SCHEMA}; CREATE TRIGGER other AFTER INSERT ON entry BEGIN SELECT 1; END",
        f"{SCHEMA}; CREATE VIEW other AS SELECT 1",
        ";".join([SCHEMA, *(f"CREATE TABLE t{number} (x)" for number in range(1000))]),
        "CREATE TABLE other (x)",
        "",
    ],
)
def test_a_journal_whose_tables_are_not_the_plain_ones_is_refused(tmp_path, statements):
    journal_of(tmp_path, statements)
    with pytest.raises(VerificationFailed, match="its tables are not those of a fedpriv database"):
        verify_ledger(tmp_path / "ledger", key=None)


def test_tables_of_other_parts_beside_the_ledgers_are_no_fault(tmp_path):
    journal_of(tmp_path, f"{SCHEMA}; CREATE TABLE other (x); CREATE INDEX more ON other (x)")
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        rows = [(seq, "update", 100, entry(seq)) for seq in range(2)]
        database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", rows)
        database.commit()
    assert verify_ledger(tmp_path / "ledger", key=None).entries == 2


def changed(path, change):
    """Do `change` with the tables' rules switched off, as whoever writes the file by hand can."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute("UPDATE sqlite_master SET sql = replace(sql, ') STRICT', ')')")
        database.commit()
    with closing(sqlite3.connect(path)) as database:
        database.execute(change)
        database.execute("PRAGMA writable_schema=ON")
        for statement in SCHEMA.split(";"):
            words = statement.strip()
            database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (words, words.split()[2]))
        database.commit()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE entry SET content = zeroblob(1000000) WHERE seq = 1", "too big"),
        ("UPDATE entry SET content = 10000000000 WHERE seq = 1", "entry 1 is missing from the journal"),
        ("UPDATE published SET note = 10000000000", "holds a checkpoint that is no text"),
    ],
)
def test_a_value_that_no_journal_holds_is_refused_and_not_fetched(tmp_path, change, says):
    on_disk(tmp_path, [2]).close()
    changed(tmp_path / "journal.sqlite", change)
    with pytest.raises(VerificationFailed, match=says):
        verify_ledger(tmp_path / "ledger", key=None)


def test_a_reading_without_end_is_interrupted(tmp_path, monkeypatch):
    on_disk(tmp_path, [2]).close()
    monkeypatch.setattr(foreign.bound_steps, "__defaults__", (100_000,))
    database = Database.open_foreign(tmp_path / "journal.sqlite", schema=SCHEMA, largest=LARGEST_ROW)
    for _ in range(3):
        with pytest.raises(StorageFailed, match="interrupted"), database.reading("count") as connection:
            connection.execute(f"{NUMBERS.format(limit='')} SELECT count(*) FROM n").fetchone()
    assert len(list(Rows(database).read(0, 2))) == 2  # each reading has its own measure
    database.close()


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from fedpriv.errors import VerificationFailed
from fedpriv.storage.verification import verify_ledger
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
try:
    verify_ledger(Path(sys.argv[1]), key=None)
except VerificationFailed as refusal:
    print(refusal)
"""


@pytest.mark.parametrize("statements", [f"{HUGE}; {PUBLISHED}", f"{COMPUTED}; {PUBLISHED}"])
def test_a_small_folder_takes_little_memory_to_refuse(tmp_path, statements):
    journal_of(tmp_path, statements)
    command = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "ledger")]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "its tables are not those" in finished.stdout


def test_a_ledger_laid_into_a_run_hides_none_of_the_others(tmp_path):
    in_memory(1).export(tmp_path / "ledgers" / "bob")
    in_memory(0).export(tmp_path / "ledger")
    in_memory(0).export(tmp_path / "state" / "ledger")
    in_memory(0).export(tmp_path / "workers" / "bob" / "state" / "ledger")
    places = ("ledger", "ledgers/bob", "state/ledger", "workers/bob/state/ledger")
    assert find_ledgers(tmp_path) == [tmp_path / place for place in places]
    in_memory(0).export(tmp_path)
    assert find_ledgers(tmp_path) == [tmp_path, *(tmp_path / place for place in places)]
    with pytest.raises(VerificationFailed, match="is no file of a ledger"):
        verify_ledger(tmp_path, key=str(KEY.verifier))
