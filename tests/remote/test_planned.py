"""Functions that run at a worker in one message."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sites import Site

import fedpriv as fp
from fedpriv.errors import TraceError, UsageError
from fedpriv.remote.holder import Holder


@fp.plan
def step(weights: torch.Tensor, features: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = weights.detach().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(features @ weights, target)
    (gradient,) = torch.autograd.grad(loss, (weights,))
    return weights - 0.5 * gradient, loss


def test_a_planned_step_is_one_message_and_what_the_function_does(site: Site) -> None:
    data, held = site.pointed.dataset("toy"), site.datasets[0]
    remote, local = site.pointed.send(torch.zeros(4)), torch.zeros(4)
    remote, _ = step(remote, data.features, data.target)
    trips, sequence = site.pointed.values.round_trips, site.pointed.values.line._sequence
    for _ in range(4):
        remote, _ = step(remote, data.features, data.target)
    site.pointed.values.flush()
    assert site.pointed.values.round_trips == trips
    assert site.pointed.values.line._sequence == sequence + 1
    for _ in range(5):
        local, _ = step(local, held.features, held.target)
    ticket = remote.request("weights")
    explained = site.desk.explain(ticket.id)["text"]
    assert "mv(" in explained
    assert "toy/target" in explained
    site.desk.approve(ticket.id, 1, 60.0)
    assert torch.allclose(ticket.get(), local.detach(), atol=1e-6)


def test_a_plan_runs_at_another_length_and_here(bob: Holder) -> None:
    @fp.plan
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))
    for length in (1, 3, 7):
        assert torch.equal(doubled(bob.send(torch.ones(length))).get(), torch.full((length,), 2.0))


def test_tensors_of_this_process_go_along(bob: Holder) -> None:
    @fp.plan
    def added(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    assert torch.equal(added(bob.send(torch.ones(2)), torch.ones(2)).get(), torch.full((2,), 2.0))
    with pytest.raises(UsageError, match="takes tensors, not a float"):
        added(bob.send(torch.ones(2)), 1.0)


def test_a_function_that_is_no_plan_says_where(bob: Holder) -> None:
    @fp.plan
    def branching(x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(TraceError, match=r"test_planned\.py"):
        branching(bob.send(torch.ones(2)))


def test_the_forecast_names_bytes_and_origins_and_sends_nothing(site: Site) -> None:
    data = site.pointed.dataset("toy")
    weights, features, target = site.pointed.send(torch.zeros(4)), data.features, data.target
    sequence = site.pointed.values.line._sequence
    foreseen = fp.forecast(step, (weights, features, target))
    assert [(each.layout.shape, each.nbytes) for each in foreseen.outputs] == [((4,), 16), ((), 4)]
    assert foreseen.nbytes == 20
    assert "derives from toy" in str(foreseen)
    assert fp.forecast(step, (torch.zeros(4), torch.zeros(3, 4), torch.zeros(3))).outputs[0].label.is_public
    assert site.pointed.values.line._sequence == sequence


def test_what_a_plan_gives_derives_from_all_that_it_took(site: Site) -> None:
    data = site.pointed.dataset("toy")

    @fp.plan
    def blank(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)

    result = blank(data.features)
    assert not result.label.is_public
    with pytest.raises(fp.ReleaseDenied):
        result.get()
