"""May this value leave? A pure function of what would be released, the owner's rules, and what stands already.

The answer names the rule that lets it out, or why each rule does not. Public values leave; a value of a data set
without rules, or of several data sets at once, does not. What is not known to satisfy a condition fails it: a loss
that is no number is no loss within a limit. Nothing is released or counted here, and reasons stay with the
owner: a peer receives a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from fedpriv.ids import DatasetName
from fedpriv.labels import Label
from fedpriv.policy.requests import Grant, Recipient, ReleaseRequest
from fedpriv.policy.rules import (
    Approval,
    DifferentialPrivacy,
    Metrics,
    Mock,
    PlainUpdate,
    Rule,
    SecureSum,
    Statistics,
    cite,
)

__all__ = [
    "NOTHING_STANDS",
    "RECIPIENT_ROLES",
    "Ask",
    "Deny",
    "Permit",
    "Protection",
    "Recipient",
    "Release",
    "Standing",
    "decide",
    "may_compute",
    "may_receive",
    "wrong_time",
]

Release: TypeAlias = Literal["update", "statistics", "metrics", "mock", "value"]
RECIPIENT_ROLES = ("coordinator", "researcher")
FAR_BEHIND_SECONDS = 3600.0
"""How far the clock may be behind the time that it showed before, while that time still stands for the present."""
_RELEASES: Mapping[type[Rule], tuple[Release, ...]] = {
    PlainUpdate: ("update",),
    Statistics: ("statistics",),
    Metrics: ("metrics",),
    SecureSum: ("update", "metrics", "statistics"),
    DifferentialPrivacy: ("update", "metrics", "statistics"),
    Approval: ("update", "metrics", "statistics", "mock", "value"),
    Mock: ("mock",),
}
_UNLABELLED = "a stand-in leaves under a rule of its data set, so it has to carry that data set's label"


@dataclass(frozen=True, slots=True)
class Protection:
    """What hides one row or one worker in a release, as the worker itself knows it, never as a peer claims it.

    `masked_among` is the number of workers in the secure sum, 0 in clear; `epsilon` the loss of the whole job, None
    where this worker adds no noise of its own.
    """

    masked_among: int = 0
    epsilon: float | None = None


IN_CLEAR = Protection()


@dataclass(frozen=True, slots=True)
class Ask:
    """What would be released: its kind, what it derives from, to whom, for what stated purpose, and how protected.

    `kinds` are the statistics or metrics in it; an update has none. `request` is the order that it is part of, which
    an owner can approve; None where there is nothing to approve.
    """

    release: Release
    label: Label
    recipient: Recipient
    kinds: tuple[str, ...] = ()
    purpose: str = ""
    request: ReleaseRequest | None = None
    protection: Protection = IN_CLEAR


@dataclass(frozen=True, slots=True)
class Standing:
    """What was approved and used so far, at one moment in seconds since 1970 UTC.

    `used` counts releases: by citation of a rule in the last 24 hours, by digest of a grant ever. `refused` are the
    requests that the owner denied. `behind` is how many seconds the clock is behind `now`, which never runs backwards.
    """

    now: float = 0.0
    grants: tuple[Grant, ...] = ()
    used: Mapping[str, int] = field(default_factory=dict)
    refused: frozenset[ReleaseRequest] = frozenset()
    behind: float = 0.0


NOTHING_STANDS = Standing()


@dataclass(frozen=True, slots=True)
class Permit:
    """The value may leave under `rule` (None when it is public and needs none), by the owner's `grant` if any."""

    rule: Rule | None
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """The value may not leave; one reason for every rule that was tried, at least one in all.

    `approval` is the rule under which it could leave as soon as the owner approves the request, None when no approval
    would help. `by_owner` says that the owner denied this very request, `too_small` that a sum over more workers is all
    that a rule for this recipient and purpose misses.
    """

    reasons: tuple[str, ...]
    approval: Approval | None = None
    by_owner: bool = False
    too_small: bool = False

    @property
    def pending(self) -> bool:
        """Whether an approval is all that is missing."""
        return self.approval is not None


