"""A worker behind pointers: every test that asks for one runs on both transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sites import MakeSite, Site, listening_site, rows, virtual_site

from fedpriv.remote.holder import Holder
from fedpriv_worker.datasets import Dataset


@pytest.fixture(params=[virtual_site, listening_site], ids=["virtual", "grpc"])
def make_site(request: pytest.FixtureRequest) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(*datasets: Dataset, name: str = "bob") -> Site:
        sites.append(request.param(datasets, name))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site(rows())


@pytest.fixture
def bob(site: Site) -> Holder:
    return site.pointed
