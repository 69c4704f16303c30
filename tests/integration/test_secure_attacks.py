"""What a malicious coordinator tries (A.4 of the specification), against real sessions: each attempt ends in an abort.

The coordinator is written for the purpose (`cheating`) and speaks the wire protocol; the workers are the ordinary ones.
A worker that aborts lets no share out for that session, signs why, and has the reason on record.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cheating import CHEATED, PATIENCE_SECONDS, Cheat, Cheating
from fleets import toy, virtual_fleet

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.privacy.reservations import State
from fedpriv.secagg import sharing
from fedpriv.secagg.keys import KeyPair, fresh_pair, seal, share_key, unseal
from fedpriv.secagg.messages import Advertise, Agreement, Delivery, Invite, Roll, Survivors
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.statements import advertised, sealed_for, share_header
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv_coordinator.summing import Summed
from fedpriv_worker.worker import Worker

NAMES = CHEATED
VICTIM = "bob"
ACCOMPLICE = "alice"
HONEST_SHARE_OUT = sharing.share_out


def only(worker_told, change):
    """Return an alteration of the messages of one kind that the victim is told."""

    def alter(worker, message):
        return change(message) if worker == VICTIM and isinstance(message, worker_told) else message

    return alter


def test_an_honest_round_is_the_control(cheat: Cheat) -> None:
    cheating, summed = cheat.play()
    assert summed.sum is not None
    assert cheating.aborts() == {}


def test_different_survivors_for_different_workers_unmask_nothing(cheat: Cheat) -> None:
    """The classic: one worker is told that another was lost, so as to get both kinds of its shares."""

    def alter(worker, message):
        if worker in ("alice", "bob", "carol") or not isinstance(message, Survivors):
            return message
        return replace(message, members=tuple(name for name in message.members if name != VICTIM))

    cheating, summed = cheat.play(alter)
    assert summed.sum is None
    stopped = cheating.aborts()
    assert {reason for reason, _ in stopped.values()} <= {"not-agreed"}
    for name in NAMES:
        assert "secagg-unmask" not in cheat.kinds(name)


def test_the_same_worker_among_the_living_and_the_dead_is_not_shown_by_anybody(cheat: Cheat) -> None:
    shown = []

    def alter(worker, message):
        if isinstance(message, Agreement):
            shown.append(worker)
            return message
        if isinstance(message, Survivors) and worker == VICTIM:
            return replace(message, members=tuple(name for name in message.members if name != VICTIM))
        return message

    cheating, _ = cheat.play(alter)
    assert cheating.aborts() == {VICTIM: ("left-out", VICTIM)}


def test_another_model_for_one_worker_is_found_by_it(cheat: Cheat) -> None:
    trap = TensorSet({name: tensor + 1 for name, tensor in cheat.model})
    cheating, _ = cheat.play(
        alter_order=lambda worker, order: replace(order, model=trap) if worker == VICTIM else order
    )
    assert cheating.aborts() == {VICTIM: ("descriptor-differs", "model")}


def test_another_model_with_a_descriptor_that_fits_it_is_another_session(cheat: Cheat) -> None:
    trap, order = TensorSet({name: tensor + 1 for name, tensor in cheat.model}), cheat.order()

    def alter(worker, order):
        changed = replace(order, model=trap)
        return replace(changed, invite=Invite(cheat.descriptor(changed, round=order.invite.descriptor.round)))

    (trapped,) = cheat.ask_one(VICTIM, alter(VICTIM, replace(order, invite=Invite(cheat.descriptor(order)))))
    _, summed = cheat.play(without=VICTIM)
    assert summed.sum is not None
    assert summed.parts[VICTIM].status != "folded"

    def slipped_in(worker, message):
        if not isinstance(message, Roll):
            return message
        return replace(message, members=(*message.members, replace(trapped, sid=message.sid)))

    cheating, _ = cheat.play(slipped_in, without=VICTIM)
    assert set(cheating.aborts().values()) == {("bad-signature", VICTIM)}
    assert cheat.kinds(VICTIM) == ["secagg-advertise"]


@pytest.mark.parametrize(
    "change",
    [
        lambda order: replace(order, hyperparameters={**order.hyperparameters, "lr": 0.0}),
        lambda order: replace(order, epochs=2),
        lambda order: replace(order, batch_size=40),
        lambda order: replace(order, shuffle=False),
        lambda order: replace(order, metrics=("loss",)),
        lambda order: replace(order, purpose="another"),
    ],
    ids=["learning rate", "epochs", "batch size", "shuffle", "metrics", "purpose"],
)
def test_an_order_that_makes_the_others_contribute_nothing_is_found(cheat: Cheat, change) -> None:
    """With a learning rate of 0 for all but one, the sum would be that one's update."""
    cheating, _ = cheat.play(alter_order=lambda worker, order: order if worker == "alice" else change(order))
    assert cheating.aborts().keys() == set(NAMES) - {"alice"}
    assert {reason for reason, _ in cheating.aborts().values()} == {"descriptor-differs"}
    assert cheat.kinds("alice") == ["secagg-advertise"]


