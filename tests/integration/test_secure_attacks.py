"""What a malicious coordinator tries (A.4 of the specification), against real sessions: each attempt ends in an abort.

The coordinator is written for the purpose (`cheating`) and speaks the wire protocol; the workers are the ordinary ones.
A worker that aborts lets no share out for that session, signs why, and has the reason on record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from cheating import Cheat
from fleets import Fleet, toy, virtual_fleet

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import WorkerRefused
from fedpriv.secagg.keys import KeyPair, fresh_pair
from fedpriv.secagg.messages import Abort, Advertise, Agreement, Delivery, Invite, Roll, Survivors
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import new_identity
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv_worker.enrolment import Enrolment, OwnerTerms

NAMES = ("alice", "bob", "carol", "dave", "erin")
VICTIM = "bob"


@pytest.fixture
def cheat(tmp_path: Path) -> Iterator[Cheat]:
    fleet = virtual_fleet(
        {name: [toy(40, seed=at, release=[fp.SecureSum()])] for at, name in enumerate(NAMES)}, tmp_path
    )
    yield Cheat(fleet)
    fleet.close()


def kinds_of(fleet: Fleet, worker: str) -> list[str]:
    return [kind for kind in fleet.kinds(worker) if kind.startswith("secagg")]


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
        assert "secagg-unmask" not in kinds_of(cheat.fleet, name)


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
    trap = TensorSet({name: tensor + 1 for name, tensor in cheat.model})

    def alter(worker, order):
        if worker != VICTIM:
            return order
        changed = replace(order, model=trap)
        return replace(changed, invite=Invite(cheat.descriptor(changed, round=order.invite.descriptor.round)))

    _, summed = cheat.play(alter_order=alter)
    assert summed.sum is not None
    assert summed.parts[VICTIM].status != "folded"
    assert kinds_of(cheat.fleet, VICTIM) == ["secagg-advertise"]


@pytest.mark.parametrize(
    "change",
    [
        lambda order: replace(order, hyperparameters={**order.hyperparameters, "lr": 0.0}),
        lambda order: replace(order, epochs=2),
        lambda order: replace(order, batch_size=40),
        lambda order: replace(order, drop_last=True),
        lambda order: replace(order, metrics=("loss",)),
        lambda order: replace(order, purpose="another"),
    ],
    ids=["learning rate", "epochs", "batch size", "drop last", "metrics", "purpose"],
)
def test_an_order_that_makes_the_others_contribute_nothing_is_found(cheat: Cheat, change) -> None:
    """With a learning rate of 0 for all but one, the sum would be that one's update."""
    cheating, _ = cheat.play(alter_order=lambda worker, order: order if worker == "alice" else change(order))
    assert cheating.aborts().keys() == set(NAMES) - {"alice"}
    assert {reason for reason, _ in cheating.aborts().values()} == {"descriptor-differs"}
    assert kinds_of(cheat.fleet, "alice") == ["secagg-advertise"]


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
        (Delivery, misrouted, ("undecipherable-share", "alice to bob")),
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
    cheating, _ = cheat.play(only(told, change))
    assert cheating.aborts()[VICTIM][0] == reason[0]
    assert not reason[1] or cheating.aborts()[VICTIM][1].split()[0] in reason[1]
    assert kinds_of(cheat.fleet, VICTIM)[-1] == "secagg-abort"
    assert "secagg-unmask" not in kinds_of(cheat.fleet, VICTIM)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 3}, ("threshold-too-low", "threshold")),
        ({"minimum_cohort": 2}, ("cohort-too-small", "minimum_cohort")),
        ({"clip": 1024.0, "modulus_bits": 32}, ("modulus-too-small", "modulus_bits")),
        ({"federation": "another"}, ("descriptor-differs", "federation")),
        ({"privacy": "skellam"}, ("descriptor-differs", "privacy")),
        ({"roster": bytes(32)}, ("descriptor-differs", "roster")),
        ({"model": bytes(32)}, ("descriptor-differs", "model")),
        ({"round": 1 << 62}, ("descriptor-differs", "round")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value[0],
)
def test_terms_that_are_too_weak_or_not_the_workers_own_are_refused(cheat: Cheat, changes, reason) -> None:
    order = cheat.order()
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, **changes))))
    assert isinstance(abort, Abort)
    assert (abort.reason.value, abort.subject) == reason
    assert kinds_of(cheat.fleet, VICTIM) == ["secagg-abort"]


