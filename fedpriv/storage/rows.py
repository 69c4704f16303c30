"""Where a journal's entries lie: in SQLite, durable when `append` returns, or in memory for virtual workers.

Both are all or nothing per call. Rows are numbered from 0 without gaps; the caller assigns the numbers, and one that
is taken already is refused. Nothing here knows what an entry says beyond its kind and its message's size.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedpriv.errors import VerificationFailed
from fedpriv.storage.database import open_database, open_for_reading, storage_errors

VERSION = 1
PAGE_ROWS = 256

_SCHEMA = """
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY CHECK (seq >= 0), kind TEXT NOT NULL, bytes INTEGER NOT NULL, content BLOB NOT NULL
) STRICT;
CREATE TABLE total (kind TEXT PRIMARY KEY, messages INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE published (only INTEGER PRIMARY KEY CHECK (only = 0), size INTEGER NOT NULL, note BLOB NOT NULL) STRICT
"""
# `total` covers the published entries; the rest are added up on demand, so that an append touches one page only.
_ADD_TOTALS = """
INSERT INTO total SELECT kind, count(*), sum(bytes) FROM entry WHERE seq >= ? AND seq < ? GROUP BY kind
ON CONFLICT (kind) DO UPDATE SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes
"""
_TOTALS = """
SELECT kind, sum(messages), sum(bytes) FROM (
    SELECT kind, messages, bytes FROM total UNION ALL SELECT kind, 1, bytes FROM entry WHERE seq >= ?
) GROUP BY kind ORDER BY kind
"""
_PUBLISHED_SIZE = "SELECT coalesce(max(size), 0) FROM published"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as stored: its number, what it counts towards, its canonical bytes."""

    seq: int
    kind: str
    message_bytes: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Total:
    """How much of one kind left."""

    messages: int
    bytes: int


class Rows(Protocol):
    """Numbered entries, remembered values and the last published checkpoint; safe to call from any thread.

    `append` stores all rows or, raising `StorageFailed`, normally none. Should a disk fail in the very moment of a
    commit, rows may be kept although it raised: `size` then says so, and their messages count as having left.
    """

    def append(self, rows: Sequence[Row]) -> None:
        """Store `rows`, whose numbers continue from `size`."""
        ...

    @property
    def size(self) -> int:
        """Number of entries."""
        ...

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield entries `start` to `stop` - 1, a page at a time."""
        ...

    def totals(self) -> dict[str, Total]:
        """Return messages and bytes by kind."""
        ...

    def remember(self, key: str, value: str) -> None:
        """Store a value, replacing what the key had."""
        ...

    def recall(self, key: str) -> str | None:
        """Return the value last stored under `key`."""
        ...

    def set_published(self, size: int, note: bytes) -> None:
        """Record the signed checkpoint over `size` entries that was published last."""
        ...

    def published(self) -> bytes | None:
        """Return the signed checkpoint that was published last."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


class MemoryRows:
    """Rows that last as long as the process."""

    def __init__(self) -> None:
        self._contents: list[bytes] = []
        self._totals: dict[str, Total] = {}
        self._meta: dict[str, str] = {}
        self._published: bytes | None = None

    def append(self, rows: Sequence[Row]) -> None:
        """Store `rows`, whose numbers continue from `size`."""
        for row in rows:
            before = self._totals.get(row.kind)
            self._totals[row.kind] = (
                Total(before.messages + 1, before.bytes + row.message_bytes) if before else Total(1, row.message_bytes)
            )
            self._contents.append(row.content)

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self._contents)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield entries `start` to `stop` - 1."""
        for seq in range(start, stop):
            yield self._contents[seq]

    def totals(self) -> dict[str, Total]:
        """Return messages and bytes by kind."""
        return dict(self._totals)

    def remember(self, key: str, value: str) -> None:
        """Store a value, replacing what the key had."""
        self._meta[key] = value

    def recall(self, key: str) -> str | None:
        """Return the value last stored under `key`."""
        return self._meta.get(key)

    def set_published(self, size: int, note: bytes) -> None:  # noqa: ARG002  # totals are added up already
        """Record the signed checkpoint over `size` entries that was published last."""
        self._published = note

    def published(self) -> bytes | None:
        """Return the signed checkpoint that was published last."""
        return self._published

    def close(self) -> None:
        """Keep everything: a virtual worker's ledger can still be read after it."""


class SqliteRows:
    """Rows in one SQLite file; each change is one transaction, so later tables can join it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._size: int | None = None  # None after a failure: the file, not our memory, says what was kept

    @classmethod
    def open(cls, path: Path) -> SqliteRows:
        """Open or create the journal at `path`."""
        return cls(open_database(path, schema=_SCHEMA, version=VERSION))

    @classmethod
    def open_for_reading(cls, path: Path) -> SqliteRows:
        """Open the journal at `path` without writing to it."""
        return cls(open_for_reading(path, version=VERSION))

    def append(self, rows: Sequence[Row]) -> None:
        """Store `rows` in one durable transaction; a number that is already taken fails it."""
        with self._writing("append to the journal") as connection:
            connection.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?)",
                [(row.seq, row.kind, row.message_bytes, row.content) for row in rows],
            )
        self._size = rows[-1].seq + 1

    @property
    def size(self) -> int:
        """Number of entries."""
        size = self._size
        if size is None:
            with self._reading() as connection:
                size = connection.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchone()[0]
                self._size = size
        return size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield entries `start` to `stop` - 1, page by page; raise `VerificationFailed` at the first missing one."""
        for first in range(start, stop, PAGE_ROWS):
            last = min(first + PAGE_ROWS, stop)
            with self._reading() as connection:
                page = connection.execute(
                    "SELECT seq, content FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq", (first, last)
                ).fetchall()
            for expected, (seq, content) in enumerate(page, first):
                if seq != expected:
                    raise VerificationFailed(f"entry {expected} is missing from the journal")
                yield content
            if first + len(page) != last:
                raise VerificationFailed(f"entry {first + len(page)} is missing from the journal")

    def totals(self) -> dict[str, Total]:
        """Return messages and bytes by kind."""
        with self._reading() as connection:
            published = connection.execute(_PUBLISHED_SIZE).fetchone()[0]
            found = connection.execute(_TOTALS, (published,)).fetchall()
        return {kind: Total(messages, count) for kind, messages, count in found}

    def remember(self, key: str, value: str) -> None:
        """Store a value durably, replacing what the key had."""
        with self._writing("remember a value") as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> str | None:
        """Return the value last stored under `key`."""
        with self._reading() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def set_published(self, size: int, note: bytes) -> None:
        """Record durably the signed checkpoint over `size` entries that was published last."""
        with self._writing("record a checkpoint") as connection:
            before = connection.execute(_PUBLISHED_SIZE).fetchone()[0]
            connection.execute(_ADD_TOTALS, (before, size))
            connection.execute("INSERT OR REPLACE INTO published VALUES (0, ?, ?)", (size, note))

    def published(self) -> bytes | None:
        """Return the signed checkpoint that was published last."""
        with self._reading() as connection:
            found = connection.execute("SELECT note FROM published").fetchone()
        return None if found is None else bytes(found[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock, storage_errors("close the journal"):
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, storage_errors("read the journal"):
            yield self._connection

    @contextmanager
    def _writing(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._lock, storage_errors(action):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._size = None
                with suppress(
                    sqlite3.Error
                ):  # the first error is the one to report; SQLite may have rolled back itself
                    self._connection.execute("ROLLBACK")
                raise
