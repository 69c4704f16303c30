"""Tensors to raw bytes and back: contiguous, little-endian, in the order of their set, without gaps.

Only the bytes of a tensor's own elements travel: a view never brings its storage along. Encoding copies
nothing that is contiguous on the CPU already, so the bytes stay true only while the tensor is not written to.
Decoding copies nothing that is aligned, so a decoded tensor shares memory with what was received (over an
in-memory link: with the sender's tensor) and is for reading only. Canonical NaNs are the door's business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import torch

from fedpriv.errors import WireError
from fedpriv.updates import DTYPES, TensorSet, TensorSpec, dtype_name
from fedpriv.wire.v1 import tensor_pb2

Payload = tuple[memoryview, ...]

MAXIMUM_TENSORS = 65_536
MAXIMUM_DIMENSIONS = 64
MAXIMUM_NAME_BYTES = 512
_MAXIMUM_ELEMENTS = 1 << 56

_TO_WIRE = {name: tensor_pb2.DType.Value(f"DTYPE_{name.upper()}") for name in DTYPES}
_FROM_WIRE = {value: name for name, value in _TO_WIRE.items()}

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("fedpriv sends tensors as they lie in memory, little-endian; this machine is big-endian")


def write_tensors(tensors: TensorSet, into: tensor_pb2.TensorSet) -> Payload:
    """Add each tensor's specification to `into`, return their bytes; raise `WireError` for what cannot travel."""
    payload = []
    for name, tensor in tensors:
        _check_name(name)
        into.tensors.add(name=name, dtype=_TO_WIRE[dtype_name(tensor.dtype)], shape=tensor.shape)
        if tensor.numel():
            payload.append(tensor_bytes(tensor))
    return tuple(payload)


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of `tensor`'s own elements, copied only if they do not lie contiguous on the CPU."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise WireError(f"a tensor of layout {tensor.layout} on {tensor.device} does not travel; send a dense one")
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.stride() != (1,):  # one element, of whatever stride, is contiguous and cannot be seen as bytes
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data


def read_tensors(specs: Sequence[TensorSpec], payload: Payload) -> TensorSet:
    """Return the tensors that `specs` describe; raise `WireError` unless `payload` is exactly as long as they say."""
    declared = sum(spec.nbytes for spec in specs)
    received = sum(part.nbytes for part in payload)
    if declared != received:
        raise WireError(f"the shapes say {declared} payload bytes, {received} came; the sender is broken or lies")
    reader = _Reader(payload)
    return TensorSet({spec.name: _tensor(spec, reader.take(spec.nbytes)) for spec in specs})


def read_specs(message: tensor_pb2.TensorSet) -> tuple[TensorSpec, ...]:
    """Return the specifications in `message`; raise `WireError` if one is unknown, too large or named twice."""
    if len(message.tensors) > MAXIMUM_TENSORS:
        raise WireError(f"{len(message.tensors)} tensors in one message; {MAXIMUM_TENSORS} at most")
    specs = tuple(_spec(tensor) for tensor in message.tensors)
    if len({spec.name for spec in specs}) != len(specs):
        raise WireError("two tensors of one message have the same name")
    return specs


def read_shape(sizes: Iterable[int]) -> tuple[int, ...]:
    """Return `sizes` as a shape; raise `WireError` if no tensor could have it."""
    shape = tuple(sizes)
    if len(shape) > MAXIMUM_DIMENSIONS:
        raise WireError(f"a shape of {len(shape)} dimensions; {MAXIMUM_DIMENSIONS} at most")
    span = 1
    for size in shape:
        span *= max(size, 1)
    if span > _MAXIMUM_ELEMENTS:
        raise WireError("a shape spans more elements than any machine holds")
    return shape


class _Reader:
    """Cuts a payload of several parts at given lengths; copies only a cut that crosses from one part to the next."""

    __slots__ = ("_parts", "_rest")

    def __init__(self, payload: Payload) -> None:
        self._parts = iter(payload)
        self._rest = memoryview(b"")

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes, which are known to be there."""
        pieces = []
        while count:
            if not self._rest.nbytes:
                self._rest = next(self._parts)
                continue
            piece, self._rest = self._rest[:count], self._rest[count:]
            pieces.append(piece)
            count -= piece.nbytes
        return pieces[0] if len(pieces) == 1 else memoryview(bytearray().join(pieces))


def dtype_number(name: str) -> int:
    """Return the wire's number for a dtype's name; raise `WireError` for one that does not travel."""
    if name not in _TO_WIRE:
        raise WireError(f"dtype {name[:32]!r} does not travel")
    return _TO_WIRE[name]


def dtype_named(number: int) -> str:
    """Return the name of the dtype with the wire's number; raise `WireError` for an unknown one."""
    if number not in _FROM_WIRE:
        raise WireError(f"dtype number {number} is unknown; this fedpriv is older than the sender, or it lies")
    return _FROM_WIRE[number]


def _spec(message: tensor_pb2.TensorSpec) -> TensorSpec:
    _check_name(message.name)
    return TensorSpec(message.name, dtype_named(message.dtype), read_shape(message.shape))


def _tensor(spec: TensorSpec, content: memoryview) -> torch.Tensor:
    """Return a tensor over `content`, over a copy where it is not aligned or not writable."""
    dtype = DTYPES[spec.dtype]
    if not content.nbytes:
        return torch.empty(spec.shape, dtype=dtype)
    if content.readonly:
        content = memoryview(bytearray(content))
    raw = torch.frombuffer(content, dtype=torch.uint8)
    if dtype is torch.bool and int(raw.max()) > 1:
        raise WireError(f"tensor {spec.name!r} is declared bool but holds other bytes than 0 and 1")
    if raw.data_ptr() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype).reshape(spec.shape)


def _check_name(name: str) -> None:
    if len(name.encode()) > MAXIMUM_NAME_BYTES:
        raise WireError(f"a tensor's name has {len(name.encode())} bytes; {MAXIMUM_NAME_BYTES} at most")
