"""Rules of one data set that cannot all be meant: found when they are written, not when something has left.

Each refusal names the rules by their position, from 1, and says what to do. It decides nothing about a release, and
it does not say that the rules are wise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from fedpriv.errors import UsageError
from fedpriv.policy.rules import DifferentialPrivacy, Mock, PlainUpdate, Rule, SecureSum, reveals_rows


def check_rules(
    rules: Sequence[Rule], *, epsilon: float | None = None, has_mock: bool = False, hides_rows: bool = False
) -> None:
    """Raise `UsageError` for the first of `rules` that another one, or what the data set lacks, contradicts.

    `epsilon` is that of the data set's budget, None without one; `has_mock` says that it has a stand-in, and
    `hides_rows` that its row count must not leave.
    """
    numbered = tuple(enumerate(rules, start=1))
    for position, rule in numbered:
        if hides_rows and reveals_rows(rule):
            raise UsageError(
                f"it hides its row count, but its rule {rule.name!r} would reveal it; "
                'use weight = "uniform", statistics without "count", or rows = "rounded"'
            )
        if isinstance(rule, Mock) and not has_mock:
            raise UsageError(
                f"rule {position}, {rule.name!r}, has no stand-in to let out; add mock = ..., or remove the rule"
            )
        _check_noise(position, rule, epsilon)
        _check_effect(position, rule, rules)
    for (first, one), (second, other) in combinations(numbered, 2):
        if type(one) is type(other) and _may_meet(one, other):
            raise UsageError(
                f"rules {first} and {second} are both {one.name!r} and can both hold for {_who(one, other)}; "
                "merge them into one, or separate them by their recipients or purposes"
            )


def _check_noise(position: int, rule: Rule, epsilon: float | None) -> None:
    """Raise `UsageError` for a limit on noise that no budget bills, or that is larger than the budget."""
    if not isinstance(rule, DifferentialPrivacy | SecureSum) or rule.maximum_epsilon is None:
        return
    if epsilon is None:
        raise UsageError(
            f"rule {position}, {rule.name!r}, bills what it lets out to a budget, and there is none; "
            f"add budget = {{ epsilon = {rule.maximum_epsilon:g}, delta = 1e-5 }} or more"
        )
    if rule.maximum_epsilon > epsilon:
        raise UsageError(
            f"rule {position}, {rule.name!r}, has maximum_epsilon {rule.maximum_epsilon:g} for one job, more than the "
            f"epsilon {epsilon:g} of the whole budget; lower it, or raise the budget"
        )


def _check_effect(position: int, rule: Rule, rules: Sequence[Rule]) -> None:
    """Raise `UsageError` for a protection of updates that each of its recipients can do without."""
    if not isinstance(rule, DifferentialPrivacy | SecureSum) or rule.recipients is None:
        return
    plain = {
        name: other
        for other, each in enumerate(rules, start=1)
        if isinstance(each, PlainUpdate) and each.purpose in {None, rule.purpose}
        for name in each.recipients
    }
    if plain.keys() >= set(rule.recipients):
        others = sorted({plain[name] for name in rule.recipients})
        which = f"rule {others[0]} lets" if len(others) == 1 else f"rules {', '.join(map(str, others))} let"
        raise UsageError(
            f"rule {position}, {rule.name!r}, has no effect: {which} {', '.join(rule.recipients)} "
            "see each update in clear; remove one or the other"
        )


def _may_meet(one: Rule, other: Rule) -> bool:
    """Return whether one release could be permitted by both rules."""
    same_purpose = one.purpose is None or other.purpose is None or one.purpose == other.purpose
    apart = one.recipients is not None and other.recipients is not None and not {*one.recipients} & {*other.recipients}
    return same_purpose and not apart


def _who(one: Rule, other: Rule) -> str:
    """Return the recipients that two rules share, in words."""
    if one.recipients is None and other.recipients is None:
        return "any coordinator or researcher"
    if one.recipients is None or other.recipients is None:
        return ", ".join(one.recipients or other.recipients or ())
    return ", ".join(name for name in one.recipients if name in other.recipients)
