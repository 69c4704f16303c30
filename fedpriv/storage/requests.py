"""What peers asked to be let out, and what the owner answered: remembered across restarts.

Every distinct request is one row with the plan it names, however often it comes. An approval is durable before it
counts, replaces the one before it, and is kept for ever, because ledger entries cite its digest; a denial withdraws it,
and lasts until the owner approves.
What a peer can make us keep is bounded: in requests that wait for the owner, in requests of all kinds and in bytes.
Nothing is decided here: whether a request may be carried out is the policy's business, and how often a grant was used
is the ledger's.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fedpriv.errors import QuotaExceeded, UsageError, nearest
from fedpriv.policy.requests import ID_DIGITS, Grant, ReleaseRequest
from fedpriv.storage.database import Database

SCHEMA = """
CREATE TABLE requests (
  id TEXT PRIMARY KEY,
  recipient TEXT NOT NULL,
  request TEXT NOT NULL,
  plan BLOB NOT NULL,
  first REAL NOT NULL,
  last REAL NOT NULL,
  times INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('permitted', 'pending', 'approved', 'denied')),
  rule TEXT NOT NULL,
  why TEXT NOT NULL,
  approval TEXT NOT NULL,
  decided REAL
) STRICT;
CREATE TABLE approvals (
  digest TEXT PRIMARY KEY,
  request TEXT NOT NULL,
  content TEXT NOT NULL,
  given REAL NOT NULL,
  expires REAL NOT NULL
) STRICT"""

MAXIMUM_PENDING = 32
"""Requests of one recipient that wait for the owner at once."""
MAXIMUM_REQUESTS = 1000
MAXIMUM_BYTES = 64 << 20
"""Bytes of all plans that are kept with requests."""
MAXIMUM_WHY = 1000
"""Characters of an owner's reason."""

State: TypeAlias = Literal["permitted", "pending", "approved", "denied"]

_COLUMNS = "request, plan, first, last, times, state, rule, why, approval, decided"
_OLDEST = """SELECT id FROM requests WHERE id NOT IN (
    SELECT id FROM requests JOIN approvals ON digest = approval WHERE state = 'approved' AND expires > :now)
  ORDER BY state = 'denied', recipient <> :recipient, state = 'pending', last LIMIT 1"""
"""What makes room first: what nobody decided before what was denied, the sender's own, what waits for nobody."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request with its history: when it came, how often, and where it stands; times are seconds since 1970 UTC.

    `rule` cites what let it through when it came last, "" where nothing did; `grant` is the approval that was given
    last and not withdrawn, expired or not; `decided` is when the owner last answered.
    """

    request: ReleaseRequest
    plan: bytes = field(repr=False)
    first: float
    last: float
    times: int
    state: State
    rule: str
    why: str
    grant: Grant | None
    decided: float | None = None


