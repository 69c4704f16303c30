"""Reservations and the outbox on disk: what releases use up, and the bytes of those that may have to be sent again.

`reserve` counts and stores in one transaction, so two releases can never both take the last of a limit or a budget. A
cost that another version of the accountant found counts as the larger of both (`accountants.renewed`). `commit` and
`keep` join the transaction that appends the ledger entry. After a crash `recover` says what became of each release
that was under way; it forgives nothing. What a cost means is said by `privacy`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fedpriv.errors import ReleaseDenied, VerificationFailed
from fedpriv.ids import DatasetName, JobId, PeerName
from fedpriv.privacy.accountants import renewed
from fedpriv.privacy.bills import Beside
from fedpriv.privacy.budget import Cost, total_of
from fedpriv.privacy.charging import check_cost, check_once, owing
from fedpriv.privacy.reservations import DAY_SECONDS, FIRST, Limit, Reservation, State
from fedpriv.storage.database import Database

SCHEMA = """
CREATE TABLE hold (
    number INTEGER PRIMARY KEY, release BLOB NOT NULL, dataset TEXT NOT NULL, recipient TEXT NOT NULL,
    plan TEXT NOT NULL, job TEXT NOT NULL, round INTEGER NOT NULL, time INTEGER NOT NULL,
    mechanism TEXT, event TEXT, relation TEXT, rdp TEXT, unit TEXT, accountant TEXT, trusted INTEGER,
    state TEXT NOT NULL, entry INTEGER, hash BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX live ON hold (release) WHERE state IN ('reserved', 'committed', 'lost');
CREATE TABLE charge (
    hold INTEGER NOT NULL REFERENCES hold, position INTEGER NOT NULL, against TEXT NOT NULL,
    PRIMARY KEY (hold, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX charged ON charge (against);
CREATE TABLE outbox (
    hold INTEGER PRIMARY KEY REFERENCES hold, header BLOB NOT NULL, payload BLOB NOT NULL
) STRICT
"""
_USES = """
SELECT count(*) FROM charge JOIN hold ON hold.number = charge.hold
WHERE charge.against = ? AND hold.dataset = ? AND hold.state != 'cancelled' AND hold.time > ?
"""
_UNITS = "SELECT DISTINCT unit FROM hold WHERE dataset = ? AND state != 'cancelled' AND unit IS NOT NULL"
_BESIDE = """
SELECT event, relation, count(*) FROM hold
WHERE dataset = ? AND number != ? AND state != 'cancelled' AND event IS NOT NULL AND entry IS NULL
GROUP BY event, relation ORDER BY min(number)
"""
_CHARGED = "WHERE dataset = ? AND state != 'cancelled'"
_READ = "read the reservations"
_COLUMNS = (
    "number, release, dataset, recipient, plan, job, round, time, state, coalesce(entry, -1), mechanism, event, "
    "relation, rdp, unit, accountant, trusted"
)
_AGAINST = "SELECT against FROM charge WHERE hold = ? ORDER BY position"


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation as stored; `entry` is the ledger entry that its release was recorded under, -1 before that."""

    number: int
    release: bytes = field(repr=False)
    dataset: DatasetName
    recipient: PeerName
    plan: str
    job: JobId
    round: int
    time: int
    state: State
    entry: int
    against: tuple[str, ...]
    cost: Cost | None


class Holds:
    """The reservations of one worker; safe to call from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._spent: dict[DatasetName, tuple[int, tuple[float, ...]]] = {}

    def reserve(self, reservation: Reservation, time: int) -> int:
        """Charge `reservation` durably at `time` (milliseconds) and return its number.

        Raise `ReleaseDenied`, of which `BudgetExceeded` is one, when a limit or the budget does not allow it.
        """
        with self._database.writing("reserve a release") as connection:
            for limit in reservation.limits:
                _check_limit(connection, reservation.dataset, limit, time)
            reservation = replace(reservation, cost=_owed(self._database, reservation, self.spent(reservation.dataset)))
            previous = connection.execute("SELECT number, hash FROM hold ORDER BY number DESC LIMIT 1").fetchone()
            number = 0 if previous is None else previous[0] + 1
            _insert(connection, reservation, number, time, FIRST if previous is None else previous[1])
            self._spent.pop(reservation.dataset, None)
        return number

    def commit(self, number: int, entry: int) -> None:
        """Settle reservation `number` with ledger entry `entry`; part of the transaction that appends the entry."""
        _settle(self._database, number, State.COMMITTED, entry)

    def cancel(self, number: int) -> None:
        """Give back what reservation `number` holds: nothing of its release left the worker."""
        _settle(self._database, number, State.CANCELLED, None)
        self._spent.clear()

    def forfeit(self, number: int) -> None:
        """Let reservation `number` stay charged although nothing but a code left: that code tells something too."""
        _settle(self._database, number, State.INTERRUPTED, None)

    def keep(self, number: int, header: bytes, payload: bytes) -> None:
        """Keep the bytes of a release until they are acknowledged; part of the transaction that commits it."""
        with self._database.writing("keep a release") as connection:
            connection.execute("INSERT INTO outbox VALUES (?, ?, ?)", (number, header, payload))

    def waiting(self, number: int) -> tuple[bytes, bytes] | None:
        """Return header and payload that are kept of reservation `number`, or None."""
        with self._database.reading(_READ) as connection:
            found = connection.execute("SELECT header, payload FROM outbox WHERE hold = ?", (number,)).fetchone()
        return None if found is None else (bytes(found[0]), bytes(found[1]))

    def live(self, release: bytes) -> Held | None:
        """Return the reservation of `release` that is under way, committed or lost; None where it may begin anew."""
        live = "WHERE release = ? AND state IN ('reserved', 'committed', 'lost')"
        return next(_held(self._database, live, (release,)), None)

    def acknowledge(self, recipient: PeerName, job: JobId, round_number: int) -> None:
        """Forget the bytes of what `recipient` has saved; writes only where something waits for that."""
        mine = "SELECT number FROM hold WHERE recipient = ? AND job = ? AND round = ? AND state = 'committed'"
        with self._database.reading(_READ) as connection:
            numbers = connection.execute(mine, (recipient, job, round_number)).fetchall()
        if numbers:
            with self._database.writing("acknowledge a release") as connection:
                connection.executemany("UPDATE hold SET state = 'acknowledged' WHERE number = ?", numbers)
                connection.executemany("DELETE FROM outbox WHERE hold = ?", numbers)

    def recover(self) -> None:
        """After a start: verify the chain, then say of every release under way what a crash made of it."""
        with self._database.reading(_READ) as connection:
            hashes = connection.execute("SELECT number, hash FROM hold ORDER BY number").fetchall()
        _verify(hashes, self.all())
        with self._database.writing("recover the reservations") as connection:
            connection.execute("UPDATE hold SET state = 'interrupted' WHERE state = 'reserved'")
            connection.execute(
                "UPDATE hold SET state = 'lost' WHERE state = 'committed' AND number NOT IN (SELECT hold FROM outbox)"
            )

    def used(self, now: float, dataset: DatasetName | None = None, *, without: int | None = None) -> dict[str, int]:
        """Return how often each rule was used in the last day, by citation, and each approval ever, by digest.

        Equal rules of two data sets share a citation: name the one that is judged. `without` leaves one reservation
        out. Digests have no colon, unlike citations. A use that a clock running backwards put into the future counts
        too.
        """
        since = int((now - DAY_SECONDS) * 1000)
        with self._database.reading(_READ) as connection:
            found = connection.execute(
                "SELECT against, count(*) FROM charge JOIN hold ON number = hold WHERE coalesce(? = dataset, 1) "
                "AND number IS NOT ? AND state != 'cancelled' AND (time > ? OR instr(against, ':') = 0) "
                "GROUP BY against",
                (dataset, without, since),
            ).fetchall()
        return dict(found)

    def spent(self, dataset: DatasetName) -> tuple[float, ...]:
        """Return the sum of the RDP vectors charged to `dataset`, one value for each of `ORDERS`."""
        known = self._spent.get(dataset)
        if known is None or known[0] != self._database.failures:
            total = total_of(cost.rdp for cost in _costs(_held(self._database, _CHARGED, (dataset,))))
            self._spent[dataset] = known = self._database.failures, total
        return known[1]

    def beside(self, number: int) -> tuple[bool, tuple[Beside, ...]]:
        """Return whether reservation `number` has a privacy cost; and what else was charged and has no entry."""
        with self._database.reading(_READ) as connection:
            (dataset, charged) = connection.execute(
                "SELECT dataset, event IS NOT NULL FROM hold WHERE number = ?", (number,)
            ).fetchone()
            found = connection.execute(_BESIDE, (dataset, number)).fetchall()
        return bool(charged), tuple(Beside(*row) for row in found)

    def all(self) -> Iterator[Held]:
        """Yield every reservation, in order."""
        return _held(self._database, "", ())

    @property
    def latest(self) -> int:
        """When the last reservation was made, in milliseconds; 0 if there is none."""
        with self._database.reading(_READ) as connection:
            return int(connection.execute("SELECT coalesce(max(time), 0) FROM hold").fetchone()[0])


def _held(database: Database, where: str, parameters: tuple[object, ...]) -> Iterator[Held]:
    query = f"SELECT {_COLUMNS} FROM hold {where} ORDER BY number"  # noqa: S608 - constants of this module
    with database.reading(_READ) as connection:
        found = connection.execute(query, parameters).fetchall()
        against = [tuple(name for (name,) in connection.execute(_AGAINST, (row[0],)).fetchall()) for row in found]
    for row, names in zip(found, against, strict=True):
        cost = None
        if row[10] is not None:
            cost = Cost(row[10], row[11], row[12], tuple(json.loads(row[13])), row[14], row[15], bool(row[16]))
        number, release, dataset, recipient, plan, job, round_number, time, state, entry = row[:10]
        yield Held(
            number,
            bytes(release),
            dataset,
            recipient,
            plan,
            job,
            round_number,
            time,
            State(state),
            entry,
            names,
            cost,
        )


def _costs(held: Iterable[Held]) -> list[Cost]:
    """Return what was charged, by the accountant of today and by that of then: the larger of both."""
    return [renewed(each.cost) for each in held if each.cost is not None]


def _owed(database: Database, reservation: Reservation, spent: tuple[float, ...]) -> Cost | None:
    """Return what `reservation` is to be charged with; raise `ReleaseDenied` where that cannot be paid."""
    if reservation.cost is None:
        return None
    peer = (reservation.dataset, reservation.recipient, reservation.job)
    earlier = tuple(_held(database, f"{_CHARGED} AND recipient = ? AND job = ?", peer))
    check_once(reservation, {each.round for each in earlier if each.state is not State.INTERRUPTED})
    job = _costs(earlier)
    cost = owing(reservation, job)
    if cost is not None:
        with database.reading(_READ) as connection:
            units = connection.execute(_UNITS, (reservation.dataset,)).fetchall()
        check_cost(reservation, cost, job, [unit for (unit,) in units], spent)
    return cost


def _settle(database: Database, number: int, state: State, entry: int | None) -> None:
    with database.writing("settle a reservation") as connection:
        changed = connection.execute(
            "UPDATE hold SET state = ?, entry = ? WHERE number = ? AND state = 'reserved'", (state.value, entry, number)
        ).rowcount
        if changed != 1:
            raise AssertionError(f"reservation {number} is settled already, or was never made")


def _verify(hashes: Sequence[tuple[int, bytes]], stored: Iterable[Held]) -> None:
    """Raise `VerificationFailed` unless the reservations are the chain that they were when they were made."""
    previous = FIRST
    for expected, ((number, recorded), held) in enumerate(zip(hashes, stored, strict=True)):
        again = Reservation(
            held.release, held.dataset, held.recipient, held.plan, held.job, held.round,
            tuple(Limit(against, 0) for against in held.against), held.cost,
        )  # fmt: skip  # one line of fields
        previous = again.chained(previous, held.time)
        if number != expected or bytes(recorded) != previous:
            raise VerificationFailed(
                f"reservation {expected} in the journal was changed or removed; what is left of the budget is "
                "unknown: restore the state folder from its latest copy"
            )


def _check_limit(connection: sqlite3.Connection, dataset: DatasetName, limit: Limit, time: int) -> None:
    since = -1 if limit.within_seconds is None else time - int(limit.within_seconds * 1000)
    used = connection.execute(_USES, (limit.against, dataset, since)).fetchone()[0]
    if used >= limit.most:
        within = "" if limit.within_seconds is None else f" in the last {limit.within_seconds / 3600:g} hours"
        raise ReleaseDenied(f"{limit.against} was used {used} times{within}, and its limit is {limit.most}")


def _insert(connection: sqlite3.Connection, reservation: Reservation, number: int, time: int, previous: bytes) -> None:
    cost = reservation.cost
    priced: tuple[object, ...] = (None,) * 7
    if cost is not None:
        said = (cost.unit, cost.accountant, int(cost.trusted))
        priced = (cost.mechanism, cost.event, cost.relation, json.dumps(cost.rdp), *said)
    connection.execute(
        "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved', NULL, ?)",
        (
            number, reservation.release, reservation.dataset, reservation.recipient, reservation.plan,
            reservation.job, reservation.round, time, *priced, reservation.chained(previous, time),
        ),
    )  # fmt: skip  # one line of fields
    connection.executemany(
        "INSERT INTO charge VALUES (?, ?, ?)",
        [(number, position, limit.against) for position, limit in enumerate(reservation.limits)],
    )
