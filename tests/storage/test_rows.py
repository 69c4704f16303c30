"""Rows in SQLite and in memory keep one contract; a database is ours or refused; a full disk is an error of ours."""

from __future__ import annotations

import sqlite3
import stat

import pytest

from fedpriv.errors import StorageFailed, UsageError, VerificationFailed
from fedpriv.storage.database import Database
from fedpriv.storage.rows import PAGE_ROWS, SCHEMA, Row, Rows, Total


def opened(path):
    return Rows(Database.open(path, schema=SCHEMA))


def reading(path):
    return Rows(Database.open_for_reading(path))


@pytest.fixture(params=["memory", "sqlite"])
def rows(request, tmp_path):
    memory = request.param == "memory"
    made = Rows(Database.in_memory(schema=SCHEMA)) if memory else opened(tmp_path / "journal.sqlite")
    yield made
    made.close()


def row(seq, kind="update"):
    return Row(seq, kind, 10 + seq, b"entry %d" % seq)


def test_rows_read_back_in_order(rows):
    rows.append([row(0), row(1)])
    rows.append([row(2)])
    assert rows.size == 3
    assert list(rows.read(0, 3)) == [b"entry 0", b"entry 1", b"entry 2"]
    assert list(rows.read(1, 2)) == [b"entry 1"]
    assert list(rows.read(3, 3)) == []


def test_more_rows_than_a_page_read_back(rows):
    rows.append([row(seq) for seq in range(2 * PAGE_ROWS + 1)])
    assert list(rows.read(0, rows.size)) == [b"entry %d" % seq for seq in range(2 * PAGE_ROWS + 1)]


def test_totals_count_messages_and_bytes_by_kind(rows):
    rows.append([row(0), row(1, "failure")])
    rows.set_published(2, b"note")
    rows.append([row(2), row(3, "goodbye")])
    assert rows.totals() == {"failure": Total(1, 11), "goodbye": Total(1, 13), "update": Total(2, 22)}
    rows.set_published(3, b"note")
    rows.set_published(4, b"note")
    assert rows.totals() == {"failure": Total(1, 11), "goodbye": Total(1, 13), "update": Total(2, 22)}


def test_values_are_remembered_and_replaced(rows):
    assert rows.recall("round") is None
    rows.remember("round", "3")
    rows.remember("round", "4")
    assert rows.recall("round") == "4"


def test_the_last_published_checkpoint_is_kept(rows):
    assert rows.published() is None
    rows.set_published(0, b"first")
    rows.set_published(0, b"second")
    assert rows.published() == b"second"


def test_everything_is_there_after_reopening(tmp_path):
    first = opened(tmp_path / "j")
    first.append([row(0), row(1)])
    first.remember("round", "3")
    first.set_published(1, b"note")
    first.close()
    again = opened(tmp_path / "j")
    assert (again.size, again.recall("round"), again.published()) == (2, "3", b"note")
    assert again.totals() == {"update": Total(2, 21)}
    again.close()


def test_a_number_that_is_taken_fails_the_whole_group(tmp_path):
    rows = opened(tmp_path / "j")
    rows.append([row(0)])
    with pytest.raises(StorageFailed, match="append to the journal"):
        rows.append([row(1), row(0)])
    assert (rows.size, list(rows.read(0, 1))) == (1, [b"entry 0"])
    rows.append([row(1)])
    assert rows.size == 2
    rows.close()


def test_a_row_that_is_gone_is_named(tmp_path):
    rows = opened(tmp_path / "j")
    rows.append([row(seq) for seq in range(5)])
    rows._database._connection.execute("DELETE FROM entry WHERE seq = 2")
    with pytest.raises(VerificationFailed, match="entry 2 is missing"):
        list(rows.read(0, 5))
    with pytest.raises(VerificationFailed, match="entry 5 is missing"):
        list(rows.read(3, 6))
    rows.close()


def test_a_full_database_refuses_and_goes_on_when_there_is_room(tmp_path):
    rows = opened(tmp_path / "j")
    pages = rows._database._connection.execute("PRAGMA page_count").fetchone()[0]
    rows._database._connection.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(StorageFailed, match="full"):
        rows.append([Row(0, "update", 1, bytes(60_000))])
    assert (rows.size, rows.totals()) == (0, {})
    rows._database._connection.execute("PRAGMA max_page_count=1000000")
    rows.append([row(0)])
    assert list(rows.read(0, 1)) == [b"entry 0"]
    rows.close()


def test_what_a_larger_transaction_undoes_was_never_stored(rows):
    rows.append([row(0)])

    def two_and_a_fault():
        with rows._database.writing("do two things") as connection:
            rows.append([row(1)])
            rows.remember("round", "1")
            connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StorageFailed, match="do two things"):
        two_and_a_fault()
    assert (rows.size, rows.recall("round")) == (1, None)
    with rows._database.writing("do two things"):
        rows.append([row(1)])
        rows.remember("round", "2")
    assert (rows.size, rows.recall("round")) == (2, "2")


def test_after_closing_nothing_is_pretended(tmp_path):
    rows = opened(tmp_path / "j")
    rows.close()
    with pytest.raises(StorageFailed):
        rows.append([row(0)])
    with pytest.raises(StorageFailed):
        rows.recall("round")


def test_every_commit_is_flushed_and_the_file_is_the_owners(tmp_path):
    rows = opened(tmp_path / "j")
    pragma = {
        name: rows._database._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    rows.append([row(0)])
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    rows.close()


def test_another_programs_database_is_refused_untouched(tmp_path):
    other = sqlite3.connect(tmp_path / "j")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(UsageError, match="not a fedpriv database"):
        opened(tmp_path / "j")
    with pytest.raises(UsageError, match="not a fedpriv database"):
        reading(tmp_path / "j")


def test_a_newer_schema_is_refused(tmp_path):
    rows = opened(tmp_path / "j")
    rows._database._connection.execute("PRAGMA user_version=99")
    rows.close()
    with pytest.raises(UsageError, match="schema version 99"):
        opened(tmp_path / "j")


def test_what_is_no_database_is_an_error_of_ours(tmp_path):
    (tmp_path / "j").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFailed):
        opened(tmp_path / "j")
    with pytest.raises(StorageFailed):
        reading(tmp_path / "absent")


def test_reading_beside_a_running_writer_sees_what_is_committed_and_writes_nothing(tmp_path):
    rows = opened(tmp_path / "j")
    rows.append([row(0)])
    reader = reading(tmp_path / "j")
    assert list(reader.read(0, reader.size)) == [b"entry 0"]
    with pytest.raises(StorageFailed):
        reader.append([row(1)])
    reader.close()
    rows.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    reader = reading(tmp_path / "j")
    assert reader.size == 1
    reader.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["j"]
