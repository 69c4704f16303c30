"""What no sum could meet is refused before anybody is asked, with the value and what would do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.learning.strategies import Strategy, add_weighted, apply_mean
from fedpriv_coordinator.secure_aggregation import SecureAggregation, check_reach

NAMES = ("alice", "bob", "carol", "dave", "erin")
LOSS = torch.nn.functional.binary_cross_entropy_with_logits


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"minimum_workers": "3"}, "minimum_workers is '3', a str; use a whole number"),
        ({"minimum_workers": True}, "minimum_workers is True, a bool; use a whole number"),
        ({"minimum_workers": 2}, "minimum_workers is 2; use a whole number, 3 or more"),
        ({"maximum_weight": 1.5}, "maximum_weight is 1.5, a float; use a whole number, 1 or more, or leave it out"),
        ({"maximum_weight": 0}, "maximum_weight is 0; use a whole number, 1 or more"),
        ({"clip": "16"}, "clip is '16', a str; use a number"),
        ({"clip": -1.0}, "clip is -1; use a number above 0, up to 2**20"),
        ({"clip": float("nan")}, "clip is nan; use a number above 0, up to 2**20"),
        ({"clip": 1e-6}, "clip is 1e-06, less than the smallest number of fraction_bits=16, 1.52588e-05"),
        ({"fraction_bits": 33}, "fraction_bits is 33; use a whole number, 1 to 32"),
        ({"fraction_bits": 16.0}, "fraction_bits is 16.0, a float; use a whole number"),
        ({"lost": 1.0}, "lost is 1; use a share of at least 0 and below 1"),
        ({"colluding": "half"}, "colluding is 'half', a str; use a share of at least 0 and below 1"),
        ({"graph": "ring"}, "graph is 'ring'; use 'complete' or 'harary'"),
        ({"weights": "cubic"}, "weights is 'cubic'; use 'rows' or 'uniform'"),
        ({"roster": 7}, "roster is 7, a int; use the file that the administrator signed"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_its_value_and_what_would_do(options, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        fp.SecureAggregation(**options)


@pytest.mark.parametrize(
    ("options", "count", "enrolled", "quorum", "says"),
    [
        ({"minimum_workers": 9}, 5, 5, 3, "minimum_workers is 9, and a round asks at most 5 workers"),
        ({"minimum_workers": 9}, 5, 5, 3, "use minimum_workers=5 or less, or have more workers take part"),
        ({}, 1, 5, 1, "minimum_workers is 3, and a round asks at most 1 worker that"),
        ({}, 4, 5, 5, "quorum is 5, and a round asks at most 4 workers"),
        ({"colluding": 0.9}, 5, 5, 3, "of 5 workers on the roster 4 may then work with the coordinator"),
        ({"colluding": 0.9}, 5, 5, 3, "use colluding=0.8 or less, or have more workers take part"),
        ({"colluding": 0.4}, 5, 20, 3, "use colluding=0.2 or less"),
        ({"graph": "harary", "colluding": 1 / 3, "lost": 0.25}, 8, 8, 3, "no Harary graph is safe for 8 workers"),
    ],
)
def test_what_no_round_reaches_is_refused_with_the_remedy(options, count, enrolled, quorum, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        check_reach(SecureAggregation(**options), count, enrolled, quorum)


@pytest.mark.parametrize("share", [0.0, 0.333333, 0.5, 0.7, 0.95])
@pytest.mark.parametrize(("count", "enrolled"), [(3, 3), (5, 5), (7, 19), (24, 24)])
def test_a_remedy_that_is_named_is_one(share: float, count: int, enrolled: int) -> None:
    try:
        check_reach(SecureAggregation(colluding=share), count, enrolled, 3)
    except UsageError as refusal:
        found = re.search(r"use colluding=([0-9.]+)", str(refusal))
        assert found is not None
        check_reach(SecureAggregation(colluding=float(found[1])), count, enrolled, 3)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[fp.VirtualWorker]]:
    made = []
    for at, name in enumerate(NAMES):
        features = torch.randn(20, 4, generator=torch.Generator().manual_seed(at))
        made.append(
            fp.VirtualWorker(name, [fp.Dataset("toy", features, features.sum(1) > 0, release=[fp.SecureSum()])])
        )
    yield made
    for worker in made:
        worker.close()


class Homemade:
    """A strategy as somebody might write it who has seen those of other frameworks."""

    name = "homemade"

    def aggregate(self, updates: list[torch.Tensor]) -> torch.Tensor:
        return sum(updates) / len(updates)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"secure_aggregation": True}, "secure_aggregation is True; use fp.SecureAggregation()"),
        ({"secure_aggregation": fp.SecureAggregation(minimum_workers=6)}, "minimum_workers is 6, and a round asks at"),
        ({"sampling": fp.Fixed(2)}, "minimum_workers is 3, and a round asks at most 2 workers"),
        ({"strategy": Homemade()}, "strategy is a Homemade, no Strategy; one of your own is"),
        ({"strategy": fp.FedAvg}, "strategy is FedAvg itself; pass what it returns: strategy=FedAvg"),
        ({"strategy": Strategy("mine", add_weighted, apply_mean)}, "says so: Strategy(..., of_sums=True)"),
    ],
)
def test_a_run_that_could_not_be_is_refused_before_anybody_is_asked(workers, options, says: str) -> None:
    terms = {"dataset": "toy", "loss": LOSS, "rounds": 2, "secure_aggregation": fp.SecureAggregation(), **options}
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    with fp.Federation(workers) as federation, pytest.raises(UsageError, match=re.escape(says)):
        federation.fit(model, **terms)
    assert {entry.draft.kind for entry in workers[0].entries()} <= {
        "hello",
        "hello-proof",
        "announcement",
        "checkpoint",
    }


def test_a_strategy_of_ones_own_that_says_that_the_mean_suffices_runs_on_sums(workers) -> None:
    mine = Strategy("mine", add_weighted, apply_mean, of_sums=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    with fp.Federation(workers) as federation:
        result = federation.fit(
            model, dataset="toy", loss=LOSS, rounds=1, strategy=mine, secure_aggregation=fp.SecureAggregation()
        )
        with pytest.raises(UsageError, match="secure_aggregation is 'yes'"):
            federation.statistics("toy", secure_aggregation="yes")
    assert result.history.rounds[0].outcome == "complete"
