"""May this value leave? A pure function of what would be released and the owner's rules.

The answer names the rule that lets it out, or why each rule does not. Public values leave; a value of a data set
without rules, or of several data sets at once, does not. Nothing is released here, and reasons stay with
the owner: a peer receives a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import Label
from fedpriv.policy.rules import Metrics, PlainUpdate, Rule, Statistics

Release: TypeAlias = Literal["update", "statistics", "metrics"]
RECIPIENT_ROLES = ("coordinator", "researcher")
_RELEASES: Mapping[type[Rule], Release] = {PlainUpdate: "update", Statistics: "statistics", Metrics: "metrics"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A peer as its certificate names it: who it is and what it may be."""

    name: PeerName
    role: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What would be released: its kind, what it derives from, to whom, and for what stated purpose.

    `kinds` are the statistics or metrics in it; an update has none.
    """

    release: Release
    label: Label
    recipient: Recipient
    kinds: tuple[str, ...] = ()
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Permit:
    """The value may leave under `rule`; None when it is public and needs none."""

    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Deny:
    """The value may not leave; one reason for every rule that was tried, at least one in all."""

    reasons: tuple[str, ...]


def decide(ask: Ask, rules: Mapping[DatasetName, Sequence[Rule]]) -> Permit | Deny:
    """Return the first of the data set's rules that permits `ask`, or why none does."""
    if ask.label.is_public:
        return Permit(None)
    names = sorted({origin.dataset for origin in ask.label.origins})
    if len(ask.label.origins) > 1:
        return Deny((f"it derives from several sources ({', '.join(names)}), and no rule lets a mixture out",))
    own = rules.get(names[0], ())
    if not own:
        return Deny((f"data set {names[0]!r} has no rule, so nothing leaves it",))
    reasons: list[str] = []
    for rule in own:
        failed = tuple(_failed(ask, rule))
        if not failed:
            return Permit(rule)
        reasons.append(f"{rule.name}: {'; '.join(failed)}")
    return Deny(tuple(reasons))


def may_receive(recipient: Recipient, rules: Sequence[Rule]) -> bool:
    """Return whether any of `rules` could ever let something out to `recipient`."""
    return recipient.role in RECIPIENT_ROLES and any(
        rule.recipients is None or recipient.name in rule.recipients for rule in rules
    )


def _failed(ask: Ask, rule: Rule) -> Iterator[str]:
    """Yield each condition of `rule` that `ask` does not meet."""
    covers = _RELEASES[type(rule)]
    if covers != ask.release:
        yield f"covers {covers}, not {ask.release}"
        return
    if ask.recipient.role not in RECIPIENT_ROLES:
        yield f"the recipient is a {ask.recipient.role}, not a {' or '.join(RECIPIENT_ROLES)}"
    if rule.recipients is not None and ask.recipient.name not in rule.recipients:
        yield f"the recipient {ask.recipient.name!r} is not among {', '.join(rule.recipients)}"
    if rule.purpose is not None and ask.purpose != rule.purpose:
        yield f"the stated purpose is {ask.purpose!r:.80}, not {rule.purpose!r}"
    if not isinstance(rule, PlainUpdate):
        yield from _failed_kinds(ask.kinds, rule.kinds)


def _failed_kinds(asked: Sequence[str], allowed: Sequence[str]) -> Iterator[str]:
    if not asked:
        yield "asks for no kind"
    other = [kind for kind in asked if kind not in allowed]
    if other:
        yield f"asks for {', '.join(map(repr, other))}, allowed are {', '.join(allowed)}"
