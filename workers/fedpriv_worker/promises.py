"""What an owner asks for beside the rows themselves: rules, budget, row count, what is held out, on what legal basis.

Checked alike for `Dataset` and for a configuration, and before any row is read: what this version cannot keep, or what
contradicts itself, is refused with the data set's name. It keeps no promise; `release` and `journal` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from fedpriv.errors import UsageError, nearest
from fedpriv.ids import checked_name
from fedpriv.policy.contradictions import check_rules
from fedpriv.policy.rules import RULES, Rule
from fedpriv.privacy.budget import Budget

RowCount: TypeAlias = Literal["exact", "rounded", "hidden"]
LONGEST_LEGAL_BASIS = 200


def check_promises(
    name: str,
    release: Sequence[Rule],
    validation: float,
    rows: str,
    budget: Budget | None = None,
    *,
    has_mock: bool = False,
    legal_basis: str = "",
) -> None:
    """Raise `UsageError` unless this version can keep everything that the owner asks for."""
    checked_name("data set", name)
    if rows not in get_args(RowCount):
        close = nearest(str(rows), get_args(RowCount))
        raise UsageError(f"data set {name!r}: rows is {rows!r}{close}; use one of {', '.join(get_args(RowCount))}")
    if not 0.0 <= validation < 1.0:
        raise UsageError(f"data set {name!r}: validation is {validation}; use a share of at least 0 and below 1")
    _check_legal_basis(name, legal_basis)
    if budget is not None:
        _check_budget(name, budget)
    for rule in release:
        if not isinstance(rule, Rule):
            known = ", ".join(kind.__name__ for kind in RULES.values())
            raise UsageError(f"data set {name!r}: a {type(rule).__name__} is no rule; use {known}")
    try:
        check_rules(
            release,
            epsilon=None if budget is None else budget.epsilon,
            has_mock=has_mock,
            hides_rows=rows == "hidden",
        )
    except UsageError as error:
        raise UsageError(f"data set {name!r}: {error}") from None


def check_delta(name: str, budget: Budget | None, rows: int) -> None:
    """Raise `UsageError` unless the budget's delta is below 1 / `rows`: a larger one permits publishing a whole row."""
    if budget is not None and not budget.delta * rows < 1:
        raise UsageError(
            f"data set {name!r}: with its {rows} rows, delta {budget.delta:g} would allow one row to be published; "
            f"use a delta below {1 / rows:.2g}, such as 1e-{len(str(rows))}"
        )


def _check_legal_basis(name: str, legal_basis: str) -> None:
    if not isinstance(legal_basis, str) or len(legal_basis) > LONGEST_LEGAL_BASIS or not legal_basis.isprintable():
        raise UsageError(
            f"data set {name!r}: legal_basis is one line of at most {LONGEST_LEGAL_BASIS} characters, "
            "such as 'GDPR Art. 6(1)(e)'; shorten it, or name the document that holds it"
        )


def _check_budget(name: str, budget: Budget) -> None:
    if not isinstance(budget, Budget):
        raise UsageError(f"data set {name!r}: a {type(budget).__name__} is no budget; use Budget(epsilon, delta)")
