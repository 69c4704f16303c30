"""Everything that a worker checks before it goes on: one test a check, and that what is honest passes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest
from parties import PLAIN, cast, identity, until, words_of
from witnesses import ME, check_signed, refusal, told

from fedpriv.errors import UsageError
from fedpriv.secagg import client, statements
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.messages import Advertise
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.vector import Part, Treatment, VectorSpec

# Round 0


def test_an_honest_invitation_is_accepted():
    step = cast(5).begin(ME)
    assert isinstance(step.message, Advertise)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", "fedpriv-secagg/2"),
        ("federation", "banks"),
        ("round", 2),
        ("model", bytes(32)),
        ("plan", bytes(32)),
        ("vector", VectorSpec((replace(PLAIN.parts[0], fraction_bits=15),))),
        ("privacy", "gaussian 1.0"),
    ],
)
def test_a_descriptor_of_something_else_is_refused_by_the_field_that_differs(field, value):
    party = cast(5)
    step = party.begin(ME, **{field: value})
    assert refusal(step) == (Reason.DESCRIPTOR_DIFFERS, field)
    check_signed(party, ME, step.message)


def test_another_roster_is_refused_by_the_version_that_this_worker_has():
    step = cast(5).begin(ME, roster=bytes(32))
    assert refusal(step) == (Reason.DESCRIPTOR_DIFFERS, "roster version 1")
    assert "is not what this worker has (version 1)" in step.state.explanation


def test_the_first_field_that_differs_is_named():
    assert refusal(cast(5).begin(ME, plan=bytes(32), model=bytes(32))) == (Reason.DESCRIPTOR_DIFFERS, "model")


@pytest.mark.parametrize("last", [1, 2, 1000])
def test_a_round_that_is_not_newer_than_the_last_is_refused(last):
    party = cast(5)
    party.terms = Terms(last_round=last)
    assert refusal(party.begin(ME)) == (Reason.ROUND_NOT_NEW, "round")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_is_no_time_makes_no_descriptor(seconds):
    with pytest.raises(UsageError, match="finite numbers above 0"):
        replace(cast(3).descriptor, deadlines_seconds=(1.0, seconds))


def test_a_cohort_below_three_is_refused():
    assert refusal(cast(5).begin(ME, workers=2, threshold=2)) == (Reason.COHORT_TOO_SMALL, "minimum_cohort")


def test_a_minimum_cohort_below_the_owners_is_refused():
    party = cast(6)
    party.terms = Terms(minimum_cohort=5)
    assert refusal(party.begin(ME, minimum_cohort=4)) == (Reason.COHORT_TOO_SMALL, "minimum_cohort")
    assert isinstance(party.begin(ME, minimum_cohort=5).message, Advertise)


@pytest.mark.parametrize("size", [3, 5, 10, 20, 50, 100])
def test_a_threshold_one_below_the_least_is_refused_and_a_higher_one_is_not(size):
    party = cast(size)
    least = party.descriptor.threshold
    assert refusal(party.begin(ME, threshold=least - 1)) == (Reason.THRESHOLD_TOO_LOW, "threshold")
    assert isinstance(party.begin(ME, threshold=least + 1).message, Advertise)


def test_a_threshold_above_the_number_of_workers_is_refused():
    assert refusal(cast(5).begin(ME, threshold=6)) == (Reason.THRESHOLD_TOO_LOW, "threshold")


def test_an_owner_may_count_on_more_who_collude():
    party = cast(10)
    party.terms = Terms(colluding=Fraction(1, 2))  # 4 of 10, so t is 8
    assert refusal(party.begin(ME)) == (Reason.THRESHOLD_TOO_LOW, "threshold")
    assert isinstance(party.begin(ME, threshold=8).message, Advertise)


def test_a_modulus_in_which_the_sum_could_wrap_is_refused_with_the_bits_it_needs():
    vector = VectorSpec((Part("update", (7,), 1.0, 30, Treatment.UNWEIGHTED),))
    step = cast(5, vector).begin(ME, modulus_bits=32)
    assert refusal(step) == (Reason.MODULUS_TOO_SMALL, "modulus_bits")
    assert "need 34 bits" in step.state.explanation


def test_a_modulus_larger_than_needed_is_accepted():
    assert isinstance(cast(5).begin(ME, modulus_bits=64).message, Advertise)


def test_a_worker_that_the_roster_has_with_another_key_does_not_begin():
    party = cast(5)
    party.identities[ME] = identity("somebody else")
    assert refusal(party.begin(ME)) == (Reason.NOT_ON_ROSTER, ME)


def test_a_worker_that_is_not_on_the_roster_does_not_begin():
    party = cast(5)
    party.identities["stranger"] = identity("stranger")
    assert refusal(party.begin("stranger")) == (Reason.NOT_ON_ROSTER, "stranger")


@pytest.mark.parametrize(
    ("change", "threshold", "reason"),
    [
        ({"degree": 6}, 6, Reason.GRAPH_TOO_THIN),
        ({"lost": 40}, 11, Reason.GRAPH_TOO_THIN),
        ({}, 10, Reason.THRESHOLD_TOO_LOW),
        ({}, 17, Reason.THRESHOLD_TOO_LOW),
        ({"degree": 98}, 11, Reason.THRESHOLD_TOO_LOW),
    ],
)
def test_a_harary_graph_that_is_too_thin_or_of_an_unsafe_threshold_is_refused(change, threshold, reason):
    party = cast(100, graph="harary")  # degree 16, threshold 11, 5 may be lost
    assert isinstance(party.begin(ME).message, Advertise)
    graph = replace(party.descriptor.graph, **change)
    assert refusal(party.begin(ME, graph=graph, threshold=threshold))[0] is reason


def test_a_harary_graph_of_more_hostile_workers_than_it_stands_is_refused():
    party = cast(100, graph="harary")
    party.terms = Terms(colluding=Fraction(1, 3))
    assert refusal(party.begin(ME))[0] is Reason.GRAPH_TOO_THIN


# Round 1


def test_an_honest_roll_is_answered():
    assert len(told("share")[0].message.ciphertexts) == 4


def test_a_roll_with_a_signature_that_does_not_verify_is_refused():
    def alter(roll, _):
        bad = replace(roll.members[0], signature=roll.members[1].signature)
        return replace(roll, members=(bad, *roll.members[1:]))

    assert refusal(told("share", alter=alter)[0]) == (Reason.BAD_SIGNATURE, "worker-00000")


def test_a_roll_that_names_a_worker_twice_is_refused():
    def alter(roll, _):
        return replace(roll, members=(*roll.members[:4], roll.members[3]))

    assert refusal(told("share", alter=alter)[0]) == (Reason.DUPLICATE_MEMBER, "worker-00003")


@pytest.mark.parametrize(("mine", "theirs"), list(itertools.product(("sealing", "masking"), repeat=2)))
def test_a_roll_in_which_a_key_stands_twice_is_refused(mine, theirs):
    def alter(roll, _):
        copied = replace(roll.members[4], **{mine: getattr(roll.members[0], theirs)})
        return replace(roll, members=(*roll.members[:4], copied))

    assert refusal(told("share", alter=alter)[0]) == (Reason.DUPLICATE_KEY, "worker-00004")


@pytest.mark.parametrize("field", ["sealing", "masking", "commitment", "signature"])
def test_a_roll_with_another_entry_for_oneself_is_refused(field):
    def alter(roll, _):
        own = roll.members[2]
        changed = replace(own, **{field: bytes(len(getattr(own, field)))})
        return replace(roll, members=(*roll.members[:2], changed, *roll.members[3:]))

    assert refusal(told("share", alter=alter)[0]) == (Reason.OWN_ENTRY_CHANGED, ME)


def test_a_roll_without_oneself_is_refused():
    def alter(roll, _):
        return replace(roll, members=tuple(each for each in roll.members if each.worker != ME))

    assert refusal(told("share", alter=alter)[0]) == (Reason.LEFT_OUT, ME)


def test_a_roll_of_fewer_than_the_threshold_is_refused():
    def alter(roll, _):
        return replace(roll, members=roll.members[:3])  # five workers need four

    assert refusal(told("share", alter=alter)[0]) == (Reason.TOO_FEW_MEMBERS, "")


def test_a_roll_of_fewer_than_the_minimum_cohort_is_refused():
    party = cast(5)
    party.descriptor = replace(party.descriptor, minimum_cohort=5)
    state, roll = until(party, words_of(party), "share")[ME]
    assert refusal(client.receive(state, replace(roll, members=roll.members[:4])))[0] is Reason.TOO_FEW_MEMBERS


def test_a_roll_of_a_worker_that_is_not_on_the_roster_is_refused():
    def alter(roll, party):
        stranger = identity("stranger")
        old = roll.members[4]
        publics = old.sealing, old.masking, old.commitment
        signature = stranger.sign(statements.advertised(roll.sid, "stranger", *publics))
        return replace(roll, members=(*roll.members[:4], Advertise(roll.sid, "stranger", *publics, signature)))

    assert refusal(told("share", alter=alter)[0]) == (Reason.NOT_ON_ROSTER, "stranger")


# Round 2


def test_an_honest_delivery_makes_the_worker_ready():
    step, _ = told("mask")
    assert isinstance(step.state, client.Ready)
    assert step.message is None


def test_a_second_set_with_a_newcomer_is_refused():
    def alter(delivery, _):
        return replace(delivery, members=(*delivery.members, "worker-00009"))

    assert refusal(told("mask", alter=alter)[0]) == (Reason.NOT_A_SUBSET, "worker-00009")


def test_a_second_set_without_oneself_is_refused():
    def alter(delivery, _):
        return replace(delivery, members=tuple(name for name in delivery.members if name != ME))

    assert refusal(told("mask", alter=alter)[0]) == (Reason.LEFT_OUT, ME)


def test_a_second_set_that_names_a_worker_twice_is_refused():
    def alter(delivery, _):
        return replace(delivery, members=(*delivery.members[:4], "worker-00000"))

    assert refusal(told("mask", alter=alter)[0]) == (Reason.DUPLICATE_MEMBER, "worker-00000")


def test_a_second_set_below_the_threshold_is_refused():
    def alter(delivery, _):
        return replace(delivery, members=delivery.members[:3])

    assert refusal(told("mask", alter=alter)[0])[0] is Reason.TOO_FEW_MEMBERS


@pytest.mark.parametrize("count", [3, 5])
def test_shares_that_are_missing_or_too_many_are_refused(count):
    def alter(delivery, _):
        return replace(delivery, ciphertexts=(*delivery.ciphertexts, *delivery.ciphertexts)[:count])

    assert refusal(told("mask", alter=alter)[0])[0] is Reason.WRONG_CIPHERTEXTS


def test_a_share_that_does_not_decrypt_is_refused_by_sender_and_holder():
    def alter(delivery, _):
        (sender, data), *others = delivery.ciphertexts
        return replace(delivery, ciphertexts=((sender, data[:-1] + bytes([data[-1] ^ 1])), *others))

    step, _ = told("mask", alter=alter)
    assert refusal(step) == (Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {ME}")
    said = f"the shares of 'worker-00000' for {ME!r} do not decrypt; they were altered, misrouted or never right"
    assert step.state.explanation == said


# Round 3


def test_honest_survivors_are_confirmed():
    assert isinstance(told("confirm")[0].state, client.Confirmed)


def test_survivors_who_had_not_shared_are_refused():
    party = cast(5)
    state, told_ = until(party, words_of(party), "confirm", drops={"worker-00004": "share"})[ME]
    altered = replace(told_, members=(*told_.members, "worker-00004"))
    assert refusal(client.receive(state, altered)) == (Reason.NOT_A_SUBSET, "worker-00004")


def test_survivors_without_oneself_are_refused():
    def alter(survivors, _):
        return replace(survivors, members=tuple(name for name in survivors.members if name != ME))

    assert refusal(told("confirm", alter=alter)[0]) == (Reason.LEFT_OUT, ME)


def test_too_few_survivors_are_refused():
    def alter(survivors, _):
        return replace(survivors, members=survivors.members[:3])

    assert refusal(told("confirm", alter=alter)[0])[0] is Reason.TOO_FEW_MEMBERS


def test_too_few_survivors_of_a_harary_graph_are_refused():
    """With more lost than the graph was made for, the honest rest may fall apart, whatever the threshold."""
    party = cast(60, graph="harary")
    assert party.descriptor.least == 57 > party.descriptor.threshold
    state, survivors = until(party, words_of(party), "confirm")[ME]
    assert refusal(client.receive(state, replace(survivors, members=survivors.members[:56])))[0] is (
        Reason.TOO_FEW_MEMBERS
    )


# Round 4


def test_an_agreement_is_answered_with_shares_once():
    step, party = told("unmask")
    assert isinstance(step.state, client.Finished)
    assert [name for name, _ in step.message.self_shares] == party.names
    assert step.message.key_shares == ()


def test_shares_of_lost_workers_are_of_their_keys_and_nobody_is_in_both_lists():
    party = cast(5)
    state, agreement = until(party, words_of(party), "unmask", drops={"worker-00004": "mask"})[ME]
    unmask = client.receive(state, agreement).message
    assert [name for name, _ in unmask.self_shares] == party.names[:4]
    assert [name for name, _ in unmask.key_shares] == ["worker-00004"]


def test_too_few_signatures_on_the_same_survivors_are_refused():
    def alter(agreement, _):
        return replace(agreement, signatures=agreement.signatures[:2])  # and its own make three of four

    assert refusal(told("unmask", alter=alter)[0])[0] is Reason.NOT_AGREED


def test_signatures_that_do_not_verify_do_not_count():
    def alter(agreement, _):
        return replace(agreement, signatures=tuple((name, bytes(64)) for name, _ in agreement.signatures))

    assert refusal(told("unmask", alter=alter)[0])[0] is Reason.NOT_AGREED


def test_a_signature_that_is_listed_twice_is_refused():
    def alter(agreement, _):
        return replace(agreement, signatures=(agreement.signatures[0],) * 4)

    assert refusal(told("unmask", alter=alter)[0]) == (Reason.DUPLICATE_MEMBER, "worker-00000")


def test_ones_own_signature_counts_once():
    def alter(agreement, party):
        own = (ME, party.identities[ME].sign(b"anything"))
        return replace(agreement, signatures=(own, *agreement.signatures[:2]))

    assert refusal(told("unmask", alter=alter)[0])[0] is Reason.NOT_AGREED


def test_a_signature_of_a_stranger_does_not_count():
    def alter(agreement, _):
        return replace(agreement, signatures=(*agreement.signatures[:2], ("stranger", agreement.signatures[2][1])))

    assert refusal(told("unmask", alter=alter)[0])[0] is Reason.NOT_AGREED