def with_keys_of_its_own(roll: Roll) -> Roll:
    """Put the coordinator's keys in the place of dave's."""
    own = [fresh_pair(SystemEntropy()) for _ in range(2)]
    return replace(
        roll,
        members=tuple(
            replace(each, sealing=own[0].public, masking=own[1].public) if each.worker == "dave" else each
            for each in roll.members
        ),
    )


def with_a_sybil(roll: Roll) -> Roll:
    own: list[KeyPair] = [fresh_pair(SystemEntropy()) for _ in range(2)]
    sybil = Advertise(roll.sid, "mallory", own[0].public, own[1].public, bytes(32), bytes(64))
    return replace(roll, members=(*(each for each in roll.members if each.worker != "dave"), sybil))


def of_low_order(cheat: Cheat, roll: Roll) -> Roll:
    """Give the accomplice a masking key of low order, which everybody agrees with on the same number; it signs it."""
    (own,) = [each for each in roll.members if each.worker == ACCOMPLICE]
    statement = advertised(roll.sid, ACCOMPLICE, own.sealing, bytes(32), own.commitment)
    identity = cheat.enrolments[ACCOMPLICE].identity
    weak = replace(own, masking=bytes(32), signature=identity.sign(statement))
    return replace(roll, members=tuple(weak if each.worker == ACCOMPLICE else each for each in roll.members))


def test_a_key_of_low_order_that_a_colluding_worker_signs_is_refused(cheat: Cheat) -> None:
    cheating, summed = cheat.play(only(Roll, lambda roll: of_low_order(cheat, roll)))
    assert_stopped(cheat, cheating, summed, ("unusable-key", ACCOMPLICE))


def assert_stopped(cheat: Cheat, cheating: Cheating, summed: Summed, reason: tuple[str, str]) -> None:
    """Hold the victim to its abort: signed, the last that its ledger has of the round, and among the findings."""
    assert cheating.aborts()[VICTIM] == reason
    (found,) = [each for each in summed.findings if each.worker == VICTIM]
    assert found.abort is not None
    assert (found.abort.reason.value, found.abort.subject) == reason
    assert cheat.kinds(VICTIM)[-1] == "secagg-abort"
    assert "secagg-unmask" not in cheat.kinds(VICTIM)


def replaced(message: Delivery, sender: str, sealed: bytes) -> Delivery:
    return replace(
        message, ciphertexts=tuple((name, sealed if name == sender else each) for name, each in message.ciphertexts)
    )


def test_a_share_that_is_reflected_to_its_sender_is_refused(cheat: Cheat) -> None:
    def alter(message):
        return replaced(message, ACCOMPLICE, cheat.cheating.sealed(VICTIM)[ACCOMPLICE])

    cheating, summed = cheat.play(only(Delivery, alter))
    assert_stopped(cheat, cheating, summed, ("undecipherable-share", f"{ACCOMPLICE} -> {VICTIM}"))


def test_a_share_that_is_replayed_from_an_earlier_round_is_refused(cheat: Cheat) -> None:
    earlier, _ = cheat.play()
    old = earlier.sealed(ACCOMPLICE)[VICTIM]
    cheat.anew()
    cheating, summed = cheat.play(only(Delivery, lambda message: replaced(message, ACCOMPLICE, old)))
    assert_stopped(cheat, cheating, summed, ("undecipherable-share", f"{ACCOMPLICE} -> {VICTIM}"))


def headed(point: int):
    return lambda plain: share_header(ACCOMPLICE, VICTIM, point) + plain[-66:]


