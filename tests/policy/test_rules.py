"""Rules as the owner writes them: read strictly, said in words, never ignored."""

import pytest

from fedpriv.errors import ConfigError, UsageError
from fedpriv.policy.rules import (
    RULES,
    Approval,
    DifferentialPrivacy,
    Metrics,
    Mock,
    PlainUpdate,
    SecureSum,
    Statistics,
    cite,
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
            {"rule": "secure-sum", "minimum_workers": 5, "maximum_epsilon": 3, "rounds_per_day": 20},
            {"rule": "differential-privacy", "maximum_epsilon": 3.0},
            {"rule": "approval", "recipients": ["ann"], "weight": "uniform"},
            {"rule": "mock"},
        ],
        WHERE,
    )
    assert rules == (
        PlainUpdate(("coordinator-1",), weight="exact"),
        Statistics(("count", "sum")),
        Metrics(recipients=("ann", "bo"), purpose="triage"),
        SecureSum(5, 3.0, rounds_per_day=20),
        DifferentialPrivacy(3.0),
        Approval(("ann",), "uniform"),
        Mock(),
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
        ({"rule": "metrics", "rounds_per_day": 0}, "rounds_per_day is 0; use a whole number of at least 1"),
        ({"rule": "metrics", "rounds_per_day": 2.5}, "rounds_per_day must be a whole number"),
        ({"rule": "metrics", "rounds_per_day": True}, "rounds_per_day must be a whole number"),
        ({"rule": "secure-sum", "minimum_workers": 2}, "minimum_workers is 2; use a whole number of at least 3"),
        ({"rule": "secure-sum", "maximum_epsilon": 0}, "maximum_epsilon is 0.0; use a number above 0"),
        ({"rule": "differential-privacy"}, "'maximum_epsilon' is missing; add it as a number"),
        ({"rule": "differential-privacy", "maximum_epsilon": float("nan")}, "maximum_epsilon is nan; use a number"),
        ({"rule": "differential-privacy", "maximum_epsilon": float("inf")}, "maximum_epsilon is inf; use a number"),
        ({"rule": "approval", "weight": "round"}, r"did you mean 'rounded'\?"),
        ({"rule": "mock", "kinds": ["loss"]}, "'kinds' is no key here"),
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
        (lambda: Metrics(rounds_per_day=True), "rounds_per_day is True; use a whole number"),
        (lambda: SecureSum(3.0), "minimum_workers is 3.0; use a whole number"),
        (lambda: SecureSum(maximum_epsilon="3"), "maximum_epsilon is '3'; use a number"),
        (lambda: DifferentialPrivacy(True), "maximum_epsilon is True; use a number"),
        (lambda: DifferentialPrivacy(-1), "maximum_epsilon is -1; use a number"),
        (lambda: Approval(weight="none"), "weight has 'none'"),
        (lambda: Approval(recipients="me"), r"write a list of names, such as \['me'\]"),
        (lambda: Mock(recipients=()), "recipients is empty"),
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
    assert in_words(SecureSum(5, 3, rounds_per_day=9)) == (
        "any coordinator or researcher may see sums over at least 5 workers, never the update of this one, "
        "noised to epsilon 3 a job, 9 times in 24 hours at most"
    )
    assert in_words(SecureSum(recipients=("ann",))) == (
        "ann may see sums over at least 3 workers, never the update of this one"
    )
    assert in_words(DifferentialPrivacy(2.5, ("ann",), "triage", 1)) == (
        "ann may see what this worker noised to epsilon 2.5 a job, billed to the budget, for the purpose 'triage', "
        "1 time in 24 hours at most"
    )
    assert in_words(Approval(("ann",))) == (
        "ann may see what its owner approved, updates weighted by its row count rounded down to tens"
    )
    assert in_words(Mock()) == "any coordinator or researcher may see the stand-in that its owner wrote"


def test_a_weight_says_no_more_of_the_row_count_than_its_rule_allows():
    assert weight_of(PlainUpdate(("me",), weight="exact"), 347) == 347.0
    assert weight_of(PlainUpdate(("me",)), 347) == 340.0
    assert weight_of(PlainUpdate(("me",)), 7) == 1.0
    assert weight_of(PlainUpdate(("me",), weight="uniform"), 347) == 1.0
    assert weight_of(PlainUpdate(("me",), weight="exact"), 0) == 1.0
    assert weight_of(Approval(weight="exact"), 347) == 347.0
    assert weight_of(Approval(), 347) == 340.0
    assert weight_of(SecureSum(), 347) == weight_of(DifferentialPrivacy(1.0), 347) == weight_of(None, 347) == 1.0
    assert rounded_rows(9) == 0


def test_a_rule_knows_whether_it_lets_the_row_count_out():
    assert reveals_rows(PlainUpdate(("me",)))
    assert not reveals_rows(PlainUpdate(("me",), weight="uniform"))
    assert reveals_rows(Statistics())
    assert not reveals_rows(Statistics(("sum",)))
    assert not reveals_rows(Metrics())
    assert reveals_rows(Approval())
    assert not reveals_rows(Approval(weight="uniform"))
    assert not any(map(reveals_rows, (SecureSum(), DifferentialPrivacy(1.0), Mock())))


EVERY = (
    PlainUpdate(("me",)),
    PlainUpdate(("me",), "exact"),
    PlainUpdate(("me", "ann")),
    PlainUpdate(("me",), purpose="triage"),
    PlainUpdate(("me",), rounds_per_day=1),
    Statistics(("sum",)),
    Statistics(),
    Metrics(),
    SecureSum(),
    SecureSum(4),
    SecureSum(maximum_epsilon=1.0),
    DifferentialPrivacy(1.0),
    DifferentialPrivacy(2.0),
    Approval(),
    Approval(weight="uniform"),
    Mock(),
    Mock(rounds_per_day=1),
)


def test_a_citation_names_the_rule_and_every_condition():
    assert len(set(map(cite, EVERY))) == len(EVERY)
    for rule in EVERY:
        name, digits = cite(rule).split(":")
        assert name == rule.name
        assert len(bytes.fromhex(digits)) == 8
    assert cite(DifferentialPrivacy(3)) == cite(DifferentialPrivacy(3.0))
    assert cite(PlainUpdate(["me"])) == cite(PlainUpdate(("me",)))


def test_every_rule_has_a_name_of_its_own_and_is_said_in_words_of_its_own():
    assert {type(rule) for rule in EVERY} == set(RULES.values())
    assert len(set(map(in_words, EVERY))) == len(EVERY)
