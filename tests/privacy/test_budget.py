"""The account of a budget: a filter over RDP that never counts less than was spent."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import BudgetExceeded, ReleaseDenied, UsageError
from fedpriv.privacy.budget import ORDERS, Account, Budget, Cost, epsilon_of, total_of

ZERO = (0.0,) * len(ORDERS)


def gaussian(noise, times=1):
    """Return the RDP of a Gaussian of standard deviation `noise` at sensitivity 1 (Mironov 2017, Corollary 3)."""
    return tuple(times * order / (2 * noise**2) for order in ORDERS)


def cost(rdp):
    return Cost("gaussian", '{"noise": 1}', "ADD_OR_REMOVE_ONE", rdp)


LOSSES = st.floats(0, 50, allow_nan=False).map(lambda scale: tuple(scale * order / 7 for order in ORDERS))


@pytest.mark.parametrize(("noise", "delta", "epsilon"), [(1, 1e-5, "4.728507"), (4.530877, 1e-6, "1.000000")])
def test_a_gaussian_once_costs_what_the_rdp_accountants_of_others_say(noise, delta, epsilon):
    assert f"{epsilon_of(gaussian(noise), delta):.6f}" == epsilon


def test_what_costs_nothing_has_epsilon_zero_at_any_delta():
    assert epsilon_of(ZERO, 1e-5) == 0.0
    assert epsilon_of(ZERO, 0.0) == 0.0


def test_a_loss_at_delta_zero_or_at_no_delta_is_infinite():
    assert epsilon_of(gaussian(1), 0.0) == math.inf
    assert epsilon_of(gaussian(1), math.nan) == math.inf


def test_a_loss_far_below_delta_has_epsilon_zero():
    assert epsilon_of(gaussian(1e6), 1e-5) == 0.0
    assert epsilon_of(gaussian(1e3), 1e-5) > 0.0


@given(LOSSES, st.floats(1.0, 1.5), st.floats(1e-12, 0.5))
def test_a_larger_loss_never_has_a_smaller_epsilon(loss, factor, delta):
    assert epsilon_of(loss, delta) <= epsilon_of([factor * each for each in loss], delta)


@given(LOSSES, st.floats(1e-12, 0.25), st.floats(1.0, 2.0))
def test_a_larger_delta_never_has_a_larger_epsilon(loss, delta, factor):
    assert epsilon_of(loss, delta * factor) <= epsilon_of(loss, delta)


@given(st.lists(LOSSES, max_size=6))
def test_a_sum_is_never_below_the_true_sum_and_hardly_above(losses):
    for at, total in enumerate(total_of(losses)):
        true = sum((Fraction(loss[at]) for loss in losses), Fraction())
        assert true <= Fraction(total) <= true * (1 + Fraction(1, 10**14))


@given(st.lists(LOSSES, max_size=5).flatmap(lambda losses: st.tuples(st.just(losses), st.permutations(losses))))
def test_the_order_of_costs_does_not_matter(pair):
    one, other = (Account(Budget(1e9, 1e-5)), Account(Budget(1e9, 1e-5)))
    for first, second in zip(*pair, strict=True):
        one, other = one.after(cost(first)), other.after(cost(second))
    assert one.spent == pytest.approx(other.spent, rel=1e-12)


@given(st.lists(LOSSES, max_size=5), st.floats(0.01, 60), st.floats(1e-9, 0.1))
def test_what_was_let_through_never_costs_more_than_the_budget(losses, epsilon, delta):
    account = Account(Budget(epsilon, delta))
    let_through = []
    for loss in losses:
        try:
            after = account.after(cost(loss))
        except BudgetExceeded:
            continue
        assert account.spent <= after.spent
        account, let_through = after, [*let_through, loss]
    assert epsilon_of(total_of(let_through), delta) == account.spent <= epsilon
    assert account.left == epsilon - account.spent


def test_the_limit_itself_is_within_the_budget_and_the_least_more_is_not():
    limit = epsilon_of(gaussian(1, times=3), 1e-5)
    account = Account(Budget(limit, 1e-5)).after(cost(gaussian(1))).after(cost(gaussian(1)))
    assert account.after(cost(gaussian(1))).left == 0.0
    with pytest.raises(BudgetExceeded):
        Account(Budget(math.nextafter(limit, 0), 1e-5), account.rdp).after(cost(gaussian(1)))


def test_a_cost_above_what_is_left_is_refused_with_both_figures():
    account = Account(Budget(5.0, 1e-5), gaussian(1))
    with pytest.raises(BudgetExceeded, match=r"data set 'rows' has epsilon 0\.2715 left, .* costs 2\.349;") as refusal:
        account.after(cost(gaussian(1)), dataset="rows")
    error = refusal.value
    assert isinstance(error, ReleaseDenied)
    assert error.exit_code == 4
    assert error.dataset == "rows"
    assert error.remaining == account.left < error.requested
    assert account.rdp == gaussian(1)


def test_an_account_that_was_not_told_of_a_data_set_still_explains_itself():
    with pytest.raises(BudgetExceeded, match=r"^the data set has epsilon 0\.1 left"):
        Account(Budget(0.1, 1e-5)).after(cost(gaussian(1)))


def test_a_budget_below_what_was_spent_has_nothing_left_and_lets_nothing_through():
    account = Account(Budget(1.0, 1e-5), gaussian(1))
    assert account.left == 0.0
    for rdp in (ZERO, gaussian(1e6), gaussian(1)):
        with pytest.raises(BudgetExceeded):
            account.after(cost(rdp))
    assert account.in_words() == (
        "epsilon 4.729 was spent already, more than the budget of epsilon 1 (delta 1e-05, for each row): nothing that "
        "costs privacy leaves until its owner raises the budget above 4.729"
    )


def test_an_account_says_in_words_what_is_spent_and_left():
    assert Account(Budget(8.0, 1e-5), gaussian(1)).in_words() == (
        "epsilon 4.729 is spent of the budget of epsilon 8 (delta 1e-05, for each row); 3.271 is left"
    )
    assert Account(Budget(8.0, 1e-5)).left == 8.0


def test_losses_too_large_to_add_are_too_much():
    huge = (1e308,) * len(ORDERS)
    account = Account(Budget(1e308, 1e-5), (*huge[1:], 1e308))
    with pytest.raises(BudgetExceeded):
        account.after(cost(huge))


def test_a_sum_that_is_too_large_at_one_order_alone_is_too_much():
    only = (*ZERO[1:], 1e308)
    with pytest.raises(BudgetExceeded):
        Account(Budget(8.0, 1e-5), only).after(cost(only))


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan, -1e-300, "1", None, True])
def test_a_loss_that_is_no_loss_is_refused(wrong):
    rdp = (*ZERO[1:], wrong)
    for make in (lambda: cost(rdp), lambda: Account(Budget(1.0, 1e-5), rdp)):
        with pytest.raises(UsageError, match=r"the loss at order 1024 is .*; a loss is a finite number of at least 0"):
            make()


def test_a_loss_has_one_value_for_each_order():
    with pytest.raises(UsageError, match="a loss has 3 values; give one for each of the 156 orders"):
        cost((0.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="a loss has 155 values"):
        Account(Budget(1.0, 1e-5), ZERO[1:])


def test_an_event_is_json():
    assert json.loads(cost(ZERO).event) == {"noise": 1}
    with pytest.raises(UsageError, match="the event of 'gaussian' is not JSON: 'noise'"):
        Cost("gaussian", "noise", "ADD_OR_REMOVE_ONE", ZERO)


def test_orders_are_above_one_and_ascend():
    assert ORDERS[0] > 1
    assert list(ORDERS) == sorted(set(ORDERS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(0.0, 1e-5), "epsilon is 0.0; use a number above 0"),
        (lambda: Budget(-1.0, 1e-5), "epsilon is -1.0"),
        (lambda: Budget(math.nan, 1e-5), "epsilon is nan"),
        (lambda: Budget(math.inf, 1e-5), "epsilon is inf"),
        (lambda: Budget("8", 1e-5), "epsilon is '8'"),
        (lambda: Budget(10**400, 1e-5), "epsilon is a number beyond every float"),
        (lambda: Budget(-(10**5000), 1e-5), "epsilon is a number beyond every float"),
        (lambda: Budget(8.0, 10**400), "delta is a number beyond every float"),
        (lambda: Cost("m", "{}", "r", (*ZERO[1:], 10**400)), "is a number beyond every float"),
        (lambda: Budget(8.0, 0.0), "delta is 0.0; use a number between 0 and 1"),
        (lambda: Budget(8.0, 1.0), "delta is 1.0"),
        (lambda: Budget(8.0, math.nan), "delta is nan"),
        (lambda: Budget(8.0, None), "delta is None"),
        (lambda: Budget(8.0, 1e-5, "A Person"), "unit name 'A Person' is not usable"),
    ],
)
def test_a_budget_that_bounds_nothing_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_budget_of_whole_numbers_is_the_same_budget():
    assert Budget(8, 1e-5) == Budget(8.0, 1e-5, "row")
    assert isinstance(Budget(8, 1e-5).epsilon, float)


def test_losses_do_not_print():
    assert "3.5" not in repr(cost((3.5,) * len(ORDERS)))
