"""Ordinary mistakes, each with what its maker reads: what happened, and what to write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sites import MakeSite, Site, rows
from torch import Tensor

import fedpriv as fp
from fedpriv.errors import FedprivError, OperationNotAllowed, ReleaseDenied, UsageError


@pytest.fixture
def private(site: Site) -> Tensor:
    return site.pointed.dataset("toy").features


@pytest.fixture
def mine(site: Site) -> Tensor:
    return site.pointed.send(torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda x: x.nonzero(), r"output shape depends on values; keep the shape: torch\.where"),
        (lambda x: x[x > 0], r"a boolean index has a shape that depends on values; keep the shape: torch\.where"),
        (lambda x: torch.bincount(x[:, 0].long()), r"count with flags"),
        (lambda x: torch.linalg.eigh(x.T @ x), r"fails on values; use matrix products .* get\(\) it"),
        (lambda x: torch.linalg.inv(x.T @ x), r"fails on values; use matrix products"),
        (torch.linalg.qr, r"use matrix products"),
        (lambda x: x.median(), r"quantile\(0\.5\)"),
        (torch.special.digamma, r"take as long whatever the values are"),
        (lambda x: x.as_strided((2,), (1,)), r"use slices"),
        (lambda x: torch.multinomial(x.abs(), 1), r"cumulative sums"),
    ],
)  # fmt: skip  # one line of cases
def test_an_operation_that_no_worker_runs_says_what_to_write(
    private: Tensor, do: Callable[[Tensor], Any], told
) -> None:
    with pytest.raises(OperationNotAllowed, match=told):
        do(private)


def test_what_is_said_to_be_written_works(private: Tensor) -> None:
    flags = private > 0
    for written in (
        torch.where(flags, private, 0), private.masked_fill(~flags, 0), flags.sum(), private.quantile(0.5),
        (private[:, 0].long().unsqueeze(-1) == torch.arange(3)).sum(0), private.sort().values[0],
        (torch.rand_like(private[..., :1]) > private.cumsum(-1)).sum(-1), torch.cdist(private, private),
        torch.rand_like(private) < private,
    ):  # fmt: skip  # one line of results
        assert not written.label.is_public  # type: ignore[attr-defined]  # a pointer


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda bob, x: bob.send([1]), r"a list does not travel; send torch\.as_tensor"),
        (lambda bob, x: bob.send(x), r"is at a worker already; move it: pointer\.move\(worker\)"),
        (lambda bob, x: bob.send(torch.ones(1), description="a" * 4097), "more than 4,096 characters"),
        (lambda bob, x: bob.send(torch.ones(1), tags=("a" * 4097,)), "more than 4,096 characters"),
        (lambda bob, x: x.move("alice"), "'alice' is no worker"),
        (lambda bob, x: fp.send_module(x, bob), "takes a module and a worker"),
        (lambda bob, x: fp.send_module(torch.nn.Linear(1, 1), "bob"), "takes a module and a worker"),
        (lambda bob, x: fp.forecast(len, (x,)), r"len is no plan; decorate the function with @fp\.plan"),
        (lambda bob, x: fp.search(bob, "#toy"), r"is no list of workers; give \[worker\]"),
        (lambda bob, x: torch.optim.SGD([torch.nn.Parameter(torch.ones(2, 3))], 0.1).param_groups[0]["params"][0]
            .data.add_(x), r"fp\.send_module\(module, worker\)"),
    ],
)  # fmt: skip  # one line of cases
def test_what_is_no_worker_module_or_tensor_is_said_before_anything_is_sent(site: Site, mine: Tensor, do, told) -> None:
    with pytest.raises(UsageError, match=told):
        do(site.pointed, mine)
    assert site.pointed.send(torch.ones(1)).get() == 1


def test_what_is_the_callers_own_may_decide_and_is_never_called_somebodys(mine: Tensor) -> None:
    assert f"{mine.mean():.3f}" == "2.500"
    assert torch.equal(mine, mine)
    assert not torch.equal(mine, mine[:1])
    assert torch.allclose(mine, mine + 1e-9)
    assert not torch.allclose(mine, mine + 1)
    assert 3.0 in mine
    assert 7.0 not in mine
    assert copy.copy(mine) is not mine
    assert bool(mine.sum() > 0)
    with pytest.raises(ReleaseDenied, match=r"is your own and derives from nobody's data: get\(\) it"):
        mine.request("mine")  # type: ignore[attr-defined]  # a pointer


@pytest.mark.parametrize(
    "decide",
    [
        lambda x: f"{x.mean():.3f}", lambda x: torch.equal(x, x), lambda x: torch.allclose(x, x), lambda x: 3.0 in x,
        lambda x: bool(x.sum()), lambda x: F.one_hot(x[:, 0].long()),
    ],
)  # fmt: skip  # one line of cases
def test_what_is_somebodys_may_not(private: Tensor, decide: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ReleaseDenied, match=r"torch\.where"):
        decide(private)


def test_printing_shows_no_value_and_asks_for_nothing(private: Tensor, site: Site) -> None:
    asked = site.pointed.values.round_trips
    assert f"{private}" == repr(private) == str(private)
    assert f"{private.label}" == "toy of bob"  # type: ignore[attr-defined]  # a pointer
    assert site.pointed.values.round_trips == asked


def test_whom_no_rule_names_is_told_that(make_site: MakeSite) -> None:
    site = make_site(rows(release=[fp.Approval(recipients=("somebody-else",))]))
    with pytest.raises(FedprivError, match=r"no rule of the owner|names you|its log says why"):
        site.pointed.send(torch.ones(2)).get()


def test_whom_only_the_mock_is_for_reads_the_mock(make_site: MakeSite) -> None:
    stand_in = (torch.ones(12, 4), torch.zeros(12, dtype=torch.bool))
    site = make_site(rows(mock=stand_in, release=[fp.Approval(recipients=("somebody-else",)), fp.Mock()]))
    mock = site.pointed.dataset("toy").mock
    assert mock.features.shape == (12, 4)
    assert repr(mock) == "<RowSet toy, 12 rows>"


def test_a_mock_is_asked_for_once(make_site: MakeSite) -> None:
    stand_in = (torch.ones(12, 4), torch.zeros(12, dtype=torch.bool))
    site = make_site(rows(mock=stand_in, release=[fp.Mock()]))
    data = site.pointed.dataset("toy")
    assert data.mock.target is data.mock.target
    assert [each.draft.kind for each in site.journal.entries()].count("mock") == 1
