"""A database file that somebody else may have made up: plain tables as expected, bounded values, bounded work.

An auditor is handed such files. A view or a computed column in a table's place could answer any query with more than
the memory holds, or without an end, from a file of a few kilobytes. What the rows say is not judged here.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fedpriv.errors import NotAFile, StorageFailed

MAXIMUM_STEPS = 100_000_000
"""Instructions of SQLite's machine for one reading: seconds at most, and far more than any reading of ours takes."""
_BESIDE = ("", "-wal", "-shm", "-journal")  # files that SQLite opens by itself
_MAXIMUM_OBJECTS = 1000
_PLAIN = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
_BETWEEN = 10_000  # instructions between two calls of a progress handler


def refuse_irregular(path: Path) -> None:
    """Raise `NotAFile` if the database or a file beside it is a pipe or a device, which could be without end."""
    for suffix in _BESIDE:
        each = path.with_name(path.name + suffix)
        if each.exists() and not each.is_file():
            raise NotAFile(f"cannot read {each}: it is no regular file")


def bound_values(connection: sqlite3.Connection, largest: int) -> None:
    """Let no value, and no row, have more than `largest` bytes; a larger one fails before it is fetched."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, largest)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")


def bound_steps(connection: sqlite3.Connection, maximum: int = MAXIMUM_STEPS) -> None:
    """Interrupt what runs from now on after about `maximum` instructions."""
    left = maximum // _BETWEEN

    def step() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(step, _BETWEEN)


def check_tables(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    """Raise `StorageFailed` unless every table and index of `schema` is there word for word, and no other on them."""
    expected = {words for statement in schema.split(";") if (words := _words(statement))}
    tables = {words.split()[2] for words in expected if words.startswith("CREATE TABLE ")}
    # SQLite's own indexes have no statement.
    kept = connection.execute("SELECT name, tbl_name, sql FROM sqlite_master LIMIT ?", (_MAXIMUM_OBJECTS,)).fetchall()
    made = [(name, table, _words(sql)) for name, table, sql in kept if sql is not None]
    found = {words for name, table, words in made if tables & {name, table}}
    if found != expected or len(kept) == _MAXIMUM_OBJECTS or not all(words.startswith(_PLAIN) for *_, words in made):
        raise StorageFailed(f"cannot read {path}: its tables are not those of a fedpriv database of this version")


def _words(statement: str) -> str:
    return " ".join(statement.split())
