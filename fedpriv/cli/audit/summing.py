"""What a ledger adds up to: by recipient, data set, kind, approval and purpose, and what each release cost.

One pass, entry by entry; what is kept grows with the number of different names, not with the number of entries. It
does no IO and believes no entry: every text in here is still what a peer or an owner wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from fedpriv.cli.audit.choosing import dataset_of
from fedpriv.cli.audit.timeline import Histogram
from fedpriv.ledger.entries import Entry

MAXIMUM_EXPONENT = 64
DAY_MILLISECONDS = 86_400_000
MAXIMUM_DISCLOSURES = 200
"""Rows of an accounting day by day; above, the days of one recipient, data set and purpose become one row."""


@dataclass(slots=True)
class Tally:
    """How much left under one heading, when, and by which rules and purposes; `again` counts messages sent again."""

    messages: int = 0
    bytes: int = 0
    again: int = 0
    first: int = 0
    last: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    purposes: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def releases(self) -> int:
        """Messages that are not a repetition of one on record."""
        return self.messages - self.again

    def add(self, entry: Entry) -> None:
        """Count one message."""
        draft = entry.draft
        self.first = min(self.first, entry.time) if self.messages else entry.time
        self.last = max(self.last, entry.time) if self.messages else entry.time
        self.messages += 1
        self.bytes += draft.bytes
        self.again += draft.source >= 0
        self.kinds[draft.kind] = self.kinds.get(draft.kind, 0) + 1
        for rule in draft.policy.split():
            self.rules[rule] = self.rules.get(rule, 0) + 1
        if draft.purpose:
            self.purposes[draft.purpose] = self.purposes.get(draft.purpose, 0) + 1


@dataclass(frozen=True, slots=True, order=True)
class Disclosure:
    """To whom something went, from which data sets and for what, on the day that begins at `day`; -1 for any day."""

    day: int
    recipient: str
    datasets: tuple[str, ...]
    purpose: str


@dataclass(slots=True)
class Spend:
    """What releases from one data set cost so far, and what its owner allows, as the ledger says it."""

    spent: str
    limit: str
    relation: str

    @property
    def left(self) -> str:
        """What the owner's limit leaves, or "" where the ledger's texts are no numbers."""
        spent, limit = _number(self.spent), _number(self.limit)
        return "" if spent is None or limit is None else f"{max(limit - spent, Decimal(0)).normalize():f}"

    @property
    def over(self) -> bool:
        """Whether more was spent than the owner allows."""
        spent, limit = _number(self.spent), _number(self.limit)
        return spent is not None and limit is not None and spent > limit


@dataclass(slots=True)
class Summary:
    """Everything that a report says of one ledger; `private` counts what derives from a data set."""

    total: Tally = field(default_factory=Tally)
    private: Tally = field(default_factory=Tally)
    unruled: int = 0
    noised: int = 0
    recipients: dict[str, Tally] = field(default_factory=dict)
    datasets: dict[str, Tally] = field(default_factory=dict)
    kinds: dict[str, Tally] = field(default_factory=dict)
    approvals: dict[str, Tally] = field(default_factory=dict)
    legal_bases: dict[str, int] = field(default_factory=dict)
    spends: dict[str, Spend] = field(default_factory=dict)
    disclosures: dict[Disclosure, Tally] = field(default_factory=dict)
    by_day: bool = True
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, entry: Entry) -> None:
        """Count one entry under everything that it names."""
        draft = entry.draft
        self.total.add(entry)
        self.recipients.setdefault(draft.peer, Tally()).add(entry)
        self.kinds.setdefault(draft.kind, Tally()).add(entry)
        self.histogram.add(entry.time, draft.kind, draft.bytes)
        if draft.approval:
            self.approvals.setdefault(draft.approval, Tally()).add(entry)
        if draft.legal_basis:
            self.legal_bases[draft.legal_basis] = self.legal_bases.get(draft.legal_basis, 0) + 1
        if draft.labels:
            self._add_private(entry)

    def _add_private(self, entry: Entry) -> None:
        draft = entry.draft
        self.private.add(entry)
        self.unruled += not draft.policy
        self.noised += bool(draft.dp.spent)
        cost = Spend(draft.dp.spent, draft.dp.limit, draft.dp.relation)
        names = tuple(dict.fromkeys(map(dataset_of, draft.labels)))
        for name in names:
            self.datasets.setdefault(name, Tally()).add(entry)
            if draft.dp.spent:
                self.spends[name] = _later(self.spends.get(name), cost)
        day = entry.time - entry.time % DAY_MILLISECONDS if self.by_day else -1
        self.disclosures.setdefault(Disclosure(day, draft.peer, names, draft.purpose), Tally()).add(entry)
        if self.by_day and len(self.disclosures) > MAXIMUM_DISCLOSURES:
            self._forget_days()

    def _forget_days(self) -> None:
        self.by_day = False
        days, self.disclosures = self.disclosures, {}
        for key, tally in days.items():
            together = Disclosure(-1, key.recipient, key.datasets, key.purpose)
            self.disclosures[together] = joined([self.disclosures.get(together, Tally()), tally])


def joined(tallies: Iterable[Tally]) -> Tally:
    """Return what `tallies` come to together."""
    whole = Tally()
    for tally in tallies:
        if not tally.messages:
            continue
        whole.first = min(whole.first, tally.first) if whole.messages else tally.first
        whole.last = max(whole.last, tally.last) if whole.messages else tally.last
        whole.messages, whole.bytes = whole.messages + tally.messages, whole.bytes + tally.bytes
        whole.again += tally.again
        for mine, theirs in ((whole.rules, tally.rules), (whole.purposes, tally.purposes), (whole.kinds, tally.kinds)):
            for name, times in theirs.items():
                mine[name] = mine.get(name, 0) + times
    return whole


def _later(before: Spend | None, now: Spend) -> Spend:
    """Return the later account of a data set; what was spent never shrinks."""
    if before is None:
        return now
    earlier, later = _number(before.spent), _number(now.spent)
    return before if earlier is not None and later is not None and earlier > later else now


def _number(text: str) -> Decimal | None:
    """Return what `text` says, if it is a number that can be written out: none of a million digits."""
    try:
        number = Decimal(text) if len(text) <= 64 else None
    except InvalidOperation:
        return None
    if number is None or not number.is_finite() or abs(number) >= 10**12:
        return None
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and abs(exponent) <= MAXIMUM_EXPONENT else None