def decide(ask: Ask, rules: Mapping[DatasetName, Sequence[Rule]], standing: Standing = NOTHING_STANDS) -> Permit | Deny:
    """Return the first of the data set's rules that permits `ask`, or why none does."""
    if ask.label.is_public:
        return Permit(None) if ask.release != "mock" else Deny((_UNLABELLED,))
    if ask.request is not None and ask.request in standing.refused:
        return Deny((f"the owner denied the request {ask.request.id}",), by_owner=True)
    names = sorted({origin.dataset for origin in ask.label.origins})
    if len(ask.label.origins) > 1:
        return Deny((f"it derives from several sources ({', '.join(names)}), and no rule lets a mixture out",))
    own = rules.get(names[0], ())
    if not own:
        return Deny((f"data set {names[0]!r} has no rule, so nothing leaves it",))
    reasons: list[str] = []
    missing: Approval | None = None
    too_small = False
    for rule in own:
        tried = _try(ask, rule, standing)
        if isinstance(tried, Permit):
            return tried
        reasons += tried.reasons
        missing = missing or tried.approval
        too_small = too_small or tried.too_small
    return Deny(tuple(reasons), missing, too_small=too_small)


def may_receive(recipient: Recipient, rules: Mapping[DatasetName, Sequence[Rule]]) -> bool:
    """Return whether any rule could ever let something that is computed out to `recipient`.

    A stand-in is not computed: whom nothing but the rule `mock` names has no use for a plan.
    """
    return recipient.role in RECIPIENT_ROLES and any(
        rule.recipients is None or recipient.name in rule.recipients
        for own in rules.values()
        for rule in own
        if not isinstance(rule, Mock)
    )


def may_compute(recipient: Recipient, rules: Mapping[DatasetName, Sequence[Rule]]) -> bool:
    """Return whether `recipient` may hold values here: whom a rule names, or anybody where nothing is held."""
    return recipient.role in RECIPIENT_ROLES and (not rules or may_receive(recipient, rules))


def wrong_time(standing: Standing) -> str | None:
    """Return why nothing can be counted by time, or None; it stands still for as long as the clock was wrong once."""
    if standing.behind <= FAR_BEHIND_SECONDS:
        return None
    return (
        f"the clock is {standing.behind / 3600:,.1f} hours behind what it showed before, so nothing leaves that is "
        "counted by time; set it right and start the worker again; where records are still ahead of it, wait, or "
        "begin a new state folder"
    )


def _try(ask: Ask, rule: Rule, standing: Standing) -> Permit | Deny:
    """Return what one rule says."""
    failed = "; ".join(_failed(ask, rule, standing))
    if failed:
        return Deny((f"{rule.name}: {failed}",), too_small=_misses_workers(ask, rule, standing))
    if not isinstance(rule, Approval):
        return Permit(rule)
    found = _grant(ask, rule, standing)
    return Permit(rule, found) if isinstance(found, Grant) else Deny((f"{rule.name}: {found}",), rule)


def _misses_workers(ask: Ask, rule: Rule, standing: Standing) -> bool:
    """Return whether `rule` would permit `ask` in a sum over as many workers as it names, and so in no smaller one."""
    if not isinstance(rule, SecureSum) or not 0 < ask.protection.masked_among < rule.minimum_workers:
        return False
    enough = replace(ask, protection=replace(ask.protection, masked_among=rule.minimum_workers))
    return not any(_failed(enough, rule, standing))