def test_a_modulus_that_is_too_small_says_to_its_owner_how_many_bits_are_needed(cheat: Cheat, caplog) -> None:
    order = cheat.order()
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, clip=1024.0, modulus_bits=32))))
    assert "sums of 5 workers need 36 bits, the modulus has 32" in caplog.text


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
    before = kinds_of(cheat.fleet, VICTIM)
    connection = cheat.members.connected[VICTIM]
    for message in told:
        runtime.run(connection.tell(message))
    order = cheat.order()
    cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    for message in told:  # of the session before, while another is under way
        runtime.run(connection.tell(message))
    cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert summed.sum is not None
    assert kinds_of(cheat.fleet, VICTIM) == [*before, "secagg-advertise", "secagg-advertise"]
    assert cheating.aborts() == {}


def test_a_vector_with_a_part_that_the_order_does_not_have_is_refused(cheat: Cheat) -> None:
    order = cheat.order()
    right = cheat.descriptor(order)
    first, *others = right.vector.parts
    renamed = replace(right.vector, parts=(replace(first, name="tensor/rows"), *others))
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(replace(right, vector=renamed))))
    assert (abort.reason.value, abort.subject) == ("descriptor-differs", "vector")


def enrolment_of(cheat: Cheat) -> Enrolment:
    enrolment = cheat.fleet.workers[VICTIM].enrolment
    assert enrolment is not None
    return enrolment


def test_a_roster_with_another_key_of_this_worker_names_it(cheat: Cheat) -> None:
    own = enrolment_of(cheat)
    other = new_identity(SystemEntropy())
    members = tuple(Member(each.name, other.public) if each.name == VICTIM else each for each in own.roster().members)
    roster = Roster(own.roster().federation, own.roster().version, members)
    cheat.fleet.workers[VICTIM].enrolment = replace(own, roster=lambda: roster)
    order = cheat.order()
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, roster=roster.digest))))
    assert (abort.reason.value, abort.subject) == ("not-on-roster", VICTIM)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (OwnerTerms(minimum_cohort=5), "cohort-too-small"),
        (OwnerTerms(colluding=Fraction(2, 3)), "threshold-too-low"),
    ],
)
def test_the_owners_stricter_terms_win(cheat: Cheat, terms: OwnerTerms, reason: str) -> None:
    cheat.fleet.workers[VICTIM].enrolment = replace(enrolment_of(cheat), terms=terms)
    order = cheat.order()
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert abort.reason.value == reason


def test_a_worker_that_is_on_no_roster_joins_nothing(cheat: Cheat) -> None:
    cheat.fleet.workers[VICTIM].enrolment = None
    order = cheat.order()
    (refusal,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert isinstance(refusal, WorkerRefused)
    assert refusal.code == "NOT_ENROLLED"
    assert kinds_of(cheat.fleet, VICTIM) == []


def test_a_maximum_weight_below_a_workers_rows_caps_it_and_tells_nothing_of_them(cheat: Cheat) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    terms = {
        "dataset": "toy",
        "loss": torch.nn.functional.binary_cross_entropy_with_logits,
        "rounds": 1,
        "local": fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.5)),
        "deadline_seconds": 20,
    }
    seen, models = [], []
    for how in (
        replace(cheat.how, maximum_weight=39),  # one row fewer than each has
        replace(cheat.how, maximum_weight=41),
        replace(cheat.how, weights="uniform"),
    ):
        before = len(kinds_of(cheat.fleet, VICTIM))
        models.append(cheat.fleet.federation.fit(model, **terms, secure_aggregation=how).model.state_dict())
        seen.append(kinds_of(cheat.fleet, VICTIM)[before:])
    assert seen[0] == seen[1]
    assert "secagg-masked" in seen[0]
    assert "secagg-abort" not in seen[0]
    for name, value in models[2].items():  # as all are capped to the same
        assert torch.allclose(models[0][name], value, atol=1e-4), name


def test_findings_are_kept_with_what_a_worker_signed(cheat: Cheat) -> None:
    cheat.fleet.workers[VICTIM].enrolment = replace(enrolment_of(cheat), terms=OwnerTerms(minimum_cohort=5))
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    result = cheat.fleet.federation.fit(
        model, dataset="toy", loss=loss, rounds=1, deadline_seconds=5, secure_aggregation=cheat.how
    )
    (finding,) = result.history.rounds[0].findings
    assert (finding.worker, finding.reason, finding.phase) == (VICTIM, "cohort-too-small", 0)
    assert len(bytes.fromhex(finding.signature)) == 64
    assert type(result.history).from_json(result.history.to_json()) == result.history
