"""The owner's rules, as values: who may learn what from one data set.

Any one rule suffices, all conditions within it must hold, and without a rule nothing leaves. A rule that cannot be
kept as written is refused where it is read, never ignored. Rules neither release nor compute: `decision` compares
them with what would leave, `contradictions` compares them with each other, and the worker's door acts on the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeAlias, get_args

from fedpriv import canonical, settings
from fedpriv.errors import ConfigError, UsageError, nearest
from fedpriv.ids import checked_name

Weight: TypeAlias = Literal["exact", "rounded", "uniform"]
StatisticKind: TypeAlias = Literal["count", "sum", "sum-of-squares"]
MetricKind: TypeAlias = Literal["loss", "accuracy"]

STATISTIC_KINDS: tuple[str, ...] = get_args(StatisticKind)
METRIC_KINDS: tuple[str, ...] = get_args(MetricKind)
FEWEST_WORKERS = 3
"""In a sum of two, each of them can subtract its own and read the other's."""


@dataclass(frozen=True, slots=True)
class PlainUpdate:
    """Each named recipient may see this worker's own update, and how much it weighs in the mean.

    The weight is the exact number of training rows, that number rounded down to tens, or 1 for every worker.
    `rounds_per_day`, of any rule, is how often it may let something out within 24 hours.
    """

    name: ClassVar[str] = "plain-update"
    recipients: tuple[str, ...]
    weight: Weight = "rounded"
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _set(self, recipients=_names(self.recipients))
        _known("weight", (self.weight,), get_args(Weight))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Recipients (None: any coordinator or researcher) may see these statistics of each feature column."""

    name: ClassVar[str] = "statistics"
    kinds: tuple[StatisticKind, ...] = ("count", "sum", "sum-of-squares")
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _set(self, kinds=_known("kinds", self.kinds, STATISTIC_KINDS))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Recipients (None: any coordinator or researcher) may see these metrics of a model on this data set."""

    name: ClassVar[str] = "metrics"
    kinds: tuple[MetricKind, ...] = ("loss", "accuracy")
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _set(self, kinds=_known("kinds", self.kinds, METRIC_KINDS))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class SecureSum:
    """Recipients may see sums over at least `minimum_workers` workers: updates, metrics, statistics; nothing of one.

    With `maximum_epsilon`, what goes into the sum is noised by the workers to that epsilon for one job, all its rounds.
    """

    name: ClassVar[str] = "secure-sum"
    minimum_workers: int = FEWEST_WORKERS
    maximum_epsilon: float | None = None
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _check_whole("minimum_workers", self.minimum_workers, at_least=FEWEST_WORKERS)
        if self.maximum_epsilon is not None:
            _set(self, maximum_epsilon=_epsilon(self.maximum_epsilon))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class DifferentialPrivacy:
    """Recipients may see what is noised at this worker to `maximum_epsilon` at most for one job, all its rounds."""

    name: ClassVar[str] = "differential-privacy"
    maximum_epsilon: float
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _set(self, maximum_epsilon=_epsilon(self.maximum_epsilon))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class Approval:
    """Recipients may see what the owner approved, request by request; `weight` as in a plain update."""

    name: ClassVar[str] = "approval"
    recipients: tuple[str, ...] | None = None
    weight: Weight = "rounded"
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _known("weight", (self.weight,), get_args(Weight))
        _check_shared(self)


@dataclass(frozen=True, slots=True)
class Mock:
    """Recipients may read the stand-in that the owner wrote; nothing of the rows is in it."""

    name: ClassVar[str] = "mock"
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None
    rounds_per_day: int | None = None

    def __post_init__(self) -> None:
        _check_shared(self)


Rule: TypeAlias = PlainUpdate | Statistics | Metrics | SecureSum | DifferentialPrivacy | Approval | Mock

RULES: Mapping[str, type[Rule]] = {kind.name: kind for kind in get_args(Rule)}
_WEIGHTS_IN_WORDS: Mapping[str, str] = {
    "exact": "its exact row count",
    "rounded": "its row count rounded down to tens",
    "uniform": "1",
}


def parse_rules(value: object, where: str) -> tuple[Rule, ...]:
    """Return the rules of a TOML array of tables; raise `ConfigError` for one that is unknown or cannot be kept."""
    rules = settings.array(value, where)
    return tuple(_parse_rule(rule, f"{where}[{index}]") for index, rule in enumerate(rules, start=1))


