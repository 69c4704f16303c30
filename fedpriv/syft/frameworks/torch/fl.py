"""Federated data and averages, under the path that programs of 0.2 import them from."""

from __future__ import annotations

from fedpriv.syft import averaging as utils
from fedpriv.syft.datasets import BaseDataset, FederatedDataset
from fedpriv.syft.loaders import FederatedDataLoader

__all__ = ["BaseDataset", "FederatedDataLoader", "FederatedDataset", "utils"]
