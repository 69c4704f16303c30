"""A worker that breaks rounds from within: the run goes on without it, and it is named as far as that can be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fleets import toy, virtual_fleet
from torch import nn

import fedpriv as fp
from fedpriv.secagg import client, statements
from fedpriv.secagg.messages import Advertise, Shares, Unmask

NAMES = ("alice", "bob", "carol", "dave", "erin", "fay", "gil")
SABOTEUR = "dave"


def seals_garbage(step: client.Step, identity) -> client.Step:
    message = step.message
    if not isinstance(message, Shares):
        return step
    garbage = tuple((peer, bytes(len(sealed))) for peer, sealed in message.ciphertexts)
    signature = identity.sign(statements.shared(step.state.history, SABOTEUR, garbage))
    return client.Step(step.state, replace(message, ciphertexts=garbage, signature=signature))


def commits_to_another_seed(step: client.Step, identity) -> client.Step:
    message = step.message
    if not isinstance(message, Advertise):
        return step
    statement = statements.advertised(message.sid, SABOTEUR, message.sealing, message.masking, bytes(32))
    changed = replace(message, commitment=bytes(32), signature=identity.sign(statement))
    return client.Step(replace(step.state, advertisement=changed), changed)


def alters_shares(step: client.Step, before: client.State) -> client.Step:
    message = step.message
    if not isinstance(message, Unmask):
        return step
    altered = tuple((peer, bytes(33)) for peer, _ in message.self_shares)
    statement = statements.unmasked(before.history, SABOTEUR, altered, message.key_shares)
    return client.Step(step.state, replace(message, self_shares=altered, signature=before.own.identity.sign(statement)))


def run(tmp_path, monkeypatch: pytest.MonkeyPatch, begin: Callable | None, receive: Callable | None) -> fp.Result:
    """Return three rounds of seven workers, of whom one puts each of its messages through `begin` or `receive`."""
    rows = {name: [toy(16, seed=at, release=[fp.SecureSum()])] for at, name in enumerate(NAMES)}
    fleet = virtual_fleet(rows, tmp_path)
    first, later = client.begin, client.receive

    def begun(invite, expected, **given):
        step = first(invite, expected, **given)
        return begin(step, given["identity"]) if begin and given["name"] == SABOTEUR else step

    def received(state, message):
        step = later(state, message)
        return receive(step, state) if receive and state.own.name == SABOTEUR else step

    monkeypatch.setattr(client, "begin", begun)
    monkeypatch.setattr(client, "receive", received)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    try:
        return fleet.federation.fit(
            model, dataset="toy", loss=F.binary_cross_entropy_with_logits, rounds=3, deadline_seconds=20,
            secure_aggregation=fleet.secure(),
        )  # fmt: skip  # one line of terms
    finally:
        fleet.close()


@pytest.mark.parametrize(
    ("begin", "receive", "reason"),
    [
        (None, lambda step, state: seals_garbage(step, state.own.identity), "undecipherable-share"),
        (commits_to_another_seed, None, "inconsistent-shares"),
    ],
    ids=["seals garbage", "commits to another seed"],
)
def test_a_run_goes_on_without_a_worker_that_breaks_its_rounds(tmp_path, monkeypatch, begin, receive, reason) -> None:
    result = run(tmp_path, monkeypatch, begin, receive)
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 3
    for record in result.history.rounds:
        assert {part.worker for part in record.workers if part.status == "folded"} == set(NAMES) - {SABOTEUR}
        (part,) = [part for part in record.workers if part.worker == SABOTEUR]
        assert "broke a round of this run" in part.reason
    first, *others = result.history.rounds
    assert reason in {finding.reason for finding in first.findings}
    for record in others:
        assert [finding.worker for finding in record.findings] == [SABOTEUR]


def test_altered_shares_are_named_with_sender_and_holder_and_the_sum_stands(tmp_path, monkeypatch) -> None:
    result = run(tmp_path, monkeypatch, None, alters_shares)
    for record in result.history.rounds:
        assert record.outcome == "complete"
        assert {part.status for part in record.workers} == {"folded"}
        named = [finding.explanation for finding in record.findings]
        assert named
        assert all(f"held by {SABOTEUR!r}, did not fit the others" in text for text in named)
