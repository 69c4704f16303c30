"""Orders on terms that a worker does not accept: too weak, not its own, or less than its owner insists on.

Each is answered by a signed abort that names the field, and the owner's log says what was asked and what would do.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from cheating import CHEATED, PATIENCE_SECONDS, Cheat
from fleets import MakeFleet, toy

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import WorkerRefused
from fedpriv.secagg.keys import key_text
from fedpriv.secagg.messages import Abort, Invite
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import new_identity
from fedpriv_worker.enrolment import Enrolment, OwnerTerms
from fedpriv_worker.worker import Worker

VICTIM = "bob"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 3}, ("threshold-too-low", "threshold")),
        ({"threshold": 1}, ("threshold-too-low", "threshold")),
        ({"minimum_cohort": 2}, ("cohort-too-small", "minimum_cohort")),
        ({"clip": 1024.0, "modulus_bits": 32}, ("modulus-too-small", "modulus_bits")),
        ({"federation": "another"}, ("descriptor-differs", "federation")),
        ({"privacy": "skellam"}, ("descriptor-differs", "privacy")),
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
    assert cheat.kinds(VICTIM) == ["secagg-abort"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 3}, "threshold 3 of 5 workers; this worker accepts 4 to 5"),
        (
            {"minimum_cohort": 2},
            "with a minimum of 2, 4 have to be in the sum; this worker hides among 3",
        ),
        ({"clip": 1024.0, "modulus_bits": 32}, "sums of 5 workers need 36 bits, the modulus has 32"),
        ({"roster": bytes(32)}, "the coordinator's roster of round"),
    ],
    ids=["threshold", "cohort", "modulus", "roster"],
)
def test_an_owner_is_told_what_was_asked_and_what_would_do(cheat: Cheat, caplog, changes, said: str) -> None:
    order = cheat.order()
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, **changes))))
    assert said in caplog.text


def test_another_roster_is_answered_with_the_version_that_this_worker_has(cheat: Cheat) -> None:
    order, roster = cheat.order(), enrolment_of(cheat).roster()
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, roster=bytes(32)))))
    assert (abort.reason.value, abort.subject) == ("descriptor-differs", f"roster version {roster.version}")


def test_a_vector_with_a_part_that_the_order_does_not_have_is_refused(cheat: Cheat) -> None:
    order = cheat.order()
    right = cheat.descriptor(order)
    first, *others = right.vector.parts
    renamed = replace(right.vector, parts=(replace(first, name="tensor/rows"), *others))
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(replace(right, vector=renamed))))
    assert (abort.reason.value, abort.subject) == ("descriptor-differs", "vector")


def own(cheat: Cheat) -> Worker:
    return cheat.fleet.workers[VICTIM]


def enrolment_of(cheat: Cheat) -> Enrolment:
    enrolment = cheat.enrolments[VICTIM]
    assert enrolment is not None
    return enrolment


def test_a_roster_with_another_key_of_this_worker_names_both(cheat: Cheat, caplog) -> None:
    mine, other = enrolment_of(cheat), new_identity(SystemEntropy())
    listed = mine.roster()
    members = tuple(Member(each.name, other.public) if each.name == VICTIM else each for each in listed.members)
    roster = Roster(listed.federation, listed.version, members)
    own(cheat).enrolment = replace(mine, roster=lambda: roster)
    order = cheat.order()
    with caplog.at_level(logging.WARNING, "fedpriv.worker"):
        (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order, roster=roster.digest))))
    assert (abort.reason.value, abort.subject) == ("not-on-roster", VICTIM)
    keys = key_text(other.public), key_text(mine.identity.public)
    assert "the roster has the key {} for 'bob', and this worker holds {}".format(*keys) in caplog.text


@pytest.mark.parametrize("terms", [OwnerTerms(minimum_cohort=5), OwnerTerms(colluding=Fraction(2, 3))])
def test_the_owners_stricter_terms_win(cheat: Cheat, terms: OwnerTerms) -> None:
    own(cheat).enrolment = replace(enrolment_of(cheat), terms=terms)
    order = cheat.order()
    (abort,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert abort.reason.value == "cohort-too-small"


def test_a_worker_that_is_on_no_roster_joins_nothing(cheat: Cheat) -> None:
    own(cheat).enrolment = None
    order = cheat.order()
    (refusal,) = cheat.ask_one(VICTIM, replace(order, invite=Invite(cheat.descriptor(order))))
    assert isinstance(refusal, WorkerRefused)
    assert refusal.code == "NOT_ENROLLED"
    assert cheat.kinds(VICTIM) == []


LOSS = torch.nn.functional.binary_cross_entropy_with_logits


def fit(cheat: Cheat, **how: object) -> fp.Result:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    asked = cheat.fleet.secure(**how)
    return cheat.fleet.federation.fit(
        model, dataset="toy", loss=LOSS, rounds=1, deadline_seconds=PATIENCE_SECONDS, secure_aggregation=asked
    )


def test_an_owners_most_weight_keeps_it_below_what_a_round_declares(cheat: Cheat) -> None:
    for name, worker in cheat.fleet.workers.items():
        worker.enrolment = replace(cheat.enrolments[name], terms=OwnerTerms(maximum_weight=10))
    assert fit(cheat, maximum_weight=10).history.rounds[0].outcome == "complete"


def test_findings_are_kept_with_what_a_worker_signed(cheat: Cheat) -> None:
    own(cheat).enrolment = replace(enrolment_of(cheat), terms=OwnerTerms(minimum_cohort=5))
    result = fit(cheat)
    (finding,) = result.history.rounds[0].findings
    assert (finding.worker, finding.reason, finding.phase) == (VICTIM, "cohort-too-small", 0)
    assert len(bytes.fromhex(finding.signature)) == 64
    assert type(result.history).from_json(result.history.to_json()) == result.history


def test_fleets_whose_owners_insist_on_more_sum_only_on_their_terms(make_fleet: MakeFleet) -> None:
    """The stricter wins, on every transport: five workers whose owners want to hide among five."""
    terms = OwnerTerms(minimum_cohort=5, colluding=0.5)
    fleet = make_fleet({name: [toy(8, seed=at, release=[fp.SecureSum()])] for at, name in enumerate(CHEATED)}, terms)
    cheated = Cheat(fleet)
    with pytest.raises(fp.RoundAbandoned, match="cohort-too-small"):
        fit(cheated)
    with pytest.raises(fp.RoundAbandoned, match="threshold-too-low"):
        fit(cheated, minimum_workers=5, colluding=0.1)
    result = fit(cheated, minimum_workers=5, colluding=0.5)
    assert result.history.rounds[0].outcome == "complete"
