"""The owner's rules, as values: who may learn what from one data set.

Any one rule suffices, all conditions within it must hold, and without a rule nothing leaves. A rule that this version
cannot keep is refused where it is read, never ignored. Rules neither release nor compute: `decision` compares
them with what would leave, and the worker's door acts on the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from fedpriv import settings
from fedpriv.errors import ConfigError, UsageError, nearest
from fedpriv.ids import checked_name

Weight: TypeAlias = Literal["exact", "rounded", "uniform"]
StatisticKind: TypeAlias = Literal["count", "sum", "sum-of-squares"]
MetricKind: TypeAlias = Literal["loss", "accuracy"]

STATISTIC_KINDS: tuple[str, ...] = get_args(StatisticKind)
METRIC_KINDS: tuple[str, ...] = get_args(MetricKind)


@dataclass(frozen=True, slots=True)
class PlainUpdate:
    """Each named recipient may see this worker's own update, and how much it weighs in the mean.

    The weight is the exact number of training rows, that number rounded down to tens, or 1 for every worker.
    """

    name: ClassVar[str] = "plain-update"
    recipients: tuple[str, ...]
    weight: Weight = "rounded"
    purpose: str | None = None

    def __post_init__(self) -> None:
        _set(self, recipients=_names(self.recipients))
        _known("weight", (self.weight,), get_args(Weight))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Recipients (None: any coordinator or researcher) may see these statistics of each feature column."""

    name: ClassVar[str] = "statistics"
    kinds: tuple[StatisticKind, ...] = ("count", "sum", "sum-of-squares")
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None

    def __post_init__(self) -> None:
        _set(self, kinds=_known("kinds", self.kinds, STATISTIC_KINDS))
        if self.recipients is not None:
            _set(self, recipients=_names(self.recipients))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Recipients (None: any coordinator or researcher) may see these metrics of a model on this data set."""

    name: ClassVar[str] = "metrics"
    kinds: tuple[MetricKind, ...] = ("loss", "accuracy")
    recipients: tuple[str, ...] | None = None
    purpose: str | None = None

    def __post_init__(self) -> None:
        _set(self, kinds=_known("kinds", self.kinds, METRIC_KINDS))
        if self.recipients is not None:
            _set(self, recipients=_names(self.recipients))


Rule: TypeAlias = PlainUpdate | Statistics | Metrics

RULES: Mapping[str, type[Rule]] = {
    PlainUpdate.name: PlainUpdate,
    Statistics.name: Statistics,
    Metrics.name: Metrics,
}
_WEIGHTS_IN_WORDS: Mapping[str, str] = {
    "exact": "its exact row count",
    "rounded": "its row count rounded down to tens",
    "uniform": "1",
}
LATER = ("secure-sum", "approval", "differential-privacy", "mock")


def parse_rules(value: object, where: str) -> tuple[Rule, ...]:
    """Return the rules of a TOML array of tables; raise `ConfigError` for one that is unknown or cannot be kept."""
    rules = settings.array(value, where)
    return tuple(_parse_rule(rule, f"{where}[{index}]") for index, rule in enumerate(rules, start=1))


def in_words(rule: Rule) -> str:
    """Return what `rule` lets out, as a sentence that its owner can check."""
    if isinstance(rule, PlainUpdate):
        what = f"each update of this worker, weighted by {_WEIGHTS_IN_WORDS[rule.weight]}"
    else:
        noun = "per-column statistics" if isinstance(rule, Statistics) else "metrics"
        what = f"{noun} ({', '.join(rule.kinds)})"
    who = "any coordinator or researcher" if rule.recipients is None else ", ".join(rule.recipients)
    purpose = f", for the purpose {rule.purpose!r}" if rule.purpose is not None else ""
    return f"{who} may see {what}{purpose}"


def rounded_rows(rows: int) -> int:
    """Return a row count rounded down to tens, the most that is said of it unless its owner says otherwise."""
    return rows // 10 * 10


def weight_of(rule: PlainUpdate, rows: int) -> float:
    """Return the weight of an update over `rows` training rows under `rule`, never less than 1."""
    if rule.weight == "exact":
        return float(rows)
    return float(max(1, rounded_rows(rows))) if rule.weight == "rounded" else 1.0


def reveals_rows(rule: Rule) -> bool:
    """Return whether `rule` lets a row count out, exact or rounded."""
    if isinstance(rule, PlainUpdate):
        return rule.weight != "uniform"
    return isinstance(rule, Statistics) and "count" in rule.kinds


def _parse_rule(value: object, where: str) -> Rule:
    conditions = dict(settings.table(value, where))
    name = conditions.pop("rule", None)
    if name in LATER:
        raise ConfigError(f"{where}: this version does not know how to keep the rule {name!r}; remove it or upgrade")
    if not isinstance(name, str):
        raise ConfigError(f"{where} does not say which rule it is; write rule = one of {', '.join(map(repr, RULES))}")
    if name not in RULES:
        close = nearest(name, RULES)
        raise ConfigError(f"{where}: {name!r} is no rule{close}; write rule = one of {', '.join(map(repr, RULES))}")
    return settings.read(conditions, RULES[name], where=f"{where} {name}")


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
