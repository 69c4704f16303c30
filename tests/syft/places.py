"""Workers of the facade over both transports, and what torch was before any hook."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sites import Site, listening_site
from torch import nn

import fedpriv.syft as sy
from fedpriv_worker.datasets import Dataset

MakeWorker = Callable[..., sy.BaseWorker]


def websocket_worker(site: Site, hook: sy.TorchHook, name: str) -> sy.WebsocketClientWorker:
    host, _, port = site.pointed.address.rpartition(":")
    return sy.WebsocketClientWorker(hook, host=host, port=int(port), id=name, credentials=site.pointed._credentials)


def listening(name: str, *datasets: Dataset) -> Site:
    return listening_site(datasets, name)


def behaviour() -> dict[str, object]:
    """What a small program of torch does and prints, without a hook in sight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rows = torch.randn(5, 3)
    for _ in range(2):
        optimizer.zero_grad()
        model(rows)[0].square().sum().backward()
        optimizer.step()
    refused = ""
    try:
        optimizer.step(3)
    except TypeError as error:
        refused = str(error)
    return {
        "weights": [each.tolist() for each in model.state_dict().values()],
        "reprs": [repr(model), repr(rows), repr(model[0].weight), repr(rows.sum()), str(rows.grad)],
        "kinds": [type(rows + 1), type(rows[0]), type(model[0].weight), type(rows.detach())],
        "refused": refused,
        "kept": vars(rows) | {"parameter": sorted(vars(model[0].weight))},
    }


def names() -> dict[type, set[str]]:
    """Return the names of each kind, but for the cache that `copyreg` keeps on every class that was copied."""
    kinds = (torch.Tensor, nn.Module, nn.Parameter, torch.utils.data.Dataset)
    return {kind: set(dir(kind)) - {"__slotnames__"} for kind in kinds}


BEFORE = (behaviour(), names())
"""Taken when the tests of this folder are collected, before any of them makes a hook."""
