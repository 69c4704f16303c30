"""SQLite as fedpriv uses it: what a transaction returned from is on the disk, unless it was said not to matter.

Write-ahead log with synchronous=FULL, foreign keys on, one writing process (the folder's lock sees to that). The file
carries an application id and a schema version; another program's or a newer version's file is refused, never altered.
What the tables hold is said by the modules that own them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from fedpriv.errors import StorageFailed, UsageError
from fedpriv.storage import foreign

APPLICATION_ID = 0x46445056  # "FDPV"
VERSION = 2
BUSY_SECONDS = 10.0


class Database:
    """One SQLite file, or memory, shared by the threads of a process: one transaction at a time.

    A transaction that is begun inside another of the same thread joins it, so that several tables change together or
    not at all.
    """

    def __init__(self, connection: sqlite3.Connection, *, foreign: bool = False) -> None:
        self._connection = connection
        self._foreign = foreign
        self._lock = threading.RLock()
        self._depth = 0
        self.failures = 0
        """How many transactions failed: after one, the file, not anyone's memory, says what was kept."""

    @classmethod
    def open(cls, path: Path, *, schema: str) -> Self:
        """Open `path` for writing, creating it (0600) with `schema` if it is new.

        Raise `StorageFailed`, or `UsageError` for a file that is not ours or not of this version.
        """
        foreign.refuse_irregular(path)
        with storage_errors(f"open {path}"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                _configure(connection)
                _migrate(connection, path, schema)
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open an existing database without writing to it, whether or not its worker runs; raise `StorageFailed`."""
        foreign.refuse_irregular(path)
        with _opened(path) as connection:
            _check_version(connection, path)
        return cls(connection)

    @classmethod
    def open_foreign(cls, path: Path, *, schema: str, largest: int) -> Self:
        """Open a database that anybody may have made, for reading: refuse tables of `schema` that are not plain.

        No value has more than `largest` bytes, and no reading goes on without end (`storage.foreign`): `StorageFailed`.
        """
        foreign.refuse_irregular(path)
        with _opened(path) as connection:
            foreign.bound_values(connection, largest)
            foreign.bound_steps(connection)
            _check_version(connection, path)
            foreign.check_tables(connection, path, schema)
        return cls(connection, foreign=True)

    @classmethod
    def in_memory(cls, *, schema: str) -> Self:
        """Return a database that lasts as long as the process."""
        with storage_errors("make a database in memory"):
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            connection.executescript(schema)
        return cls(connection)

    @contextmanager
    def reading(self, action: str) -> Iterator[sqlite3.Connection]:
        """Read; `action` says in an error what could not be done, as in "read the journal"."""
        with self._lock, storage_errors(action):
            if self._foreign:
                foreign.bound_steps(self._connection)
            yield self._connection

    @contextmanager
    def writing(self, action: str, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Write in one transaction: everything is kept when this returns, nothing if it raises.

        One that is not `durable` waits for no disk: a crash may undo it until the next durable one returns.
        """
        with self._lock:
            if self._depth:
                yield self._connection
                return
            self._depth += 1
            try:
                with storage_errors(action):
                    yield from self._transaction(durable=durable)
            finally:
                self._depth -= 1

    def close(self) -> None:
        """Close the file."""
        with self._lock, storage_errors("close the database"):
            self._connection.close()

    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            self.failures += 1
            with suppress(sqlite3.Error):  # the first error is the one to report; SQLite may have rolled back itself
                self._connection.execute("ROLLBACK")
            raise


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn SQLite's and the operating system's errors into `StorageFailed`, which says what could not be done."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"cannot {action}: {error}; free space or repair the disk") from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading; close it again if what follows fails."""
    # Without a -wal file it was closed cleanly, and reading it as immutable creates no files beside it.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    with storage_errors(f"read {path}"):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone leaves the data in the drive's cache
    connection.execute("PRAGMA foreign_keys=ON")
    # A short log is written over and over in place: a flush is twice as fast as one that also makes the file longer.
    connection.execute("PRAGMA wal_autocheckpoint=200")


def _migrate(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
    else:
        _check_version(connection, path)
    connection.execute("COMMIT")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise UsageError(f"{path} is not a fedpriv database; choose another state folder")
    if found != VERSION:
        raise UsageError(
            f"{path} has schema version {found}, this fedpriv reads {VERSION}; use the version that wrote it"
        )
