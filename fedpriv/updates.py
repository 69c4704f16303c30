"""Named tensors as they travel: the specification of each, and the set of them.

A `TensorSet` keeps its order: the order is that of the payload on the wire and of every fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from fedpriv.errors import WireError

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements, in Python integers so that it cannot wrap."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Length in bytes when contiguous."""
        return self.elements * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class TensorSet:
    """Tensors by name, in order; its values never print."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.tensors.items())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Specification of each tensor, in order; raise `WireError` for a dtype that does not travel."""
        return tuple(TensorSpec(name, dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in self)

    @property
    def nbytes(self) -> int:
        """Sum of the contiguous lengths in bytes."""
        return sum(spec.nbytes for spec in self.specs)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the wire name of `dtype`; raise `WireError` when it does not travel."""
    if dtype not in DTYPE_NAMES:
        raise WireError(f"dtype {dtype} does not travel; use one of {', '.join(DTYPES)}")
    return DTYPE_NAMES[dtype]
