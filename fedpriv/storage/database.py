"""SQLite as fedpriv uses it: what a commit returned from is on the disk.

Write-ahead log with synchronous=FULL, foreign keys on, one writing process (the folder's lock sees to that). The file
carries an application id and a schema version; another program's or a newer version's file is refused, never altered.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpriv.errors import StorageFailed, UsageError

APPLICATION_ID = 0x46445056  # "FDPV"
BUSY_SECONDS = 10.0


def open_database(path: Path, *, schema: str, version: int) -> sqlite3.Connection:
    """Open `path` for writing, creating it (0600) with `schema` if it is new; raise `StorageFailed` or `UsageError`."""
    with storage_errors(f"open {path}"):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _configure(connection)
            _migrate(connection, path, schema, version)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path, *, version: int) -> sqlite3.Connection:
    """Open an existing database without writing to it, whether or not its worker runs."""
    # Without a -wal file the database was closed cleanly, and reading it as immutable creates no files beside it.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    with storage_errors(f"read {path}"):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
        try:
            _check_version(connection, path, version)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn SQLite's and the operating system's errors into `StorageFailed`, which says what could not be done."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"cannot {action}: {error}; free space or repair the disk") from error


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone leaves the data in the drive's cache
    connection.execute("PRAGMA foreign_keys=ON")
    # A short log is written over and over in place: a flush is twice as fast as one that also makes the file longer.
    connection.execute("PRAGMA wal_autocheckpoint=200")


def _migrate(connection: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={version}")
    else:
        _check_version(connection, path, version)
    connection.execute("COMMIT")


def _check_version(connection: sqlite3.Connection, path: Path, version: int) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise UsageError(f"{path} is not a fedpriv database; choose another state folder")
    if found != version:
        raise UsageError(
            f"{path} has schema version {found}, this fedpriv reads {version}; use the version that wrote it"
        )
