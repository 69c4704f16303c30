"""A ledger's entries as rows, with what was published of them and values to remember.

Rows are numbered from 0 without gaps; the caller assigns the numbers, and one that is taken already is refused. When
`append` returns, the rows are as durable as the database. Nothing here knows what an entry says beyond its kind and
its message's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedpriv.errors import VerificationFailed
from fedpriv.storage.database import Database

PAGE_ROWS = 256
LARGEST_ROW = 1 << 17
"""More bytes than any row of `SCHEMA` has: an entry and a note have 65,536 at most."""
SCHEMA = """
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
_READ = "read the journal"


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


class Rows:
    """The rows of one ledger; safe to call from any thread.

    `append` stores all rows or, raising `StorageFailed`, normally none. Should a disk fail in the very moment of a
    commit, rows may be kept although it raised: `size` then says so, and their messages count as having left.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[int, int] | None = None  # the size, and the database's failures when it was known

    def append(self, rows: Sequence[Row]) -> None:
        """Store `rows`, whose numbers continue from `size`; a number that is already taken fails all of them."""
        with self._database.writing("append to the journal") as connection:
            connection.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?)",
                [(row.seq, row.kind, row.message_bytes, row.content) for row in rows],
            )
        self._known = rows[-1].seq + 1, self._database.failures

    @property
    def size(self) -> int:
        """Number of entries."""
        known = self._known
        if known is None or known[1] != self._database.failures:
            with self._database.reading(_READ) as connection:
                size = connection.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchone()[0]
                self._known = known = size, self._database.failures
        return known[0]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield entries `start` to `stop` - 1, page by page; raise `VerificationFailed` at the first missing one."""
        for first in range(start, stop, PAGE_ROWS):
            last = min(first + PAGE_ROWS, stop)
            with self._database.reading(_READ) as connection:
                page = connection.execute(
                    "SELECT seq, content FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?",
                    (first, last, PAGE_ROWS),
                ).fetchall()
            for expected, (seq, content) in enumerate(page, first):
                if seq != expected or not isinstance(content, bytes):
                    raise VerificationFailed(f"entry {expected} is missing from the journal")
                yield content
            if first + len(page) != last:
                raise VerificationFailed(f"entry {first + len(page)} is missing from the journal")

    def totals(self) -> dict[str, Total]:
        """Return messages and bytes by kind."""
        with self._database.reading(_READ) as connection:
            published = connection.execute(_PUBLISHED_SIZE).fetchone()[0]
            found = connection.execute(_TOTALS, (published,)).fetchall()
        return {kind: Total(messages, count) for kind, messages, count in found}

    def remember(self, key: str, value: str) -> None:
        """Store a value durably, replacing what the key had."""
        with self._database.writing("remember a value") as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> str | None:
        """Return the value last stored under `key`, or None."""
        with self._database.reading(_READ) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def highest(self, key: str) -> int:
        """Return the highest number that was remembered under `key`, -1 if none was."""
        with self._database.reading(_READ) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return -1 if found is None else int(found[0])

    def raise_to(self, key: str, number: int) -> int:
        """Make `number` the highest under `key`, durably, if it is; return what was the highest before, -1 if none."""
        with self._database.writing("remember the last round") as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            before = -1 if found is None else int(found[0])
            if number > before:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(number)))
        return before

    def set_published(self, size: int, note: bytes) -> None:
        """Record durably the signed checkpoint over `size` entries that was published last."""
        with self._database.writing("record a checkpoint") as connection:
            before = connection.execute(_PUBLISHED_SIZE).fetchone()[0]
            connection.execute(_ADD_TOTALS, (before, size))
            connection.execute("INSERT OR REPLACE INTO published VALUES (0, ?, ?)", (size, note))

    def published(self) -> bytes | None:
        """Return the signed checkpoint that was published last."""
        with self._database.reading(_READ) as connection:
            found = connection.execute("SELECT note FROM published").fetchone()
        if found is not None and not isinstance(found[0], bytes):
            raise VerificationFailed("the journal holds a checkpoint that is no text")
        return None if found is None else bytes(found[0])

    def close(self) -> None:
        """Close the file that the rows are in."""
        self._database.close()
