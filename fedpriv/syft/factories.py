"""Tensors that are made where they stay: `bob.remote.torch.zeros(3)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.sending import put
from fedpriv.syft.traits import traits_of

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker


class RemoteTorch:
    """The functions of torch that make a tensor, made at one worker; only their arguments travel."""

    def __init__(self, worker: BaseWorker) -> None:
        self._worker = worker

    def tensor(self, values: Any, *, dtype: torch.dtype | None = None, requires_grad: bool = False) -> PointerTensor:  # noqa: ANN401  whatever torch takes
        """Return a pointer to `values`."""
        return self._sent(torch.tensor(values, dtype=dtype, requires_grad=requires_grad))

    def zeros(self, *size: int | Sequence[int], requires_grad: bool = False) -> PointerTensor:
        """Return a pointer to zeros of a size."""
        return _marked(self._one().new_zeros(_flat(size)), requires_grad=requires_grad)

    def ones(self, *size: int | Sequence[int], requires_grad: bool = False) -> PointerTensor:
        """Return a pointer to ones of a size."""
        return _marked(self._one().new_ones(_flat(size)), requires_grad=requires_grad)

    def rand(self, *size: int | Sequence[int], requires_grad: bool = False) -> PointerTensor:
        """Return a pointer to numbers from 0 to 1 of the worker's choice."""
        return _marked(torch.rand_like(self._one().new_zeros(_flat(size))), requires_grad=requires_grad)

    def randn(self, *size: int | Sequence[int], requires_grad: bool = False) -> PointerTensor:
        """Return a pointer to normal numbers of the worker's choice."""
        return _marked(torch.randn_like(self._one().new_zeros(_flat(size))), requires_grad=requires_grad)

    def randint(self, low: int, high: int | None = None, size: Sequence[int] = ()) -> PointerTensor:
        """Return a pointer to whole numbers from `low`, or 0, to below `high` of the worker's choice."""
        least, below = (0, low) if high is None else (low, high)
        return _marked(torch.randint_like(self._one().new_zeros(_flat((size,)), dtype=torch.int64), least, below))

    def _one(self) -> PointerTensor:
        return self._sent(torch.ones(()))

    def _sent(self, tensor: Tensor) -> PointerTensor:
        return put(self._worker, tensor, traits_of(tensor))


class Remote:
    """What can be made at one worker."""

    def __init__(self, worker: BaseWorker) -> None:
        self.torch = RemoteTorch(worker)


def _flat(size: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    return tuple(each for part in size for each in ([part] if isinstance(part, int) else part))


def _marked(tensor: Tensor, *, requires_grad: bool = False) -> PointerTensor:
    assert isinstance(tensor, PointerTensor)
    marked = tensor.requires_grad_(requires_grad)
    assert isinstance(marked, PointerTensor)
    return marked
