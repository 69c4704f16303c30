"""Correlated noise: how far a worker moves it, and that running sums come out right."""

import itertools
import math

import numpy as np
import pytest

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.privacy.accountants import epsilon_by_rdp
from fedpriv.privacy.budget import ORDERS
from fedpriv.privacy.designs import Banded, Tree, lowest_bit, sensitivity
from fedpriv.privacy.events import accounting
from fedpriv.privacy.lattice import LatticeGaussian
from fedpriv.privacy.mechanisms import Gaussian
from fedpriv.privacy.relations import Relation
from fedpriv.privacy.renyi import rdp_of
from fedpriv.privacy.running_sums import RunningSums

DESIGNS = [Tree, lambda rounds: Banded(rounds, 1), lambda rounds: Banded(rounds, 4), lambda rounds: Banded(rounds, 99)]


def machine(design, multiplier=1e-4, dimension=3):
    noise = LatticeGaussian(sensitivity(design, design.rounds), multiplier, design.rounds * dimension)
    return RunningSums(design, noise)


@pytest.mark.parametrize("make", DESIGNS)
class TestEveryDesign:
    """What holds for correlated noise of any kind."""

    @pytest.mark.parametrize("rounds", [1, 2, 13, 16])
    def test_the_running_sums_are_right_but_for_the_noise(self, make, rounds):
        sums = machine(make(rounds))
        totals = np.random.default_rng(0).normal(size=(rounds, 3))
        released = np.array([sums.add(each, SystemEntropy()) for each in totals])
        assert released.cumsum(0) == pytest.approx(totals.cumsum(0), abs=0.05)
        assert sums.rounds == rounds

    def test_the_last_round_is_the_last(self, make):
        sums = machine(make(2))
        for _ in range(2):
            sums.add(np.zeros(3), SystemEntropy())
        with pytest.raises(UsageError, match="2 rounds, which are over"):
            sums.add(np.zeros(3), SystemEntropy())
        assert sums.rounds == 2

    def test_a_sum_that_is_none_is_refused_and_changes_nothing(self, make):
        one, other = machine(make(3)), machine(make(3))
        with pytest.raises(UsageError, match="leave the round out"):
            one.add(np.array([1.0, math.nan, 0.0]), SystemEntropy())
        for value in (1.0, 2.0):
            first, second = (each.add(np.full(3, value), SeededEntropy(b"x")) for each in (one, other))
            assert (first == second).all()

    def test_the_noise_of_running_sums_has_the_variance_of_the_design(self, make):
        """The covariance of running sums is A C^-1 C^-T A^T for running sums A and design C."""
        design = make(8)
        dimension = 20_000
        noise = LatticeGaussian(1.0, 1.0, 8 * dimension)
        sums = RunningSums(design, noise)
        entropy = SeededEntropy(b"covariance")
        released = np.array([sums.add(np.zeros(dimension), entropy) for _ in range(8)]).cumsum(0) / noise.deviation
        decoded = np.tril(np.ones((8, 8))) @ np.linalg.inv(design.matrix())
        assert np.cov(released) == pytest.approx(decoded @ decoded.T, abs=0.12)

    @pytest.mark.parametrize(("participations", "separation"), [(1, 1), (2, 1), (3, 2), (7, 1), (2, 3)])
    def test_nobody_moves_the_sums_further_than_they_are_sized_for(self, make, participations, separation):
        """Against every set of rounds there is, at seven rounds."""
        design = make(7)
        products = design.matrix().T @ design.matrix()
        worst = 0.0
        for rounds in itertools.combinations(range(7), min(participations, 7)):
            if all(after - before >= separation for before, after in itertools.pairwise(rounds)):
                worst = max(worst, products[np.ix_(rounds, rounds)].sum())
        for fewer in range(1, participations):
            for rounds in itertools.combinations(range(7), fewer):
                if all(after - before >= separation for before, after in itertools.pairwise(rounds)):
                    worst = max(worst, products[np.ix_(rounds, rounds)].sum())
        assert math.sqrt(worst) <= sensitivity(design, participations, separation) <= math.sqrt(worst) * 1.3

    def test_a_worker_in_every_round_is_covered_exactly(self, make):
        matrix = make(9).matrix()
        assert sensitivity(make(9), 9) == pytest.approx(np.linalg.norm(matrix.sum(1)), rel=1e-9)

    def test_a_design_has_no_negative_entry_and_nothing_of_the_future(self, make):
        matrix = make(13).matrix()
        assert (matrix >= 0).all()
        assert (np.triu(matrix, 1) == 0).all()
        assert (np.diag(matrix) == 1).all()


@pytest.mark.parametrize("rounds", [1, 2, 4, 8, 64])
def test_a_tree_costs_a_worker_of_one_round_what_dp_accounting_says(rounds):
    dp = accounting()
    theirs = dp.rdp.RdpAccountant(ORDERS, dp.NeighboringRelation.REPLACE_SPECIAL)
    theirs.compose(dp.SingleEpochTreeAggregationDpEvent(2.0, rounds))
    ours = Gaussian(2.0 / sensitivity(Tree(rounds), 1))
    assert rdp_of(ours, Relation.REPLACE_SPECIAL) == pytest.approx(theirs._rdp, rel=1e-9)


def test_noise_of_one_band_is_independent_noise():
    assert sensitivity(Banded(50, 1), 50) == pytest.approx(math.sqrt(50))
    alone = epsilon_by_rdp(Gaussian(3.0 / sensitivity(Banded(50, 1), 50)), 1e-5)
    assert alone == pytest.approx(epsilon_by_rdp(Gaussian(3.0 / math.sqrt(50)), 1e-5), rel=1e-9)


def test_bands_make_the_last_running_sum_of_a_worker_of_one_round_better():
    """The deviation of the sum of 64 rounds at equal privacy: correlated noise is what the mode is for."""

    def deviation(design):
        last = np.ones(64) @ np.linalg.inv(design.matrix())
        return np.linalg.norm(last) * sensitivity(design, 1)

    assert deviation(Banded(64, 64)) < deviation(Tree(64)) < 0.7 * deviation(Banded(64, 1))


def test_the_square_root_of_the_running_sums_is_one():
    matrix = Banded(20, 20).matrix()
    assert matrix @ matrix == pytest.approx(np.tril(np.ones((20, 20))))


def test_the_lowest_bit_is_the_size_of_a_subtree():
    assert [lowest_bit(each) for each in range(1, 9)] == [1, 2, 1, 4, 1, 2, 1, 8]


@pytest.mark.parametrize("make", [lambda: Tree(0), lambda: Tree(5000), lambda: Banded(3, 0), lambda: Banded(5000, 1)])
def test_a_design_that_makes_no_sense_is_refused(make):
    with pytest.raises(UsageError):
        make()
