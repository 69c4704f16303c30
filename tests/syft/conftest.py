"""A hook, and workers behind it: every test that asks for one runs on both transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from places import MakeWorker, listening, websocket_worker
from sites import Site

import fedpriv.syft as sy
from fedpriv.syft import registry
from fedpriv_worker.datasets import Dataset


@pytest.fixture
def hook() -> Iterator[sy.TorchHook]:
    yield sy.TorchHook(torch)
    for each in list(registry.KNOWN.values()):
        each.close()


@pytest.fixture
def me(hook: sy.TorchHook) -> sy.LocalWorker:
    return hook.local_worker


@pytest.fixture(params=["virtual", "grpc"])
def make_worker(request: pytest.FixtureRequest, hook: sy.TorchHook) -> Iterator[MakeWorker]:
    sites: list[Site] = []

    def make(name: str, *datasets: Dataset) -> sy.BaseWorker:
        if request.param == "virtual":
            return sy.VirtualWorker(hook, id=name, datasets=datasets)
        sites.append(listening(name, *datasets))
        return websocket_worker(sites[-1], hook, name)

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def bob(make_worker: MakeWorker) -> sy.BaseWorker:
    return make_worker("bob")


@pytest.fixture
def alice(make_worker: MakeWorker) -> sy.BaseWorker:
    return make_worker("alice")