class Requests:
    """The requests that one worker received; as durable and as safe between threads as its database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, request: ReleaseRequest, plan: bytes, *, permitted_by: str, now: float) -> Recorded:
        """Record that `request` came, permitted by the rule cited or by nothing (""); return it as it now stands.

        The oldest request that nobody decided makes room, the sender's own first. Raise `QuotaExceeded` where its
        sender has too many waiting already, or where there is no room.
        """
        with self._database.writing("record a request") as connection:
            known = _row(connection, request.id)
            if known is None:
                self._make_room(connection, request, len(plan), now, waits=not permitted_by)
                state = "permitted" if permitted_by else "pending"
                connection.execute(
                    "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, '', '', NULL)",
                    (request.id, request.recipient.name, request.to_json(), plan, now, now, state, permitted_by),
                )
            else:
                state = _noted(_recorded(connection, known), permitted_by, now)
                connection.execute(
                    "UPDATE requests SET times = times + 1, last = max(last, ?), state = ?, rule = ? WHERE id = ?",
                    (now, state, permitted_by, request.id),
                )
            return _found(connection, request.id)

    def all(self) -> tuple[Recorded, ...]:
        """Return every request, the latest first."""
        with self._database.reading("read the requests") as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM requests ORDER BY last DESC, id").fetchall()  # noqa: S608
            return tuple(_recorded(connection, row) for row in rows)

    def find(self, prefix: str) -> Recorded:
        """Return the one request whose id begins with `prefix`; raise `UsageError` naming those that are near."""
        with self._database.reading("read the requests") as connection:
            known = [each[0] for each in connection.execute("SELECT id FROM requests ORDER BY id")]
            found = [each for each in known if prefix and each.startswith(prefix.lower())]
            if len(found) == 1:
                return _found(connection, found[0])
        if found:
            some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise UsageError(f"{len(found)} requests begin with {prefix!r}: {some}; give more digits")
        if not known:
            raise UsageError(f"there is no request {prefix!r:.40}: nobody has asked for anything yet")
        close = nearest(prefix[:ID_DIGITS], known)
        raise UsageError(f"there is no request {prefix!r:.40}{close}; list them all to choose one")

    def approve(self, identity: str, *, rule: str, releases: int, expires: float, now: float) -> Grant:
        """Approve the request `identity` so many times until `expires`, in place of what was approved before.

        Raise `UsageError` for a request that is not known, and for an expiry that has passed.
        """
        if not expires > now:
            raise UsageError("an approval must expire later than now; give a longer time")
        with self._database.writing("record an approval") as connection:
            request = _found(connection, identity).request
            grant = Grant(request, rule, releases, expires)
            connection.execute(
                "INSERT OR IGNORE INTO approvals VALUES (?, ?, ?, ?, ?)",
                (grant.digest, identity, grant.to_json(), now, grant.expires),
            )
            _decide(connection, identity, "approved", grant.digest, "", now)
            return grant

    def deny(self, identity: str, *, why: str, now: float) -> Recorded:
        """Deny the request `identity` and withdraw its approval; raise `UsageError` for one that is not known."""
        if len(why) > MAXIMUM_WHY:
            raise UsageError(f"a reason of {len(why)} characters; {MAXIMUM_WHY} at most, write a shorter one")
        with self._database.writing("record a denial") as connection:
            _found(connection, identity)
            _decide(connection, identity, "denied", "", why, now)
            return _found(connection, identity)

    def grants(self, now: float) -> tuple[Grant, ...]:
        """Return the approvals in force, however often they were used: not replaced, not withdrawn, not expired."""
        with self._database.reading("read the approvals") as connection:
            rows = connection.execute(
                "SELECT content FROM approvals JOIN requests ON digest = approval "
                "WHERE state = 'approved' AND expires > ? ORDER BY given, digest",
                (now,),
            ).fetchall()
        return tuple(Grant.from_json(row[0]) for row in rows)

    def refused(self) -> frozenset[ReleaseRequest]:
        """Return the requests that the owner denied and did not approve since."""
        with self._database.reading("read the denials") as connection:
            rows = connection.execute("SELECT request FROM requests WHERE state = 'denied'").fetchall()
        return frozenset(ReleaseRequest.from_json(row[0]) for row in rows)

    def approval(self, digest: str) -> Grant | None:
        """Return the approval that a ledger entry cites, in force or not, or None."""
        with self._database.reading("read an approval") as connection:
            row = connection.execute("SELECT content FROM approvals WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else Grant.from_json(row[0])

    def _make_room(
        self, connection: sqlite3.Connection, request: ReleaseRequest, size: int, now: float, *, waits: bool
    ) -> None:
        """Remove requests that nobody decided until one more fits; raise `QuotaExceeded` if that is not to be."""
        name = request.recipient.name
        counted = "SELECT count(*) FROM requests WHERE recipient = ? AND state = 'pending'"
        if waits and connection.execute(counted, (name,)).fetchone()[0] >= MAXIMUM_PENDING:
            raise QuotaExceeded(f"{name!r} has {MAXIMUM_PENDING} requests waiting for the owner; no more are recorded")
        while True:
            held, total = connection.execute("SELECT count(*), ifnull(sum(length(plan)), 0) FROM requests").fetchone()
            if held < MAXIMUM_REQUESTS and total + size <= MAXIMUM_BYTES:
                return
            oldest = connection.execute(_OLDEST, {"recipient": name, "now": now}).fetchone()
            if oldest is None:
                raise QuotaExceeded(f"{held} approved requests with {total} bytes of plans leave no room for another")
            connection.execute("DELETE FROM requests WHERE id = ?", oldest)


def _noted(known: Recorded, permitted_by: str, now: float) -> State:
    """Return where a request stands that came again."""
    if known.state == "denied":
        return "denied"
    if known.grant is not None and known.grant.expires > now:
        return "approved"
    return "permitted" if permitted_by else "pending"


def _decide(connection: sqlite3.Connection, identity: str, state: State, approval: str, why: str, now: float) -> None:
    connection.execute(
        "UPDATE requests SET state = ?, approval = ?, why = ?, decided = ? WHERE id = ?",
        (state, approval, why, now, identity),
    )


def _row(connection: sqlite3.Connection, identity: str) -> tuple[Any, ...] | None:
    query = f"SELECT {_COLUMNS} FROM requests WHERE id = ?"  # noqa: S608 - our own names
    row: tuple[Any, ...] | None = connection.execute(query, (identity,)).fetchone()
    return row


def _found(connection: sqlite3.Connection, identity: str) -> Recorded:
    row = _row(connection, identity)
    if row is None:
        raise UsageError(f"there is no request {identity!r:.40}; list them all to choose one")
    return _recorded(connection, row)


def _recorded(connection: sqlite3.Connection, row: tuple[Any, ...]) -> Recorded:
    request, plan, first, last, times, state, rule, why, approval, decided = row
    grant = None
    if approval:
        content = connection.execute("SELECT content FROM approvals WHERE digest = ?", (approval,)).fetchone()
        grant = Grant.from_json(content[0])
    asked = ReleaseRequest.from_json(request)
    return Recorded(asked, plan, first, last, times, state, rule, why, grant, decided)
