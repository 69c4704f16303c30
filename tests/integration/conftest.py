"""The fixture that makes a fleet on every transport."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fleets import Fleet, MakeFleet, dialling_fleet, listening_fleet, virtual_fleet

from fedpriv_worker.datasets import Dataset


@pytest.fixture(params=[virtual_fleet, listening_fleet, dialling_fleet], ids=["virtual", "dial-in", "dial-out"])
def make_fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeFleet]:
    fleets: list[Fleet] = []

    def make(held: dict[str, Sequence[Dataset]]) -> Fleet:
        fleets.append(request.param(held, tmp_path))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()
