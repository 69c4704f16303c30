"""May it leave? Default deny, any one rule, all of its conditions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import PUBLIC, private
from fedpriv.policy.decision import Ask, Deny, Permit, Recipient, decide
from fedpriv.policy.rules import Metrics, PlainUpdate, Statistics

ROWS = DatasetName("rows")
LABEL = private(ROWS, PeerName("bob"))
ME = Recipient(PeerName("me"), "coordinator")
UPDATE = Ask("update", LABEL, ME)


def test_a_public_value_leaves_without_any_rule():
    assert decide(replace(UPDATE, label=PUBLIC), {}) == Permit(None)


def test_without_a_rule_nothing_leaves():
    assert decide(UPDATE, {}) == Deny(("data set 'rows' has no rule, so nothing leaves it",))
    assert isinstance(decide(UPDATE, {ROWS: ()}), Deny)


def test_a_rule_of_another_data_set_does_not_count():
    assert isinstance(decide(UPDATE, {DatasetName("others"): [PlainUpdate(("me",))]}), Deny)


def test_any_one_rule_suffices_and_the_first_that_holds_is_the_one():
    rules = [Metrics(), PlainUpdate(("else",)), PlainUpdate(("me",), weight="exact"), PlainUpdate(("me",))]
    assert decide(UPDATE, {ROWS: rules}) == Permit(rules[2])


def test_every_rule_is_named_with_each_condition_that_failed():
    ask = replace(UPDATE, recipient=Recipient(PeerName("eve"), "worker"), purpose="curiosity")
    answer = decide(ask, {ROWS: [Statistics(), PlainUpdate(("me", "ann"), purpose="triage")]})
    assert answer == Deny(
        (
            "statistics: covers statistics, not update",
            "plain-update: the recipient is a worker, not a coordinator or researcher; "
            "the recipient 'eve' is not among me, ann; the stated purpose is 'curiosity', not 'triage'",
        )
    )


def test_a_value_of_two_data_sets_leaves_under_no_rule():
    both = LABEL.join(private(DatasetName("others"), PeerName("bob")))
    rules = [PlainUpdate(("me",))]
    answer = decide(replace(UPDATE, label=both), {ROWS: rules, DatasetName("others"): rules})
    assert answer == Deny(("it derives from several sources (others, rows), and no rule lets a mixture out",))


def test_the_same_data_set_of_two_principals_is_a_mixture_too():
    both = LABEL.join(private(ROWS, PeerName("carol")))
    assert isinstance(decide(replace(UPDATE, label=both), {ROWS: [PlainUpdate(("me",))]}), Deny)


@pytest.mark.parametrize("role", ["coordinator", "researcher"])
def test_a_rule_without_recipients_covers_coordinators_and_researchers(role):
    ask = Ask("metrics", LABEL, Recipient(PeerName("anyone"), role), ("loss",))
    assert decide(ask, {ROWS: [Metrics()]}) == Permit(Metrics())


def test_a_worker_is_no_recipient_even_when_its_name_is_listed():
    ask = replace(UPDATE, recipient=Recipient(PeerName("me"), "worker"))
    assert isinstance(decide(ask, {ROWS: [PlainUpdate(("me",))]}), Deny)


def test_all_kinds_that_are_asked_for_must_be_allowed():
    rules = {ROWS: [Statistics(("count", "sum"))]}
    assert isinstance(decide(Ask("statistics", LABEL, ME, ("sum", "count")), rules), Permit)
    assert decide(Ask("statistics", LABEL, ME, ("sum", "sum-of-squares", "median")), rules) == Deny(
        ("statistics: asks for 'sum-of-squares', 'median', allowed are count, sum",)
    )


def test_asking_for_no_kind_is_denied():
    assert decide(Ask("metrics", LABEL, ME), {ROWS: [Metrics()]}) == Deny(("metrics: asks for no kind",))


def test_a_purpose_must_be_stated_exactly():
    rules = {ROWS: [PlainUpdate(("me",), purpose="triage")]}
    assert isinstance(decide(replace(UPDATE, purpose="triage"), rules), Permit)
    assert isinstance(decide(replace(UPDATE, purpose="Triage"), rules), Deny)


def test_a_peers_purpose_is_quoted_on_one_line_and_cut():
    answer = decide(replace(UPDATE, purpose="x\n" * 5000), {ROWS: [PlainUpdate(("me",), purpose="triage")]})
    assert isinstance(answer, Deny)
    assert "\n" not in answer.reasons[0]
    assert len(answer.reasons[0]) < 200


NAMES = st.sampled_from(["me", "ann", "bo"])
KINDS = st.lists(st.sampled_from(["count", "sum", "sum-of-squares"]), min_size=1, unique=True).map(tuple)
PURPOSES = st.sampled_from([None, "triage", "trial"])
RECIPIENTS = st.lists(NAMES, min_size=1, unique=True).map(tuple)
RULES = st.lists(
    st.one_of(
        st.builds(PlainUpdate, recipients=RECIPIENTS, purpose=PURPOSES),
        st.builds(Statistics, kinds=KINDS, recipients=st.none() | RECIPIENTS, purpose=PURPOSES),
        st.builds(Metrics, recipients=st.none() | RECIPIENTS, purpose=PURPOSES),
    ),
    max_size=4,
)
ASKS = st.builds(
    Ask,
    release=st.sampled_from(["update", "statistics", "metrics"]),
    label=st.just(LABEL),
    recipient=st.builds(Recipient, NAMES, st.sampled_from(["coordinator", "researcher", "worker"])),
    kinds=KINDS,
    purpose=st.sampled_from(["", "triage", "trial"]),
)


@given(ASKS, RULES)
def test_a_permit_names_one_of_the_owners_rules_and_a_denial_a_reason_for_each(ask, rules):
    match decide(ask, {ROWS: rules}):
        case Permit(rule):
            assert rule in rules
            assert decide(ask, {ROWS: [rule]}) == Permit(rule)
        case Deny(reasons):
            assert len(reasons) == max(1, len(rules))


@given(ASKS, RULES, RULES)
def test_adding_a_rule_never_takes_a_permission_away(ask, rules, more):
    if isinstance(decide(ask, {ROWS: rules}), Permit):
        assert isinstance(decide(ask, {ROWS: [*more, *rules]}), Permit)
