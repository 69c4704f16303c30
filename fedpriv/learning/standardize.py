"""A frozen first layer that standardises raw columns, so that an exported model takes raw values."""

from __future__ import annotations

import torch
from torch import nn


class Standardize(nn.Module):
    """Subtract `mean` and divide by `deviation`, shape (features,) each; neither is ever trained.

    A column that does not vary (deviation 0) is only centred.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        varying = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("scale", varying.reciprocal().to(torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return standardised features, shape (rows, features)."""
        return (features - self.mean) * self.scale
