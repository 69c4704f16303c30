"""What a coordinator that cheats, or a worker that helps it, may try: each attempt meets a signed abort and no secrets.

Every cheat is written out: it alters, withholds or invents what honest workers are told, and holds the keys of the
workers that collude. `stops` checks that the honest worker aborted for the right reason, signed it, and has no secret
left.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from parties import cast, identity, play, until, words_of
from witnesses import erased, stops

from fedpriv.entropy import SeededEntropy
from fedpriv.secagg import client, keys, statements
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.messages import (
    Abort,
    Advertise,
    Agreement,
    Delivery,
    Invite,
    Masked,
    Roll,
    Shares,
    Survivors,
    Unmask,
)
from fedpriv.secagg.reasons import Erased, OutOfTurn, Reason
from fedpriv.secagg.roster import Member, Roster
from fedpriv.secagg.vector import Part, Treatment, VectorSpec

VICTIM = "worker-00002"


def sign_confirm(party, name, history):
    return name, party.identities[name].sign(statements.confirmed(history, name))


def test_the_same_worker_in_the_alive_and_in_the_dead_list():
    """The coordinator wants b and s of one worker: it tells half that it survived, half that it did not."""
    party, target = cast(5), "worker-00000"
    at = until(party, words_of(party), "confirm")
    alive = at[VICTIM][1]
    dead = replace(alive, members=tuple(name for name in alive.members if name != target))
    confirmed = {}
    for name in party.names[1:]:
        story = alive if name in (VICTIM, "worker-00001") else dead
        confirmed[name] = client.receive(at[name][0], story)
    signatures = tuple((name, step.message.signature) for name, step in confirmed.items() if name != VICTIM)
    before = confirmed[VICTIM].state
    stops(party, before, client.receive(before, Agreement(before.own.descriptor.sid, signatures)), Reason.NOT_AGREED)


def test_a_worker_shows_one_kind_of_share_of_anybody_and_only_once():
    """Told the other story afterwards, a worker that has answered has nothing left to show."""
    party = cast(5)
    state, agreement = until(party, words_of(party), "unmask", drops={"worker-00004": "mask"})[VICTIM]
    step = client.receive(state, agreement)
    alive, dead = ({name for name, _ in shares} for shares in (step.message.self_shares, step.message.key_shares))
    assert not alive & dead
    with pytest.raises(OutOfTurn):
        client.receive(step.state, Survivors(agreement.sid, tuple(party.names)))
    with pytest.raises(Erased):
        client.receive(state, agreement)
    erased(state)


def test_two_different_survivor_sets_find_no_two_majorities_even_with_colluders():
    """n = 10, three collude and sign both stories: 3 + 4 and 3 + 3 are both below the threshold of 7 but for one."""
    party = cast(10)
    at = until(party, words_of(party), "confirm")
    colluding, honest = party.names[:3], party.names[3:]
    everyone = at[honest[0]][1]
    without = replace(everyone, members=tuple(name for name in everyone.members if name != party.names[0]))
    stories = {name: everyone if name in honest[:4] else without for name in honest}
    steps = {name: client.receive(at[name][0], stories[name]) for name in honest}
    answered = []
    for name in honest:
        same = [each for each in honest if stories[each] is stories[name] and each != name]
        history = steps[name].state.history
        signatures = [(each, steps[each].message.signature) for each in same]
        signatures += [sign_confirm(party, each, history) for each in colluding if each in stories[name].members]
        final = client.receive(steps[name].state, Agreement(history.sid, tuple(signatures)))
        if isinstance(final.message, Unmask):
            answered.append(stories[name] is everyone)
        else:
            assert final.message.reason is Reason.NOT_AGREED
    assert set(answered) == {True}, "only the one story with seven signatures is unmasked"


def test_different_models_for_different_workers():
    """The model is in the session's id: a worker with another model than the coordinator says aborts at once."""
    party = cast(5)
    invite = Invite(replace(party.descriptor, model=b"x" * 32))
    step = client.begin(
        invite, party.expected, name=VICTIM, identity=party.identities[VICTIM], terms=party.terms, entropy=party.entropy
    )
    assert (step.message.reason, step.message.subject) == (Reason.DESCRIPTOR_DIFFERS, "model")


def test_different_models_consistently_told_share_no_session():
    """Each half is told a consistent story about its own model: signatures of the one half fail at the other."""
    one, other = cast(6), cast(6)
    other.descriptor, other.entropy = replace(other.descriptor, model=b"x" * 32), SeededEntropy(b"other")
    assert one.descriptor.sid != other.descriptor.sid
    here = {name: one.begin(name) for name in one.names[:3]}
    there = {name: other.begin(name) for name in other.names[3:]}
    mixed = tuple(replace(step.message, sid=one.descriptor.sid) for step in (*here.values(), *there.values()))
    before = here[VICTIM].state
    stops(one, before, client.receive(before, Roll(one.descriptor.sid, mixed)), Reason.BAD_SIGNATURE, "worker-00003")


