"""The coordinator's side: a worker that sends something wrong is lost, and named; wrong shares are found out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from parties import PHASES, cast, completed, plain_sum, play, words_of

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.secagg import client, keys, server, statements
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.messages import Advertise, Confirm, Masked, Shares, Unmask
from fedpriv.secagg.reasons import OutOfTurn, Reason, Refused
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.server_states import Abandoned, Complete
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.unmasking import Outlier, Recovery

CHEAT = "worker-00003"


def signed_anew(party, message):
    """Return altered keys, signed by the cheat that altered them."""
    publics = message.sealing, message.masking, message.commitment
    statement = statements.advertised(message.sid, CHEAT, *publics)
    return replace(message, signature=party.identities[CHEAT].sign(statement))


def cheating(party, kind, alter, words=None, drops=None):
    """Play a round in which one worker sends an altered message of `kind`, signed rightly where `alter` does that."""
    words = words or words_of(party)

    def up(name, message):
        return alter(message) if name == CHEAT and isinstance(message, kind) else message

    return play(party, words, up=up, drops=drops)


def lost_for(played, reason):
    return [each.reason for each in played.state.round.findings if each.worker == CHEAT] == [reason]


def test_a_round_of_other_workers_or_another_roster_does_not_begin():
    party = cast(5)
    with pytest.raises(UsageError):
        server.begin(party.descriptor, party.roster, party.names[:4], party.terms)
    with pytest.raises(UsageError):
        server.begin(replace(party.descriptor, roster=bytes(32)), party.roster, party.names, party.terms)
    with pytest.raises(Refused):
        server.begin(party.descriptor, party.roster, [*party.names[:4], "stranger"], party.terms)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threshold": 3}, Reason.THRESHOLD_TOO_LOW),
        ({"minimum_cohort": 2}, Reason.COHORT_TOO_SMALL),
    ],
)
def test_the_coordinators_own_terms_hold_as_well(change, reason):
    party = cast(5)
    party.descriptor = replace(party.descriptor, **change)
    with pytest.raises(Refused) as refused:
        party.serve()
    assert refused.value.reason is reason


def test_keys_for_somebody_else_lose_their_sender():
    party = cast(5)
    played = cheating(party, Advertise, lambda message: replace(message, worker="worker-00000"))
    assert lost_for(played, Reason.MALFORMED_MESSAGE)
    assert CHEAT not in completed(played).members


def test_a_key_of_low_order_loses_its_sender_and_nobody_else():
    party = cast(5)
    played = cheating(party, Advertise, lambda message: signed_anew(party, replace(message, masking=bytes(32))))
    assert lost_for(played, Reason.UNUSABLE_KEY)
    assert len(completed(played).members) == 4


@pytest.mark.parametrize("copied", ["sealing", "masking"])
def test_a_copied_key_loses_whoever_sent_it_second(copied):
    party, seen = cast(5), []

    def up(name, message):
        if isinstance(message, Advertise):
            seen.append(message)
            if name == CHEAT:
                return signed_anew(party, replace(message, **{copied: seen[0].sealing}))
        return message

    played = play(party, words_of(party), up=up)
    assert lost_for(played, Reason.DUPLICATE_KEY)


def test_one_key_for_both_purposes_loses_its_sender():
    party = cast(5)
    alter = lambda message: signed_anew(party, replace(message, masking=message.sealing))  # noqa: E731
    assert lost_for(cheating(party, Advertise, alter), Reason.DUPLICATE_KEY)


@pytest.mark.parametrize("kind", [Advertise, Shares, Masked, Confirm, Unmask])
def test_a_signature_that_does_not_verify_loses_its_sender(kind):
    party = cast(5)
    played = cheating(party, kind, lambda message: replace(message, signature=bytes(64)))
    assert lost_for(played, Reason.BAD_SIGNATURE)
    assert isinstance(played.state, Complete)


@pytest.mark.parametrize("how", ["missing", "to a stranger", "of another size"])
def test_sealed_shares_that_are_not_one_a_neighbour_lose_their_sender(how):
    party = cast(5)
    states = {}

    def up(name, message):
        if name != CHEAT or not isinstance(message, Shares):
            return message
        (first, data), *others = message.ciphertexts
        changed = {
            "missing": others,
            "to a stranger": [("stranger", data), *others],
            "of another size": [(first, data + b"\0"), *others],
        }[how]
        statement = statements.shared(states[CHEAT].history, CHEAT, tuple(changed))
        return replace(message, ciphertexts=tuple(changed), signature=party.identities[CHEAT].sign(statement))

    assert lost_for(play(party, words_of(party), up=up, after=states), Reason.WRONG_CIPHERTEXTS)


@pytest.mark.parametrize("words", [Ring(32).zeros(6), Ring(64).zeros(7), Ring(32).zeros((7, 1))])
def test_words_of_another_shape_or_ring_lose_their_sender(words):
    party = cast(5)
    assert lost_for(cheating(party, Masked, lambda message: replace(message, words=words)), Reason.MALFORMED_MESSAGE)


def test_words_that_no_rounding_makes_leave_no_usable_sum():
    party = cast(5)
    words = words_of(party)
    words[CHEAT] = words[CHEAT] + np.uint32(1 << 30)
    done = completed(play(party, words))
    with pytest.raises(VerificationFailed, match="outside the bound"):
        done.sum  # noqa: B018 - a property that judges


def unmask_with(party, change, drops=None):
    """Let the cheat answer the last question with changed shares, rightly signed."""
    states = {}

    def up(name, message):
        if name != CHEAT or not isinstance(message, Unmask):
            return message
        changed = change(message)
        statement = statements.unmasked(states[CHEAT].history, CHEAT, changed.self_shares, changed.key_shares)
        return replace(changed, signature=party.identities[CHEAT].sign(statement))

    return play(party, words_of(party), up=up, drops=drops, before=states)


def off_by_one(shares):
    return tuple((name, SECRETS.encode((SECRETS.decode(data) + 1) % SECRETS.prime)) for name, data in shares)


@pytest.mark.parametrize("kind", ["self_shares", "key_shares"])
@pytest.mark.parametrize("size", [5, 8, 12])
def test_a_wrong_share_is_named_and_the_sum_is_right_all_the_same(kind, size):
    party = cast(size)
    drops = {party.names[-1]: "mask"} if size > 5 or kind == "key_shares" else {}
    change = lambda message: replace(message, **{kind: off_by_one(getattr(message, kind))})  # noqa: E731
    played = unmask_with(party, change, drops=drops)
    if size == 5 and drops:  # four survivors, a threshold of four: no share to spare
        assert isinstance(played.state, Abandoned)
        assert played.state.reason is Reason.INCONSISTENT_SHARES
        return
    done = completed(played)
    about = done.members if kind == "self_shares" else tuple(drops)
    misfits = [(each.worker, each.holder) for each in done.round.findings if each.holder]
    assert set(misfits) == {(sender, CHEAT) for sender in about}
    np.testing.assert_array_equal(done.total, plain_sum(words_of(party), done.members))


@pytest.mark.parametrize(
    "change",
    [
        lambda message: replace(message, self_shares=message.self_shares[1:]),
        lambda message: replace(message, self_shares=(*message.self_shares, message.self_shares[0])),
        lambda message: replace(message, key_shares=message.self_shares[:1]),
        lambda message: replace(
            message, self_shares=(("stranger", message.self_shares[0][1]), *message.self_shares[1:])
        ),
        lambda message: replace(
            message, self_shares=((message.self_shares[0][0], b"\xff" * 33), *message.self_shares[1:])
        ),
        lambda message: replace(message, self_shares=((message.self_shares[0][0], b"\0"), *message.self_shares[1:])),
    ],
    ids=["missing", "twice", "of a living one's key", "of a stranger", "not reduced", "of another size"],
)
def test_shares_that_were_not_asked_for_lose_their_sender(change):
    played = unmask_with(cast(5), change)
    assert lost_for(played, Reason.MALFORMED_SHARE)
    assert len(completed(played).members) == 5


def test_messages_out_of_turn_or_of_strangers_change_nothing():
    party = cast(5)
    turn = party.serve()
    step = party.begin(CHEAT)
    with pytest.raises(OutOfTurn):
        server.receive(turn.state, "stranger", step.message)
    with pytest.raises(OutOfTurn):
        server.receive(turn.state, CHEAT, replace(step.message, sid=bytes(32)))
    with pytest.raises(OutOfTurn):
        server.receive(turn.state, CHEAT, Confirm(step.message.sid, bytes(64)))
    with pytest.raises(OutOfTurn):
        server.receive(turn.state, "stranger", client.withdraw(step.state, "").message)
    after = server.receive(turn.state, CHEAT, step.message)
    with pytest.raises(OutOfTurn):
        server.receive(after.state, CHEAT, step.message)
    assert after.state.waiting == set(party.names) - {CHEAT}


def test_nobody_is_heard_after_they_are_gone_or_it_is_over():
    party = cast(5)
    message = party.begin(CHEAT).message
    turn = server.lost(party.serve().state, CHEAT)
    with pytest.raises(OutOfTurn):
        server.receive(turn.state, CHEAT, message)
    assert server.lost(turn.state, CHEAT).state is turn.state
    over = server.close(turn.state)
    assert isinstance(over.state, Abandoned)
    with pytest.raises(OutOfTurn):
        server.receive(over.state, CHEAT, message)
    assert server.close(over.state).state is over.state
    assert server.lost(over.state, CHEAT).state is over.state
    assert {each.worker for each in over.state.round.findings} == set(party.names)


def test_who_is_lost_after_answering_is_left_out_until_its_words_are_in_the_sum():
    party = cast(6)
    turn = party.serve()
    for name in party.names[:5]:
        turn = server.receive(turn.state, name, party.begin(name).message)
    turn = server.lost(turn.state, "worker-00000")
    turn = server.receive(turn.state, party.names[5], party.begin(party.names[5]).message)
    assert {name for name, _ in turn.outgoing} == set(party.names[1:])


@pytest.mark.parametrize("graph", ["complete", "harary"])
def test_everybody_gone_in_any_phase_abandons_the_round(graph):
    for phase in PHASES:
        party = cast(20, graph=graph)
        played = play(party, words_of(party), drops=dict.fromkeys(party.names, phase))
        assert isinstance(played.state, Abandoned)


# Secrets from shares


def shared(threshold, holders, seed=1):
    from fedpriv.entropy import SeededEntropy

    names = [f"holder-{at}" for at in range(holders)]
    points = {name: at + 1 for at, name in enumerate(names)}
    secret = int.from_bytes(SeededEntropy(bytes([seed])).random_bytes(32), "big")
    shares = SECRETS.split(secret, threshold, list(points.values()), SeededEntropy(b"s"))
    return secret, Recovery(threshold, points), dict(zip(names, shares, strict=True))


def encoded(shares):
    return {holder: SECRETS.encode(share) for holder, share in shares.items()}


@pytest.mark.parametrize("wrong", [set(each) for count in range(4) for each in itertools.combinations(range(7), count)])
def test_up_to_as_many_wrong_shares_as_are_spare_are_found(wrong):
    secret, recovery, shares = shared(4, 7)
    for at in wrong:
        shares[f"holder-{at}"] ^= 1 << 7 * at
    assert recovery.recover("owner", encoded(shares), secret.__eq__) == secret
    assert {outlier.holder for outlier in recovery.outliers} <= {f"holder-{at}" for at in wrong}
    if wrong & {0, 1, 2, 3}:
        assert {outlier.holder for outlier in recovery.outliers} == {f"holder-{at}" for at in wrong}


def test_too_many_wrong_shares_are_refused_by_whose_secret_it_is():
    secret, recovery, shares = shared(4, 7)
    for at in range(4):
        shares[f"holder-{at}"] ^= 1 << 7 * at
    with pytest.raises(Refused) as refused:
        recovery.recover("owner", encoded(shares), secret.__eq__)
    assert (refused.value.reason, refused.value.subject) == (Reason.INCONSISTENT_SHARES, "owner")


def test_the_search_for_a_right_subset_is_bounded():
    _, recovery, shares = shared(10, 25)
    tried = []
    with pytest.raises(Refused):
        recovery.recover("owner", encoded(shares), tried.append)
    assert len(tried) <= 2001
    assert recovery.attempts_left < 0


def test_a_holder_that_was_wrong_once_is_tried_last():
    secret, recovery, shares = shared(4, 7)
    shares["holder-0"] ^= 1
    recovery.recover("owner", encoded(shares), secret.__eq__)
    left = recovery.attempts_left
    assert recovery.recover("owner", encoded(shares), secret.__eq__) == secret
    assert recovery.attempts_left == left
    assert recovery.outliers == [Outlier("owner", "holder-0")] * 2


def test_fewer_shares_than_the_threshold_are_refused():
    secret, recovery, shares = shared(4, 7)
    few = dict(list(shares.items())[:3])
    with pytest.raises(Refused) as refused:
        recovery.recover("owner", encoded(few), secret.__eq__)
    assert refused.value.reason is Reason.TOO_FEW_MEMBERS


def test_a_value_that_is_no_32_bytes_is_no_secret():
    from fedpriv.secagg import unmasking

    pair = keys.KeyPair.of(bytes(31) + b"\1")
    assert unmasking._has_public(pair.public, 1)
    assert not unmasking._has_public(pair.public, 1 << 256)
    assert not unmasking._commits(bytes(32), "owner", bytes(32), 1 << 256)


def test_terms_of_the_coordinator_may_be_stricter():
    party = cast(5)
    party.terms = Terms(minimum_cohort=5)
    with pytest.raises(Refused):
        party.serve()
