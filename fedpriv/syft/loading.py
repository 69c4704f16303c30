"""What a worker of this process loads by itself, permissively or behind its owner's rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.remote.pointer import RemoteTensor
from fedpriv.syft.datasets import BaseDataset
from fedpriv.syft.exceptions import RemoteObjectFoundError
from fedpriv.syft.sending import put
from fedpriv.syft.traits import traits_of
from fedpriv_worker.datasets import Dataset

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

TENSOR, VECTOR = "tensor-", "vector-"
"""How the names of data sets begin that stand for one tensor, and so have no target; a vector's is one column."""


def load(worker: BaseWorker, data: Sequence[Tensor | BaseDataset]) -> None:
    """Have `worker` hold `data` as the caller's own; raise `RemoteObjectFoundError` for what is not here."""
    for each in data:
        if isinstance(each, Tensor):
            worker.site.loaded.append(put(worker, _here(each), traits_of(each), kept=True))
        else:
            held = BaseDataset(_here(each.data), _here(each.targets)).called(each.traits)
            worker.site.loaded.append(held.send(worker, garbage_collect_data=False))


def guarded(data: Sequence[Tensor | BaseDataset]) -> list[Dataset]:
    """Return `data` as data sets without a rule, of which nothing leaves."""
    return [_guarded(each, at) for at, each in enumerate(data)]


def _guarded(given: Tensor | BaseDataset, at: int) -> Dataset:
    if isinstance(given, BaseDataset):
        traits, name, features, target = given.traits, f"dataset-{at}", _here(given.data), _here(given.targets)
    else:
        traits, name, features = traits_of(given), f"{TENSOR}{at}", _here(given)
        if not features.dim():
            raise UsageError("a single number is no rows; load a tensor with at least one dimension")
        if features.dim() == 1:
            name, features = f"{VECTOR}{at}", features.unsqueeze(1)
        target = torch.zeros(len(features))
    return Dataset(name, features, target, tags=sorted(traits.tags), description=traits.description, rows="exact")


def _here(tensor: Tensor) -> Tensor:
    if isinstance(tensor, RemoteTensor):
        raise RemoteObjectFoundError(
            f"{tensor!r} is at a worker already; a worker loads what is here, so get() it first"
        )
    return tensor.detach()