def test_keys_put_in_by_the_coordinator():
    """The coordinator replaces a worker's keys with its own, to read what is sealed for it."""
    party = cast(5)
    state, roll = until(party, words_of(party), "share")[VICTIM]
    own = keys.fresh_pair(SeededEntropy(b"coordinator"))
    forged = replace(roll.members[4], sealing=own.public)
    step = client.receive(state, replace(roll, members=(*roll.members[:4], forged)))
    stops(party, state, step, Reason.BAD_SIGNATURE, "worker-00004")


def test_keys_put_in_and_signed_with_the_coordinators_own_identity():
    party = cast(5)
    state, roll = until(party, words_of(party), "share")[VICTIM]
    own, signer = keys.fresh_pair(SeededEntropy(b"coordinator")), identity("coordinator")
    old = roll.members[4]
    statement = statements.advertised(roll.sid, old.worker, own.public, old.masking, old.commitment)
    forged = replace(old, sealing=own.public, signature=signer.sign(statement))
    step = client.receive(state, replace(roll, members=(*roll.members[:4], forged)))
    stops(party, state, step, Reason.BAD_SIGNATURE, "worker-00004")


def sybils(party, count, sid):
    for at in range(count):
        name, signer = f"sybil-{at}", identity(f"sybil-{at}")
        pairs = [keys.fresh_pair(SeededEntropy(b"%d%d" % (at, which))) for which in range(2)]
        publics = pairs[0].public, pairs[1].public, bytes([at]) * 32
        yield Advertise(sid, name, *publics, signer.sign(statements.advertised(sid, name, *publics)))


def test_sybils_are_on_no_roster():
    """The coordinator surrounds one worker with workers of its own."""
    party = cast(5)
    state, roll = until(party, words_of(party), "share")[VICTIM]
    mine = roll.members[2]
    step = client.receive(state, replace(roll, members=(mine, *sybils(party, 4, roll.sid))))
    stops(party, state, step, Reason.NOT_ON_ROSTER, "sybil-0")


def test_a_roster_that_the_coordinator_extended_is_another_roster():
    party = cast(5)
    extra = Member("zz-sybil", identity("zz-sybil").public)
    extended = Roster("clinics", 1, (*party.roster.members, extra))
    step = party.begin(VICTIM, roster=extended.digest)
    assert (step.message.reason, step.message.subject) == (Reason.DESCRIPTOR_DIFFERS, "roster version 1")
    signature = extended.signed(identity("coordinator"))
    with pytest.raises(client.Refused) as refused:
        extended.check(signature, identity("administrator").public)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_more_members_than_the_threshold_was_computed_for():
    """n = 4 with t = 4, then eight members: two colluders could have vouched for two stories."""
    party = cast(8)
    party.descriptor = replace(party.descriptor, workers=4, threshold=4)
    states = {name: party.begin(name) for name in party.names}
    roll = Roll(party.descriptor.sid, tuple(step.message for step in states.values()))
    before = states[VICTIM].state
    stops(party, before, client.receive(before, roll), Reason.TOO_MANY_MEMBERS)


@pytest.mark.parametrize(("invited", "threshold"), [(3, 2), (4, 3), (4, 4)])
def test_few_workers_of_a_large_roster_most_of_whom_may_collude(invited, threshold):
    """Ten are enrolled and three may collude: invite these three, and the fourth is alone with them."""
    step = cast(10).begin(VICTIM, workers=invited, threshold=threshold)
    assert step.message.reason is Reason.COHORT_TOO_SMALL


def test_a_threshold_for_those_invited_only():
    """Five of ten: three of them may collude, so t = 4 is too low, which would do for a roster of five."""
    party = cast(10)
    assert party.begin(VICTIM, workers=6, threshold=4).message.reason is Reason.COHORT_TOO_SMALL
    assert party.begin(VICTIM, workers=8, threshold=5).message.reason is Reason.THRESHOLD_TOO_LOW
    assert party.begin(VICTIM, workers=8, threshold=6).message.sealing


@pytest.mark.parametrize(
    "changes", [{"minimum_cohort": 1 << 31}, {"minimum_cohort": 6}, {"workers": 9, "threshold": 6}]
)
def test_a_minimum_that_no_round_can_reach(changes):
    """It would satisfy any rule about the size of a sum, and end in none."""
    assert cast(5).begin(VICTIM, **changes).message.reason is Reason.COHORT_TOO_SMALL


def test_a_threshold_of_one():
    step = cast(5).begin(VICTIM, threshold=1)
    assert step.message.reason is Reason.THRESHOLD_TOO_LOW


@pytest.mark.parametrize("phase", ["share", "mask", "confirm"])
def test_a_single_survivor(phase):
    """Everybody else "dropped out": the sum would be the victim's own update."""
    party = cast(5)
    state, message = until(party, words_of(party), phase)[VICTIM]
    if isinstance(message, Roll):
        alone = replace(message, members=(message.members[2],))
    elif isinstance(message, Delivery):
        alone = replace(message, members=(VICTIM,), ciphertexts=())
    else:
        alone = replace(message, members=(VICTIM,))
    stops(party, state, client.receive(state, alone), Reason.TOO_FEW_MEMBERS)


