"""A worker's journal as its owner's desk reads it, whether or not the worker runs.

`reading` opens a state folder without taking its lock and writes nothing, so that it may be used beside a running
worker; what needs writing goes through the worker, or through the journal when none runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedpriv.errors import StorageFailed, UsageError
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.ledger.checkpoint import LEDGER_PREFIX, parse_signing_key
from fedpriv.ledger.entries import Entry, decode_entry
from fedpriv.policy.decision import Standing
from fedpriv.storage.database import Database
from fedpriv.storage.files import read_bounded
from fedpriv.storage.holds import Holds
from fedpriv.storage.requests import Requests
from fedpriv.storage.rows import Rows
from fedpriv_worker.journal import DATABASE, MAXIMUM_KEY_BYTES, SCHEMA, SIGNING_KEY


class Records(Protocol):
    """What peers asked for and what left so far; safe to read from any thread. A worker's `Journal` is one."""

    @property
    def requests(self) -> Requests:
        """What peers asked for, and what the owner answered."""
        ...

    @property
    def holds(self) -> Holds:
        """What releases used up."""
        ...

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        ...

    def standing(self, dataset: DatasetName) -> Standing:
        """Return what the rules of `dataset` are judged by now."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield every ledger entry, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """The records of a state folder, for reading in one thread."""

    requests: Requests
    holds: Holds
    rows: Rows

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC, never less than the last reservation."""
        return max(time.time(), self.holds.latest / 1000)

    def standing(self, dataset: DatasetName) -> Standing:
        """Return what the rules of `dataset` are judged by now."""
        now = self.now()
        used, behind = self.holds.used(now, dataset), max(0.0, now - time.time())
        return Standing(now, self.requests.grants(now), used, self.requests.refused(), behind)

    def entries(self) -> Iterator[Entry]:
        """Yield every ledger entry, in order."""
        for content in self.rows.read(0, self.rows.size):
            yield decode_entry(content)


@contextmanager
def reading(state: Path) -> Iterator[Stored]:
    """Open the records of the state folder `state`; raise `UsageError` where no worker has run."""
    if not (state / DATABASE).exists():
        raise UsageError(f"{state} is no state folder: no worker has run there yet; start one, or correct the path")
    database = Database.open_for_reading(state / DATABASE)
    try:
        yield Stored(Requests(database), Holds(database), Rows(database))
    finally:
        database.close()


@contextmanager
def empty() -> Iterator[Stored]:
    """Open the records of a worker that never ran: nothing was asked, nothing left."""
    database = Database.in_memory(schema=SCHEMA)
    try:
        yield Stored(Requests(database), Holds(database), Rows(database))
    finally:
        database.close()


def worker_of(state: Path) -> WorkerName:
    """Return the name of the worker that `state` belongs to, from its signing key."""
    text = read_bounded(state / SIGNING_KEY, MAXIMUM_KEY_BYTES)
    if text is None:
        raise UsageError(f"{state} is no state folder: no worker has run there yet; start one, or correct the path")
    try:
        name = parse_signing_key(text.decode("ascii", "replace").removesuffix("\n")).name
    except UsageError as error:
        raise StorageFailed(f"{state} has no usable {SIGNING_KEY}: {error}; restore it") from None
    return WorkerName(name.removeprefix(LEDGER_PREFIX))
