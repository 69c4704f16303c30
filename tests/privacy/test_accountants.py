"""What noise costs: published figures, what every accountant keeps to, and the known ways to get it wrong."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.privacy.accountants import (
    ACCOUNTANTS,
    PLD,
    RDP,
    accountant_version,
    check_delta,
    cost_of,
    epsilon_by_pld,
    epsilon_by_rdp,
    guarantee_of,
    renewed,
    times_left,
)
from fedpriv.privacy.budget import ORDERS, Account, Budget, Cost, epsilon_of
from fedpriv.privacy.calibration import sampled
from fedpriv.privacy.events import accounting, dp_event
from fedpriv.privacy.mechanisms import DiscreteGaussian, Gaussian, PoissonSampled, Repeated, Skellam, Together
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.renyi import rdp_of
from fedpriv.privacy.rounding import Rounding

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "privacy_epsilon.json").read_text())
ADD, SPECIAL, ONE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_SPECIAL, Relation.REPLACE_ONE
SKELLAM = Skellam(variance=1e4, l2=100.0, l1=1000.0)


def mechanism(vector):
    return Repeated(sampled(vector["multiplier"], vector["rate"]), vector["times"])


@pytest.mark.parametrize("vector", VECTORS["gaussian"], ids=lambda each: f"z{each['multiplier']}")
def test_gaussians_cost_what_is_published(vector):
    assert epsilon_by_rdp(mechanism(vector), vector["delta"]) == pytest.approx(vector["rdp"], rel=1e-4)
    assert epsilon_by_pld(mechanism(vector), vector["delta"]) == pytest.approx(vector["pld"], rel=1e-4)


@pytest.mark.parametrize("vector", VECTORS["coarse"], ids=lambda each: f"z{each['multiplier']}")
def test_rounds_of_gaussians_cost_what_is_published(vector):
    assert epsilon_by_pld(mechanism(vector), vector["delta"]) == pytest.approx(vector["pld"], abs=6e-3)


@pytest.mark.parametrize("at", [0, 1])
def test_skellam_noise_costs_what_is_published(at):
    vector, case = VECTORS["skellam"], VECTORS["skellam"]["cases"][at]
    rounding = Rounding(vector["clip"], vector["scale"], vector["dimension"])
    assert rounding.l2 / vector["scale"] == pytest.approx(vector["l2"], rel=1e-8)
    variance = (case["deviation"] * vector["scale"]) ** 2
    noise = Skellam(variance, rounding.l2, rounding.l1)
    assert epsilon_by_rdp(noise, case["delta"]) == pytest.approx(case["rdp"], rel=1e-6)


class TestEveryAccountant:
    """What holds for an accountant whatever its method."""

    @pytest.fixture(params=sorted(ACCOUNTANTS))
    def judge(self, request):
        return ACCOUNTANTS[request.param]

    def test_more_noise_never_costs_more(self, judge):
        spent = [judge(Gaussian(multiplier), 1e-5, ADD) for multiplier in (0.8, 1.0, 2.0, 8.0)]
        assert spent == sorted(spent, reverse=True)

    def test_more_rounds_never_cost_less(self, judge):
        spent = [judge(Repeated(Gaussian(4.0), times), 1e-5, ADD) for times in (1, 2, 10)]
        assert spent == sorted(spent)

    def test_a_round_repeated_once_costs_what_it_costs(self, judge):
        assert judge(Repeated(Gaussian(2.0), 1), 1e-5, ADD) == pytest.approx(judge(Gaussian(2.0), 1e-5, ADD))

    def test_parts_together_cost_what_repeating_them_costs(self, judge):
        together = Together((Gaussian(3.0), Repeated(Gaussian(3.0), 2)))
        assert judge(together, 1e-5, ADD) == pytest.approx(judge(Repeated(Gaussian(3.0), 3), 1e-5, ADD), rel=1e-3)

    def test_a_sample_of_everything_is_no_sample(self, judge):
        assert judge(PoissonSampled(1.0, Gaussian(2.0)), 1e-5, ADD) == pytest.approx(judge(Gaussian(2.0), 1e-5, ADD))

    def test_whoever_may_be_replaced_is_twice_as_far(self, judge):
        assert judge(Gaussian(2.0), 1e-5, ONE) == pytest.approx(judge(Gaussian(1.0), 1e-5, ADD), rel=1e-4)

    def test_counting_as_zero_is_like_being_absent(self, judge):
        assert judge(Gaussian(2.0), 1e-5, SPECIAL) == judge(Gaussian(2.0), 1e-5, ADD)

    def test_sampling_with_replacement_of_a_record_is_refused(self, judge):
        with pytest.raises(UsageError, match="no RDP bound is known"):
            judge(PoissonSampled(0.01, Gaussian(1.0)), 1e-5, ONE)

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan, True])
    def test_a_delta_that_is_none_is_refused(self, judge, delta):
        with pytest.raises(UsageError, match="between 0 and 1"):
            judge(Gaussian(1.0), delta, ADD)

    def test_it_is_never_below_the_exact_figure_of_one_gaussian(self, judge):
        for multiplier, delta in ((1.0, 1e-5), (4.0, 1e-6)):
            epsilon = judge(Gaussian(multiplier), delta, ADD)
            assert gaussian_delta(epsilon, multiplier) <= delta


def gaussian_delta(epsilon, multiplier):
    """Return the exact delta of one Gaussian (Balle and Wang 2018, Theorem 5)."""

    def below(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    return below(1 / (2 * multiplier) - epsilon * multiplier) - math.exp(epsilon) * below(
        -1 / (2 * multiplier) - epsilon * multiplier
    )


def test_rdp_where_one_is_replaced_counts_the_doubled_sensitivity():
    dp = accounting()
    naive = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    naive.compose(dp.GaussianDpEvent(1.0))
    assert naive.get_epsilon(1e-5) == pytest.approx(4.7285, rel=1e-4)
    assert epsilon_by_pld(Gaussian(1.0), 1e-5, ONE) == pytest.approx(9.997, rel=1e-3)
    assert epsilon_by_rdp(Gaussian(1.0), 1e-5, ONE) > 9.997


def test_a_batch_of_fixed_size_is_not_billed_as_poisson():
    dp = accounting()
    honest = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    honest.compose(dp.SampledWithoutReplacementDpEvent(10_000, 100, dp.GaussianDpEvent(1.0 / ONE.distance)), 1000)
    claimed = epsilon_by_rdp(Repeated(PoissonSampled(0.01, Gaussian(1.0)), 1000), 1e-5)
    assert claimed == pytest.approx(2.10, abs=5e-3)
    assert honest.get_epsilon(1e-5) == pytest.approx(20.99, abs=5e-3)


def test_there_is_no_central_limit_accountant():
    assert set(ACCOUNTANTS) == {RDP, PLD}


@pytest.mark.parametrize("vector", VECTORS["central_limit"], ids=lambda each: f"q{each['rate']}")
def test_no_accountant_reports_what_a_central_limit_would(vector):
    for judge in ACCOUNTANTS.values():
        assert judge(mechanism(vector), vector["delta"], ADD) >= vector["true"] * (1 - 1e-3) > vector["gdp"]


@pytest.mark.parametrize("noise", [SKELLAM, DiscreteGaussian(100.0, 10.0, 20.0, 4)])
def test_discrete_noise_has_no_event_and_is_reported_by_rdp(noise):
    assert dp_event(noise) is None
    assert dp_event(Repeated(noise, 3)) is None
    assert dp_event(Together((Gaussian(1.0), noise))) is None
    assert guarantee_of(noise, delta=1e-5, relation=ADD, unit="worker").accountant == RDP
    with pytest.raises(UsageError, match="report it by RDP"):
        epsilon_by_pld(noise, 1e-5)


def test_the_event_that_could_stand_in_for_discrete_noise_has_no_loss_distribution():
    dp = accounting()
    assert not hasattr(dp, "DiscreteGaussianDpEvent")
    assert not dp.pld.PLDAccountant().supports(dp.ZCDpEvent(0.5))
    by_zcdp = dp.rdp.RdpAccountant().compose(dp.ZCDpEvent(0.5)).get_epsilon(1e-5)
    ours = epsilon_by_rdp(DiscreteGaussian(100.0, 10.0, 20.0, 4), 1e-5)
    assert ours == pytest.approx(by_zcdp, rel=1e-9)


def test_our_gaussian_is_that_of_dp_accounting():
    accountant = accounting().rdp.RdpAccountant(ORDERS)
    accountant.compose(dp_event(Repeated(Gaussian(1.7), 5)))
    assert accountant._rdp == pytest.approx(rdp_of(Repeated(Gaussian(1.7), 5), ADD))


def test_sampling_never_costs_more_than_everything():
    for multiplier in (0.05, 0.5, 2.0):
        some = rdp_of(PoissonSampled(0.5, Gaussian(multiplier)), ADD)
        assert all(one <= other for one, other in zip(some, rdp_of(Gaussian(multiplier), ADD), strict=True))


def test_a_guarantee_says_in_words_what_holds_for_whom_and_who_says_so():
    words = guarantee_of(Gaussian(4.0), delta=1e-5, relation=SPECIAL, unit="worker").in_words()
    assert words.startswith("epsilon 0.926")
    assert "by PLD" in words
    assert "for each worker: whether it takes part or counts as zero" in words
    assert "any other" in guarantee_of(SKELLAM, delta=1e-5, relation=ONE, unit="patient").in_words()
    assert "in the data at all" in guarantee_of(Gaussian(1.0), delta=1e-5, relation=ADD, unit="row").in_words()


def test_the_tightest_accountant_reports():
    assert guarantee_of(Gaussian(1.0), delta=1e-5, relation=ADD, unit="row").accountant == PLD
    assert guarantee_of(Gaussian(1.0), delta=1e-5, relation=ADD, unit="row").epsilon < epsilon_by_rdp(Gaussian(1), 1e-5)


def test_noise_that_is_not_quite_ideal_takes_from_delta():
    ideal = guarantee_of(SKELLAM, delta=1e-5, relation=ADD, unit="row").epsilon
    assert guarantee_of(SKELLAM, delta=1e-5, relation=ADD, unit="row", total_variation=4e-6).epsilon > ideal
    with pytest.raises(UsageError, match="cannot cover"):
        guarantee_of(SKELLAM, delta=1e-5, relation=ADD, unit="row", total_variation=5e-6)


def test_a_cost_is_what_an_account_takes():
    cost = cost_of(Repeated(Gaussian(4.0), 10), SPECIAL)
    assert (cost.mechanism, cost.relation) == ("gaussian", "REPLACE_SPECIAL")
    account = Account(Budget(8.0, 1e-5)).after(cost)
    assert account.spent == pytest.approx(epsilon_by_rdp(Repeated(Gaussian(4.0), 10), 1e-5), rel=1e-9)


def test_a_bill_of_another_version_is_renewed_and_the_larger_kept():
    fresh = cost_of(Gaussian(2.0), ADD)
    low = replace(fresh, rdp=tuple(each / 2 for each in fresh.rdp), accountant="another")
    high = replace(fresh, rdp=tuple(each * 2 for each in fresh.rdp), accountant="another")
    assert renewed(low) == fresh
    assert renewed(high) == replace(high, accountant=fresh.accountant)
    same = replace(low, accountant=fresh.accountant)
    assert renewed(same) == same
    unreadable = Cost("other", '{"kind": "other"}', "ADD_OR_REMOVE_ONE", fresh.rdp)
    assert renewed(unreadable) == unreadable
    assert renewed(Cost("gaussian", fresh.event, "UNKNOWN", fresh.rdp)).rdp == fresh.rdp


@given(st.floats(0.5, 10), st.floats(0.5, 20))
def test_the_rounds_that_are_left_fit_and_one_more_does_not(multiplier, epsilon):
    account = Account(Budget(epsilon, 1e-5))
    times = times_left(account, Gaussian(multiplier), ADD)
    if times:
        assert epsilon_of(rdp_of(Repeated(Gaussian(multiplier), times), ADD), 1e-5) <= epsilon
    assert epsilon_of(rdp_of(Repeated(Gaussian(multiplier), times + 1), ADD), 1e-5) > epsilon


def test_what_costs_next_to_nothing_has_a_last_round_too():
    assert times_left(Account(Budget(8.0, 1e-5)), Gaussian(1e9), ADD) == 10**9


def test_a_delta_of_one_unit_is_refused_with_what_to_use():
    check_delta(1e-5, units=1000)
    with pytest.raises(UsageError, match=r"not below 1/569: .*; use at most 0.0001$"):
        check_delta(2e-3, units=569)


def test_figures_name_the_version_that_made_them():
    assert accountant_version().startswith("fedpriv/1 dp-accounting 0.")


def test_without_dp_accounting_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UsageError, match=r"pip install 'fedpriv\[privacy\]'"):
        accounting()
    assert epsilon_by_rdp(Gaussian(1.0), 1e-5) == pytest.approx(4.728507, rel=1e-6)  # what needs none goes on
