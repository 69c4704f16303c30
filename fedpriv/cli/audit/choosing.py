"""Which entries a command is about: filters by time, recipient, data set, kind, round and worker.

A name that occurs nowhere is refused with the nearest that does: an empty list must mean that nothing left, not that
a word was misspelt. It verifies nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedpriv.errors import UsageError, nearest
from fedpriv.ledger.entries import Entry
from fedpriv.storage.verification import find_ledgers, read_entries

Where = Annotated[Path, typer.Argument(metavar="RUN|LEDGER", help="A run, a worker's state, or a ledger folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")]


def given_key(value: str | None) -> str | None:
    """Return a key that was given, or None; raise `UsageError` for an empty one: a shell's unset variable is one."""
    if value is not None and not value.strip():
        raise UsageError("an empty key was given, which would verify nothing; is a variable of the shell not set?")
    return value


OwnersKey = Annotated[
    str | None, typer.Option(metavar="VKEY", help="The worker's verifier key, from its owner.", callback=given_key)
]
Since = Annotated[str, typer.Option(metavar="TIME", help="Only from then on: 2026-03-01, 2026-03-01T08:30, 7d, 12h.")]
Until = Annotated[str, typer.Option(metavar="TIME", help="Only up to then; a date counts to its end.")]
To = Annotated[str, typer.Option("--to", metavar="RECIPIENT", help="Only what went to this recipient.")]
OfDataset = Annotated[str, typer.Option("--dataset", metavar="NAME", help="Only what derives from this data set.")]
Kind = Annotated[str, typer.Option(help="Only messages of this kind.")]
Round = Annotated[int | None, typer.Option(min=0, help="Only messages of this round.")]
Worker = Annotated[str, typer.Option(help="Only this worker's ledger.")]

_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Conditions that an entry meets all at once; times in milliseconds since 1970, both ends included."""

    since: int | None = None
    until: int | None = None
    to: str = ""
    dataset: str = ""
    kind: str = ""
    round: int | None = None
    worker: str = ""

    def takes(self, entry: Entry) -> bool:
        """Return whether `entry` is asked for."""
        draft = entry.draft
        return (
            (self.since is None or entry.time >= self.since)
            and (self.until is None or entry.time <= self.until)
            and self.to in ("", draft.peer)
            and (not self.dataset or any(self.dataset in (label, dataset_of(label)) for label in draft.labels))
            and self.kind in ("", draft.kind)
            and self.round in (None, draft.round)
            and self.worker in ("", entry.worker)
        )


@dataclass(slots=True)
class _Occurring:
    """The names that a ledger uses, chosen or not."""

    names: dict[str, set[str]] = field(
        default_factory=lambda: {"recipient": set(), "data set": set(), "kind": set(), "worker": set()}
    )

    def add(self, entry: Entry) -> None:
        draft = entry.draft
        self.names["recipient"].add(draft.peer)
        self.names["kind"].add(draft.kind)
        for label in draft.labels:
            self.names["data set"].update((label, dataset_of(label)))

    def check(self, choice: Choice) -> None:
        """Raise `UsageError` for the first name of `choice` that occurs nowhere."""
        asked = {"worker": choice.worker, "recipient": choice.to, "data set": choice.dataset, "kind": choice.kind}
        for what, name in asked.items():
            found = self.names[what]
            if name and name not in found and self.names["worker"]:  # of an empty ledger nothing can be misspelt
                those = ", ".join(repr(each) for each in sorted(found)[:12]) or "none at all"
                raise UsageError(f"no entry has the {what} {name!r}{nearest(name, found)}; it occurs with {those}")


def dataset_of(label: str) -> str:
    """Return the data set of a label "data set/principal"."""
    return label.rpartition("/")[0] or label


def choice_of(
    now: float,
    *,
    since: str = "",
    until: str = "",
    to: str = "",
    dataset: str = "",
    kind: str = "",
    round: int | None = None,  # noqa: A002  # the option's name
    worker: str = "",
) -> Choice:
    """Return the choice that options ask for; `now` is seconds since 1970; raise `UsageError` for no time."""
    first = _milliseconds(since, now, "--since", end=False) if since else None
    last = _milliseconds(until, now, "--until", end=True) if until else None
    if first is not None and last is not None and first > last:
        raise UsageError(f"--since {since} is later than --until {until}: no entry can be between them")
    return Choice(since=first, until=last, to=to, dataset=dataset, kind=kind, round=round, worker=worker)


def chosen(where: Path, choice: Choice) -> Iterator[Entry]:
    """Yield the entries under `where` that `choice` takes; raise `UsageError` at the end for a name nobody uses."""
    occurring = _Occurring()
    for folder in find_ledgers(where):
        for entry in read_entries(folder):
            occurring.names["worker"].add(entry.worker)
            if choice.worker and entry.worker != choice.worker:
                break  # a ledger has one worker
            occurring.add(entry)
            if choice.takes(entry):
                yield entry
    occurring.check(choice)


def _milliseconds(text: str, now: float, option: str, *, end: bool) -> int:
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return int((now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}).total_seconds()) * 1000)
        at = datetime.fromisoformat(text)
        if re.fullmatch(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", text):
            at = datetime.combine(at.date(), time.max if end else time.min)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} {text!r} is no time; write a date (2026-03-01), a date-time in UTC (2026-03-01T08:30), or how "
            "long ago (90s, 30m, 12h, 7d, 2w)"
        ) from error