def test_the_same_round_again_without_one_worker():
    """The difference of two sums would be one update: round numbers only rise, and are remembered."""
    party = cast(5)
    assert isinstance(party.begin(VICTIM).message, Advertise)
    party.terms = Terms(last_round=party.descriptor.round)
    step = party.begin(VICTIM, workers=4, threshold=3)
    assert step.message.reason is Reason.ROUND_NOT_NEW


def test_different_rolls_for_different_workers():
    """One half is told of six workers, the other of five: nobody can open what the other half sealed."""
    party = cast(6)
    at = until(party, words_of(party), "share")
    full = at[VICTIM][1]
    fewer = replace(full, members=full.members[:5])
    steps = {name: client.receive(at[name][0], full if name == VICTIM else fewer) for name in party.names[:5]}
    sealed = tuple((name, dict(step.message.ciphertexts)[VICTIM]) for name, step in steps.items() if name != VICTIM)
    before = steps[VICTIM].state
    step = client.receive(before, Delivery(full.sid, tuple(party.names[:5]), sealed))
    stops(party, before, step, Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {VICTIM}")


def test_different_second_sets_for_different_workers():
    """Masks would not cancel, and signatures over U3 do not count for who was told another U2."""
    party = cast(6)
    words = words_of(party)
    at = until(party, words, "mask")
    confirmed = {}
    for name in party.names[:5]:
        state, delivery = at[name]
        if name != VICTIM:
            left = tuple(each for each in delivery.ciphertexts if each[0] != "worker-00005")
            delivery = replace(delivery, members=delivery.members[:5], ciphertexts=left)
        ready = client.receive(state, delivery).state
        submitted = client.submit(ready, words[name]).state
        confirmed[name] = client.receive(submitted, Survivors(delivery.sid, tuple(party.names[:5])))
    signatures = tuple((name, step.message.signature) for name, step in confirmed.items() if name != VICTIM)
    before = confirmed[VICTIM].state
    stops(party, before, client.receive(before, Agreement(delivery.sid, signatures)), Reason.NOT_AGREED)


LOW_ORDER = [bytes(32), (1).to_bytes(32, "little"), ((1 << 255) - 20).to_bytes(32, "little")]


@pytest.mark.parametrize("field", ["sealing", "masking"])
@pytest.mark.parametrize("point", LOW_ORDER, ids=["0", "1", "p-1"])
def test_a_point_of_low_order_signed_by_a_worker_that_colludes(field, point):
    """The agreement would be known to anybody; the worker itself signed the key, so only the point shows it."""
    party = cast(5)
    state, roll = until(party, words_of(party), "share")[VICTIM]
    bad = replace(roll.members[4], **{field: point})
    statement = statements.advertised(roll.sid, bad.worker, bad.sealing, bad.masking, bad.commitment)
    bad = replace(bad, signature=party.identities[bad.worker].sign(statement))
    step = client.receive(state, replace(roll, members=(*roll.members[:4], bad)))
    stops(party, state, step, Reason.UNUSABLE_KEY, "worker-00004")


def test_a_modulus_that_overflows():
    vector = VectorSpec((Part("update", (7,), 1.0, 31, Treatment.UNWEIGHTED),))
    step = cast(5, vector).begin(VICTIM, modulus_bits=32)
    assert step.message.reason is Reason.MODULUS_TOO_SMALL


@pytest.mark.parametrize("kind", [Roll, Delivery, Survivors, Agreement])
def test_whoever_aborts_is_no_longer_waited_for_and_the_reason_is_kept(kind):
    """The honest coordinator meets the same abort: it records the signed reason, and the rest go on or give up."""
    party = cast(6)

    def down(name, message):
        if name != VICTIM or not isinstance(message, kind):
            return message
        match message:
            case Roll():
                return replace(message, members=message.members[:1])
            case Delivery():
                return replace(message, ciphertexts=())
            case Survivors():
                return replace(message, members=message.members[:1])
            case Agreement():
                return replace(message, signatures=())

    played = play(party, words_of(party), down=down)
    (finding,) = played.state.round.findings
    assert (finding.worker, finding.abort) == (VICTIM, played.workers[VICTIM].abort)
    assert len(played.state.members) == (6 if kind in (Survivors, Agreement) else 5)


def test_an_abort_that_somebody_else_signed_does_not_remove_a_worker():
    party = cast(5)

    def up(name, message):
        if name == VICTIM and isinstance(message, Shares):
            forged = Abort(message.sid, 1, Reason.WITHDRAWN, "", b"")
            return replace(forged, signature=identity("network").sign(statements.aborted(VICTIM, forged)))
        return message

    (finding,) = play(party, words_of(party), up=up).state.round.findings
    assert (finding.reason, finding.abort) == (Reason.BAD_SIGNATURE, None)


def test_masked_words_that_the_network_altered_are_not_added():
    party = cast(5)
    words = words_of(party)

    def up(name, message):
        return replace(message, words=message.words + 1) if name == VICTIM and isinstance(message, Masked) else message

    played = play(party, words, up=up)
    assert VICTIM not in played.state.members
    assert [each.reason for each in played.state.round.findings] == [Reason.BAD_SIGNATURE]
