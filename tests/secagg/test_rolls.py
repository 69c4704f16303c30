"""What a worker of a large cohort is told of U1: its neighbours' keys, everybody's name, and a proof; and who lies."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import cast, until, words_of
from witnesses import ME, stops

from fedpriv.secagg import client, rolls, server
from fedpriv.secagg.keys import fresh_pair
from fedpriv.secagg.messages import Delivery
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.statements import History
from fedpriv.secagg.tree import Tree, node_hash, root_of


def leaves(count):
    return [hashlib.sha256(b"%d" % at).digest() for at in range(count)]


def rfc_6962(entries):
    """Return the root as RFC 6962, 2.1 defines it, with our node."""
    if len(entries) == 1:
        return entries[0]
    split = 1 << (len(entries) - 1).bit_length() - 1
    return node_hash(rfc_6962(entries[:split]), rfc_6962(entries[split:]))


@given(size=st.integers(1, 70), data=st.data())
def test_any_leaves_lead_to_the_root_with_their_proof_and_no_other(size, data):
    entries = leaves(size)
    tree = Tree(entries)
    assert tree.root == rfc_6962(entries)
    places = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    known, proof = {place: entries[place] for place in places}, tree.proof(places)
    assert root_of(size, known, proof) == tree.root
    place = data.draw(st.sampled_from(sorted(places)))
    assert root_of(size, known | {place: b"x" * 32}, proof) != tree.root
    for wrong in ((*proof, b"x" * 32), proof[:-1]):
        if wrong != proof:
            with pytest.raises(Refused, match="does not lead"):
                root_of(size, known, wrong)


def test_all_leaves_need_no_proof():
    assert Tree(leaves(11)).proof(range(11)) == ()


@pytest.fixture(scope="module")
def sixty():
    return cast(60, graph="harary")


@pytest.fixture
def called(sixty):
    """Return the state of a worker that advertised in a round of sixty, and the roll that is due."""
    return until(sixty, words_of(sixty), "share")[ME]


def test_a_worker_gets_its_neighbours_keys_and_everybodys_name(sixty, called):
    state, roll = called
    step = client.receive(state, roll)
    degree = sixty.descriptor.graph.degree
    assert isinstance(step.state, client.Shared)
    assert len(roll.members) == degree + 1 < len(roll.everybody) == 60
    assert len(step.message.ciphertexts) == degree == len(step.state.around.neighbours)
    assert len(step.state.members) == degree + 1


def with_member(roll, at, **change):
    changed = replace(roll.members[at], **change)
    return replace(roll, members=(*roll.members[:at], changed, *roll.members[at + 1 :]))


def of_another(roll):
    return next(at for at, each in enumerate(roll.members) if each.worker != ME)


LIES = {
    "a neighbour is missing": (lambda roll: replace(roll, members=roll.members[:-1]), Reason.MALFORMED_MESSAGE),
    "a hash is missing": (lambda roll: replace(roll, proof=roll.proof[1:]), Reason.MALFORMED_MESSAGE),
    "a hash too many": (lambda roll: replace(roll, proof=(*roll.proof, bytes(32))), Reason.MALFORMED_MESSAGE),
    "another tree, so another graph": (
        lambda roll: replace(roll, proof=(bytes(32), *roll.proof[1:])),
        Reason.MALFORMED_MESSAGE,
    ),
    "another key of a neighbour, so another graph": (
        lambda roll: with_member(roll, of_another(roll), sealing=roll.sid),
        Reason.MALFORMED_MESSAGE,
    ),
    "the complete graph's roll": (lambda roll: replace(roll, everybody=()), Reason.TOO_FEW_MEMBERS),
    "a Sybil": (lambda roll: replace(roll, everybody=(*roll.everybody[:-1], "mallory")), Reason.NOT_ON_ROSTER),
    "somebody twice": (
        lambda roll: replace(roll, everybody=(*roll.everybody[:-1], roll.everybody[0])),
        Reason.DUPLICATE_MEMBER,
    ),
    "one too many": (
        lambda roll: replace(roll, everybody=(*roll.everybody, roll.everybody[0])),
        Reason.TOO_MANY_MEMBERS,
    ),
    "fewer than stay connected": (lambda roll: replace(roll, everybody=roll.everybody[:50]), Reason.TOO_FEW_MEMBERS),
    "one neighbour twice": (
        lambda roll: replace(roll, members=(*roll.members, roll.members[-1])),
        Reason.DUPLICATE_MEMBER,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_roll_that_is_not_as_it_should_be(sixty, called, lie):
    change, reason = LIES[lie]
    state, roll = called
    stops(sixty, state, client.receive(state, change(roll)), reason)


def test_keys_of_a_neighbour_that_it_did_not_sign(sixty):
    """The coordinator puts its own keys into the tree, so that roll and graph fit; the signature cannot."""
    states = {name: sixty.begin(name) for name in sixty.names}
    turn = sixty.serve()
    victim = sixty.names[7]
    for name, step in states.items():
        turn = server.receive(turn.state, name, step.message)
    members = dict(turn.state.cohort.members)
    own = fresh_pair(sixty.entropy)
    members[victim] = replace(members[victim], sealing=own.public)
    _, graph, called = rolls.calls(History(sixty.descriptor.sid), sixty.descriptor, members)
    neighbour = graph.neighbours(victim)[0]
    step = client.receive(states[neighbour].state, dict(called)[neighbour])
    assert (step.message.reason, step.message.subject) == (Reason.BAD_SIGNATURE, victim)


def test_workers_that_are_told_of_different_strangers_open_no_share_of_each_other(sixty):
    """A Delivery from another tree: what was sealed under one h1 does not open under another."""
    state, delivery = until(sixty, words_of(sixty), "mask")[ME]
    assert isinstance(delivery, Delivery)
    other = replace(state, history=replace(state.history, h1=bytes(32)))
    assert client.receive(other, delivery).message.reason is Reason.UNDECIPHERABLE_SHARE
