"""What the owner of a virtual worker is shown of an order into a sum, and the roster that its process signs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import ConfigError, VerificationFailed
from fedpriv.remote.enrolment import process_roster
from fedpriv.secagg.keys import key_text
from fedpriv.secagg.reasons import Refused
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import SignedRoster, new_identity
from fedpriv_worker.enrolment import NotAccepted

NAMES = ("alice", "bob", "carol", "dave", "erin")
LOSS = torch.nn.functional.binary_cross_entropy_with_logits


def virtual(name: str, **owner: object) -> fp.VirtualWorker:
    features = torch.randn(40, 4, generator=torch.Generator().manual_seed(NAMES.index(name)))
    rules = [fp.SecureSum()]
    return fp.VirtualWorker(name, [fp.Dataset("toy", features, features.sum(1) > 0, release=rules)], **owner)


def summed(federation: fp.Federation, how: fp.SecureAggregation) -> int:
    return federation.statistics("toy", secure_aggregation=how, timeout_seconds=20).count


@pytest.fixture
def workers() -> Iterator[list[fp.VirtualWorker]]:
    made = [virtual(name) for name in NAMES]
    yield made
    for worker in made:
        worker.close()


def test_an_owner_is_told_that_it_leaves_masked_and_what_that_means(workers: list[fp.VirtualWorker]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    with fp.Federation(workers) as federation:
        how = fp.SecureAggregation()
        federation.fit(model, dataset="toy", loss=LOSS, rounds=1, deadline_seconds=20, secure_aggregation=how)
    (request,) = workers[0].requests()
    text = " ".join(workers[0].explain(request["id"]).split())
    assert "asks for an update of its model, masked, in a sum over at least 4 workers, of the data set" in text
    assert "One vector of at most 7 numbers, masked" in text
    assert "Of this worker alone, nothing" in text
    assert "An update in clear" not in text
    assert "Update: may leave under the rule secure-sum" in text
    assert "The ledger has 2 messages to me" in text
    assert "All of them are what was foreseen" in text


def test_a_process_signs_rosters_that_only_rise_and_takes_no_other(workers: list[fp.VirtualWorker]) -> None:
    first = process_roster(workers)
    process_roster(workers[:3])
    with pytest.raises(NotAccepted, match="does not follow version"):
        workers[0].enrol(first)
    stranger = new_identity(SystemEntropy())
    forged = SignedRoster.sign(Roster("this-process", 10**9, (Member("alice", workers[0].identity),)), stranger)
    with pytest.raises(VerificationFailed, match=r"the roster is signed by .*, and the key .* did not sign it"):
        workers[0].enrol(forged)


def test_a_run_of_virtual_workers_can_be_followed_by_another(workers: list[fp.VirtualWorker]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    how = fp.SecureAggregation(weights="uniform", minimum_workers=4)
    with fp.Federation(workers) as federation:
        for _ in range(2):
            terms = {"dataset": "toy", "loss": LOSS, "rounds": 1, "deadline_seconds": 20}
            result = federation.fit(model, **terms, secure_aggregation=how)
            assert result.history.rounds[0].outcome == "complete"


def test_owners_who_pinned_an_administrator_take_the_roster_that_it_signed_and_no_other() -> None:
    administrator = new_identity(SystemEntropy())
    owner = {"administrator": key_text(administrator.public), "terms": fp.OwnerTerms(minimum_cohort=4, colluding=0.5)}
    made = [virtual(name, **owner) for name in NAMES]
    try:
        members = tuple(Member(each.name, each.identity) for each in made)
        signed = SignedRoster.sign(Roster("clinics", 1, members), administrator)
        with fp.Federation(made) as federation:
            with pytest.raises(fp.UsageError, match="'alice' pinned another administrator than this process"):
                summed(federation, fp.SecureAggregation())
            with pytest.raises(fp.RoundAbandoned, match="takes part in no secure aggregation"):
                summed(federation, fp.SecureAggregation(roster=signed, minimum_workers=4, colluding=0.5))
            for worker in made:
                worker.enrol(signed)
            with pytest.raises(fp.RoundAbandoned, match="cohort-too-small"):
                summed(federation, fp.SecureAggregation(roster=signed, colluding=0.5))
            assert summed(federation, fp.SecureAggregation(roster=signed, minimum_workers=4, colluding=0.5)) == 5 * 40
        with pytest.raises(Refused, match="has the key"):
            made[0].enrol(SignedRoster.sign(Roster("clinics", 2, (Member("alice", made[1].identity),)), administrator))
    finally:
        for worker in made:
            worker.close()


@pytest.mark.parametrize(
    "terms", [{"minimum_cohort": 2}, {"colluding": 1.0}, {"colluding": -0.1}, {"maximum_weight": 0}]
)
def test_terms_that_protect_nobody_are_refused_by_name(terms: dict[str, float]) -> None:
    with pytest.raises(fp.UsageError, match=next(iter(terms))):
        fp.OwnerTerms(**terms)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="administrator is not 32 bytes in base64"):
        fp.VirtualWorker("alice", administrator="c2hvcnQ=")


def test_an_owner_is_told_how_an_update_is_noised_and_what_it_costs() -> None:
    made = []
    for at, name in enumerate(NAMES):
        features = torch.randn(40, 4, generator=torch.Generator().manual_seed(at))
        rule, budget = fp.SecureSum(maximum_epsilon=50.0), fp.Budget(100.0, 1e-5)
        data = fp.Dataset("toy", features, features.sum(1) > 0, release=[rule], budget=budget)
        made.append(fp.VirtualWorker(name, [data]))
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    with fp.Federation(made) as federation:
        how = fp.SecureAggregation()
        terms = {"dataset": "toy", "loss": LOSS, "rounds": 1, "deadline_seconds": 20, "secure_aggregation": how}
        federation.fit(model, privacy=fp.DistributedDP(noise_multiplier=4.0), **terms)
    (request,) = made[0].requests()
    text = " ".join(made[0].explain(request["id"]).split())
    assert "Private, as DistributedDP, for 1 round: clipped to 1, noise multiplier 4." in text
    assert "This worker adds noise itself; all rounds cost its budget epsilon 2.1" in text
    assert "is bounded by the epsilon above" in text
    assert "Update: may leave under the rule secure-sum" in text
    assert "All of them are what was foreseen" in text
    for worker in made:
        worker.close()
