"""Whether what left is no larger than what its orders foresaw: entries against the plans that the worker kept.

Possible only in a worker's state folder, where orders are kept with their plans. Updates, evaluations and masked words
are compared, each with the orders of the same recipient, data set and plan; other kinds, and orders that made room for
later ones, are counted as not compared. It is the only part of `audit` that needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.cli.audit.choosing import dataset_of
from fedpriv.errors import FedprivError, UsageError, VerificationFailed
from fedpriv.ledger.entries import Entry
from fedpriv.storage.database import Database
from fedpriv.storage.requests import MAXIMUM_BYTES, MAXIMUM_REQUESTS, SCHEMA, Recorded, Requests
from fedpriv.storage.verification import JOURNAL

LARGEST_REQUEST = 8 << 20
"""More bytes than a request has with its plan."""
_EXTENT = """SELECT count(*), coalesce(sum(
    length(plan) + length(request) + length(rule) + length(why) + length(approval)), 0) FROM requests"""
COMPARED = frozenset({"update", "evaluation", "secagg-masked"})

_Order = tuple[str, str, str, str]


@dataclass(slots=True)
class Comparison:
    """How many private messages were within their forecast, over it, and without one."""

    within: int = 0
    over: list[str] = field(default_factory=list)
    without: int = 0

    def sentence(self) -> str:
        """Return the outcome, for somebody who reads what left."""
        rest = f"; {self.without:,} had no forecast" if self.without else ""
        return f"{self.within:,} messages were within what their orders foresaw{rest}"


def compare_with_forecasts(folder: Path, entries: Iterable[Entry]) -> Comparison:
    """Return how the entries of the ledger in `folder` compare with what the orders beside it foresaw."""
    foreseen = _foreseen(folder.parent / JOURNAL)
    found = Comparison()
    for entry in entries:
        draft = entry.draft
        if not draft.labels:
            continue
        bounds = [foreseen.get((draft.kind, draft.peer, dataset_of(each), draft.plan)) for each in draft.labels]
        most = max((bound for bound in bounds if bound is not None), default=None)
        if draft.kind not in COMPARED or most is None:
            found.without += 1
        elif draft.bytes <= most:
            found.within += 1
        else:
            found.over.append(f"entry {entry.seq} has {draft.bytes:,} bytes, its order foresaw {most:,} at most")
    return found


def _foreseen(journal: Path) -> dict[_Order, int]:
    """Return the most bytes of one message by kind, recipient, data set and plan."""
    if not journal.exists():
        raise UsageError(
            f"--forecast needs the orders that a worker keeps in its state folder, and {journal} is not there; a bare "
            "ledger has none"
        )
    database = Database.open_foreign(journal, schema=SCHEMA, largest=LARGEST_REQUEST)
    try:
        with database.reading("count the requests") as connection:
            found, size = connection.execute(_EXTENT).fetchone()
        if found > 2 * MAXIMUM_REQUESTS or size > 2 * MAXIMUM_BYTES:  # that is of plans alone
            raise VerificationFailed(f"{journal} holds {found:,} requests of {size:,} bytes, more than a worker keeps")
        recorded = Requests(database).all()
    finally:
        database.close()
    foreseen: dict[_Order, int] = {}
    for each in recorded:
        bound = _forecast(each)
        if bound is not None:
            kind, most = bound
            order = (kind, each.request.recipient.name, each.request.dataset, each.request.plan)
            foreseen[order] = max(most, foreseen.get(order, 0))
    return foreseen


def _forecast(recorded: Recorded) -> tuple[str, int] | None:
    from fedpriv.labels import PUBLIC  # noqa: PLC0415 - with what brings torch
    from fedpriv.wire.plans import decode_plan  # noqa: PLC0415 - brings torch
    from fedpriv_worker.forecast import forecast  # noqa: PLC0415 - brings torch

    if not recorded.plan:
        return None
    try:
        found = forecast(decode_plan(recorded.plan), recorded.request, PUBLIC)
    except FedprivError:  # an order that this worker would refuse has no answer to foresee
        return None
    return found.kind, found.most_bytes
