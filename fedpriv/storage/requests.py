"""What peers asked to be let out, and what the owner answered: remembered across restarts.

Every distinct request is one row with the plan it names, however often it comes. An approval is durable before it
counts, replaces the one before it, and is kept for ever, because ledger entries cite its digest; a denial withdraws it,
lasts until the owner approves, and is never forgotten to make room: of what was denied the plan alone may go.
What a peer can make us keep is bounded: in requests that wait for the owner or were denied, in requests of all kinds
and in bytes. What cannot be kept is refused, and must not be carried out.
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
MAXIMUM_DENIED = 128
"""Requests of one recipient that the owner denied, beyond which no others of it are recorded."""
MAXIMUM_REQUESTS = 1000
MAXIMUM_BYTES = 64 << 20
"""Bytes of all requests, their plans included."""
MAXIMUM_WHY = 1000
"""Characters of an owner's reason."""

State: TypeAlias = Literal["permitted", "pending", "approved", "denied"]

_COLUMNS = "request, plan, first, last, times, state, rule, why, approval, decided"
_STANDS = "SELECT requests.request, state, expires FROM requests LEFT JOIN approvals ON digest = approval WHERE id = ?"
_STOPS = """state = 'denied' AND NOT instr(requests.request, '"releases":["value"]')"""
"""A denial that has to last: a value that was computed step by step leaves with an approval alone, and never again.

A quotation mark within a text is written with a backslash, so no peer can write what is looked for into its purpose.
"""
_SIZE = "SELECT count(*), ifnull(sum(length(plan) + length(request) + length(why)), 0) FROM requests"
_OLDEST = f"""SELECT id FROM requests WHERE NOT ({_STOPS}) AND id NOT IN (
    SELECT id FROM requests JOIN approvals ON digest = approval WHERE state = 'approved' AND expires > :now)
  ORDER BY state = 'denied', recipient <> :recipient, state = 'pending', last LIMIT 1"""  # noqa: S608 - our own words
"""What makes room first: what nobody decided before what was denied, the sender's own, what waits for nobody."""
_BARE = """UPDATE requests SET plan = x'' WHERE id = (
    SELECT id FROM requests WHERE state = 'denied' AND length(plan) > 0 ORDER BY last LIMIT 1)"""


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
        self._refused: tuple[int, frozenset[ReleaseRequest]] | None = None  # with the failures when it was read

    def note(self, request: ReleaseRequest, plan: bytes, *, permitted_by: str, now: float) -> Recorded:
        """Record that `request` came, permitted by the rule cited or by nothing (""); return it as it now stands.

        The plans of denied requests make room, then the oldest request that nobody decided, the sender's own first.
        Raise `QuotaExceeded`, recording nothing, where its sender has too many waiting or denied already, where there
        is no room, or where its id is that of another request.
        """
        with self._database.reading("record a request") as reading:  # so that no other thread comes between
            if not self.again(request, permitted_by=permitted_by, now=now):
                with self._database.writing("record a request") as connection:
                    self._make_room(connection, request, len(plan), now, waits=not permitted_by)
                    state = "permitted" if permitted_by else "pending"
                    connection.execute(
                        "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, '', '', NULL)",
                        (request.id, request.recipient.name, request.to_json(), plan, now, now, state, permitted_by),
                    )
            return _found(reading, request.id)

    def again(self, request: ReleaseRequest, *, permitted_by: str, now: float) -> bool:
        """Record that `request` came once more, if it is on record; return whether it is.

        The count is as durable as the next release: it waits for no disk of its own. Raise `QuotaExceeded` where
        another request is on record under the same id.
        """
        with self._database.writing("count a request", durable=False) as connection:
            known = connection.execute(_STANDS, (request.id,)).fetchone()
            if known is None:
                return False
            content, state, expires = known
            if content != request.to_json():
                raise QuotaExceeded(f"another request is on record as {request.id}; state the purpose differently")
            connection.execute(
                "UPDATE requests SET times = times + 1, last = max(last, ?), state = ?, rule = ? WHERE id = ?",
                (now, _noted(state, expires, permitted_by, now), permitted_by, request.id),
            )
            return True

    def all(self, *, plans: bool = True) -> tuple[Recorded, ...]:
        """Return every request, the latest first; without `plans`, as if none had one."""
        columns = _COLUMNS if plans else _COLUMNS.replace("plan", "x''", 1)
        with self._database.reading("read the requests") as connection:
            rows = connection.execute(f"SELECT {columns} FROM requests ORDER BY last DESC, id").fetchall()  # noqa: S608
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
            self._refused = None
            return grant

    def deny(self, *identities: str, why: str, now: float) -> tuple[Recorded, ...]:
        """Deny these requests, all or none, and withdraw their approvals; return them as they now stand.

        Raise `UsageError` for one that is not known.
        """
        if len(why) > MAXIMUM_WHY:
            raise UsageError(f"a reason of {len(why)} characters; {MAXIMUM_WHY} at most, write a shorter one")
        with self._database.writing("record a denial") as connection:
            for identity in identities:
                _found(connection, identity)
                _decide(connection, identity, "denied", "", why, now)
            self._refused = None
            return tuple(_found(connection, identity) for identity in identities)

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
            if self._refused is None or self._refused[0] != self._database.failures:
                rows = connection.execute("SELECT request FROM requests WHERE state = 'denied'").fetchall()
                found = frozenset(ReleaseRequest.from_json(row[0]) for row in rows)
                self._refused = self._database.failures, found
            return self._refused[1]

    def approval(self, digest: str) -> Grant | None:
        """Return the approval that a ledger entry cites, in force or not, or None."""
        with self._database.reading("read an approval") as connection:
            row = connection.execute("SELECT content FROM approvals WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else Grant.from_json(row[0])

    def _make_room(
        self, connection: sqlite3.Connection, request: ReleaseRequest, size: int, now: float, *, waits: bool
    ) -> None:
        """Remove what may go until one more fits; raise `QuotaExceeded` if that is not to be."""
        name = request.recipient.name
        if waits and _count(connection, name, "state = 'pending'") >= MAXIMUM_PENDING:
            raise QuotaExceeded(f"{name!r} has {MAXIMUM_PENDING} requests waiting for the owner; no more are recorded")
        if _count(connection, name, _STOPS) >= MAXIMUM_DENIED:
            raise QuotaExceeded(
                f"the owner denied {MAXIMUM_DENIED} requests of {name!r}; no others are recorded or carried out: name "
                "it in no rule, or approve one of them"
            )
        size += len(request.to_json())
        while True:
            held, total = connection.execute(_SIZE).fetchone()
            if held < MAXIMUM_REQUESTS and total + size <= MAXIMUM_BYTES:
                return
            if held < MAXIMUM_REQUESTS and connection.execute(_BARE).rowcount:
                continue
            oldest = connection.execute(_OLDEST, {"recipient": name, "now": now}).fetchone()
            if oldest is None:
                raise QuotaExceeded(f"{held} approved or denied requests of {total} bytes leave no room for another")
            connection.execute("DELETE FROM requests WHERE id = ?", oldest)
            self._refused = None


def _count(connection: sqlite3.Connection, recipient: str, which: str) -> int:
    query = f"SELECT count(*) FROM requests WHERE recipient = ? AND {which}"  # noqa: S608 - our own words
    return int(connection.execute(query, (recipient,)).fetchone()[0])


def _noted(state: State, expires: float | None, permitted_by: str, now: float) -> State:
    """Return where a request stands that came again, from where it stood and the end of its approval, if any."""
    if state == "denied":
        return "denied"
    if expires is not None and expires > now:
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
