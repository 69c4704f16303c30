"""A private value leaves when its owner said yes to exactly that value, and not before."""

from __future__ import annotations

import threading

import pytest
import torch
from sites import MakeSite, Site, rows

import fedpriv as fp
from fedpriv.errors import ReleaseDenied, UsageError


def kinds(site: Site) -> list[str]:
    return [entry.draft.kind for entry in site.journal.entries()]


def test_what_was_asked_for_is_explained_approved_and_let_out_once(site: Site) -> None:
    data = site.pointed.dataset("toy")
    weights = site.pointed.send(torch.tensor([1.0, 0.0, 0.0, 2.0]))
    ticket = (data.features @ weights).mean().request("mean score, appendix B")
    with pytest.raises(ReleaseDenied, match=f"has not answered request {ticket.id}"):
        ticket.get()
    explained = site.desk.explain(ticket.id)["text"]
    assert "mean score, appendix B" in explained
    assert "toy/features" in explained
    assert "the caller's own" in explained
    assert "mv(" in explained
    assert "mean(" in explained
    site.desk.approve(ticket.id, 1, 3600.0)
    held = site.datasets[0]
    assert torch.allclose(ticket.get(), (held.features @ torch.tensor([1.0, 0.0, 0.0, 2.0])).mean())
    assert torch.equal(ticket.get(), ticket.wait().get())
    (request,) = site.desk.requests()
    assert request["standing"] == "answered"
    assert "you approved it, and it left" in site.desk.explain(ticket.id)["text"]
    (entry,) = [each for each in site.journal.entries() if each.draft.kind == "value"]
    assert entry.draft.labels == ("toy/bob",)
    assert entry.draft.purpose == "mean score, appendix B"
    assert entry.draft.approval


def test_nothing_is_hidden_in_the_middle_of_many_steps(site: Site) -> None:
    value = site.pointed.dataset("toy").features
    for step in range(60):
        value = value + 1 if step != 30 else torch.cumsum(value, 0)
    ticket = value.mean().request("a mean")
    explained = site.desk.explain(ticket.id)
    assert "between these, 21 steps that --steps prints: add (20), cumsum (1)" in explained["text"]
    listing = explained["facts"]["plan"]["listing"]
    assert listing[0] == '0 = "0: toy/features" (float32 40 x 4)'
    assert [line for line in listing if "cumsum" in line] == ["32 = cumsum(#31, 0)"]
    assert len(listing) == 2 + 61


