"""Which strategies go with which modes of privacy: the page says what the check before a run does."""

from __future__ import annotations

import re
from pathlib import Path

from fedpriv.errors import UsageError
from fedpriv.learning.catalogue import STRATEGIES
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.sampling import Everybody
from fedpriv.privacy.modes import ExampleDP, LocalDP
from fedpriv_coordinator.private_job import check_private

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"
NEEDS = {name: {"attackers": 1} for name in ("trimmed-mean", "krum", "multi-krum", "bulyan")}
NEEDS |= {"fedper": {"layers": ("head",)}}
WORDS = {(True, True): "every mode", (True, False): "all but ExampleDP", (False, False): "none"}


def allowed(strategy, mode) -> bool:
    local = strategy.prepare(LocalTraining())
    try:
        check_private(mode, (), strategy, local, Everybody(), None, resume=False)
    except UsageError:
        return False
    return True


def test_the_page_says_of_every_strategy_which_modes_it_goes_with():
    rows = dict(re.findall(r"^\| `([a-z-]+)` .*\| ([^|]*) \| (?:yes|no)[^|]*\|$", PAGE.read_text(), flags=re.MULTILINE))
    modes = (LocalDP(epsilon=8.0), ExampleDP(epsilon=3.0))
    made = {name: make(**NEEDS.get(name, {})) for name, make in STRATEGIES.items()}
    assert rows == {name: WORDS[tuple(allowed(each, mode) for mode in modes)] for name, each in made.items()}