def _failed(ask: Ask, rule: Rule, standing: Standing) -> Iterator[str]:
    """Yield each condition of `rule` that `ask` does not meet, short of an approval."""
    covers = _RELEASES[type(rule)]
    if ask.release not in covers:
        yield f"covers {', '.join(covers)}, not {ask.release}"
        return
    if ask.protection.masked_among and not isinstance(rule, SecureSum | Approval | DifferentialPrivacy):
        yield "covers what leaves in clear, and this would leave in a sum"
    if ask.recipient.role not in RECIPIENT_ROLES:
        yield f"the recipient is a {ask.recipient.role}, not a {' or '.join(RECIPIENT_ROLES)}"
    if rule.recipients is not None and ask.recipient.name not in rule.recipients:
        yield f"the recipient {ask.recipient.name!r} is not among {', '.join(rule.recipients)}"
    if rule.purpose is not None and ask.purpose != rule.purpose:
        yield f"the stated purpose is {ask.purpose!r:.80}, not {rule.purpose!r}"
    yield from _failed_of_its_own(ask, rule)
    by_time = rule.rounds_per_day is not None or isinstance(rule, Approval)
    if by_time and (wrong := wrong_time(standing)):
        yield wrong
    if rule.rounds_per_day is not None:
        used = standing.used.get(cite(rule), 0)
        if not used < rule.rounds_per_day:
            yield f"the rule was used {used} times in the last 24 hours, its limit is {rule.rounds_per_day}"


def _failed_of_its_own(ask: Ask, rule: Rule) -> Iterator[str]:
    """Yield each condition that `ask` does not meet of those that only this kind of rule has."""
    match rule:
        case Statistics() | Metrics():
            yield from _failed_kinds(ask.kinds, rule.kinds)
        case SecureSum():
            yield from _failed_masking(ask.protection.masked_among, rule.minimum_workers)
            if rule.maximum_epsilon is not None:
                yield from _failed_noise(ask, rule.maximum_epsilon)
        case DifferentialPrivacy():
            yield from _failed_noise(ask, rule.maximum_epsilon)
        case Approval():
            yield from _failed_request(ask)


def _failed_kinds(asked: Sequence[str], allowed: Sequence[str]) -> Iterator[str]:
    if not asked:
        yield "asks for no kind"
    other = [kind for kind in asked if kind not in allowed]
    if other:
        yield f"asks for {', '.join(map(repr, other))}, allowed are {', '.join(allowed)}"


def _failed_masking(masked_among: int, minimum: int) -> Iterator[str]:
    if not masked_among >= minimum:
        found = f"in a sum over {masked_among} workers" if masked_among else "in clear"
        yield f"it would leave {found}, and {minimum} is the least"


def _failed_noise(ask: Ask, maximum: float) -> Iterator[str]:
    epsilon = ask.protection.epsilon
    if epsilon is None:
        instead = (
            "" if ask.release == "update" else f"; noise is made for updates alone, {ask.release} take another rule"
        )
        yield f"it would leave without noise of this worker's own, and epsilon {maximum:g} is the limit{instead}"
    elif not 0 <= epsilon <= maximum:
        yield f"the job would cost epsilon {epsilon:g}, and {maximum:g} is the limit"


def _failed_request(ask: Ask) -> Iterator[str]:
    """Yield why an approval of the request could not cover `ask`: it must be part of what the owner is shown."""
    request = ask.request
    if request is None:
        yield "nothing was asked of the owner"
    elif not (
        request.recipient == ask.recipient
        and all(origin.dataset == request.dataset for origin in ask.label.origins)
        and ask.release in request.releases
        and set(ask.kinds) <= set(request.kinds)
        and request.purpose == ask.purpose
        and request.masked_among <= ask.protection.masked_among
    ):
        yield f"the request {request.id} asks for something else"


def _grant(ask: Ask, rule: Approval, standing: Standing) -> Grant | str:
    """Return the first grant under `rule` that is in force for the request of `ask`, or why there is none."""
    cited = cite(rule)
    given = [grant for grant in standing.grants if grant.request == ask.request and grant.rule == cited]
    if not given:
        return "the owner has not approved the request yet"
    valid = [grant for grant in given if standing.now < grant.expires]
    if not valid:
        latest = datetime.fromtimestamp(max(grant.expires for grant in given), UTC)
        return f"the approval expired on {latest:%Y-%m-%d %H:%M:%S} UTC, and the owner has not approved it again"
    for grant in valid:
        if standing.used.get(grant.digest, 0) < grant.releases:
            return grant
    approved = sum(grant.releases for grant in valid)
    return f"the approval is used up ({approved} of {approved} releases), and the owner has not approved it again"
