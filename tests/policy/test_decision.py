"""May it leave? Default deny, any one rule, all of its conditions."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import PUBLIC, private
from fedpriv.policy.decision import Ask, Deny, Permit, Protection, Recipient, Standing, decide, may_receive
from fedpriv.policy.requests import Grant, ReleaseRequest
from fedpriv.policy.rules import (
    Approval,
    DifferentialPrivacy,
    Metrics,
    Mock,
    PlainUpdate,
    SecureSum,
    Statistics,
    cite,
)

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


# --- sums, noise, approvals, stand-ins, limits -------------------------------------------------------------------


def masked(among, epsilon=None):
    return Protection(masked_among=among, epsilon=epsilon)


@pytest.mark.parametrize("release", ["update", "metrics", "statistics"])
def test_a_sum_leaves_when_enough_workers_are_in_it(release):
    rules = {ROWS: [SecureSum(5)]}
    ask = replace(UPDATE, release=release, protection=masked(5))
    assert decide(ask, rules) == Permit(SecureSum(5))
    assert decide(replace(ask, protection=masked(4)), rules) == Deny(
        ("secure-sum: it would leave in a sum over 4 workers, and 5 is the least",), too_small=True
    )
    assert decide(replace(ask, protection=Protection()), rules) == Deny(
        ("secure-sum: it would leave in clear, and 5 is the least",)
    )


def test_only_whom_a_rule_would_let_have_a_larger_sum_is_told_that_this_one_is_too_small():
    """The reason itself stays with the owner: for anybody else the rule might as well not be there."""
    ask = replace(UPDATE, protection=masked(4))
    named = SecureSum(5, recipients=(ask.recipient.name,), purpose=ask.purpose)
    assert decide(ask, {ROWS: [named]}).too_small
    assert decide(ask, {ROWS: [SecureSum(9, recipients=("another",)), named]}).too_small
    for rule in (
        SecureSum(5, recipients=("another",)),
        SecureSum(5, purpose="another"),
        SecureSum(5, maximum_epsilon=1.0),
        PlainUpdate(recipients=(ask.recipient.name,)),
    ):
        assert not decide(ask, {ROWS: [rule]}).too_small


def test_a_sum_with_a_limit_on_its_loss_has_to_be_noised_too():
    rules = {ROWS: [SecureSum(3, 2.0)]}
    assert isinstance(decide(replace(UPDATE, protection=masked(3, 2.0)), rules), Permit)
    assert decide(replace(UPDATE, protection=masked(3)), rules) == Deny(
        ("secure-sum: it would leave without noise of this worker's own, and epsilon 2 is the limit",)
    )
    assert decide(replace(UPDATE, protection=masked(0, 2.5)), rules) == Deny(
        ("secure-sum: it would leave in clear, and 3 is the least; the job would cost epsilon 2.5, and 2 is the limit",)
    )


@pytest.mark.parametrize("rule", [PlainUpdate(("me",)), Metrics(), Statistics()])
def test_what_leaves_in_a_sum_leaves_under_no_rule_for_what_is_in_clear(rule):
    release = {PlainUpdate: "update", Metrics: "metrics", Statistics: "statistics"}[type(rule)]
    kinds = () if release == "update" else rule.kinds
    ask = replace(UPDATE, release=release, kinds=kinds)
    assert decide(ask, {ROWS: [rule]}) == Permit(rule)
    assert decide(replace(ask, protection=masked(9)), {ROWS: [rule]}) == Deny(
        (f"{rule.name}: covers what leaves in clear, and this would leave in a sum",)
    )


def test_an_approval_of_a_sum_is_none_of_what_leaves_in_clear():
    request = replace(REQUEST, masked_among=5)
    standing = Standing(now=0.0, grants=(Grant(request, cite(Approval()), 1, 60.0),))
    ask = replace(UPDATE, request=request, purpose=request.purpose, protection=masked(5))
    assert isinstance(decide(ask, {ROWS: [Approval()]}, standing), Permit)
    assert isinstance(decide(replace(ask, protection=masked(4)), {ROWS: [Approval()]}, standing), Deny)
    assert isinstance(decide(replace(ask, protection=Protection()), {ROWS: [Approval()]}, standing), Deny)
    assert isinstance(decide(replace(ask, request=REQUEST), {ROWS: [Approval()]}, standing), Deny)


@pytest.mark.parametrize("release", ["update", "metrics", "statistics"])
def test_what_is_noised_leaves_up_to_the_limit_of_its_loss(release):
    rules = {ROWS: [DifferentialPrivacy(3.0)]}
    ask = replace(UPDATE, release=release, protection=masked(0, 3.0))
    assert decide(ask, rules) == Permit(DifferentialPrivacy(3.0))
    above = replace(ask, protection=masked(0, math.nextafter(3.0, 4.0)))
    assert isinstance(decide(above, rules), Deny)
    assert isinstance(decide(replace(ask, protection=masked(9)), rules), Deny)


@pytest.mark.parametrize("epsilon", [math.nan, math.inf, -math.inf, -0.5])
@pytest.mark.parametrize("rule", [DifferentialPrivacy(3.0), SecureSum(3, 3.0)])
def test_a_loss_that_is_no_loss_is_within_no_limit(epsilon, rule):
    assert isinstance(decide(replace(UPDATE, protection=masked(5, epsilon)), {ROWS: [rule]}), Deny)


@pytest.mark.parametrize("release", ["metrics", "statistics"])
@pytest.mark.parametrize("rule", [DifferentialPrivacy(2.0), SecureSum(maximum_epsilon=2.0)], ids=lambda rule: rule.name)
def test_what_no_noise_is_made_for_says_that_another_rule_could_let_it_out(release, rule):
    ask = replace(UPDATE, release=release, kinds=("loss",), protection=masked(5))
    found = decide(ask, {ROWS: [rule]})
    assert isinstance(found, Deny)
    assert f"noise is made for updates alone, {release} take another rule" in found.reasons[0]


def test_a_stand_in_leaves_under_its_own_rule_alone():
    ask = replace(UPDATE, release="mock")
    others = [PlainUpdate(("me",)), Statistics(), Metrics(), SecureSum(), DifferentialPrivacy(9.0)]
    assert decide(ask, {ROWS: [*others, Mock()]}) == Permit(Mock())
    assert isinstance(decide(ask, {ROWS: others}), Deny)
    assert isinstance(decide(UPDATE, {ROWS: [Mock()]}), Deny)


def test_a_stand_in_without_its_data_sets_label_stays():
    ask = replace(UPDATE, release="mock", label=PUBLIC)
    assert decide(ask, {ROWS: [Mock()]}) == Deny(
        ("a stand-in leaves under a rule of its data set, so it has to carry that data set's label",)
    )


@pytest.mark.parametrize("used", [0, 2, 3, 4, math.nan])
def test_a_rule_holds_so_many_times_a_day(used):
    rule = PlainUpdate(("me",), rounds_per_day=3)
    answer = decide(UPDATE, {ROWS: [rule]}, Standing(used={cite(rule): used}))
    if used < 3:
        assert answer == Permit(rule)
    else:
        assert answer == Deny((f"plain-update: the rule was used {used} times in the last 24 hours, its limit is 3",))


def test_uses_of_another_rule_do_not_count():
    rule = PlainUpdate(("me",), rounds_per_day=1)
    used = {cite(PlainUpdate(("me",))): 9, cite(PlainUpdate(("me",), rounds_per_day=2)): 9}
    assert decide(UPDATE, {ROWS: [rule]}, Standing(used=used)) == Permit(rule)


REQUEST = ReleaseRequest(ME, ROWS, ("update", "metrics"), ("loss",), "ab" * 32, "triage", 2, 32)
ASKED = replace(UPDATE, purpose="triage", request=REQUEST)
BY_HAND = Approval()
GRANT = Grant(REQUEST, cite(BY_HAND), releases=2, expires=1000.0)


def approved(ask=ASKED, rule=BY_HAND, **standing):
    return decide(ask, {ROWS: [rule]}, Standing(**{"now": 999.0, "grants": (GRANT,), **standing}))


def test_what_the_owner_approved_leaves_under_that_approval():
    assert approved() == Permit(BY_HAND, GRANT)
    assert approved(replace(ASKED, release="metrics", kinds=("loss",))) == Permit(BY_HAND, GRANT)
    assert approved(used={GRANT.digest: 1}) == Permit(BY_HAND, GRANT)


def test_without_an_approval_the_owner_is_to_be_asked():
    answer = approved(grants=())
    assert answer == Deny(("approval: the owner has not approved the request yet",), BY_HAND)
    assert answer.pending


@pytest.mark.parametrize("now", [1000.0, 1001.0, math.nan])
def test_an_approval_expires_at_its_time(now):
    again = "and the owner has not approved it again"
    assert approved(now=now) == Deny((f"approval: the approval expired on 1970-01-01 00:16:40 UTC, {again}",), BY_HAND)


@pytest.mark.parametrize("used", [2, 3, math.nan])
def test_an_approval_is_used_up(used):
    assert approved(used={GRANT.digest: used}) == Deny(
        ("approval: the approval is used up (2 of 2 releases), and the owner has not approved it again",), BY_HAND
    )


def test_another_approval_of_the_same_request_goes_on_where_one_is_used_up():
    other = replace(GRANT, releases=1)
    answer = approved(grants=(replace(GRANT, expires=5.0), GRANT, other), used={GRANT.digest: 2})
    assert answer == Permit(BY_HAND, other)


@pytest.mark.parametrize(
    "changed",
    [
        {"plan": "cd" * 32},
        {"epochs": 3},
        {"batch_size": 33},
        {"kinds": ("accuracy", "loss")},
        {"releases": ("metrics", "statistics", "update")},
    ],
)
def test_an_approval_is_for_that_request_and_no_other(changed):
    answer = approved(replace(ASKED, request=replace(REQUEST, **changed)))
    assert answer == Deny(("approval: the owner has not approved the request yet",), BY_HAND)


def test_an_approval_is_for_that_rule_and_no_other():
    rule = Approval(weight="exact")
    assert approved(rule=rule) == Deny(("approval: the owner has not approved the request yet",), rule)


@pytest.mark.parametrize(
    "changed",
    [
        {"release": "statistics"},
        {"release": "metrics", "kinds": ("loss", "accuracy")},
        {"purpose": "another"},
        {"recipient": Recipient(PeerName("me"), "researcher")},
        {"recipient": Recipient(PeerName("eve"), "coordinator")},
        {"label": private(DatasetName("others"), PeerName("bob"))},
    ],
)
def test_what_is_not_part_of_the_request_leaves_under_no_approval_of_it(changed):
    rules = {ROWS: [BY_HAND], DatasetName("others"): [BY_HAND]}
    answer = decide(replace(ASKED, **changed), rules, Standing(999.0, (GRANT,)))
    assert answer == Deny((f"approval: the request {REQUEST.id} asks for something else",))
    assert not answer.pending


def test_where_nothing_was_asked_nothing_is_pending():
    assert approved(replace(ASKED, request=None)) == Deny(("approval: nothing was asked of the owner",))


@pytest.mark.parametrize(
    ("rule", "used"),
    [(Approval(("ann",)), 0), (Approval(purpose="trial"), 0), (Approval(rounds_per_day=1), 1)],
)
def test_no_approval_helps_where_the_rule_does_not_hold(rule, used):
    answer = decide(ASKED, {ROWS: [rule]}, Standing(used={cite(rule): used}))
    assert isinstance(answer, Deny)
    assert not answer.pending


def test_one_rule_that_waits_for_an_approval_is_enough_to_ask():
    answer = decide(ASKED, {ROWS: [Statistics(), Approval(("ann",)), BY_HAND, Approval(weight="exact")]})
    assert isinstance(answer, Deny)
    assert answer.approval == BY_HAND
    assert len(answer.reasons) == 4


def test_a_request_that_the_owner_denied_leaves_under_no_rule():
    rules = {ROWS: [BY_HAND, PlainUpdate(("me",))]}
    standing = Standing(999.0, (GRANT,), refused=frozenset({REQUEST}))
    answer = decide(ASKED, rules, standing)
    assert answer == Deny((f"the owner denied the request {REQUEST.id}",), by_owner=True)
    assert not answer.pending
    other = replace(ASKED, request=replace(REQUEST, epochs=3))
    assert decide(other, rules, standing) == Permit(rules[ROWS][1])


@given(st.integers(0, 9), st.floats(0, 9), st.integers(0, 9), st.floats(0, 1))
def test_more_protection_never_takes_a_permission_away(among, epsilon, more, less):
    rules = {ROWS: [SecureSum(4, 3.0)]}
    if isinstance(decide(replace(UPDATE, protection=masked(among, epsilon)), rules), Permit):
        better = masked(among + more, epsilon * less)
        assert isinstance(decide(replace(UPDATE, protection=better), rules), Permit)


def test_a_plan_is_of_use_to_whom_a_rule_names():
    assert may_receive(ME, {DatasetName("others"): (), ROWS: (PlainUpdate(("ann",)), PlainUpdate(("me",)))})
    assert may_receive(ME, {ROWS: (Approval(),)})
    assert not may_receive(ME, {ROWS: (PlainUpdate(("ann",)),)})
    assert not may_receive(ME, {ROWS: ()})
    assert not may_receive(ME, {ROWS: (Mock(),)})
    assert not may_receive(Recipient(PeerName("me"), "worker"), {ROWS: (PlainUpdate(("me",)),)})


KINDS = st.lists(st.sampled_from(["count", "sum", "sum-of-squares"]), min_size=1, unique=True).map(tuple)
NAMES, PURPOSES = st.sampled_from(["me", "ann", "bo"]), st.sampled_from([None, "triage", "trial"])
RECIPIENTS = st.lists(NAMES, min_size=1, unique=True).map(tuple)
LIMITS, OFTEN = st.none() | st.floats(0.1, 5), st.none() | st.integers(1, 3)
RULES = st.lists(
    st.one_of(
        st.builds(PlainUpdate, recipients=RECIPIENTS, purpose=PURPOSES),
        st.builds(Statistics, kinds=KINDS, recipients=st.none() | RECIPIENTS, purpose=PURPOSES),
        st.builds(Metrics, recipients=st.none() | RECIPIENTS, purpose=PURPOSES),
        st.builds(SecureSum, st.integers(3, 6), LIMITS, st.none() | RECIPIENTS, PURPOSES, OFTEN),
        st.builds(DifferentialPrivacy, st.floats(0.1, 5), st.none() | RECIPIENTS, PURPOSES, OFTEN),
        st.builds(Approval, recipients=st.none() | RECIPIENTS, purpose=PURPOSES),
        st.builds(Mock, st.none() | RECIPIENTS, PURPOSES),
    ),
    max_size=4,
)
ASKS = st.builds(
    Ask,
    release=st.sampled_from(["update", "statistics", "metrics", "mock"]),
    label=st.just(LABEL),
    recipient=st.builds(Recipient, NAMES, st.sampled_from(["coordinator", "researcher", "worker"])),
    kinds=KINDS,
    purpose=st.sampled_from(["", "triage", "trial"]),
    protection=st.builds(Protection, st.integers(0, 6), st.none() | st.floats()),
)


@given(ASKS, RULES)
def test_a_permit_names_one_of_the_owners_rules_and_a_denial_a_reason_for_each(ask, rules):
    match decide(ask, {ROWS: rules}):
        case Permit(rule):
            assert rule in rules
            assert decide(ask, {ROWS: [rule]}) == Permit(rule)
        case Deny(reasons, approval):
            assert approval is None
            assert len(reasons) == max(1, len(rules))


@given(ASKS, RULES, RULES)
def test_adding_a_rule_never_takes_a_permission_away(ask, rules, more):
    if isinstance(decide(ask, {ROWS: rules}), Permit):
        assert isinstance(decide(ask, {ROWS: [*more, *rules]}), Permit)