MALFORMED = {
    "one byte short": lambda plain: plain[:-1],
    "one byte long": lambda plain: plain + b"\0",
    "as long as a message may hold": lambda plain: plain + bytes(800),
    "x = 0": headed(0),
    "the x of somebody else": headed(1),
    "not reduced": lambda plain: plain[:-33] + SECRETS.prime.to_bytes(33, "big"),
    "unaltered, as the control": lambda plain: plain,
}


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_share_of_a_colluding_worker_is_refused_and_says_who_made_it(
    cheat: Cheat, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The accomplice seals what it wants, rightly; the coordinator passes that on, past its own checks."""
    forged: list[bytes] = []

    def share_out(secrets, history, graph, members, *, me, threshold, entropy):
        sealed = HONEST_SHARE_OUT(secrets, history, graph, members, me=me, threshold=threshold, entropy=entropy)
        if me == ACCOMPLICE:
            agreed = secrets.sealing.agree(VICTIM, members[VICTIM].sealing)
            route = (secrets.sealing.public, members[VICTIM].sealing)
            key, bound = share_key(agreed, history.sid, (me, VICTIM), route), sealed_for(history, me, VICTIM)
            forged.append(seal(key, MALFORMED[how](unseal(key, dict(sealed)[VICTIM], bound)), bound))
        return sealed

    monkeypatch.setattr(sharing, "share_out", share_out)
    cheating, summed = cheat.play(only(Delivery, lambda message: replaced(message, ACCOMPLICE, forged[0])))
    monkeypatch.undo()
    if how.startswith("unaltered"):
        assert cheating.aborts() == {}
    else:
        assert_stopped(cheat, cheating, summed, ("malformed-share", f"{ACCOMPLICE} -> {VICTIM}"))


def misrouted(delivery: Delivery) -> Delivery:
    (first, sealed), (second, other), *rest = delivery.ciphertexts
    return replace(delivery, ciphertexts=((first, other), (second, sealed), *rest))


@pytest.mark.parametrize(
    ("told", "change", "reason"),
    [
        (Roll, with_keys_of_its_own, ("bad-signature", "dave")),
        (Roll, with_a_sybil, ("not-on-roster", "mallory")),
        (Roll, lambda roll: replace(roll, members=roll.members[:3]), ("too-few-members", "")),
        (Roll, lambda roll: replace(roll, members=roll.members + roll.members[:1]), ("too-many-members", "")),
        (Delivery, misrouted, ("undecipherable-share", "alice -> bob")),
        (Delivery, lambda told: replace(told, ciphertexts=told.ciphertexts[1:]), ("wrong-ciphertexts", "")),
        (Survivors, lambda told: replace(told, members=(VICTIM,)), ("too-few-members", "")),
        (Survivors, lambda told: replace(told, members=(*told.members, "mallory")), ("not-a-subset", "mallory")),
        (Agreement, lambda told: replace(told, signatures=()), ("not-agreed", "")),
        (
            Agreement,
            lambda told: replace(told, signatures=tuple((name, bytes(64)) for name, _ in told.signatures)),
            ("not-agreed", ""),
        ),
    ],
    ids=[
        "substituted keys", "a sybil", "too few", "one twice", "misrouted share", "a share kept back",
        "a single survivor", "a new survivor", "no agreement", "forged agreement",
    ],
)  # fmt: skip  # one line of names
def test_what_one_worker_is_told_falsely_makes_it_stop(cheat: Cheat, told, change, reason) -> None:
    cheating, summed = cheat.play(only(told, change))
    assert_stopped(cheat, cheating, summed, reason)


def test_the_same_round_again_without_one_worker_is_refused(cheat: Cheat) -> None:
    cheating, _ = cheat.play()
    order, again = cheat.order(), cheating.descriptor.round
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, round=again, workers=4))))
    assert (abort.reason.value, abort.subject) == ("round-not-new", "round")
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, round=again - 1))))
    assert abort.reason.value == "round-not-new"


def test_repeated_and_late_messages_change_nothing(cheat: Cheat) -> None:
    told: list[object] = []

    def alter(worker, message):
        if worker == VICTIM:
            told.append(message)
        return message

    cheating, summed = cheat.play(alter)
    before = cheat.kinds(VICTIM)
    connection = cheat.members.connected[VICTIM]
    for message in told:
        runtime.run(connection.tell(message))
    order = cheat.order()
    cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    for message in told:  # of the session before, while another is under way
        runtime.run(connection.tell(message))
    cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert summed.sum is not None
    assert cheat.kinds(VICTIM) == [*before, "secagg-advertise", "secagg-advertise"]
    assert cheating.aborts() == {}


def test_a_share_that_is_longer_than_any_can_be_ends_the_link_and_costs_nothing(tmp_path: Path) -> None:
    """It is no message at all, so nobody answers it; the worker's part ends as with any lost link."""
    rule = fp.SecureSum(rounds_per_day=9)
    fleet = virtual_fleet({name: [toy(8, seed=at, release=[rule])] for at, name in enumerate(NAMES)}, tmp_path)
    try:
        cheat = Cheat(fleet)
        cheat.anew()
        _, summed = cheat.play(only(Delivery, lambda message: replaced(message, ACCOMPLICE, bytes(1 << 20))))
        assert summed.parts[VICTIM].status == "lost"
        runtime.run(asyncio.wait_for(all_ended(fleet.workers[VICTIM]), PATIENCE_SECONDS))
        assert [held.state for held in fleet.journals[VICTIM].holds.all()] == [State.CANCELLED]
        assert cheat.kinds(VICTIM) == ["secagg-advertise", "secagg-shares"]
    finally:
        fleet.close()


async def all_ended(worker: Worker) -> None:
    await asyncio.gather(*worker._ending)
