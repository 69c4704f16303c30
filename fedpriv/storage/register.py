"""An authority's register: join tokens, each good once, certificates that it issued, and whom it takes back.

One SQLite file beside ca.pem, shared by the registrar and the command line: every change is one durable transaction,
so that a token is spent once however many ask at once. A token's secret is not kept, only its digest. A token that the
same key asks for again gives the same certificate: an answer may get lost. It signs nothing and knows no certificate's
meaning; `transport.registrar` and `fedpriv certs` do.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from fedpriv.errors import FedprivError, UsageError
from fedpriv.storage.database import Database

REGISTER = "register.sqlite"
_SCHEMA = """
CREATE TABLE token (id BLOB PRIMARY KEY, secret BLOB NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
  hosts TEXT NOT NULL, days INTEGER NOT NULL, expires REAL NOT NULL, used REAL, by BLOB);
CREATE TABLE certificate (serial TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, issued REAL NOT NULL,
  expires REAL NOT NULL, key BLOB NOT NULL, der BLOB NOT NULL, revoked REAL);
CREATE TABLE revision (number INTEGER NOT NULL);
INSERT INTO revision VALUES (0)
"""

Why = Literal["unknown-token", "token-used", "token-expired", "wrong-role"]


class TokenRefused(FedprivError):
    """A token that gives no certificate: `why` as a code, `since` the Unix seconds that it is about, `role` its own."""

    exit_code = 4

    def __init__(self, why: Why, *, since: float = 0.0, role: str = "") -> None:
        super().__init__(f"the token gives no certificate: {why}; make another one (fedpriv certs join-token)")
        self.why: Why = why
        self.since = since
        self.role = role


@dataclass(frozen=True, slots=True)
class Promise:
    """What a token is good for: one certificate for `name` in `role`, reachable as `hosts`, valid for `days`."""

    name: str
    role: str
    hosts: tuple[str, ...]
    days: int
    expires: float


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that was issued; times are Unix seconds, `revoked` is None while it holds."""

    serial: int
    name: str
    role: str
    issued: float
    expires: float
    revoked: float | None
    der: bytes = field(repr=False)


class Register:
    """The register of one authority's folder."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the register in `folder`, made now if it has none; raise `StorageFailed` or `UsageError`."""
        return cls(Database.open(folder / REGISTER, schema=_SCHEMA))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def promise(self, token: bytes, secret: bytes, promised: Promise) -> None:
        """Note a new token."""
        row = (
            token, _digest(secret), promised.name, promised.role, "\n".join(promised.hosts), promised.days,
            promised.expires,
        )  # fmt: skip  # one row
        with self._database.writing("note a join token") as connection:
            connection.execute(
                "INSERT INTO token (id, secret, name, role, hosts, days, expires) VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )

    def spend(self, token: bytes, secret: bytes, role: str, key: bytes, now: float) -> Promise | Issued:
        """Spend a token for the public `key` and return what it promises, or what that key was given for it before.

        Raise `TokenRefused`; a token that is asked for in another role stays as it was.
        """
        with self._database.writing("spend a join token") as connection:
            row = connection.execute("SELECT * FROM token WHERE id = ?", (token,)).fetchone()
            digest = _digest(secret)
            if row is None or not hmac.compare_digest(row[1], digest):
                raise TokenRefused("unknown-token")
            promised = Promise(row[2], row[3], tuple(filter(None, row[4].split("\n"))), row[5], row[6])
            if promised.role != role:
                raise TokenRefused("wrong-role", role=promised.role)
            if row[7] is not None and row[8] != key:
                raise TokenRefused("token-used", since=row[7])
            if now >= promised.expires:
                raise TokenRefused("token-expired", since=promised.expires)
            if row[7] is not None:
                return self._given(connection, promised.name, key) or promised
            connection.execute("UPDATE token SET used = ?, by = ? WHERE id = ?", (now, key, token))
            return promised

    def record(self, issued: Issued, key: bytes) -> None:
        """Keep a certificate and the public `key` that it is for, before it is handed out."""
        row = (str(issued.serial), issued.name, issued.role, issued.issued, issued.expires, key, issued.der)
        with self._database.writing("record a certificate") as connection:
            connection.execute(
                "INSERT INTO certificate (serial, name, role, issued, expires, key, der) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def issued(self) -> tuple[Issued, ...]:
        """Return every certificate, the oldest first."""
        with self._database.reading("read the register") as connection:
            return tuple(map(_issued, connection.execute(f"{_SELECT} ORDER BY issued, serial")))

    def revoke(self, name: str, now: float) -> tuple[Issued, ...]:
        """Take back every certificate of `name` that still holds, and its tokens; raise `UsageError` if none holds."""
        with self._database.writing("revoke a certificate") as connection:
            rows = connection.execute(f"{_SELECT} WHERE name = ? AND revoked IS NULL AND expires > ?", (name, now))
            found = tuple(map(_issued, rows))
            if not found:
                raise UsageError(
                    f"the register has no certificate of {name!r} that still holds; `fedpriv certs list` shows all"
                )
            self._take_back(connection, [each.serial for each in found], now)
            connection.execute("UPDATE token SET used = coalesce(used, ?), by = NULL WHERE name = ?", (now, name))
        return found

    def revoked(self) -> tuple[dict[int, float], int]:
        """Return when each revoked serial number was revoked, and the number of that list."""
        with self._database.reading("read who is revoked") as connection:
            rows = connection.execute("SELECT serial, revoked FROM certificate WHERE revoked IS NOT NULL")
            found = {int(serial): float(since) for serial, since in rows}
            return found, int(connection.execute("SELECT number FROM revision").fetchone()[0])

    def _take_back(self, connection: sqlite3.Connection, serials: Sequence[int], now: float) -> None:
        for serial in serials:
            connection.execute("UPDATE certificate SET revoked = ? WHERE serial = ?", (now, str(serial)))
        connection.execute("UPDATE revision SET number = number + 1")

    def _given(self, connection: sqlite3.Connection, name: str, key: bytes) -> Issued | None:
        row = connection.execute(f"{_SELECT} WHERE name = ? AND key = ?", (name, key)).fetchone()
        return None if row is None else _issued(row)


_SELECT = "SELECT serial, name, role, issued, expires, revoked, der FROM certificate"


def _issued(row: Sequence[object]) -> Issued:
    serial, name, role, issued, expires, revoked, der = row
    assert isinstance(der, bytes)
    return Issued(
        int(str(serial)),
        str(name),
        str(role),
        float(str(issued)),
        float(str(expires)),
        None if revoked is None else float(str(revoked)),
        der,
    )


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"fedpriv/join-token/v1" + secret).digest()