def cite(rule: Rule) -> str:
    """Return the rule's name and 16 hex digits over all its conditions, as ledger entries and approvals cite it."""
    conditions = [[part.name, getattr(rule, part.name)] for part in fields(rule)]
    return f"{rule.name}:{canonical.digest('fedpriv/rule/v1', rule.name, conditions).hex()[:16]}"


def in_words(rule: Rule) -> str:
    """Return what `rule` lets out, as a sentence that its owner can check."""
    who = "any coordinator or researcher" if rule.recipients is None else ", ".join(rule.recipients)
    purpose = f", for the purpose {rule.purpose!r}" if rule.purpose is not None else ""
    most = rule.rounds_per_day
    limit = f", {most} time{'' if most == 1 else 's'} in 24 hours at most" if most is not None else ""
    return f"{who} may see {_what(rule)}{purpose}{limit}"


def _what(rule: Rule) -> str:  # noqa: PLR0911 - one for each rule
    match rule:
        case PlainUpdate():
            return f"each update of this worker, weighted by {_WEIGHTS_IN_WORDS[rule.weight]}"
        case Statistics():
            return f"per-column statistics ({', '.join(rule.kinds)})"
        case Metrics():
            return f"metrics ({', '.join(rule.kinds)})"
        case SecureSum():
            noised = "" if rule.maximum_epsilon is None else f", noised to epsilon {rule.maximum_epsilon:g} a job"
            return f"sums over at least {rule.minimum_workers} workers, never the update of this one{noised}"
        case DifferentialPrivacy():
            return f"what this worker noised to epsilon {rule.maximum_epsilon:g} a job, billed to the budget"
        case Approval():
            return f"what its owner approved, updates weighted by {_WEIGHTS_IN_WORDS[rule.weight]}"
    return "the stand-in that its owner wrote"


def rounded_rows(rows: int) -> int:
    """Return a row count rounded down to tens, the most that is said of it unless its owner says otherwise."""
    return rows // 10 * 10


def weight_of(rule: Rule | None, rows: int) -> float:
    """Return the weight of an update over `rows` training rows under `rule`: at least 1, and 1 where it says none."""
    weight = rule.weight if isinstance(rule, PlainUpdate | Approval) else "uniform"
    if weight == "exact":
        return float(max(1, rows))
    return float(max(1, rounded_rows(rows))) if weight == "rounded" else 1.0


def reveals_rows(rule: Rule) -> bool:
    """Return whether `rule` lets a row count out, exact or rounded."""
    if isinstance(rule, PlainUpdate | Approval):
        return rule.weight != "uniform"
    return isinstance(rule, Statistics) and "count" in rule.kinds


def _parse_rule(value: object, where: str) -> Rule:
    conditions = dict(settings.table(value, where))
    name = conditions.pop("rule", None)
    if not isinstance(name, str):
        raise ConfigError(f"{where} does not say which rule it is; write rule = one of {', '.join(map(repr, RULES))}")
    if name not in RULES:
        close = nearest(name, RULES)
        raise ConfigError(f"{where}: {name!r} is no rule{close}; write rule = one of {', '.join(map(repr, RULES))}")
    return settings.read(conditions, RULES[name], where=f"{where} {name}")


def _check_shared(rule: Rule) -> None:
    """Check the conditions that every rule has."""
    if rule.recipients is not None:
        _set(rule, recipients=_names(rule.recipients))
    if rule.rounds_per_day is not None:
        _check_whole("rounds_per_day", rule.rounds_per_day, at_least=1)


def _check_whole(what: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise UsageError(f"{what} is {value!r}; use a whole number of at least {at_least}")


def _epsilon(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise UsageError(f"maximum_epsilon is {value!r}; use a number above 0, such as 3.0")
    return float(value)


def _names(recipients: Sequence[str]) -> tuple[str, ...]:
    if isinstance(recipients, str):
        raise UsageError(f"recipients is the string {recipients!r}; write a list of names, such as [{recipients!r}]")
    if not recipients:
        raise UsageError("recipients is empty, so the rule lets nothing out; name a recipient or remove the rule")
    return tuple(checked_name("recipient", name) for name in recipients)


def _known(what: str, given: Iterable[str], valid: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UsageError(f"{what} is the string {given!r}; write a list, such as [{given!r}]")
    given = tuple(given)
    if not given:
        raise UsageError(f"{what} is empty, so the rule lets nothing out; use some of {', '.join(valid)}")
    for name in given:
        if name not in valid:
            raise UsageError(f"{what} has {name!r}{nearest(str(name), valid)}; use one of {', '.join(valid)}")
    return given


def _set(rule: Rule, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(rule, name, value)
