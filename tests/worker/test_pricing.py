"""A private order's price: made from what this worker executes, whatever the coordinator says of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import fedpriv as fp
from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import BudgetExceeded, ReleaseDenied, UsageError
from fedpriv.ids import DatasetName, JobId, PeerName, PlanDigest, WorkerName
from fedpriv.labels import private
from fedpriv.learning.local import SGD
from fedpriv.policy.decision import Recipient
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.policy.rules import cite
from fedpriv.privacy.accountants import epsilon_by_rdp
from fedpriv.privacy.budget import Budget, total_of
from fedpriv.privacy.mechanisms import Gaussian, PoissonSampled, Repeated
from fedpriv.privacy.relations import Relation
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.vector import Part, with_counts
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import Column, DatasetDescription, Train
from fedpriv.wire.private import Private
from fedpriv_worker.forecast import Forecast
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import request_of
from fedpriv_worker.pricing import Price, charged_under, price_of
from fedpriv_worker.release import Admitted, Door
from fedpriv_worker.session import Facts

ROWS, ME, OTHER = (
    DatasetName("rows"),
    Recipient(PeerName("me"), "coordinator"),
    Recipient(PeerName("you"), "researcher"),
)
CHANGED = (TensorSpec("w", "float32", (10, 10)),)
BUDGET = Budget(8.0, 1e-5)
HELD = DatasetDescription(ROWS, (Column("x", "float"),), (1,), "float32", Column("y", "bool"), "float32", (), (), 100)
THIRD = Fraction(1, 3)
ORDER = Train(1, JobId("j"), 1, ROWS, PlanDigest(b"p" * 32), 1, 10, True, False, 0, {}, (), "", TensorSet())


def invited(order: Train, workers: int = 10, threshold: int = 7, minimum: int = 3) -> Train:
    among = Descriptor(
        federation="f", roster=bytes(32), round=1, model=bytes(32), plan=bytes(32),
        vector=with_counts([Part("a", (), 1.0)]),
        modulus_bits=32,
        workers=workers, threshold=threshold, minimum_cohort=minimum,
    )  # fmt: skip  # one line of numbers
    return replace(order, invite=Invite(among))


def asked(mode: object, rounds: int = 5, workers: int = 10, **more: object) -> Private:
    optimizer = SGD(0.1) if isinstance(mode, fp.ExampleDP) else None
    return Private(mode, rounds, workers, optimizer=optimizer, **more)


def priced(mode: object, order: Train = ORDER, held: DatasetDescription = HELD, budget: Budget | None = BUDGET, **more):
    share = more.pop("share", THIRD)
    said = asked(mode, **more)
    return price_of(replace(order, privacy=said), said, held, budget, CHANGED, share)


EXAMPLE = fp.ExampleDP(noise_multiplier=2.0)
LOCAL = fp.LocalDP(noise_multiplier=4.0)
SHARED = fp.DistributedDP(noise_multiplier=4.0, scale_bits=10)


def test_steps_and_rate_of_private_steps_follow_from_the_rows_that_this_worker_announces() -> None:
    price = priced(EXAMPLE, replace(ORDER, epochs=2))
    assert price.cost.event == priced(EXAMPLE, replace(ORDER, epochs=2, seed=5)).cost.event
    assert price.noise.mechanism == Repeated(PoissonSampled(0.1, Gaussian(2.0)), 20)
    assert price.epsilon == epsilon_by_rdp(Repeated(PoissonSampled(0.1, Gaussian(2.0)), 100), 1e-5)
    assert price.cost.relation == "ADD_OR_REMOVE_ONE"
    fewer = priced(EXAMPLE, replace(ORDER, epochs=2), replace(HELD, rows=50))
    assert fewer.noise.rate == 0.2


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 2.0])
def test_less_noise_than_was_agreed_is_billed_for_what_it_is(multiplier: float) -> None:
    price = priced(fp.LocalDP(noise_multiplier=multiplier))
    assert price.noise.multiplier == multiplier
    assert price.epsilon == epsilon_by_rdp(Repeated(Gaussian(multiplier), 5), 1e-5, Relation.REPLACE_ONE)


def test_a_larger_clip_buys_nothing_because_the_noise_grows_with_it() -> None:
    small, large = (priced(replace(LOCAL, clip=clip)) for clip in (1.0, 100.0))
    assert small.cost.rdp == large.cost.rdp
    assert large.noise.lattice(100).deviation == pytest.approx(100 * small.noise.lattice(100).deviation, rel=0.05)


def test_shared_noise_is_billed_without_what_the_owner_takes_for_colluding() -> None:
    honest = priced(SHARED, invited(ORDER), colluding=3)
    blind = priced(SHARED, invited(ORDER), colluding=0)  # the coordinator speaks of no colluders: less noise each
    assert blind.noise.local_variance < honest.noise.local_variance
    assert blind.epsilon > honest.epsilon
    suspicious = priced(SHARED, invited(ORDER), colluding=3, share=Fraction(1, 2))
    assert suspicious.noise == honest.noise
    assert suspicious.epsilon > honest.epsilon
    assert priced(SHARED, invited(ORDER), colluding=3, share=Fraction(0)).epsilon == honest.epsilon


def test_fewer_in_the_sum_means_more_noise_each() -> None:
    many, few = (priced(SHARED, invited(ORDER, threshold=each), colluding=3) for each in (9, 7))
    assert few.noise.local_variance == pytest.approx(many.noise.local_variance * 6 / 4)
    assert few.cost.rdp == many.cost.rdp


@pytest.mark.parametrize(
    ("mode", "change", "more", "message"),
    [
        (LOCAL, {"metrics": ("loss",)}, {}, "loss of private training would leave without noise"),
        (LOCAL, {"round": 0}, {}, "round 0 of a job of 5"),
        (LOCAL, {"round": 6}, {}, "round 6 of a job of 5"),
        (LOCAL, {"epochs": 0}, {}, "0 epochs"),
        (EXAMPLE, {"batch_size": 101}, {}, "batch_size is 101 and the data set announces 100 rows"),
        (EXAMPLE, {"shuffle": False}, {}, "private steps draw Poisson samples"),
        (EXAMPLE, {"drop_last": True}, {}, "private steps draw Poisson samples"),
        (EXAMPLE, {}, {"held": replace(HELD, rows=None)}, "these are hidden"),
        (EXAMPLE, {}, {"budget": Budget(8.0, 1e-5, "worker")}, "cannot be billed to a budget for each worker"),
        (replace(EXAMPLE, delta=0.02), {}, {}, "delta is 0.02, not below 1/100"),
        (SHARED, {}, {}, "a share of distributed noise protects nobody outside of a sum"),
    ],
)
def test_an_order_that_no_private_job_gives_is_refused(mode, change, more, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        priced(mode, replace(ORDER, **change), **more)


def test_a_cohort_in_which_nobody_is_certain_is_refused() -> None:
    with pytest.raises(UsageError, match="no noise is certain"):
        priced(SHARED, invited(ORDER, threshold=5), colluding=3, share=Fraction(9, 10))


def test_whole_numbers_in_an_update_are_refused_since_they_count_rows() -> None:
    counts = (*CHANGED, TensorSpec("seen", "int64", ()))
    said = asked(LOCAL)
    with pytest.raises(UsageError, match="whole numbers count rows"):
        price_of(replace(ORDER, privacy=said), said, HELD, BUDGET, counts, THIRD)


def test_noise_that_is_somebody_elses_promise_has_a_price_and_satisfies_nothing() -> None:
    for mode, whole in ((fp.CentralDP(noise_multiplier=4.0), False), (fp.TreeDP(noise_multiplier=4.0), True)):
        price = priced(mode)
        assert (price.epsilon, price.cost.trusted, price.whole) == (None, True, whole)


def test_a_budget_of_rows_pays_for_one_that_is_another_where_a_whole_update_is_protected() -> None:
    assert charged_under(LOCAL, "row") is Relation.REPLACE_ONE
    assert charged_under(SHARED, "worker") is Relation.REPLACE_SPECIAL
    assert charged_under(EXAMPLE, "row") is Relation.ADD_OR_REMOVE_ONE
    assert priced(LOCAL, budget=None).cost is None


# --- at the door ------------------------------------------------------------------------------------------------------


def door(rule: object, budget: Budget = BUDGET) -> Door:
    memory = Journal.in_memory(worker=WorkerName("alice"), clock=ManualClock(), entropy=SeededEntropy(b"test"))
    return Door(Facts(WorkerName("alice"), "2.13.0", {ROWS: HELD}, {ROWS: (rule,)}, budgets={ROWS: budget}), memory)


def admit(out: Door, price: Price, *, recipient: Recipient = ME, **change: object) -> Admitted:
    order = replace(ORDER, privacy=asked(LOCAL), **change)
    foreseen = Forecast("update", CHANGED, (), 400, 2000, {}, private(ROWS, PeerName("alice")))
    admitted = out.admit(order, foreseen, recipient, price)
    assert isinstance(admitted, Admitted)
    return admitted


def test_a_job_that_runs_more_rounds_than_it_said_ends_where_it_said() -> None:
    """It says one round, which its rule allows, and asks for that one again with another model each time."""
    price = priced(LOCAL, rounds=1)
    out = door(fp.DifferentialPrivacy(price.epsilon), Budget(100.0, 1e-5))
    admit(out, price)
    with pytest.raises(ReleaseDenied, match=r"job 'j' of 'me' would have cost epsilon .* it asks for more rounds than"):
        admit(out, price, request=2)


def test_the_rounds_that_were_said_are_all_admitted_at_the_very_limit() -> None:
    price = priced(LOCAL, rounds=5)
    out = door(fp.DifferentialPrivacy(price.epsilon), Budget(price.epsilon * 1.0000001, 1e-5))
    for number in range(1, 6):
        admit(out, price, round=number)
    with pytest.raises(ReleaseDenied):
        admit(out, price, round=6)


def test_the_budget_is_the_data_sets_whoever_asks_and_under_whatever_job() -> None:
    price = priced(LOCAL, rounds=1)
    out = door(fp.DifferentialPrivacy(8.0), Budget(1.5 * price.epsilon, 1e-5))
    admit(out, price)
    admit(out, price, recipient=OTHER, job=JobId("k"))
    with pytest.raises(BudgetExceeded):
        admit(out, price, recipient=OTHER, job=JobId("l"))


def test_what_was_reserved_and_never_left_is_given_back() -> None:
    price = priced(LOCAL, rounds=1)
    out = door(fp.DifferentialPrivacy(8.0), Budget(1.1 * price.epsilon, 1e-5))
    out.give_up(admit(out, price), begun=False)
    admit(out, price, request=2)


def test_what_was_executed_on_rows_stays_charged_although_nothing_left() -> None:
    """Somebody who hung up may have seen how long it took, or that it took place."""
    price = priced(LOCAL, rounds=1)
    out = door(fp.DifferentialPrivacy(8.0), Budget(1.1 * price.epsilon, 1e-5))
    out.give_up(admit(out, price), begun=True)
    assert out.journal.holds.spent(ROWS) == price.cost.rdp
    with pytest.raises(BudgetExceeded):
        admit(out, price, request=2)


def test_a_tree_is_paid_once_before_its_first_round_and_never_given_back() -> None:
    price = priced(fp.TreeDP(noise_multiplier=4.0))
    out = door(fp.PlainUpdate(recipients=("me",)), BUDGET)
    first = admit(out, price)
    out.give_up(first, begun=False)
    spent = out.journal.holds.spent(ROWS)
    assert spent == price.cost.rdp
    admit(out, price, round=2)
    assert out.journal.holds.spent(ROWS) == spent
    admit(out, price, round=3, job=JobId("another"))
    assert out.journal.holds.spent(ROWS) != spent


def test_a_budget_whose_unit_changed_pays_for_nothing_more() -> None:
    out = door(fp.DifferentialPrivacy(8.0))
    admit(out, priced(LOCAL, rounds=1))
    other = Budget(8.0, 1e-5, "worker")
    changed = Door(replace(out.facts, budgets={ROWS: other}), out.journal)
    with pytest.raises(ReleaseDenied, match=r"for each worker, .* before was counted for each row"):
        admit(changed, priced(LOCAL, budget=other, rounds=1), request=2)


def test_a_bill_of_another_accountant_counts_as_the_larger_of_both() -> None:
    """The version of the accountant is part of each reservation, and of the chain."""
    price = priced(LOCAL, rounds=1)
    old = replace(price.cost, accountant="fedpriv/0", rdp=tuple(each / 10 for each in price.cost.rdp))
    out = door(fp.DifferentialPrivacy(8.0))
    admit(out, replace(price, cost=old))
    assert out.journal.holds.spent(ROWS) == price.cost.rdp
    dearer = replace(price.cost, accountant="fedpriv/0", rdp=tuple(each * 2 for each in price.cost.rdp))
    other = door(fp.DifferentialPrivacy(8.0))
    admit(other, replace(price, cost=dearer))
    assert other.journal.holds.spent(ROWS) == dearer.rdp


def test_a_tree_covers_one_answer_in_each_round() -> None:
    """Asked twice, a worker would move the noisy sums twice as far, which costs four times as much."""
    price = priced(fp.TreeDP(noise_multiplier=4.0))
    out = door(fp.PlainUpdate(recipients=("me",)), BUDGET)
    first = admit(out, price)
    with pytest.raises(ReleaseDenied, match=r"was answered in round 1 already, .* one answer in each round"):
        admit(out, price, request=2)
    out.give_up(first, begun=True)  # nothing left, so it was not answered
    admit(out, price, request=2)
    admit(out, price, request=3, round=2)
    with pytest.raises(ReleaseDenied, match="in round 2 already"):
        admit(out, price, request=4, round=2, epochs=3)
    assert out.journal.holds.spent(ROWS) == price.cost.rdp


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        (fp.TreeDP(noise_multiplier=4.0), {"rounds": 40}),
        (fp.TreeDP(noise_multiplier=4.0, bands=2), {}),
        (fp.TreeDP(noise_multiplier=4.0, clip=2.0), {}),
        (fp.TreeDP(noise_multiplier=4.0), {"workers": 11}),
    ],
    ids=["more rounds", "another matrix", "another clip", "another cohort"],
)
def test_a_tree_of_other_numbers_is_another_and_paid_for_as_such(mode: fp.TreeDP, more: dict[str, int]) -> None:
    price = priced(fp.TreeDP(noise_multiplier=4.0))
    out = door(fp.PlainUpdate(recipients=("me",)), BUDGET)
    admit(out, price)
    other = priced(mode, **more)
    assert other.cost.rdp == price.cost.rdp
    admit(out, other, request=2, round=2)
    assert out.journal.holds.spent(ROWS) == total_of([price.cost.rdp, other.cost.rdp])


def approving(price: Price, releases: int) -> tuple[Door, ReleaseRequest]:
    out = door(fp.Approval(), Budget(100.0, 1e-5))
    with pytest.raises(ReleaseDenied, match="the owner has not approved"):
        admit(out, price)
    request = request_of(replace(ORDER, privacy=asked(LOCAL)), ME, price)
    out.journal.requests.note(request, b"", permitted_by="", now=out.journal.now())
    expires = out.journal.now() + 1000
    out.journal.requests.approve(
        request.id, rule=cite(fp.Approval()), releases=releases, expires=expires, now=out.journal.now()
    )
    return out, request


def test_an_approval_of_several_releases_lets_a_job_cost_what_the_owner_was_shown_and_no_more() -> None:
    """It says one round, which its owner was shown the epsilon of, and asks for five."""
    price = priced(LOCAL, rounds=1)
    out, request = approving(price, releases=5)
    assert request.epsilon == price.epsilon
    admit(out, price)
    with pytest.raises(ReleaseDenied, match="asks for more rounds than it said"):
        admit(out, price, request=2)
    admit(out, price, request=3, job=JobId("another"))
    assert out.journal.holds.spent(ROWS) == total_of([price.cost.rdp] * 2)


def test_an_approval_pays_all_rounds_of_the_job_that_was_shown_each_billed() -> None:
    price = priced(LOCAL, rounds=5)
    out, _ = approving(price, releases=5)
    for number in range(1, 6):
        admit(out, price, round=number)
    assert out.journal.holds.spent(ROWS) == total_of([price.cost.rdp] * 5)
    with pytest.raises(ReleaseDenied, match="used up"):
        admit(out, price, round=6)
