"""What an owner knows of a data set without its rows."""

from __future__ import annotations

import torch

from fedpriv.policy.rules import Mock
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.holdings import holding_of


def test_a_holding_says_of_a_data_set_what_its_rows_are_not():
    features, target = torch.randn(23, 3), torch.rand(23) > 0.5
    mock = (torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool))
    holding = holding_of(Dataset("rows", features, target, release=[Mock()], mock=mock))
    assert (holding.rows, holding.announced, holding.features) == (23, 20, 3)
    assert [(spec.name, spec.shape) for spec in holding.stand_in] == [("features", (4, 3)), ("target", (4,))]


def test_a_hidden_row_count_is_announced_to_nobody():
    holding = holding_of(Dataset("rows", torch.randn(23, 3), torch.rand(23) > 0.5, rows="hidden"))
    assert (holding.rows, holding.announced, holding.stand_in) == (23, None, ())
