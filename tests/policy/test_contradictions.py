"""Rules that cannot all be meant, found when they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.policy.contradictions import check_rules
from fedpriv.policy.rules import Approval, DifferentialPrivacy, Metrics, Mock, PlainUpdate, SecureSum, Statistics

ANN, BO, BOTH = ("ann",), ("bo",), ("ann", "bo")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [Metrics(), Approval(), Metrics(("loss",))],
            "rules 1 and 3 are both 'metrics' .* any coordinator or researcher",
        ),
        ([Metrics(recipients=ANN), Metrics()], "rules 1 and 2 are both 'metrics' and can both hold for ann; merge"),
        ([PlainUpdate(BOTH), PlainUpdate(("bo", "cy"))], "both 'plain-update' and can both hold for bo; merge them"),
        ([Approval(purpose="triage"), Approval()], "rules 1 and 2 are both 'approval'"),
        ([Statistics(), Statistics(("sum",), rounds_per_day=1)], "separate them by their recipients or purposes"),
        ([Mock(), Mock(ANN)], "rules 1 and 2 are both 'mock'"),
        ([SecureSum(recipients=ANN), PlainUpdate(BOTH)], "rule 1, 'secure-sum', has no effect: rule 2 lets ann see"),
        (
            [PlainUpdate(ANN), SecureSum(recipients=ANN, purpose="triage")],
            "rule 2, 'secure-sum', has no effect: rule 1",
        ),
        ([DifferentialPrivacy(1.0, ANN), PlainUpdate(ANN)], "rule 1, 'differential-privacy', has no effect"),
        (
            [PlainUpdate(ANN), PlainUpdate(BO, purpose="triage"), SecureSum(recipients=BOTH, purpose="triage")],
            "rule 3, 'secure-sum', has no effect: rules 1, 2 let ann, bo see each update in clear",
        ),
        ([DifferentialPrivacy(3.5)], "rule 1, .* has maximum_epsilon 3.5 for one job, more than the epsilon 3 of"),
        ([Approval(), SecureSum(maximum_epsilon=4)], "rule 2, 'secure-sum', has maximum_epsilon 4"),
    ],
)
def test_a_contradiction_names_its_rules_and_what_to_do(rules, message):
    with pytest.raises(UsageError, match=message):
        check_rules(rules, epsilon=3.0, has_mock=True)


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [PlainUpdate(ANN), PlainUpdate(BO)],
        [Metrics(purpose="triage"), Metrics(purpose="trial")],
        [Metrics(recipients=ANN, purpose="triage"), Metrics(recipients=ANN, purpose="trial")],
        [PlainUpdate(ANN), Approval(), Mock()],
        [PlainUpdate(ANN), SecureSum()],
        [PlainUpdate(ANN), SecureSum(recipients=BOTH)],
        [PlainUpdate(ANN, purpose="triage"), SecureSum(recipients=ANN)],
        [PlainUpdate(ANN, purpose="triage"), SecureSum(recipients=ANN, purpose="trial")],
        [SecureSum(recipients=ANN), DifferentialPrivacy(3.0, ANN), Approval(ANN), Statistics(), Metrics(), Mock()],
    ],
)
def test_rules_that_can_all_be_meant_are_taken(rules):
    check_rules(rules, epsilon=3.0, has_mock=True)


def test_noise_without_a_budget_is_refused():
    for rule in (DifferentialPrivacy(3.0), SecureSum(maximum_epsilon=3.0)):
        with pytest.raises(
            UsageError, match=r"and there is none; add budget = \{ epsilon = 3, delta = 1e-5 \} or more"
        ):
            check_rules([rule])
    check_rules([SecureSum()])


def test_a_stand_in_that_is_not_there_cannot_be_let_out():
    with pytest.raises(UsageError, match=r"rule 2, 'mock', has no stand-in to let out; add mock = \.\.\."):
        check_rules([Metrics(), Mock()])


def test_a_hidden_row_count_stays_hidden():
    for rule in (PlainUpdate(ANN), Approval(), Statistics()):
        with pytest.raises(UsageError, match=f"it hides its row count, but its rule {rule.name!r} would reveal it"):
            check_rules([Metrics(), rule], hides_rows=True)
    check_rules([PlainUpdate(ANN, "uniform"), Approval(weight="uniform"), Statistics(("sum",))], hides_rows=True)


RECIPIENTS = st.none() | st.lists(st.sampled_from(["ann", "bo", "cy"]), min_size=1, unique=True).map(tuple)
PURPOSES = st.sampled_from([None, "triage", "trial"])
RULES = st.one_of(
    *(st.builds(kind, recipients=RECIPIENTS, purpose=PURPOSES) for kind in (Metrics, Statistics, SecureSum, Approval))
)


def taken(rules):
    try:
        check_rules(rules)
    except UsageError:
        return False
    return True


@given(st.lists(RULES, max_size=4).flatmap(lambda rules: st.tuples(st.just(rules), st.permutations(rules))))
def test_the_order_of_rules_makes_no_contradiction(pair):
    assert taken(pair[0]) == taken(pair[1])


@given(st.lists(RULES, max_size=4))
def test_rules_are_taken_only_where_no_release_meets_two_of_a_kind(rules):
    held = [
        (type(rule), name, purpose)
        for rule in rules
        for name in rule.recipients or ("ann", "bo", "cy", "dee")
        for purpose in ("triage", "trial", "other")
        if rule.purpose in {None, purpose}
    ]
    assert taken(rules) == (len(set(held)) == len(held))