def test_a_plan_that_was_used_often_is_shown_once(site: Site) -> None:
    @fp.plan
    def step(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return weights + 0.1 * (features * weights).mean(0)

    features, weights = site.pointed.dataset("toy").features, site.pointed.send(torch.ones(4))
    for _ in range(5000):
        weights = step(weights, features)
    explained = site.desk.explain(weights.request("weights").id)
    assert "in 5,000 steps" in explained["text"]
    assert "between these, 4,960 steps that --steps prints: plan (4,960)" in explained["text"]
    assert explained["text"].count("mean(") == 1
    listing = explained["facts"]["plan"]["listing"]
    assert listing[:6] == [
        '0 = "0: the caller\'s own" (float32 4)', '1 = "1: toy/features" (float32 40 x 4)', "2 = a constant (uint8 32)",
        "3 = a plan, below", "4 = plan #3 on #0, #1", "5 = plan #3 on #4, #1",
    ]  # fmt: skip  # a line each of what is printed
    assert listing[-8:] == [
        "plan #3 is, on what it is given:",
        "  0 = what it is given (float32 4)", "  1 = what it is given (float32 40 x 4)",
        "  2 = mul(#1, #0)", "  3 = mean(#2, [0])", "  4 = mul(#3, 0.1)", "  5 = add(#0, #4)",
        "  and it gives #5",
    ]  # fmt: skip  # as above


def test_waiting_ends_with_the_owners_answer(site: Site) -> None:
    ticket = site.pointed.dataset("toy").features.mean(0).request("why")
    threading.Timer(0.3, lambda: site.desk.approve(ticket.id, 1, 60.0)).start()
    assert ticket.wait(timeout=20).get().shape == (4,)


def test_a_denial_ends_the_wait_too(site: Site) -> None:
    ticket = site.pointed.dataset("toy").features.mean(0).request("why")
    site.desk.deny(ticket.id, "too few rows")
    with pytest.raises(ReleaseDenied, match="lets nothing out"):
        ticket.wait(timeout=20)


def test_an_approval_is_for_one_value_and_not_for_its_recipe(site: Site) -> None:
    data = site.pointed.dataset("toy")
    first, second = (data.features.sum(0).request("same words") for _ in range(2))
    assert first.id != second.id
    site.desk.approve(first.id, 1, 60.0)
    first.get()
    with pytest.raises(ReleaseDenied):
        second.get()


def test_what_is_let_out_is_the_value_as_it_was_when_it_was_asked_for(site: Site) -> None:
    data = site.pointed.dataset("toy")
    total = data.features.sum(0)
    ticket = total.request("sum")
    total.copy_(data.features[0])
    site.desk.approve(ticket.id, 1, 60.0)
    assert torch.allclose(ticket.get(), site.datasets[0].features.sum(0))


def test_a_request_that_no_approval_could_grant_is_refused_at_once(make_site: MakeSite) -> None:
    site = make_site(rows(release=[fp.PlainUpdate(recipients=("me",))]))
    with pytest.raises(ReleaseDenied, match="stays at bob"):
        site.pointed.dataset("toy").features.mean(0).request("why")
    assert site.desk.requests() == []


def test_a_value_of_the_callers_own_needs_no_request(site: Site) -> None:
    with pytest.raises(ReleaseDenied):
        site.pointed.send(torch.ones(2)).request("mine")
    assert site.desk.requests() == []


def test_rows_come_back_to_nobody(site: Site) -> None:
    data = site.pointed.dataset("toy")
    for pointer in (data.features, data.target, data.features[0, 0], data.features * 0):
        with pytest.raises(ReleaseDenied, match="derives from toy"):
            pointer.get()
    assert "value" not in kinds(site)


def test_as_many_rows_are_shown_as_the_owner_announces(make_site: MakeSite) -> None:
    generator = torch.Generator().manual_seed(0)
    held = fp.Dataset("toy", torch.randn(47, 4, generator=generator), torch.zeros(47), release=[fp.Approval()])
    assert len(make_site(held).pointed.dataset("toy")) == 40


def test_rows_that_are_hidden_are_for_plans_only(make_site: MakeSite) -> None:
    site = make_site(rows(rows="hidden", release=[fp.Approval(recipients=("me",), weight="uniform")]))
    with pytest.raises(UsageError, match=r"Federation\.fit"):
        site.pointed.dataset("toy")


def test_an_unknown_data_set_names_the_nearest(site: Site) -> None:
    with pytest.raises(UsageError, match="did you mean 'toy'"):
        site.pointed.dataset("tow")


def test_whom_no_rule_names_holds_nothing_here(make_site: MakeSite) -> None:
    site = make_site(rows(release=[fp.Approval(recipients=("somebody-else",))]))
    with pytest.raises(fp.FedprivError):
        site.pointed.send(torch.ones(2)).get()
    assert site.desk.requests() == []


def test_search_finds_by_all_tags(make_site: MakeSite) -> None:
    bob, alice = make_site(rows()), make_site(rows(tags=("#toy",)), name="alice")
    workers = [bob.pointed, alice.pointed]
    assert [each.worker.name for each in fp.search(workers, "#toy")] == ["bob", "alice"]
    assert [each.worker.name for each in fp.search(workers, "#toy", "#rows")] == ["bob"]
    assert fp.search(workers, "#none") == []


def test_a_program_that_is_written_on_the_mock_runs_on_the_rows(make_site: MakeSite) -> None:
    stand_in = (torch.ones(12, 4), torch.zeros(12, dtype=torch.bool))
    site = make_site(rows(mock=stand_in, release=[fp.Approval(recipients=("me",)), fp.Mock()]))

    def program(data: fp.RowSet) -> torch.Tensor:
        total = torch.zeros(4)
        for features, target in data.batches(8, shuffle=True, seed=3):
            total = total + (features * target.unsqueeze(1)).sum(0)
        return total

    data = site.pointed.dataset("toy")
    assert torch.equal(program(data.mock), torch.zeros(4))
    trips = site.pointed.values.round_trips
    result = program(data)
    assert site.pointed.values.round_trips == trips
    ticket = result.request("sum over positives")
    site.desk.approve(ticket.id, 1, 60.0)
    held = site.datasets[0]
    assert torch.allclose(ticket.get(), (held.features * held.target.unsqueeze(1)).sum(0), atol=1e-5)


def test_batches_cover_each_row_once_and_drop_the_rest_on_request(site: Site) -> None:
    data = site.pointed.dataset("toy")
    assert [len(target) for _, target in data.batches(16)] == [16, 16, 8]
    assert [len(target) for _, target in data.batches(16, drop_last=True)] == [16, 16]
