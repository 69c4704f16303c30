"""Fixtures: a fleet on every transport, and one that a coordinator cheats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cheating import CHEATED, Cheat
from fleets import TERMS, Fleet, MakeFleet, dialling_fleet, listening_fleet, toy, virtual_fleet

import fedpriv as fp
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.enrolment import OwnerTerms


@pytest.fixture(params=[virtual_fleet, listening_fleet, dialling_fleet], ids=["virtual", "dial-in", "dial-out"])
def make_fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeFleet]:
    fleets: list[Fleet] = []

    def make(held: dict[str, Sequence[Dataset]], terms: OwnerTerms = TERMS) -> Fleet:
        fleets.append(request.param(held, tmp_path, terms))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@pytest.fixture(scope="module", params=[virtual_fleet, listening_fleet], ids=["virtual", "dial-in"])
def cheated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cheat]:
    """One fleet of five on each transport, for all attempts of a module."""
    rule = fp.SecureSum(rounds_per_day=1000)
    held = {name: [toy(40, seed=at, release=[rule])] for at, name in enumerate(CHEATED)}
    fleet = request.param(held, tmp_path_factory.mktemp("fleet"))
    try:
        yield Cheat(fleet)
    finally:
        fleet.close()


@pytest.fixture
def cheat(cheated: Cheat) -> Iterator[Cheat]:
    """A coordinator that cheats; whatever it tried, every worker's releases and charges are in order afterwards."""
    cheated.anew()
    yield cheated
    cheated.settle()
