"""Rules as the owner writes them: read strictly, said in words, never ignored."""

import pytest

from fedpriv.errors import ConfigError, UsageError
from fedpriv.policy.rules import (
    Metrics,
    PlainUpdate,
    Statistics,
    in_words,
    parse_rules,
    reveals_rows,
    rounded_rows,
    weight_of,
)

WHERE = "worker.toml release"


def test_rules_are_read_in_the_owners_order():
    rules = parse_rules(
        [
            {"rule": "plain-update", "recipients": ["coordinator-1"], "weight": "exact"},
            {"rule": "statistics", "kinds": ["count", "sum"]},
            {"rule": "metrics", "recipients": ["ann", "bo"], "purpose": "triage"},
        ],
        WHERE,
    )
    assert rules == (
        PlainUpdate(("coordinator-1",), weight="exact"),
        Statistics(("count", "sum")),
        Metrics(recipients=("ann", "bo"), purpose="triage"),
    )


def test_lists_become_tuples_so_that_a_rule_cannot_change():
    rule = PlainUpdate(recipients=["me"])
    assert rule.recipients == ("me",)
    assert hash(rule) == hash(PlainUpdate(("me",)))


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"release\[1\]: 'plain-updates' is no rule \(did you mean 'plain-update'\?\)"
    ):
        parse_rules([{"rule": "plain-updates", "recipients": ["me"]}], WHERE)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"recipients": ["me"]}, "does not say which rule it is; write rule = one of"),
        ({"rule": 3}, "does not say which rule it is"),
        ({"rule": ["metrics"]}, "does not say which rule it is"),
        ({"rule": "plain-update"}, "'recipients' is missing; add it as an array"),
        ({"rule": "plain-update", "recipients": []}, "recipients is empty"),
        ({"rule": "plain-update", "recipients": ["Not A Name"]}, "recipient name 'Not A Name' is not usable"),
        ({"rule": "plain-update", "recipients": "me"}, "recipients must be an array"),
        ({"rule": "plain-update", "recipients": ["me"], "wieght": "exact"}, r"did you mean 'weight'\?"),
        ({"rule": "plain-update", "recipients": ["me"], "weight": "exactly"}, r"did you mean 'exact'\?"),
        ({"rule": "statistics", "kinds": ["sums"]}, r"did you mean 'sum'\?"),
        ({"rule": "statistics", "kinds": []}, "kinds is empty"),
        ({"rule": "metrics", "kinds": ["auc"]}, "one of 'loss', 'accuracy'"),
        ({"rule": "metrics", "maximum_epsilon": 3.0}, "'maximum_epsilon' is no key here"),
        ("plain-update", "must be a table, not a string"),
    ],
)
def test_a_rule_that_is_written_wrongly_says_where_and_what_to_do(written, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        parse_rules([written], WHERE)
    assert str(refusal.value).startswith("worker.toml release[1]")


def test_rules_must_be_a_list():
    with pytest.raises(ConfigError, match="must be an array"):
        parse_rules({"rule": "metrics"}, WHERE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlainUpdate(recipients="me"), r"write a list of names, such as \['me'\]"),
        (lambda: PlainUpdate(recipients=("me",), weight="none"), "weight has 'none'"),
        (lambda: Statistics(kinds="sum"), r"write a list, such as \['sum'\]"),
        (lambda: Statistics(recipients=()), "recipients is empty"),
        (lambda: Metrics(kinds=("los",)), r"did you mean 'loss'\?"),
    ],
)
def test_a_rule_made_in_python_is_checked_too(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_rule_is_said_in_words():
    assert in_words(PlainUpdate(("ann", "bo"), weight="exact", purpose="triage")) == (
        "ann, bo may see each update of this worker, weighted by its exact row count, for the purpose 'triage'"
    )
    assert in_words(Statistics(("sum",))) == "any coordinator or researcher may see per-column statistics (sum)"
    assert in_words(Metrics(recipients=("ann",))) == "ann may see metrics (loss, accuracy)"


def test_a_weight_says_no_more_of_the_row_count_than_its_rule_allows():
    assert weight_of(PlainUpdate(("me",), weight="exact"), 347) == 347.0
    assert weight_of(PlainUpdate(("me",)), 347) == 340.0
    assert weight_of(PlainUpdate(("me",)), 7) == 1.0
    assert weight_of(PlainUpdate(("me",), weight="uniform"), 347) == 1.0
    assert rounded_rows(9) == 0


def test_a_rule_knows_whether_it_lets_the_row_count_out():
    assert reveals_rows(PlainUpdate(("me",)))
    assert not reveals_rows(PlainUpdate(("me",), weight="uniform"))
    assert reveals_rows(Statistics())
    assert not reveals_rows(Statistics(("sum",)))
    assert not reveals_rows(Metrics())
